"""From what was measured to figures: rates, shares of the ceiling, agreement; a table, and one JSON object."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import rsqa
from rsqa.bench.cost import Shape
from rsqa.bench.machine import machine, versions
from rsqa.bench.measure import Contest, Measured, Row
from rsqa.bench.work import Case, questions
from rsqa.engines.cards import load_card
from rsqa.engines.words import Words
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.loading import load_tokenizer

HEADER = (
    "", "side", "answers/s", "slowest", "fastest", "per CPU s", "tiles/s", "Mpx/s", "GFLOP/s", "% of ceiling",
    "peak MB", "% first tokens", "x a", "x b",
)  # fmt: skip
AGAIN = "e'"
"""The side that needs no vision part."""
MODEL_ONLY = "e"
"""The side whose cost from file to table is that of `file` beside it."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many answers of a sample equal those of transformers in float32, one tile and one question at a time."""

    answers: int
    """Compared."""
    first_token: float
    """Share with the same first token."""
    all_tokens: float
    """Share with all tokens the same."""
    option: float | None = None
    """Share with the same most likely option; None: not a closed case, or the side scores no options."""
    logprob_difference: float | None = None
    """Largest of an option's log-probability."""


def agreement(found: dict[str, Any], reference: dict[str, Any]) -> Agreement | None:
    """Compare what two sides say to the same prompts, as far as both have it; None where a side tells no tokens."""
    if found["tokens"] is None:
        return None
    pairs = [
        (mine, theirs)
        for tile, same_tile in zip(found["tokens"], reference["tokens"], strict=False)  # it may have seen fewer
        for mine, theirs in zip(tile, same_tile, strict=True)
    ]
    first = sum(mine[0] == theirs[0] for mine, theirs in pairs)
    whole = sum(mine == theirs for mine, theirs in pairs)
    told = Agreement(len(pairs), first / len(pairs), whole / len(pairs))
    if found["option_logprobs"] is None:
        return told
    options = [
        (mine, theirs)
        for tile, same_tile in zip(found["option_logprobs"], reference["option_logprobs"], strict=False)
        for mine, theirs in zip(tile, same_tile, strict=True)
    ]
    same = sum(mine.index(max(mine)) == theirs.index(max(theirs)) for mine, theirs in options)
    furthest = max(abs(a - b) for mine, theirs in options for a, b in zip(mine, theirs, strict=True))
    return Agreement(len(pairs), told.first_token, told.all_tokens, same / len(options), furthest)


@dataclass(frozen=True, slots=True)
class Useful:
    """Floating-point operations that one tile of a case needs, all its questions and answers included."""

    whole: int
    kept: int
    """Where its visual tokens are there already."""


def useful_flops(checkpoint: Checkpoint, case: Case) -> Useful:
    """Each thing counted once, whatever a side really does."""
    card = load_card(str(checkpoint.folder))
    words = Words(load_tokenizer(checkpoint), card)
    height, width = card.model_side(case.tile_px, case.tile_px)
    suffixes = [len(words.suffix(question)) for question in questions(case)]
    prompt, patches = len(words.before) + len(words.after), height * width // 14**2
    shape = Shape.of(checkpoint.config)
    whole = shape.tile(patches, prompt, suffixes, case.budget)
    return Useful(whole, whole - shape.vision(patches))


def figures(measured: Measured, flops: Useful) -> list[dict[str, Any]]:
    """One flat object per side of a case; `flops`: see `useful_flops`. Rates are of the median round."""
    ceilings = [run["flop_per_s"] for run in measured.ceiling.runs]
    ceiling = max(ceilings, default=None)  # of its best round: a busy machine must not flatter a side
    rows = [_figures(row, measured, flops.kept if row.side == AGAIN else flops.whole, ceiling) for row in measured.rows]
    rates = {row["side"]: row.get("answers_per_s") for row in rows}
    for row in rows:
        for other in ("a", "b"):
            if rates.get(other) and row.get("answers_per_s"):
                row[f"times_{other}"] = row["answers_per_s"] / rates[other]
    _add_cost_of_files(rows)
    return rows


def _figures(row: Row, measured: Measured, flops: int, ceiling: float | None) -> dict[str, Any]:
    case = row.case
    facts: dict[str, Any] = {"side": row.side, "title": row.title, "state": row.state, "why": row.why}
    facts |= asdict(case) | {"answer": "closed" if case.answer_tokens is None else f"{case.answer_tokens} tokens"}
    if row.state != "ok" or not row.runs:
        return facts
    # Of a run from files, the time while tiles were being answered: what precedes and follows does not grow with them.
    seconds = [run.get("working_s", run["wall_s"]) for run in row.runs]
    middle, answers = median(seconds), case.n_tiles * case.n_questions
    rate = flops * case.n_tiles / middle
    facts |= {
        "load": row.load,
        "warm_up": row.warm_up,
        "runs": row.runs,
        "seconds": {"min": min(seconds), "median": middle, "max": max(seconds)},
        "answers_per_s": answers / middle,
        "answers_per_s_slowest": answers / max(seconds),
        "answers_per_s_fastest": answers / min(seconds),
        "answers_per_cpu_s": answers / median(run["cpu_s"] for run in row.runs),
        "tiles_per_s": case.n_tiles / middle,
        "mpx_per_s": case.n_tiles * case.tile_px**2 / middle / 1e6,
        "useful_flop_per_tile": flops,
        "useful_flop_per_s": rate,
        "ceiling_flop_per_s": ceiling,
        "share_of_ceiling": rate / ceiling if ceiling else None,
        "peak_mb": max(run["peak_mb"] for run in row.runs),
    }
    if row.compared and measured.reference and measured.reference.compared:
        told = agreement(row.compared, measured.reference.compared)
        facts["agreement"] = asdict(told) if told else None
    return facts


def _add_cost_of_files(rows: Sequence[dict[str, Any]]) -> None:
    """Beside the figures of `file`, its cost over those of `e`, when both ran."""
    by_side = {row["side"]: row for row in rows if row["state"] == "ok"}
    if MODEL_ONLY not in by_side or "file" not in by_side:
        return
    alone, whole = by_side[MODEL_ONLY], by_side["file"]
    whole["cost_over_model_only"] = whole["seconds"]["median"] / alone["seconds"]["median"] - 1
    whole["start_and_end_s"] = median(run["whole_s"] - run["working_s"] for run in whole["runs"])
    whole["model_idle"] = median(run["model_idle"] for run in whole["runs"])


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table: columns aligned, numbers to the right."""
    cells = [HEADER, *(tuple(map(_cell, table_row(row))) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = (
        [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))] for row in cells
    )
    return ["  ".join(row).rstrip() for row in padded]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def table_row(row: dict[str, Any]) -> tuple[object, ...]:
    """Under HEADER; None where there is nothing to say."""
    title = row["title"] if row["state"] == "ok" else f"{row['title']}: {row['state']}"

    def scaled(key: str, by: float = 1.0) -> float | None:
        return None if row.get(key) is None else row[key] * by

    same = row.get("agreement")
    return (
        row["side"], title, scaled("answers_per_s"), scaled("answers_per_s_slowest"), scaled("answers_per_s_fastest"),
        scaled("answers_per_cpu_s"), scaled("tiles_per_s"), scaled("mpx_per_s"), scaled("useful_flop_per_s", 1e-9),
        scaled("share_of_ceiling", 100), round(row["peak_mb"]) if "peak_mb" in row else None,
        same["first_token"] * 100 if same else None, row.get("times_a"), row.get("times_b"),
    )  # fmt: skip


def remarks(rows: Sequence[dict[str, Any]], measured: Measured) -> list[str]:
    """Sentences under the table: what the figures do not say by themselves."""
    said = [f"{row['side']}: {row['state']}: {row['why']}" for row in rows if row["state"] != "ok"]
    ok = [row for row in rows if row["state"] == "ok"]
    for row in ok:
        said += [f"{row['side']}: {note}" for note in (*row["warm_up"]["notes"], row["why"]) if note]
    if measured.reference is not None and measured.reference.state != "ok":
        said.append(f"nothing to compare with: {measured.reference.why}")
    for row in ok:
        if same := row.get("agreement"):
            said.append(f"{row['side']}: {_in_words(same)}")
    for row in ok:
        if "cost_over_model_only" in row:
            said.append(
                f"file: {row['cost_over_model_only']:+.1%} over model only, the model idle for {row['model_idle']:.1%} "
                f"of the time; start and end {row['start_and_end_s']:.1f} s more"
            )
    before = (f"{r['side']} {r['load']['seconds']:.1f} + {r['warm_up']['seconds']:.1f} s" for r in ok)
    said.append(f"not timed, loading and warming up: {', '.join(before)}")
    if measured.case.answer_tokens is None:
        said.append("closed: rsqa scores every option with its end tokens; the other sides generate one token")
    return said


def _in_words(same: dict[str, Any]) -> str:
    words = f"of {same['answers']} answers {same['first_token']:.1%} begin as in float32"
    words += f", {same['all_tokens']:.1%} are equal"
    if same["option"] is not None:
        words += f"; most likely option equal in {same['option']:.1%}, log p within {same['logprob_difference']:.1g}"
    return words


def whole_json(
    contest: Contest, asked: dict[str, Any], load_before: float | None, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything, for the last line."""
    return {
        "asked": asked,
        "setup": asdict(contest.setup),
        "machine": machine(contest.setup.device) | {"load_before": load_before},
        "versions": {"rsqa": rsqa.__version__, "python": platform.python_version(), **versions()},
        "rows": rows,
    }
