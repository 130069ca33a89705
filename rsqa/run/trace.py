"""What every slot did and when, in columns: a run of ten million tiles has a million spans, of 29 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pyarrow as pa

from rsqa.run.work import STAGES, Span

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
