"""Why records were left out: counted by reason, the first few named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMED = 5
"""Examples that are kept of each reason."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """What stands in the place of a record that can't be used."""

    why: str


@dataclass(slots=True)
class Tally:
    """Reasons, most of them counted in a loop over millions of records."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, why: str, example: str, n: int = 1) -> None:
        """Count `n` records with this reason; `example` names the first of them."""
        self.counts[why] = self.counts.get(why, 0) + n
        named = self.examples.setdefault(why, [])
        if len(named) < NAMED:
            named.append(example)

    @property
    def total(self) -> int:
        """Records left out."""
        return sum(self.counts.values())

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """What JSON holds of it, the most frequent reason first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {why: {"count": n, "examples": self.examples[why]} for why, n in ordered}

    def refusal(self, name: str, n_records: int) -> str:
        """One line for the user of a file with such records."""
        why, found = next(iter(self.report().items()))
        first = self.examples[why][0]
        return (
            f"{self.total:,} of {n_records:,} records of {name} can't be used, most ({found['count']:,}): {why}, first "
            f"{first}; mend them (rsqa data check lists all reasons) or leave them out with skip_bad = true"
        )
