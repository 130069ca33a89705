"""Closed questions to a model that thinks first: it writes up to `<answer>`, and the options are scored there.

B tiles, S tokens of a packed group, T tokens held, K options.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rsqa.engines.batching import PACKED_TOKENS
from rsqa.engines.generation import Generated
from rsqa.engines.scoring import Branches, Group, edge_logprobs, option_logprobs, pack
from rsqa.engines.words import Words
from rsqa.models.keyvalues import Behind, Prefix
from rsqa.models.qwen2vl import language
from rsqa.tasks.question import Question

OPENING = "<answer>"


class ReasonedScores:
    """The options of one question behind texts of different length.

    Where the text meets the answer, one token may hold the end of the one and the beginning of the other. Therefore the
    token that completed `<answer>` is taken back, and its share of the tag is spelled anew together with each option:
    p(option) starts there, closing the tag included.
    """

    def __init__(self, words: Words, question: Question, device: torch.device) -> None:
        self._words, self._question, self._device = words, question, device
        self._groups: dict[str, list[Group]] = {}
        """By the share of the tag that is spelled anew; nearly always the one of `>`."""
        self.groups_for(">")

    def groups_for(self, tail: str) -> list[Group]:
        """Options behind `tail`; the first token of each group stands for the last token of the text."""
        if tail not in self._groups:
            options = self._words.options(self._question, before=tail)
            self._groups[tail] = pack([Branches((0,), options)], self._device, PACKED_TOKENS)
        return self._groups[tail]

    def reached(self, tokens: list[int]) -> bool:
        """Whether the last token completed `<answer>`; a token is at least one byte long."""
        return OPENING in self._words.decode(tokens[-len(OPENING) :])

    def score(self, network: Any, prefix: Prefix, suffix: tuple[int, ...], written: Generated) -> Tensor:
        """-> (B, K) log p(option), NaN in rows that never reached `<answer>`."""
        tails = [self._tail(tokens) if self.reached(tokens) else None for tokens in written.tokens]
        scores = torch.full((len(tails), len(self._question.options)), torch.nan, device=self._device)
        read = [(*suffix, *tokens)[:-1] for tokens in written.tokens]  # what stands before the token taken back
        for tail in sorted({tail for tail in tails if tail is not None}):
            rows = torch.tensor([t == tail for t in tails], device=self._device)[:, None]
            for group in self.groups_for(tail):
                edges = _score_behind(network, prefix, group, read, written)
                for share in group.shares:
                    scores[:, share.options] = torch.where(
                        rows, option_logprobs(edges, share), scores[:, share.options]
                    )
        return scores

    def text(self, tokens: list[int]) -> str:
        """What was written, cut behind `<answer>`."""
        text = self._words.decode(tokens)
        return text[: text.index(OPENING) + len(OPENING)] if OPENING in text else text

    def _tail(self, tokens: list[int]) -> str:
        """The characters of the last token that belong to `<answer>`."""
        before, last = self._words.decode(tokens[-len(OPENING) : -1]), self._words.decode(tokens[-1:])
        return next(last[:n] for n in range(1, len(last) + 1) if (before + last[:n]).endswith(OPENING))


def _score_behind(
    network: Any, prefix: Prefix, group: Group, read: list[tuple[int, ...]], written: Generated
) -> Tensor:
    """-> (B, E) edges of a group behind rows of their own length; the last token of each is read again as the root."""
    device = group.ids.device
    ids = group.ids.repeat(len(read), 1)  # (B, S)
    ids[:, 0] = torch.tensor([row[-1] for row in read], device=device)
    before = torch.tensor([len(row) - 1 for row in read], device=device)[:, None]  # suffix and text before the root
    positions = (prefix.position + before + group.depths).expand(3, -1, -1)
    held = torch.arange(len(written.keys), device=device) < len(prefix.keys) + before  # (B, T)
    seen = torch.cat([held[:, None].expand(-1, len(group), -1), group.mask.expand(len(read), -1, -1)], dim=2)
    model = network.model.language_model
    hidden = language(model, model.embed_tokens(ids), positions, seen[:, None], Behind(written.keys))
    return edge_logprobs(network.lm_head, hidden[:, group.heads], group)
