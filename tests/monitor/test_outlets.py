"""What is made of a dataset: the cube, the page, and a smaller dataset."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
import xarray
from made_dataset import MARK, grid, write_answers
from painted_scenes import watch_text, when

from rsqa.errors import InputError, UsageError
from rsqa.monitor.changes import CHANGES, basis_of, replay, write_changes
from rsqa.monitor.cube import write_cube
from rsqa.monitor.dataset import ledger
from rsqa.monitor.report import write_report
from rsqa.monitor.upkeep import compact, oldest_kept, prune, settle
from rsqa.monitor.watch import Rule, read_watch

IDS = {MARK.id: "made-mark"}
SHARES = [[[0.1, 0.9], [np.nan, 0.2]], [[0.9, 0.9], [0.8, np.nan]], [[0.95, 0.1], [0.8, 0.2]]]


@pytest.fixture
def made(tmp_path):
    for night, shares in enumerate(SHARES):
        write_answers(tmp_path, when(night / 2), shares, name=f"{night}.tif", fingerprint=f"{night:064x}")
    return tmp_path


def test_the_cube_is_the_dataset_over_time(made):
    assert write_cube(made, made / "cube.zarr", grid(), [MARK], IDS) == 3
    cube = xarray.open_zarr(made / "cube.zarr", group="mark", decode_coords="all", mask_and_scale=False)
    assert cube.value.dims == ("time", "y", "x")
    shares = np.array(SHARES)
    expected = np.where(np.isnan(shares), 255, np.where(shares >= 0.5, 0, 1))
    assert (cube.value.values == expected).all()
    assert cube.confidence.values == pytest.approx(np.where(shares >= 0.5, shares, 1 - shares), nan_ok=True)
    assert cube.time.values.tolist() == [np.datetime64(when(n / 2).replace(tzinfo=None), "ns").item() for n in range(3)]
    assert cube.x.values.tolist() == [500_014.0, 500_042.0]
    assert cube.rio.crs == "EPSG:32631" if hasattr(cube, "rio") else True
    with rasterio.open(f'ZARR:"{made / "cube.zarr"}":/mark/value:0') as layer:
        assert layer.crs == "EPSG:32631"
        assert (layer.read(1) == expected[0]).all()


def test_no_cube_of_nothing(tmp_path):
    with pytest.raises(InputError, match="nothing was observed"):
        write_cube(tmp_path, tmp_path / "cube.zarr", grid(), [MARK], IDS)


def test_the_page_tells_the_changes(made):
    (made / "port.toml").write_text(watch_text().replace('out = "port.monitor"', 'out = "."'))
    watch = read_watch(made / "port.toml")
    with pytest.raises(UsageError, match="no changes in"):
        write_report(watch, made / "r.html", None)
    rule = Rule(confirmations=1)
    write_changes(made / CHANGES, replay(ledger(made), rule, grid()), grid(), basis_of(ledger(made), rule))
    assert write_report(watch, made / "r.html", None) == 2
    page = (made / "r.html").read_text()
    assert "3 acquisitions, 2026-01-01 to 2026-01-02. 2 changes" in page
    assert "<td>0/0<td title='Is there magenta?'>mark<td>no → yes<td class=n>0.10 → 0.90<td>1.tif" in page
    assert "http" not in page.replace("http-equiv", "")
    assert write_report(watch, made / "r.html", datetime(2026, 1, 2, tzinfo=UTC)) == 1
    write_report(watch, made / "r.png", None)
    assert (made / "r.png").read_bytes().startswith(b"\x89PNG")


def test_compaction_changes_no_row(made):
    before = replay(ledger(made), Rule(confirmations=1), grid())
    basis = basis_of(ledger(made), Rule())
    small = {file.path: file.path.read_bytes() for file in ledger(made)}
    assert compact(made, grid()) == 1  # the first two are of one day
    assert len(ledger(made)) == 2
    assert replay(ledger(made), Rule(confirmations=1), grid()).equals(before)
    assert basis_of(ledger(made), Rule()) == basis
    assert compact(made, grid()) == 0
    for path, content in small.items():  # killed before the small ones went
        path.write_bytes(content)
    assert len(settle(made, grid())) == 2
    assert len(ledger(made)) == 2


def test_old_days_go_and_no_wrong_clock_takes_more(made):
    moments = [when(0), when(0.5), when(1)]
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert oldest_kept(moments, 0, now) is None
    assert oldest_kept([], 5, now) is None
    assert oldest_kept(moments, 1, now) == datetime(2026, 1, 2, tzinfo=UTC)
    assert oldest_kept([*moments, datetime(2099, 1, 1, tzinfo=UTC)], 200, now) < when(0)
    assert oldest_kept(moments, 1, datetime(1970, 1, 2, tzinfo=UTC)) < when(0)
    assert prune(made, datetime(2026, 1, 2, tzinfo=UTC)) == 1
    assert [observation.acquired for file in ledger(made) for observation in file.observations] == [when(1)]
