"""`summary.json` of captions: what was said most often. Counts only: nothing is said that no tile's caption says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rsqa.sinks.part_reading import read_parts
from rsqa.sinks.whole import write_whole_bytes

MOST = 20
"""Captions and words that are listed."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_OF_NO_OBJECT = """
a about above across after along also among an and another are around as at be been before behind below beneath beside
between both but by can could each for from had has have here how in inside into is it its itself just less lot many
more most much near nearby next no nor not of off on one only onto or other others out over part parts seen several side
sides so some such than that the their them then there these they this those through to together too two under up upon
very was were what when where which while who whose will with within without image picture photo scene show shows
showing view aerial satellite
"""
_FUNCTION_WORDS = frozenset(_OF_NO_OBJECT.split())
"""Words that say nothing of what is there."""
GROUP_ROWS = 65_536


def write_summary(path: Path, parts: Sequence[Path]) -> None:
    """Count captions, and in how many captions each word is, over all tiles that were described."""
    captions, words = Counter[str](), Counter[str]()
    n_tiles = 0
    for group in read_parts(parts, GROUP_ROWS, ["value", "status"]):
        n_tiles += group.num_rows
        for caption in group["value"].drop_null().to_pylist():
            captions[" ".join(caption.split())] += 1
            words.update({word.casefold() for word in _WORD.findall(caption)} - _FUNCTION_WORDS)
    n_described = captions.total()
    summary = {
        "tiles": n_tiles,
        "described": n_described,
        "different_captions": len(captions),
        "captions": [{"caption": caption, "tiles": n} for caption, n in _first(captions)],
        "words": [{"word": word, "tiles": n, "share": round(n / n_described, 4)} for word, n in _first(words)],
    }
    write_whole_bytes(path, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())


def _first(counted: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent, of equals in the order of the alphabet: whatever the order of the tiles."""
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST]
