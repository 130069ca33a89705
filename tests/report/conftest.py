"""An output folder of the fake engine, whose answers nobody could guess."""

from __future__ import annotations

from pathlib import Path

import pytest
from painted import QUESTIONS, TILE_PX, paint

import rsqa.cli


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    raster = paint(out / "mosaic <i>.tif")
    asked = [word for question in QUESTIONS for word in ("-q", question)]
    code = rsqa.cli.run(
        ["ask", str(raster), *asked, "--out", str(out / "run"), "--tile-px", str(TILE_PX), "--device", "cpu",
         "--model", "rsqa.testing:EchoEngine", "--quiet", "--no-progress"]
    )  # fmt: skip
    assert code == 0
    return out / "run"
