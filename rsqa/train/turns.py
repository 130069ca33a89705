"""From what is known of a picture to questions with their answers, in many wordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsqa.tasks.boxes import Box, format_boxes
from rsqa.tasks.question import COUNTS, YES_NO, Kind, Question
from rsqa.train import reasoning, words
from rsqa.train.facts import Facts, place_of

LISTED_CLASSES = (2, 12)
"""Range of the length of a random list of classes; every third list is the whole data set's."""
BOX_STEP = 10
"""Boxes are written in hundredths of the side: at 112 pixels one step is about a pixel."""
MOST_BOXES = 8
"""Things of one kind that are written out one by one."""
ZEROS = 1 / 3
"""Share of the counting questions that ask for what is not there, in a picture that holds something to count."""
ZEROS_ALONE = 0.1
"""How often a picture without anything to count is asked all the same: more would drown the other numbers."""
CLEARLY_LARGER = 1.6
"""The largest of several is asked for where its area is so many times the next one's."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question behind the image."""

    question: Question
    answer: str
    """Without tags and end token."""
    kind: str
    """What the log sums up by."""
    trace: str = ""
    """What leads to the answer; empty where nothing is known but the answer."""
    about: str = ""
    """What a presence question is about, as traces name it."""
    boxes: tuple[Box, ...] | None = None
    """Where the things are that it asks for; None: not known."""


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def ask(text: str, answer: str, kind: str, what: Kind, options: tuple[str, ...] = (), trace: str = "") -> Turn:
    """A turn whose question is worded as the engine words it."""
    return Turn(Question("q", text, what, options), answer, kind, trace)


def closed(text: str, answer: str, kind: str, options: tuple[str, ...] = YES_NO, trace: str = "") -> Turn:
    """A yes/no, choice or count question."""
    return ask(
        text, answer, kind, "yesno" if options == YES_NO else "count" if options == COUNTS else "choice", options, trace
    )


def presence(rng: np.random.Generator, noun: str, present: bool, facts: Facts) -> Turn:
    """Is there …? The wording does not depend on the answer."""
    entry = words.NOUNS[noun]
    if entry.many and rng.random() < 0.5:
        text = _pick(rng, words.ASK_MANY).format(_pick(rng, entry.many))
    else:
        name = entry.one[0] if rng.random() < 0.5 else _pick(rng, entry.one)
        bare = not name.startswith(("a ", "an ", "the "))
        text = _pick(rng, words.ASK_MASS if bare and rng.random() < 0.3 else words.ASK_ONE).format(name)
    question = Question("q", _casual(rng, text), "yesno", YES_NO)
    return Turn(
        question, "yes" if present else "no", "presence", _presence_trace(noun, present, facts), words.plain(noun),
        tuple(facts.of(noun)) if noun in facts.boxed else None,
    )  # fmt: skip


def _presence_trace(noun: str, present: bool, facts: Facts) -> str:
    if noun in facts.boxed:
        return reasoning.of_things(words.NOUNS[noun].many[0], facts.of(noun))
    kind = words.GROUND_OF.get(noun)
    if kind is not None and kind in facts.shares:
        return reasoning.of_ground(words.plain(noun), facts.shares[kind], present)
    return _shown(facts)


def never(rng: np.random.Generator) -> Turn:
    """A thing that no picture here holds."""
    return closed(_pick(rng, words.ASK_ONE).format(_pick(rng, words.NEVER)), "no", "never")


def _shown(facts: Facts) -> str:
    """What labels and class say that a picture shows; a scene's ground is told in shares instead."""
    return reasoning.of_labels([words.plain(noun) for noun in facts.present]) if facts.name and facts.present else ""


def class_free(rng: np.random.Generator, facts: Facts) -> Turn:
    """Which class, no list given."""
    return ask(_pick(rng, words.ASK_CLASS), facts.name, "class", "open", trace=_shown(facts))


def class_of_list(rng: np.random.Generator, facts: Facts, pool: Sequence[str]) -> Turn:
    """Which class of a list, in random order; every third list is the whole family."""
    if rng.random() < 0.34:
        others = [name for name in facts.family if name != facts.name]
    else:
        others = distractors(facts.name, facts.family, pool)
        low, high = LISTED_CLASSES
        n_others = min(len(others), int(rng.integers(low, high + 1)) - 1)
        others = [others[i] for i in rng.permutation(len(others))[:n_others]]
    options = [*others, facts.name]
    listed = tuple(options[i] for i in rng.permutation(len(options)))
    trace = _shown(facts)
    if len(listed) == 2 and rng.random() < 0.7:
        return ask(_pick(rng, words.ASK_PAIR).format(*listed), facts.name, "choice", "choice", listed, trace)
    text = _pick(rng, words.ASK_OF_LIST).format(", ".join(listed))
    return ask(text, facts.name, "choice", "label" if rng.random() < 0.5 else "choice", listed, trace)


def is_this(rng: np.random.Generator, facts: Facts, pool: Sequence[str]) -> Turn:
    """Is this an airport? Half of the times it is."""
    yes = rng.random() < 0.5
    name = facts.name if yes else _pick(rng, distractors(facts.name, facts.family, pool))
    text = _pick(rng, words.ASK_IS_THIS).format(with_article(name))
    return closed(text, "yes" if yes else "no", "is this", trace=_shown(facts))


def count(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """How many …? in digits, now and then of what is certainly not there. None where nothing is counted."""
    there = sorted(facts.counts)
    missing = [noun for noun in sorted(facts.boxed) if noun not in facts.counts and words.NOUNS[noun].many]
    nouns = missing if missing and rng.random() < (ZEROS if there else ZEROS_ALONE) else there
    if not nouns:
        return None
    noun = _pick(rng, nouns)
    n = facts.counts.get(noun, 0)
    text = _pick(rng, words.ASK_COUNT).format(_pick(rng, words.NOUNS[noun].many))
    trace = reasoning.of_things(words.NOUNS[noun].many[0], facts.of(noun)) if noun in facts.boxed else ""
    return closed(text, str(n) if n <= 100 else COUNTS[-1], "count", COUNTS, trace)


def more(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """Are there more … than …? None where nothing can be compared; the larger comes first half of the times."""
    known = dict(facts.counts)
    countable = [noun for noun in sorted(facts.absent) if words.NOUNS[noun].many]
    present = [noun for noun in sorted(facts.present) if words.NOUNS[noun].many and noun not in known]
    if known and rng.random() < 0.6:
        pairs = [(a, b) for a in sorted(known) for b in sorted(known) if known[a] > known[b]]
    else:
        pairs = [(a, b) for a in [*present, *sorted(known)] for b in countable]
    if not pairs:
        return None
    larger, smaller = pairs[int(rng.integers(len(pairs)))]
    yes = rng.random() < 0.5
    one, other = (larger, smaller) if yes else (smaller, larger)
    names = [_pick(rng, words.NOUNS[noun].many) for noun in (one, other)]
    trace = ""
    if all(noun in known or noun in facts.absent for noun in (one, other)):
        first, second = (known.get(noun, 0) for noun in (one, other))
        trace = reasoning.of_comparison(words.NOUNS[one].many[0], first, words.NOUNS[other].many[0], second)
    return closed(_pick(rng, words.ASK_MORE).format(*names), "yes" if yes else "no", "more", trace=trace)


def area(rng: np.random.Generator, facts: Facts) -> Turn:
    """Rural or urban."""
    trace = reasoning.of_area(facts.shares) if facts.shares else _shown(facts)
    return closed(_pick(rng, words.ASK_AREA), "urban" if facts.urban else "rural", "area", ("rural", "urban"), trace)


def main_cover(rng: np.random.Generator, facts: Facts) -> Turn:
    """The largest land cover."""
    options = tuple(facts.main_options[i] for i in rng.permutation(len(facts.main_options)))
    trace = reasoning.of_theme(facts, words.PLURALS) if facts.shares else ""
    return closed(_pick(rng, words.ASK_MAIN), facts.main, "main", options, trace)


def caption(rng: np.random.Generator, facts: Facts) -> Turn:
    """A short description."""
    trace = reasoning.of_theme(facts, words.PLURALS) if facts.shares else _shown(facts)
    return ask(_pick(rng, words.ASK_CAPTION), _pick(rng, facts.captions), "caption", "open", trace=trace)


def referred(rng: np.random.Generator, facts: Facts) -> tuple[str, Box] | None:
    """Words that mean exactly one thing in the picture, and where it is; None where there is none."""
    ways: list[tuple[str, Box]] = []
    for noun in sorted(facts.boxed):
        boxes = facts.of(noun)
        name = words.plain(noun) if rng.random() < 0.5 else words.bare(_pick(rng, words.NOUNS[noun].one))
        if len(boxes) == 1:
            ways += [(f"the {name}", boxes[0])] * 2
        places = [place_of(box) for box in boxes]
        alone = [box for box, place in zip(boxes, places, strict=True) if places.count(place) == 1]
        if alone:
            box = alone[int(rng.integers(len(alone)))]
            place = place_of(box)
            ways.append((f"the {name} {'in' if place == 'center' else 'at'} the {place}", box))
        by_area = sorted(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
        if len(boxes) > 1:
            (a, b), (c, d) = ((box[2] - box[0], box[3] - box[1]) for box in by_area[-2:])
            if c * d > CLEARLY_LARGER * a * b:
                ways.append((f"the largest {name}", by_area[-1]))
    return ways[int(rng.integers(len(ways)))] if ways else None


def box(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """Where is …? as a box. None where no words mean exactly one thing."""
    meant = referred(rng, facts)
    if meant is None:
        return None
    phrase, where = meant
    text = phrase if rng.random() < 0.7 else _pick(rng, words.ASK_BOX).format(phrase)
    return ask(text, format_boxes([where], BOX_STEP), "box", "box", trace=reasoning.of_box(phrase, where))


def every_box(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """Every … as boxes, from left to right; now and then of what is not there."""
    nouns = [noun for noun in sorted(facts.boxed) if 1 <= len(facts.of(noun)) <= MOST_BOXES]
    if not nouns or rng.random() < 0.1:
        nouns = [noun for noun in sorted(facts.boxed) if not facts.of(noun)]
    if not nouns:
        return None
    noun = _pick(rng, nouns)
    text = _pick(rng, words.ASK_EVERY).format(words.bare(_pick(rng, words.NOUNS[noun].one)))
    boxes = facts.of(noun)
    trace = reasoning.of_things(words.NOUNS[noun].many[0], boxes)
    return ask(text, format_boxes(boxes, BOX_STEP), "boxes", "box", trace=trace)


def where(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """Where is …? in words."""
    alone = [noun for noun in sorted(facts.boxed) if len(facts.of(noun)) == 1]
    if not alone:
        return None
    noun = _pick(rng, alone)
    name = words.plain(noun) if rng.random() < 0.5 else words.bare(_pick(rng, words.NOUNS[noun].one))
    return ask(_pick(rng, words.ASK_WHERE).format(name), place_of(facts.of(noun)[0]), "where", "open")


def written(pair: tuple[str, str]) -> Turn:
    """A question as people wrote it."""
    text, answer = pair
    if answer in YES_NO:
        return closed(text, answer, "asked")
    if answer.isdigit():
        return closed(text, answer, "count", COUNTS)
    return ask(text, answer, "asked", "open")


def _casual(rng: np.random.Generator, text: str) -> str:
    """Now and then as people type: small letters, no question mark."""
    if rng.random() < 0.08:
        text = text.lower()
    return text.rstrip("?") if rng.random() < 0.04 else text


def with_article(name: str) -> str:
    """The name as people say it: "an airport"; mass nouns and plurals stay bare."""
    if name.endswith("residential"):
        return f"a {name} area"
    if name in ("farmland", "buildings", "chaparral", "storage tanks", "bare land"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def distractors(name: str, family: Sequence[str], pool: Sequence[str]) -> list[str]:
    """Class names that are certainly wrong: the whole family, and of other data sets those that do not overlap."""
    kin = set().union(*(group for group in words.SAME_PLACE if name in group)) | {name}
    return [other for other in family if other != name] + [o for o in pool if o not in family and o not in kin]


@dataclass(frozen=True, slots=True)
class PresenceRates:
    """How likely a known presence becomes a question, so that yes and no are equally frequent for every noun."""

    keep: Mapping[tuple[str, bool], float]

    @classmethod
    def balanced(cls, pictures: Sequence[Facts]) -> PresenceRates:
        """The rarer answer is always asked, the other in proportion; a noun with one answer only is never asked."""
        yes: dict[str, int] = {}
        no: dict[str, int] = {}
        for facts in pictures:
            for noun in facts.present:
                yes[noun] = yes.get(noun, 0) + 1
            for noun in facts.absent:
                no[noun] = no.get(noun, 0) + 1
        keep = {}
        for noun in yes.keys() & no.keys():
            rarer = min(yes[noun], no[noun])
            keep[noun, True] = rarer / yes[noun]
            keep[noun, False] = rarer / no[noun]
        return cls(keep)


@dataclass(frozen=True, slots=True)
class TurnShares:
    """Chance that a picture gets one turn of a kind, where its facts allow it."""

    presence: float = 0.9
    """Of each balanced presence question."""
    never: float = 0.06
    class_free: float = 0.6
    class_of_list: float = 0.35
    is_this: float = 0.4
    caption: float = 0.12
    count: float = 0.6
    more: float = 0.35
    area: float = 0.35
    main: float = 0.5
    written: float = 0.5
    box: float = 0.8
    every_box: float = 0.5
    where: float = 0.3


def turns_of(
    facts: Facts, rates: PresenceRates, pool: Sequence[str], upright: bool, rng: np.random.Generator,
    shares: TurnShares = TurnShares(),
) -> list[Turn]:  # fmt: skip
    """All questions that this view of a picture is asked, in random order. `upright`: whole and unturned."""
    turns: list[Turn | None] = []
    for there, nouns in ((True, facts.present), (False, facts.absent)):
        for noun in sorted(nouns):
            if rng.random() < shares.presence * rates.keep.get((noun, there), 0.0):
                turns.append(presence(rng, noun, there, facts))
    human = facts.asked + (facts.asked_upright if upright else ())
    makers: list[tuple[float, object, Callable[[], Turn | None]]] = [
        (shares.never, True, lambda: never(rng)),
        (shares.class_free, facts.name, lambda: class_free(rng, facts)),
        (shares.class_of_list, facts.name, lambda: class_of_list(rng, facts, pool)),
        (shares.is_this, facts.name, lambda: is_this(rng, facts, pool)),
        (shares.caption, facts.captions, lambda: caption(rng, facts)),
        (shares.count, True, lambda: count(rng, facts)),
        (shares.more, True, lambda: more(rng, facts)),
        (shares.area, facts.urban is not None, lambda: area(rng, facts)),
        (shares.main, facts.main, lambda: main_cover(rng, facts)),
        (shares.written, human, lambda: written(human[int(rng.integers(len(human)))])),
        (shares.box, facts.boxes, lambda: box(rng, facts)),
        (shares.every_box, facts.boxes, lambda: every_box(rng, facts)),
        (shares.where, facts.boxes, lambda: where(rng, facts)),
    ]
    for share, known, make in makers:
        if known and rng.random() < share:
            turns.append(make())
    made = [turn for turn in turns if turn is not None]
    return [made[i] for i in rng.permutation(len(made))]
