"""A folder with scenes and a WATCH.toml, and what passes over it left."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
from painted_scenes import watch_text, write_scene

from rsqa.monitor.changes import read_changes
from rsqa.monitor.run import run_pass
from rsqa.monitor.watch import read_watch


class Watched:
    """A folder with a WATCH.toml and what its passes said."""

    def __init__(self, folder: Path, **sections):
        self.folder, self.said, self.on_say = folder, [], lambda event: None
        (folder / "incoming").mkdir(parents=True)
        self.write(**sections)

    def write(self, **sections):
        (self.folder / "WATCH.toml").write_text(watch_text(**sections))

    @property
    def watch(self):
        return read_watch(self.folder / "WATCH.toml")

    def scene(self, name, *args, **how):
        return write_scene(self.folder / "incoming" / name, *args, **how)

    def run(self, **how):
        self.said = []

        def say(event):
            self.said.append(event)
            self.on_say(event)

        return run_pass(self.watch, say, **how)

    def rows(self, tile_id):
        """(acquired, value, status, error) of a tile over time."""
        table = ds.dataset(self.folder / "port.monitor/observations").to_table(filter=ds.field("tile_id") == tile_id)
        columns = (table[name].to_pylist() for name in ("acquired", "value", "status", "error"))
        return sorted(zip(*columns, strict=True))

    def changes(self):
        table, _ = read_changes(self.folder / "port.monitor/changes.parquet")
        columns = ("tile_id", "question_id", "value_before", "value_after", "confirmed")
        return set(zip(*(table[name].to_pylist() for name in columns), strict=True))

    def bytes(self):
        return {path.name: path.read_bytes() for path in (self.folder / "port.monitor").rglob("*.parquet")}
