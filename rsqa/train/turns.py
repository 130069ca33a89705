"""From what is known of a picture to questions with their answers, in many wordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rsqa.tasks.prompts import PromptStyle, suffix_text
from rsqa.tasks.question import COUNTS, YES_NO, Kind, Question
from rsqa.train import words

LISTED_CLASSES = (2, 12)
"""Range of the length of a random list of classes; every third list is the whole data set's."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one picture (or window); what is not named is unknown, not absent."""

    present: frozenset[str] = frozenset()
    """Keys of words.NOUNS."""
    absent: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    """Noun -> how many."""
    name: str = ""
    """Class name, empty when there is none."""
    family: tuple[str, ...] = ()
    """All class names of the data set that `name` comes from."""
    urban: bool | None = None
    main: str = ""
    """Largest land cover, in words."""
    main_options: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    """Questions and answers that people wrote for this picture and that hold under crop and flip."""
    asked_upright: tuple[tuple[str, str], ...] = ()
    """Those that hold only for the whole, unturned picture."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question behind the image."""

    suffix: str
    """All text between the image and the answer."""
    answer: str
    """Without the end token."""
    kind: str
    """What the log sums up by."""


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


class Asker:
    """Makes turns in one prompt style; the same random state gives the same turns."""

    def __init__(self, style: PromptStyle) -> None:
        self.style = style

    def closed(self, text: str, answer: str, kind: str, options: tuple[str, ...] = YES_NO) -> Turn:
        """A yes/no, choice or count question, worded as the engine words it."""
        what: Kind = "yesno" if options == YES_NO else "count" if options == COUNTS else "choice"
        question = Question("q", text, what, options)
        return Turn(suffix_text(question, self.style), answer, kind)

    def opened(self, text: str, answer: str, kind: str) -> Turn:
        """An open question."""
        return Turn(suffix_text(Question("q", text, "open"), self.style), answer, kind)

    def labelled(self, text: str, answer: str, kind: str) -> Turn:
        """A classification question under the tag for labels, no option listed by the style."""
        tagged = f"{self.style.labels_tag}{text}{self.style.tail}"
        return Turn(suffix_text(Question("q", tagged, "open"), self.style), answer, kind)

    def presence(self, rng: np.random.Generator, noun: str, present: bool) -> Turn:
        """Is there …? The wording does not depend on the answer."""
        entry = words.NOUNS[noun]
        if entry.many and rng.random() < 0.5:
            text = _pick(rng, words.ASK_MANY).format(_pick(rng, entry.many))
        else:
            name = entry.one[0] if rng.random() < 0.5 else _pick(rng, entry.one)
            bare = not name.startswith(("a ", "an ", "the "))
            text = _pick(rng, words.ASK_MASS if bare and rng.random() < 0.3 else words.ASK_ONE).format(name)
        return self.closed(_casual(rng, text), "yes" if present else "no", "presence")

    def never(self, rng: np.random.Generator) -> Turn:
        """A thing that no picture here holds."""
        return self.closed(_pick(rng, words.ASK_ONE).format(_pick(rng, words.NEVER)), "no", "never")

    def class_free(self, rng: np.random.Generator, facts: Facts) -> Turn:
        """Which class, no list given."""
        return self.labelled(_pick(rng, words.ASK_CLASS), facts.name, "class")

    def class_of_list(self, rng: np.random.Generator, facts: Facts, pool: Sequence[str]) -> Turn:
        """Which class of a list, in random order; every third list is the whole family."""
        if rng.random() < 0.34:
            others = [name for name in facts.family if name != facts.name]
        else:
            others = distractors(facts.name, facts.family, pool)
            low, high = LISTED_CLASSES
            n_others = min(len(others), int(rng.integers(low, high + 1)) - 1)
            others = [others[i] for i in rng.permutation(len(others))[:n_others]]
        options = [*others, facts.name]
        options = [options[i] for i in rng.permutation(len(options))]
        if len(options) == 2 and rng.random() < 0.7:
            return self.closed(_pick(rng, words.ASK_PAIR).format(*options), facts.name, "choice", tuple(options))
        text = _pick(rng, words.ASK_OF_LIST).format(", ".join(options))
        if rng.random() < 0.3:
            return self.labelled(text, facts.name, "choice")
        return self.closed(text, facts.name, "choice", tuple(options))

    def is_this(self, rng: np.random.Generator, facts: Facts, pool: Sequence[str]) -> Turn:
        """Is this an airport? Half of the times it is."""
        yes = rng.random() < 0.5
        name = facts.name if yes else _pick(rng, distractors(facts.name, facts.family, pool))
        return self.closed(_pick(rng, words.ASK_IS_THIS).format(with_article(name)), "yes" if yes else "no", "is this")

    def count(self, rng: np.random.Generator, facts: Facts) -> Turn:
        """How many …? in digits."""
        noun = _pick(rng, sorted(facts.counts))
        n = facts.counts[noun]
        text = _pick(rng, words.ASK_COUNT).format(_pick(rng, words.NOUNS[noun].many))
        return self.closed(text, str(n) if n <= 100 else COUNTS[-1], "count", COUNTS)

    def more(self, rng: np.random.Generator, facts: Facts) -> Turn | None:
        """Are there more … than …? None where nothing can be compared; the larger comes first half of the times."""
        known = dict(facts.counts)
        countable = [noun for noun in sorted(facts.absent) if words.NOUNS[noun].many]
        present = [noun for noun in sorted(facts.present) if words.NOUNS[noun].many and noun not in known]
        if known and rng.random() < 0.6:
            pairs = [(a, b) for a in sorted(known) for b in sorted(known) if known[a] > known[b]]
        else:
            pairs = [(a, b) for a in [*present, *(n for n in sorted(known) if known[n])] for b in countable]
        if not pairs:
            return None
        larger, smaller = pairs[int(rng.integers(len(pairs)))]
        yes = rng.random() < 0.5
        names = [_pick(rng, words.NOUNS[noun].many) for noun in ((larger, smaller) if yes else (smaller, larger))]
        return self.closed(_pick(rng, words.ASK_MORE).format(*names), "yes" if yes else "no", "more")

    def area(self, rng: np.random.Generator, urban: bool) -> Turn:
        """Rural or urban."""
        return self.closed(_pick(rng, words.ASK_AREA), "urban" if urban else "rural", "area", ("rural", "urban"))

    def main_cover(self, rng: np.random.Generator, facts: Facts) -> Turn:
        """The largest land cover."""
        options = tuple(facts.main_options[i] for i in rng.permutation(len(facts.main_options)))
        return self.closed(_pick(rng, words.ASK_MAIN), facts.main, "main", options)

    def caption(self, rng: np.random.Generator, facts: Facts) -> Turn:
        """A short description."""
        return self.opened(_pick(rng, words.ASK_CAPTION), _pick(rng, facts.captions), "caption")

    def asked(self, pair: tuple[str, str]) -> Turn:
        """A question as people wrote it."""
        text, answer = pair
        if answer in YES_NO:
            return self.closed(text, answer, "asked")
        if answer.isdigit():
            return self.closed(text, answer, "count", COUNTS)
        return self.opened(text, answer, "asked")


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
    asked: float = 0.5


def turns_of(
    facts: Facts, rates: PresenceRates, pool: Sequence[str], asker: Asker, upright: bool, rng: np.random.Generator,
    shares: TurnShares = TurnShares(),
) -> list[Turn]:  # fmt: skip
    """All questions that this view of a picture is asked, in random order. `upright`: whole and unturned."""
    turns: list[Turn | None] = []
    for present, nouns in ((True, facts.present), (False, facts.absent)):
        for noun in sorted(nouns):
            if rng.random() < shares.presence * rates.keep.get((noun, present), 0.0):
                turns.append(asker.presence(rng, noun, present))
    if rng.random() < shares.never:
        turns.append(asker.never(rng))
    if facts.name:
        if rng.random() < shares.class_free:
            turns.append(asker.class_free(rng, facts))
        if rng.random() < shares.class_of_list:
            turns.append(asker.class_of_list(rng, facts, pool))
        if rng.random() < shares.is_this:
            turns.append(asker.is_this(rng, facts, pool))
    if facts.captions and rng.random() < shares.caption:
        turns.append(asker.caption(rng, facts))
    if facts.counts and rng.random() < shares.count:
        turns.append(asker.count(rng, facts))
    if rng.random() < shares.more:
        turns.append(asker.more(rng, facts))
    if facts.urban is not None and rng.random() < shares.area:
        turns.append(asker.area(rng, facts.urban))
    if facts.main and rng.random() < shares.main:
        turns.append(asker.main_cover(rng, facts))
    human = facts.asked + (facts.asked_upright if upright else ())
    if human and rng.random() < shares.asked:
        turns.append(asker.asked(human[int(rng.integers(len(human)))]))
    made = [turn for turn in turns if turn is not None]
    return [made[i] for i in rng.permutation(len(made))]
