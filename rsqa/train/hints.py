"""A teacher for the vision tower that is there in training only: what the visual tokens say without the language part.

Learning to see through a language part that has not learned to look is slow. Two readings spare the wait: a linear one
of the mean visual token, and one that compares visual tokens with the word vectors of names, so that "is there a …?"
becomes a comparison that the language part can learn once for all nouns.

B pictures, S visual tokens, D hidden size, N nouns, M names of nouns, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsqa.train import words
from rsqa.train.data import CLASS_NAMES, IGNORE, Known

STEEPNESS, THRESHOLD = 16.0, 0.25
"""A token says a name when the cosine to the name's word vector exceeds the threshold."""


Read = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Logits: linear of nouns (B, N) and classes (B, C); of names in each token (B, S, M) and somewhere (B, M); of classes
by their word vectors (B, C)."""


class Hints(nn.Module):
    """Readings of visual tokens, and their loss against what is known of the pictures."""

    names: Tensor
    classes: Tensor
    noun_of: Tensor
    in_cells: Tensor
    label_of: Tensor

    def __init__(self, dim: int, vocab_size: int, tokenizer: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, len(words.NOUNS) + len(CLASS_NAMES))
        spoken = [(_bare(name), i) for i, noun in enumerate(words.NOUNS.values()) for name in (*noun.one, *noun.many)]
        self.register_buffer("names", _shares([n for n, _ in spoken], vocab_size, tokenizer), persistent=False)
        self.register_buffer("classes", _shares(CLASS_NAMES, vocab_size, tokenizer), persistent=False)
        self.register_buffer("noun_of", torch.tensor([i for _, i in spoken]), persistent=False)
        labels = [list(words.NOUNS).index(noun) for noun in words.SCENE_NOUNS.values()]
        local = [m for m, (_, i) in enumerate(spoken) if i in labels]
        self.register_buffer("in_cells", torch.tensor(local), persistent=False)
        self.register_buffer("label_of", torch.tensor([labels.index(spoken[m][1]) for m in local]), persistent=False)

    def forward(self, visual: Tensor, vectors: Tensor) -> Read:
        """(B, S, D) visual tokens, (V, D) word vectors -> what they say."""
        visual, vectors = visual.float(), vectors.float()
        tokens = F.normalize(visual, dim=-1)
        match = STEEPNESS * (tokens @ F.normalize(self.names @ vectors, dim=-1).T - THRESHOLD)  # (B, S, M)
        somewhere = match.logsumexp(dim=1) - torch.tensor(float(visual.shape[1])).log()
        whole = F.normalize(visual.mean(dim=1), dim=-1) @ F.normalize(self.classes @ vectors, dim=-1).T
        n_nouns = len(words.NOUNS)
        linear = self.linear(visual.mean(dim=1))
        return linear[:, :n_nouns], linear[:, n_nouns:], match, somewhere, STEEPNESS * whole

    def loss(self, read: Read, known: Known) -> Tensor:
        """Readings against what is known; what is unknown does not count."""
        nouns, classes, match, somewhere, spoken = read
        pictures = _presence(nouns, known.nouns) + _presence(somewhere, known.nouns[:, self.noun_of])
        scenes = _class(classes, known.scene) + _class(spoken, known.scene)
        return (pictures + scenes) / 2 + _presence(match[..., self.in_cells], known.cells[..., self.label_of])


def _presence(logits: Tensor, truth: Tensor) -> Tensor:
    known = truth >= 0
    loss = F.binary_cross_entropy_with_logits(logits.float(), truth.float().clamp(min=0.0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def _class(logits: Tensor, scene: Tensor) -> Tensor:
    named = (scene != IGNORE).sum()
    return F.cross_entropy(logits.float(), scene, ignore_index=IGNORE, reduction="sum") / named.clamp(min=1)


def _bare(name: str) -> str:
    return name.removeprefix("a ").removeprefix("an ").removeprefix("the ")


def _shares(names: Sequence[str], vocab_size: int, tokenizer: Any) -> Tensor:
    """-> (names, V): a name's word vector is the mean of its tokens', as they stand inside a sentence."""
    table = torch.zeros(len(names), vocab_size)
    for row, name in enumerate(names):
        ids = tokenizer.encode(f" {name}", add_special_tokens=False)
        for token in ids:
            table[row, token] += 1 / len(ids)
    return table
