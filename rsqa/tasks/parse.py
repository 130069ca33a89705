"""From a model's replies to answers with a status. Total functions: no text and no number makes them raise.

A model's words are weather. What can't be read as an answer is `unparsed`, what was cut off `truncated`, what fits none
of the options `off_list`, numbers that are none `error`; none of these is ever a "no". N tiles, K options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rsqa.tasks.question import Condition, Question

Status = Literal["ok", "off_list", "unparsed", "truncated", "error"]
NOT_FINITE = "not_finite"
"""Error code: the model's numbers were NaN or infinite."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAGS = re.compile(r"</?(?:reasoning|answer)>")


class Said(Protocol):
    """Columns of what the model said to one question; see `rsqa.engines.base.Replies`."""

    @property
    def option_logprob(self) -> NDArray[np.float32] | None: ...
    @property
    def text(self) -> NDArray[np.object_] | None: ...
    @property
    def token_logprob(self) -> NDArray[np.float32] | None: ...
    @property
    def finished(self) -> NDArray[np.bool_] | None: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of one question on N tiles. Columns that the kind of question never fills are None."""

    status: NDArray[np.object_]
    """(N,) of `Status`."""
    value: NDArray[np.object_]
    """(N,) of str, None unless the status is ok."""
    confidence: NDArray[np.float32]
    """(N,) p(value) among the options, 0..1; NaN: none, as for open questions and for a single chain of reasoning."""
    error: NDArray[np.object_]
    """(N,) error code where the status is error, else None."""
    option_mass: NDArray[np.float32] | None = None
    """(N,) probability of all options together, 0..1; NaN: not measured."""
    probabilities: NDArray[np.float32] | None = None
    """(N, K) shares of the options in that mass, after the temperature; NaN: not measured."""
    text: NDArray[np.object_] | None = None
    """(N,) of str, what was written to an open question."""
    token_logprob: NDArray[np.float32] | None = None
    """(N,) mean log-probability of the tokens written."""
    reasoning: NDArray[np.object_] | None = None
    """(N,) of str, None where none was written."""
    evidence: NDArray[np.float32] | None = None
    """(N, blocks) see `Replies.evidence`; never read from words, None unless it is kept beside them."""
    boxes: NDArray[np.object_] | None = None
    """(N,) of `rsqa.tasks.boxes.SaidBoxes`, whatever the status."""


def answers(
    question: Question, said: Said, *, mass_floor: float = 0.0, temperature: float = 1.0, reasoning: bool = False
) -> Answers:
    """Read the replies to one question.

    `mass_floor` is the least probability on the listed options for an answer to count, `temperature` flattens (above 1)
    their shares, `reasoning` says that the model thinks in writing before it answers.
    """
    if question.closed:
        return _closed(question, said, mass_floor, temperature, reasoning)
    return _open(said, reasoning)


def met(condition: Condition, said: Answers) -> NDArray[np.bool_]:
    """(N,) whether the answers to the condition's question ask for what hangs on it. Unknown is no yes."""
    assert said.probabilities is not None  # the question is closed
    return np.asarray((said.status == "ok") & (said.probabilities[:, 0] >= condition.least), np.bool_)


def split_reasoning(text: str) -> tuple[str | None, str | None]:
    """-> what was thought, and what stands in the first closed `<answer>…</answer>`, stripped; None if absent."""
    found = _ANSWER.search(text)
    before = text[: found.start()] if found else text.split("<answer>", 1)[0]
    return _TAGS.sub("", before).strip() or None, found.group(1).strip() if found else None


def parse_choice(text: str, options: Sequence[str]) -> str | None:
    """The option that a generated text spells, whatever its case, spaces, quotes and closing punctuation; else None."""
    spelled = _plain(text)
    return next((option for option in options if _plain(option) == spelled), None) if spelled else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`")


def _closed(question: Question, said: Said, mass_floor: float, temperature: float, reasoning: bool) -> Answers:
    if said.option_logprob is None:
        raise ValueError(f"question {question.id!r} is closed, its replies hold no option_logprob")
    logprob = said.option_logprob.astype(np.float64)  # (N, K)
    n = len(logprob)
    broken = ~(logprob.max(axis=1) < np.inf)  # a NaN anywhere is the maximum
    safe = np.where(broken[:, None], 0.0, logprob)
    mass = np.where(broken, np.nan, np.exp(np.minimum(safe, 0.0)).sum(axis=1).clip(max=1.0))
    shares = np.where(broken[:, None], np.nan, _shares(safe, temperature))
    status = np.full(n, "ok", object)
    status[(mass < mass_floor) | np.isnan(shares).any(axis=1)] = "off_list"
    status[broken] = "error"
    thoughts = None
    if reasoning:
        texts = _texts(said, n)
        thoughts = _column([split_reasoning(text)[0] for text in texts])
        status[broken & np.array(["<answer>" not in text for text in texts], np.bool_)] = "unparsed"
        status[~_finished(said, n)] = "truncated"
    ok = status == "ok"
    best = safe.argmax(axis=1)
    value = np.full(n, None, object)
    value[ok] = np.array(question.options, object)[best[ok]]
    confidence = np.where(ok & (not reasoning), shares[np.arange(n), best], np.nan)
    return Answers(
        status,
        value,
        confidence.astype(np.float32),
        _error(status),
        mass.astype(np.float32),
        shares.astype(np.float32),
        None,
        said.token_logprob,
        thoughts,
    )


def _shares(logprob: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """(N, K) log p -> p^(1/T) as shares of their sum; NaN where every option is impossible."""
    scaled = logprob / temperature
    highest = scaled.max(axis=1, keepdims=True)
    weights = np.exp(scaled - np.where(np.isneginf(highest), np.nan, highest))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _open(said: Said, reasoning: bool) -> Answers:
    if said.text is None:
        raise ValueError("an open question's replies hold no text")
    n = len(said.text)
    texts = _texts(said, n)
    thoughts, words = (
        zip(*(split_reasoning(t) if reasoning else (None, t.strip()) for t in texts), strict=True) if n else ((), ())
    )
    whole = _finished(said, n)
    if reasoning:  # what follows a closed answer does not matter
        whole |= np.array([word is not None for word in words], np.bool_)
    status = np.array(["ok" if word else "unparsed" for word in words], object).reshape(n)
    status[~whole] = "truncated"
    if said.token_logprob is not None:
        status[~np.isfinite(said.token_logprob)] = "error"
    value = _column(words)
    value[status != "ok"] = None
    return Answers(
        status,
        value,
        np.full(n, np.nan, np.float32),
        _error(status),
        None,
        None,
        _column(texts),
        said.token_logprob,
        _column(thoughts) if reasoning else None,
    )


def _texts(said: Said, n: int) -> list[str]:
    return [text if isinstance(text, str) else "" for text in said.text] if said.text is not None else [""] * n


def _finished(said: Said, n: int) -> NDArray[np.bool_]:
    return np.ones(n, np.bool_) if said.finished is None else said.finished.copy()


def _column(values: Sequence[str | None]) -> NDArray[np.object_]:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _error(status: NDArray[np.object_]) -> NDArray[np.object_]:
    error = np.full(len(status), None, object)
    error[status == "error"] = NOT_FINITE
    return error
