import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsqa.models.entmax import entmax15, softmax, sparsemax
from rsqa.train.guide import block_shares, drift, held_by

sides = st.floats(0, 0.95).flatmap(lambda low: st.tuples(st.just(low), st.floats(low + 0.02, 1)))
boxes = st.lists(
    st.tuples(sides, sides).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1])), min_size=1, max_size=4
)


@given(boxes, st.integers(1, 4))
def test_blocks_hold_what_brute_force_finds(some, side):
    fine = (np.arange(600) + 0.5) / 600
    held = np.zeros((side, side))
    for x1, y1, x2, y2 in some:
        inside = ((fine > y1) & (fine < y2))[:, None] & ((fine > x1) & (fine < x2))[None]
        for row, col in np.ndindex(side, side):
            down, right = (np.floor(fine * side) == place for place in (row, col))
            held[row, col] += inside[np.ix_(down, right)].sum()
    shares = block_shares(some, side)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares, held.ravel() / held.sum(), atol=0.05)


def test_what_is_not_known_is_left_out_and_nothing_is_everywhere():
    held = held_by([[None, [(0.0, 0.0, 0.4, 0.4)]], [[(0.0, 0.5, 1.0, 1.0)], []]], torch.zeros(2, 3, 4))
    assert held.isnan().all(dim=-1).tolist() == [[True, False, True], [False, False, True]]
    assert held[0, 1].tolist() == [1, 0, 0, 0]
    assert held[1, :2].tolist() == [[0, 0, 0.5, 0.5], [0.25] * 4]


@pytest.mark.parametrize("fusion", [entmax15, sparsemax, softmax])
def test_following_the_drift_the_weights_become_what_they_should_be(fusion):
    """Also from zero weight, where no distance of the weights has a gradient."""
    scores = torch.tensor([[6.0, 0, 0, 0]], requires_grad=True)
    held = torch.tensor([[0.0, 0, 0.3, 0.7]])
    for _ in range(400):
        (gradient,) = torch.autograd.grad(drift(fusion(scores), scores, held), scores)
        torch.testing.assert_close(gradient, fusion(scores).detach() - held)
        scores = (scores - 0.1 * gradient).detach().requires_grad_()
    torch.testing.assert_close(fusion(scores).detach(), held, rtol=0, atol=0.02)
