"""README.md is true: its `bash` and `python` blocks run, in order. Those marked `sh` install, download or wait."""

from __future__ import annotations

import re
from pathlib import Path

from rsqa.cli import app
from rsqa.errors import ExitCode
from rsqa.run.demo import GSD_M, write_mosaic
from rsqa.scenes.compose import make_scene
from rsqa.sinks.table import SCHEMA

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_are_all_the_set_up():
    language, first = BLOCKS[0]
    commands = [line.partition("#")[0].strip() for line in first.splitlines()]
    assert language == "sh"
    assert commands == ["pip install . && rsqa demo", "pip install '.[test]' && pytest"]


def test_every_block_runs(shell):
    (shell.work / "rsqa-demo").mkdir()
    # A quarter of the demo's mosaic: 8 x 8 tiles of 224 px are just enough for a cube.
    write_mosaic(shell.work / "rsqa-demo" / "mosaic.tif", make_scene(7, 1792, 1792, gsd_m=GSD_M, style="held-out"))
    runnable = [(language, lines) for language, lines in BLOCKS if language in ("bash", "python")]
    assert len(runnable) >= 8
    for language, lines in runnable:
        shell(lines if language == "bash" else f"python - <<'END'\n{lines}END")
    assert (shell.work / "water.gpkg").exists()


def test_every_column_is_explained():
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", README, flags=re.MULTILINE))))
    assert set(SCHEMA.names) <= explained


def test_every_exit_code_is_explained():
    codes = set(re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", README, flags=re.MULTILINE))))
    assert codes == {str(int(code)) for code in ExitCode} - {"9"}  # 9 only when asked, which can't be asked yet


def test_every_command_is_named():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    told = set(re.findall(r"rsqa ([\w-]+)", README)) | set(re.findall(r"`([\w-]+)`", README))
    assert {name.replace("_", "-") for name in names} <= told
