"""What counts as right. Total functions: no text makes them raise.

strict: letters' case, blanks, closing punctuation, number words and the two vocabularies of buckets make no difference,
anything else does. published: the rule of the published evaluation, with its bugs, only to stand beside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rsqa.evaluate.items import Item, PixelBox
from rsqa.tasks.boxes import Box, iou, parse_boxes
from rsqa.tasks.question import COUNTS
from rsqa.train.words import number_in_digits

COUNT_BUCKETS = ("0", "between 0 and 10", "between 10 and 100", "between 100 and 1000", "more than 1000")
"""As RSVQA writes them: none, 1 to 10, 11 to 100, 101 to 1000, more."""
AREA_BUCKETS = (
    "0m2", "between 0m2 and 10m2", "between 10m2 and 100m2", "between 100m2 and 1000m2", "more than 1000m2"
)  # fmt: skip
_BUCKET_ENDS = (0, 10, 100, 1000)
_OTHER_WORDS = {
    "between 1 and 10": 1, "between 11 and 100": 2, "between 101 and 1000": 3,
    "1-10": 1, "11-100": 2, "101-1000": 3, ">1000": 4,
    # The last option of a plain count; no picture here holds more than a thousand things.
    "more than 100": 3,
}  # fmt: skip
_BOX_IN_TWO_BRACKETS = re.compile(r"\[\[(\d+)[,\s]+(\d+)[,\s]+(\d+)[,\s]+(\d+)\]\]")
SMALL, MEDIUM = 32**2, 96**2
"""Largest areas of small and of medium boxes, square pixels."""
HIT = 0.5
"""IoU from which a box is right."""


def normal(text: str) -> str:
    """The words without what makes no difference; buckets are left as they are."""
    plain = " ".join(text.casefold().replace("²", "2").split()).strip(" .,;:!?\"'`")
    digits = None if plain.startswith("-") else number_in_digits(plain)
    return plain if digits is None else digits.lstrip("0") or "0"


def bucket(text: str, unit: str = "") -> int | None:
    """Place of a number or a bucket among the five, whichever vocabulary wrote it; None for other words.

    `unit`: "m2" for areas, which must then be written.
    """
    plain = normal(text)
    bare = re.sub(rf"(?<=\d)\s*{unit}\b", "", plain) if unit else plain
    if unit and bare == plain:
        return None
    if bare.isdecimal():
        return sum(len(bare.lstrip("0")) > len(str(end)) or int(bare[:9]) > end for end in _BUCKET_ENDS)
    if bare in COUNT_BUCKETS:
        return COUNT_BUCKETS.index(bare)
    return _OTHER_WORDS.get(bare)


def same(said: str, gold: str) -> bool:
    """Strict: the same words; where a bucket is right, also a number in it and its name in the other vocabulary."""
    right, unit = normal(gold), "m2" if "m2" in normal(gold) else ""
    if normal(said) == right:
        return True
    if right.isdecimal() or right == COUNTS[-1]:
        return False
    return bucket(gold, unit) is not None and bucket(said, unit) == bucket(gold, unit)


def token_f1(said: str, references: Sequence[str]) -> float:
    """Harmonic mean of the shares of words that both have, against the best reference; 0..1."""
    return max((_f1(_words(said), _words(reference)) for reference in references), default=0.0)


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.casefold()))


def _f1(said: Counter[str], reference: Counter[str]) -> float:
    shared = (said & reference).total()
    return 2 * shared / (said.total() + reference.total()) if shared else 0.0


def in_shares(box: PixelBox, size: tuple[int, int]) -> Box:
    """Pixels of a picture of `size` (H, W) -> shares."""
    height, width = size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def box_iou(item: Item, said: str | None, size: tuple[int, int]) -> float:
    """IoU of the first box said and the true one; 0 where none was said."""
    boxes = parse_boxes(said or "")
    return iou(boxes[0], in_shares(item.boxes[0], size)) if boxes else 0.0


def score(item: Item, said: str | None, size: tuple[int, int]) -> float:
    """0..1; `said` None: no answer, which is wrong. `size` (H, W) of the picture. NaN for detections."""
    match item.measure:
        case "detect":
            return float("nan")
        case "box":
            return float(box_iou(item, said, size) >= HIT)
        case "f1":
            return token_f1(said or "", item.gold)
        case "bucket":
            place = None if said is None else bucket(said)
            return float(place is not None and place == bucket(item.gold[0]))
        case "exact":
            return float(said is not None and any(same(said, gold) for gold in item.gold))


def published_score(item: Item, said: str, size: tuple[int, int]) -> float:
    """The published rule over the raw text; NaN leaves the denominator, as a picture without a box does there."""
    if item.measure == "box":
        return _published_box(item, said, size)
    if item.measure != "exact":
        return float("nan")
    answer = _published_answer(said)
    # The sets of choices are cut at a full stop only.
    cut = answer.split(".")[0] if item.question.options[:1] == ("A",) else answer.split(".")[0].split(",")[0]
    gold = item.gold[0].replace(" ", "").lower()
    return float(cut.lower() in gold)  # an empty text is in every text, "no" in "north"


def _published_answer(said: str) -> str:
    said = said.split("</reasoning>")[-1]
    inside = re.search(r"<answer>(.*?)</answer>", said, re.DOTALL)
    return (inside.group(1) if inside else said).replace(" ", "").strip()


def _published_box(item: Item, said: str, size: tuple[int, int]) -> float:
    found = _BOX_IN_TWO_BRACKETS.search(said)
    if not found:
        return float("nan")
    x1, y1, x2, y2 = (min(int(v), 10**6) / 1000 for v in found.groups())
    true = in_shares(item.boxes[0], size)
    width, height = min(x2, true[2]) - max(x1, true[0]), min(y2, true[3]) - max(y1, true[1])
    if width <= 0 or height <= 0 or x2 <= x1 or y2 <= y1:
        return 0.0
    return float(iou((x1, y1, x2, y2), true) >= HIT)
