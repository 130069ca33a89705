from __future__ import annotations

import pyarrow.parquet as pq

from rsqa.run.trace import STAGES, Span, Trace


def test_a_trace_keeps_every_span_in_its_place(tmp_path):
    trace = Trace()
    spans = [Span(STAGES[i % 4], 1.7e9 + i / 3, 1.7e9 + i / 2, (4_000_000 << 32) | i) for i in range(50)]
    trace.add(3, spans[:20])
    trace.add(1 << 30, spans[20:])
    pq.write_table(trace.table(), tmp_path / "trace.parquet")
    rows = pq.read_table(tmp_path / "trace.parquet").to_pylist()
    assert len(trace) == len(rows) == 50
    assert [row["part"] for row in rows] == [3] * 20 + [1 << 30] * 30
    assert [Span(row["stage"], row["start"], row["end"], row["slot"]) for row in rows] == spans
