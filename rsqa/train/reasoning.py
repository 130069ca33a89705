"""Reasoning texts made from what is known: where things are, how many, how much of the ground; what decides the answer.

No text says more than is known, and `concluded` reads the answer back from it: a text that led to another answer would
teach to ignore it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rsqa.tasks.boxes import Box
from rsqa.train.facts import PLACES, Facts, place_of

BUILT = ("paved", "road", "building", "parking lot")
"""Kinds of ground that make an area urban."""


def listing(names: Sequence[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def percent(share: float) -> int:
    """0..1 -> whole percent as they are told: to five below a fifth, to ten above."""
    step = 5 if share < 0.2 else 10
    return round(share * 100 / step) * step


def by_place(boxes: Sequence[Box]) -> str:
    """Where things are: `top left 1, center 2`; `none` where there are none."""
    places = [place_of(box) for box in boxes]
    return ", ".join(f"{place} {places.count(place)}" for place in PLACES if place in places) or "none"


def of_things(name: str, boxes: Sequence[Box]) -> str:
    """For "is there a …?" and "how many …?": `planes: top left 1, center 2. together 3.`"""
    return f"{name}: {by_place(boxes)}. together {len(boxes)}."


def of_ground(name: str, share: float, present: bool) -> str:
    """For "is there …?" about what covers ground."""
    told = max(percent(share), 5) if present else 0
    return f"{name}: {told} percent of the ground."


def of_labels(names: Sequence[str]) -> str:
    """For pictures whose labels are known in full."""
    return f"the image shows {listing(sorted(names))}."


def of_comparison(one: str, n_one: int, other: str, n_other: int) -> str:
    """For "are there more … than …?"."""
    word = "more" if n_one > n_other else "fewer" if n_one < n_other else "the same"
    return f"{one}: {n_one}. {other}: {n_other}. {n_one} is {word} than {n_other}." if word != "the same" else ""


def of_theme(facts: Facts, names: Mapping[str, str]) -> str:
    """For the largest cover or the theme: the three largest shares, then the things that stand there."""
    largest = sorted(facts.shares, key=lambda kind: -facts.shares[kind])[:3]
    ground = ", ".join(f"{kind} {percent(facts.shares[kind])}" for kind in largest if percent(facts.shares[kind]))
    things = [f"{names[noun]} {n}" for noun, n in sorted(facts.counts.items()) if noun in names]
    return f"percent: {ground}." + (f" things: {', '.join(things)}." if things else "")


def of_area(shares: Mapping[str, float]) -> str:
    """For "rural or urban"."""
    return f"built ground: {percent(sum(shares.get(kind, 0.0) for kind in BUILT))} percent."


def of_box(phrase: str, box: Box) -> str:
    """For "where is …?" that is answered by a box."""
    wide, high = (max(1, round((box[i + 2] - box[i]) * 100)) for i in (0, 1))
    return f"{phrase}: {place_of(box)}, {wide} percent wide, {high} percent high."


_TOGETHER = re.compile(r"together (\d+)\.$")
_GROUND = re.compile(r": (\d+) percent of the ground\.$")
_COMPARED = re.compile(r"(\d+) is (more|fewer) than (\d+)\.$")


def concluded(trace: str, kind: str, name: str = "") -> str | None:
    """The answer that follows from a text by its own words; None where more than its words decides.

    `name`: what a presence question asks about.
    """
    if found := _COMPARED.search(trace):
        larger = int(found[1]) > int(found[3])
        return None if larger != (found[2] == "more") else "yes" if larger else "no"
    if found := _TOGETHER.search(trace):
        n = sum(map(int, re.findall(r" (\d+)(?:,|\.)(?! together \d)", trace.split(" together")[0] + ".")))
        if n != int(found[1]):
            return None
        return str(n) if kind == "count" else "yes" if n else "no"
    if found := _GROUND.search(trace):
        return "yes" if int(found[1]) else "no"
    if kind == "presence" and trace.startswith("the image shows "):
        shown = re.split(r", | and ", trace.removeprefix("the image shows ").removesuffix("."))
        return "yes" if name in shown else "no"
    return None
