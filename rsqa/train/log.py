"""What a training run tells: JSON lines, TensorBoard events, a picture of its curves, and one who watches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsqa.train.checkpoint import Progress, writing
from rsqa.train.curves import draw_curves

LOG_FILE, CURVES_FILE = "log.jsonl", "curves.png"


def _nothing(*_: Any) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told of a run while it goes on, and may end it early."""

    say: Callable[[str], None] = _nothing
    """A line for people."""
    step: Callable[[int, int, float, float, float], None] = _nothing
    """Steps done, steps in all, loss, tokens a second, seconds left."""
    stopped: Callable[[], bool] = lambda: False
    """Whether the run shall save what it has after this step, and end."""


NOBODY = Watcher()


class Log:
    """Writes the log of a run; only the first process has one."""

    def __init__(self, folder: Path, watcher: Watcher, begun: Progress, steps: int) -> None:
        self._folder, self._watcher, self._begun, self._steps = folder, watcher, begun, steps
        self._since: list[tuple[float, float, float, float]] = []
        self._pictures = self._tokens = 0
        self._last = begun
        self._events = _events(folder, watcher.say)
        _cut_torn_line(folder / LOG_FILE)

    def step(self, progress: Progress, loss: float, hint: float, norm: float, *, pictures: int, tokens: int) -> None:
        """Note a step; the numbers are those of all processes together."""
        self._since.append((loss, hint, norm, progress.seconds - self._last.seconds))
        self._last = progress
        self._pictures += pictures
        self._tokens += tokens
        spent = progress.seconds - self._begun.seconds
        left = (self._steps - progress.step) * spent / (progress.step - self._begun.step)
        self._watcher.step(progress.step, self._steps, loss, self._tokens / spent, left)

    def flush(self) -> None:
        """Write the mean since the last time. Rates are those of this start of the run."""
        loss, hint, norm, seconds = np.mean(self._since, axis=0).tolist()
        spent = self._last.seconds - self._begun.seconds
        left = (self._steps - self._last.step) * spent / (self._last.step - self._begun.step)
        self._since.clear()
        self.write(
            step=self._last.step, loss=loss, hint=hint, norm=norm, step_s=seconds,
            pictures_per_s=self._pictures / spent, answer_tokens_per_s=self._tokens / spent, left_s=left,
        )  # fmt: skip

    def write(self, *, step: int, **values: Any) -> None:
        """Append one line; numbers are rounded for reading."""
        line = {"step": step} | {k: _rounded(v) for k, v in values.items()}
        text = json.dumps(line, ensure_ascii=False)
        with writing(self._folder), (self._folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        self._watcher.say(text)
        for key, value in values.items():
            for name, number in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(number, float) and self._events is not None:
                    self._events.add_scalar(f"{key}/{name}" if name else key, number, step)

    def draw(self) -> None:
        """Write the curves of the whole run as a picture."""
        draw_curves(self._folder / LOG_FILE, self._folder / CURVES_FILE)


def _cut_torn_line(path: Path) -> None:
    """Take away what an earlier start did not finish writing, when it was killed or the disk was full."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _events(folder: Path, say: Callable[[str], None]) -> Any:
    """A TensorBoard writer; None where tensorboard is not installed, which is said."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say('no TensorBoard events are written: tensorboard is not installed; pip install "rsqa[train]"')
        return None
    return SummaryWriter(str(folder / "events"))
