import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.engines.batching import ladder, padded_batches


@given(st.integers(0, 70), st.integers(1, 40))
def test_every_tile_is_in_one_batch_of_few_sizes(n, batch):
    chips = np.arange(n, dtype=np.uint8)[:, None, None, None]
    seen = []
    for rows, piece in padded_batches(chips, batch):
        assert len(piece) in ladder(batch)
        kept = rows.stop - rows.start
        assert len(piece) == batch or len(piece) < 2 * kept
        assert (piece[kept:] == piece[kept - 1]).all()
        seen += piece[:kept].ravel().tolist()
    assert seen == list(range(n))


@pytest.mark.parametrize(("batch", "sizes"), [(1, (1,)), (8, (1, 2, 4, 8)), (10, (1, 2, 3, 5, 10))])
def test_ladder(batch, sizes):
    assert ladder(batch) == sizes
