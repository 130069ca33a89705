"""What a worker must have before it gets a part, and what it is given."""

from __future__ import annotations

from functools import partial

import pytest

import rsqa
from rsqa.run.fitness import GDAL_VARIABLES, gdal_environment, unfit
from rsqa.run.workbench import Job


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ((rsqa.__version__, "cpu", ""), ""),
        (("0.0.0", "cpu", ""), "install the same there"),
        ((rsqa.__version__, "cuda:97", ""), "cuda:97"),
        ((rsqa.__version__, "cpu", "/nowhere/at/all"), "choose an --out that all machines share"),
    ],
)
def test_what_a_worker_lacks_is_one_line(facts, why):
    said = unfit(*facts)
    assert why in said
    assert bool(said) == bool(why)
    assert "\n" not in said


def test_gdal_gets_the_listed_variables_and_nobody_sees_them(monkeypatch):
    for name in GDAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    monkeypatch.setenv("GDAL_DRIVER_PATH", "/tmp")
    job = Job("/out", "id", "cpu", "run", environment=gdal_environment())
    assert job.environment == (("AWS_SECRET_ACCESS_KEY", "canary"),)
    assert "canary" not in f"{job} {job!r} {partial(print, job)!r}"
