"""The words by which objects are asked for: is there one, where is the only one, where are all.

Objects are looked for in two steps: the probability of "is there …?" is the score of all boxes that are then written.
"""

from __future__ import annotations

from typing import Literal

HowMany = Literal["one", "many"]
"""Boxes that a model writes to a question, as its card says."""
ALL = "every {}"
"""As tinyrs-nano was taught most often; see `rsqa.train.words.ASK_EVERY`."""


def is_there(label: str) -> str:
    """`airplane` -> `Is there an airplane?`"""
    return f"Is there {'an' if label[0] in 'aeiou' else 'a'} {label}?"


def the_only(label: str) -> str:
    """`airplane` -> `the airplane`: words that refer to one object."""
    return f"the {label}"


def all_of(label: str, boxes: HowMany) -> str:
    """`airplane` -> `every airplane`; a model that writes one box is asked for one object."""
    return ALL.format(label) if boxes == "many" else the_only(label)
