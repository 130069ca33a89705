"""Labels as people give them, and how a model is asked for one of them.

P prompts, N tiles, K labels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsqa.errors import QuestionError
from rsqa.tasks.lines import clean, read_lines
from rsqa.tasks.prompts import MOST_LISTED
from rsqa.tasks.question import Question
from rsqa.tasks.schemes import SCHEMES

CLASS = "class"
"""Id of the question for a label."""
LISTED = "{labels}"
"""In a prompt, where the labels are to stand."""
MOST_LABELS = 10_000


def gather_labels(listed: str | None, file: Path | None, scheme: str | None) -> tuple[str, ...]:
    """The labels of --labels (CSV), --labels-file (one a line) or --scheme, of which exactly one must be given.

    QuestionError for those that can't be told apart, and for fewer than two: one alone would always win.
    """
    given = [name for name, value in (("--labels", listed), ("--labels-file", file), ("--scheme", scheme)) if value]
    if len(given) != 1:
        named = " and ".join(given) or "none of them"
        raise QuestionError(f"{named} given; choose one of --labels, --labels-file and --scheme ({', '.join(SCHEMES)})")
    if scheme is not None:
        return _of_scheme(scheme)
    if file is not None:
        return checked(list(read_lines(file, "label")))
    try:
        [row] = csv.reader([listed or ""], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise QuestionError(f"--labels is not a row of CSV ({error}); quote labels that hold commas") from error
    return checked([("--labels", clean(cell, "--labels", "label")) for cell in row])


def _of_scheme(scheme: str) -> tuple[str, ...]:
    if scheme not in SCHEMES:
        near = get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(SCHEMES)}, or give --labels"
        raise QuestionError(f"unknown scheme {scheme!r}; {hint}")
    return SCHEMES[scheme]


def checked(labels: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """(where, label) of each -> the labels; QuestionError for two that can't be told apart, and for fewer than two."""
    seen: set[str] = set()
    for where, label in labels:
        if not label:
            raise QuestionError(f"{where}: an empty label; remove the extra comma")
        if label.casefold() in seen:
            raise QuestionError(f"{where}: label {label!r} is there twice; keep one")
        seen.add(label.casefold())
    if len(labels) < 2:
        only = repr(labels[0][1]) if labels else "none"
        raise QuestionError(
            f"at least two labels are needed, {only} given: one alone would win everywhere; add another, as 'other', "
            "or ask rsqa ask -q 'Is this …?'"
        )
    if len(labels) > MOST_LABELS:
        raise QuestionError(f"{len(labels):,} labels, the most is {MOST_LABELS:,}; classify in two steps")
    return tuple(label for _, label in labels)


def ask_class(names: Iterable[str]) -> str:
    """The published words for a class out of a list."""
    listed = ", ".join(sorted(set(names)))
    return f"Classify the image within one of the given classes: {listed}. Answer with one word or short phrase."


def class_questions(labels: Sequence[str], prompts: Sequence[str] = ()) -> tuple[Question, ...]:
    """The question for a label in each of the prompts, by default in the published words.

    `{labels}` in a prompt becomes the list. A list of more than 64 is not told to the model, see `rsqa.tasks.prompts`.
    """
    short = len(labels) <= MOST_LISTED
    texts = []
    for number, prompt in enumerate(prompts, start=1):
        text = clean(prompt, f"--prompt {number}", "prompt")
        if not text:
            raise QuestionError(f"--prompt {number} is empty; write what is asked, {LISTED} where the labels stand")
        if LISTED in text and not short:
            raise QuestionError(
                f"--prompt {number} lists the labels, of which there are {len(labels):,}: more than {MOST_LISTED} are "
                f"scored without being listed; leave {LISTED} out"
            )
        texts.append(text.replace(LISTED, ", ".join(labels)))
    if len(set(texts)) < len(texts):
        raise QuestionError("a --prompt is given twice; keep one")
    default = ask_class(labels) if short else "Classify the image. Answer with one word or short phrase."
    texts = texts or [default]
    ids = [CLASS] if len(texts) == 1 else [f"{CLASS}-{number}" for number in range(1, len(texts) + 1)]
    return tuple(Question(id_, text, "label", tuple(labels)) for id_, text in zip(ids, texts, strict=True))


def as_one(questions: Sequence[Question]) -> Question:
    """The question that several wordings are together."""
    return Question(CLASS, " | ".join(question.text for question in questions), "label", questions[0].options)


def mean_logprob(logprobs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(N, K) log p(label) for each of P prompts -> log of the mean of the probabilities.

    The probability that the model would write the label if the prompt were drawn by lot. Not the mean of logarithms:
    there one prompt that the model misreads vetoes a label, here it merely fails to support it, and a prompt after
    which the model would rather write something else has little weight.
    """
    stack = np.stack(logprobs).astype(np.float64)  # (P, N, K)
    with np.errstate(invalid="ignore"):  # NaN of a broken tile stays NaN
        mean: NDArray[np.float64] = np.logaddexp.reduce(stack, axis=0) - np.log(len(stack))
    return mean.astype(np.float32)
