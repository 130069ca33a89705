"""What every slot did and when, in columns: a run of ten million tiles has a million spans, of 29 bytes each."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

STAGES = ("read", "wait", "model", "write")
"""What a slot does; it waits for the model while another slot has it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something a slot did, for the trace: seconds since the epoch."""

    stage: str
    """One of STAGES."""
    start: float
    end: float
    slot: int
    """One number per slot, from its process and thread."""


@dataclass(slots=True)
class Clock:
    """Notes what one slot does for one part."""

    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """While within, it does `name`."""
        start = time.time()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, time.time(), (os.getpid() << 32) | threading.get_native_id()))


SCHEMA = pa.schema(
    {
        "part": pa.int32(),
        "stage": pa.dictionary(pa.int8(), pa.string()),
        "start": pa.float64(),
        "end": pa.float64(),
        "slot": pa.int64(),
    }
)
"""One row per span: `slot` did `stage` for `part` from `start` to `end`, seconds since the epoch."""


class Trace:
    """Grows by one part at a time."""

    def __init__(self) -> None:
        self._part, self._stage, self._slot = array("i"), array("b"), array("q")
        self._start, self._end = array("d"), array("d")

    def __len__(self) -> int:
        return len(self._part)

    def add(self, part: int, spans: Sequence[Span]) -> None:
        """What was done for a part."""
        for span in spans:
            self._part.append(part)
            self._stage.append(STAGES.index(span.stage))
            self._start.append(span.start)
            self._end.append(span.end)
            self._slot.append(span.slot)

    def table(self) -> pa.Table:
        """In the order of adding."""
        stages = pa.DictionaryArray.from_arrays(pa.array(self._stage, pa.int8()), list(STAGES))
        return pa.Table.from_arrays(
            [
                pa.array(self._part, pa.int32()),
                stages,
                pa.array(self._start, pa.float64()),
                pa.array(self._end, pa.float64()),
                pa.array(self._slot, pa.int64()),
            ],
            schema=SCHEMA,
        )
