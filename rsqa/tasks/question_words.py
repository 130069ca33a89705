"""What kind of answer a question wants, read from its words (English)."""

from __future__ import annotations

import re

from rsqa.tasks.question import COUNTS, YES_NO, Kind

_COUNT = re.compile(r"how many\b|what(?: is|'s) the number of\b", re.IGNORECASE)
_YES_NO = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|will|can|could)\b"
    # "Can you describe …" is a polite order, not a question of yes or no.
    r"(?!\s+you\s+(?!see\b|find\b|spot\b|detect\b|recogni[sz]e\b|identify\b))",
    re.IGNORECASE,
)
_IS_IT = re.compile(r"(?:is|are|was|were)\s+(it|they|this|that|these|those|the)\s+(.+)", re.IGNORECASE)
_WHICH = re.compile(r"(?:which|what|where|how|who)\b[^,:]*[,:]\s*(.+)", re.IGNORECASE)
_WH_WORD = re.compile(r"(?:which|what|where|when|why|how|who)\b", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*,\s*or\s+|\s*,\s*|\s+or\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:either\s+)?(?:(?:an?|the|mostly|mainly)\s+)?", re.IGNORECASE)
# "a rural or an urban area": the noun belongs to both and says nothing.
_SHARED_NOUN = re.compile(r"(?<=\w)\s+(?:area|region|scene|zone|place|landscape|environment|land)s?$", re.IGNORECASE)
_MOST_WORDS = 4
"""Longer pieces around an "or" are clauses, not options."""


def infer(text: str) -> tuple[Kind, tuple[str, ...]]:
    """-> kind and options. What is not clearly closed is open; nothing here fails."""
    if _COUNT.match(text):
        return "count", COUNTS
    if options := _alternatives(text):
        return "choice", options
    if _YES_NO.match(text):
        return "yesno", YES_NO
    return "open", ()


def _alternatives(text: str) -> tuple[str, ...]:
    """`Is it a rural or an urban area?` -> ("rural", "urban"); () when the words list no options."""
    sentence = text.strip().rstrip("?.! ")
    if not re.search(r"\sor\s", sentence, re.IGNORECASE):
        return ()
    if is_it := _IS_IT.fullmatch(sentence):
        subject, rest = is_it[1].lower(), is_it[2]
    elif _YES_NO.match(sentence):  # "Is there a ship or a boat?", "Does it have trees or grass?"
        return ()
    elif which := _WHICH.fullmatch(sentence):  # "Which is larger, the forest or the lake?"
        subject, rest = "", which[1]
    elif _WH_WORD.match(sentence) or not text.rstrip().endswith("?"):  # "What kind of tree or crop is it?"
        return ()
    else:  # "Rural or urban?"
        subject, rest = "", sentence
    first, *others = _SEPARATOR.split(rest)
    if not others:
        return ()
    tidied = [_tidy(other) for other in others]
    if rest == sentence and all(option[:1].islower() for option in tidied):  # its capital is the sentence's
        first = first[:1].lower() + first[1:]
    options = (_tidy(_without_subject(first, subject, len(tidied[-1].split()))), *tidied)
    if not all(0 < len(option.split()) <= _MOST_WORDS for option in options):
        return ()
    return options if len({option.casefold() for option in options}) == len(options) else ()


def _without_subject(first: str, subject: str, n_words: int) -> str:
    """`area rural` after "this" or "the" -> `rural`. `n_words`: of the last option, which the first resembles."""
    words = first.split()
    articles = [i for i, word in enumerate(words) if word.lower() in ("a", "an")]
    if subject in ("", "it", "they"):
        return first
    if articles:  # "this scene a forest"
        return " ".join(words[articles[-1] :])
    if subject == "the":  # its noun is never an option
        return " ".join(words[max(1, len(words) - n_words) :])
    return " ".join(words[-n_words:]) if n_words else ""


def _tidy(option: str) -> str:
    return _SHARED_NOUN.sub("", _ARTICLE.sub("", option.strip(), count=1)).strip()
