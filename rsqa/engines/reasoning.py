"""Closed questions to a model that thinks first: it writes up to `<answer>`, and the options are scored there.

n rows, S tokens of a packed group, T tokens held, K options.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from rsqa.engines.batching import PACKED_TOKENS
from rsqa.engines.generation import Row
from rsqa.engines.scoring import Branches, Group, edge_logprobs, option_logprobs, pack
from rsqa.engines.words import Words
from rsqa.models.language import Language, read
from rsqa.models.writing import Desk
from rsqa.tasks.question import Question

OPENING, CLOSING = "<answer>", "</answer>"


class Tags:
    """Finds the token that completes a tag in a growing text."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._may_close = lru_cache(maxsize=None)(lambda token: ">" in words.decode([token]))

    def completed(self, tokens: Sequence[int], tag: str) -> bool:
        """Whether the last token completed `tag`; a token is at least one byte long."""
        return self._may_close(tokens[-1]) and tag in self._words.decode(tokens[-len(tag) :])


class ReasonedScores:
    """The options of one question behind texts of different length.

    Where the text meets the answer, one token may hold the end of the one and the beginning of the other. Therefore the
    token that completed `<answer>` is taken back, and its share of the tag is spelled anew together with each option:
    p(option) starts there, closing the tag included.
    """

    def __init__(self, words: Words, question: Question, suffix: tuple[int, ...], device: torch.device) -> None:
        """`suffix`: what is read of the question before its text is written."""
        self._words, self._question, self._suffix, self._device = words, question, suffix, device
        self._tags = Tags(words)
        self._groups: dict[str, list[Group]] = {}
        """By the share of the tag that is spelled anew; nearly always the one of `>`."""
        self.groups_for(">")

    def groups_for(self, tail: str) -> list[Group]:
        """Options behind `tail`; the first token of each group stands for the last token of the text."""
        if tail not in self._groups:
            options = self._words.options(self._question, before=tail)
            self._groups[tail] = pack([Branches((0,), options)], self._device, PACKED_TOKENS)
        return self._groups[tail]

    def score(self, language: Language, desk: Desk, position: int, rows: Sequence[Row]) -> Tensor:
        """Rows as they lie on the desk -> (n, K) log p(option), NaN in those that never reached `<answer>`.

        `position`: the rotary position behind the prefix.
        """
        tails = [self._tail(row.tokens) for row in rows]
        scores = torch.full((len(rows), len(self._question.options)), torch.nan, device=self._device)
        for tail in sorted({tail for tail in tails if tail is not None}):
            chosen = [i for i, t in enumerate(tails) if t == tail]
            for group in self.groups_for(tail):
                edges = self._score_behind(language, desk, position, group, [rows[i] for i in chosen])
                for share in group.shares:
                    scores[chosen, share.options] = option_logprobs(edges, share)
        return scores

    def _score_behind(self, language: Language, desk: Desk, position: int, group: Group, rows: Sequence[Row]) -> Tensor:
        """-> (n, E) edges of a group behind texts of their own length, the last token but one read again as its root.

        The last token is taken back. What a row holds from the root on is not looked at.
        """
        device = self._device
        ids = group.ids.repeat(len(rows), 1)  # (n, S)
        ids[:, 0] = torch.tensor([[*self._suffix, *row.tokens][-2] for row in rows], device=device)
        held = torch.tensor([row.start + len(row.tokens) - 2 for row in rows], device=device)[:, None]
        slots = torch.tensor([row.slot for row in rows], device=device)
        n_before = int(held.max())
        before = [(keys[slots, :, :n_before], values[slots, :, :n_before]) for keys, values in desk.layers]
        n_prefix = rows[0].start - len(self._suffix)
        positions = (position - n_prefix + held + group.depths).expand(3, -1, -1)
        seen = (torch.arange(n_before, device=device) < held)[:, None].expand(-1, len(group), -1)  # (n, S, T)
        mask = torch.cat([seen, group.mask.expand(len(rows), -1, -1)], dim=2)[:, None]
        hidden, _ = read(language, language.embed(ids), language.turns(positions), mask, before, group.heads)
        return edge_logprobs(language, hidden, group)

    def text(self, tokens: list[int]) -> str:
        """What was written, cut behind `<answer>`."""
        text = self._words.decode(tokens)
        return text[: text.index(OPENING) + len(OPENING)] if OPENING in text else text

    def _tail(self, tokens: Sequence[int]) -> str | None:
        """The characters of the last token that belong to `<answer>`; None when it did not complete it."""
        if not self._tags.completed(tokens, OPENING):
            return None
        before, last = self._words.decode(tokens[-len(OPENING) : -1]), self._words.decode(tokens[-1:])
        return next(last[:n] for n in range(1, len(last) + 1) if (before + last[:n]).endswith(OPENING))
