"""A teacher for the vision tower that is there in training only: what the visual tokens say without the language part.

Learning to see through a language part that has not learned to look is slow. Readings spare the wait: a linear
one of the mean visual token; one that compares visual tokens with the word vectors of names, so that "is there a …?"
becomes a comparison that the language part can learn once for all nouns; and maps, where they are known: each visual
token tells the shares of all kinds of ground in its own small cells, and the sides of the things whose middle it holds;
halfway through the language part it tells these sides in the picture, the first digit as it will be written.
Pictures of which only captions are known tell which words these hold.

B pictures, S visual tokens, D hidden size, N nouns, M names of nouns, C classes, K kinds of ground, T kinds of things,
W words of captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsqa.train import words
from rsqa.train.batch import Known
from rsqa.train.data import CLASS_NAMES
from rsqa.train.forward import Seen
from rsqa.train.packing import IGNORE
from rsqa.train.pictures import CELLS_PER_TOKEN

STEEPNESS, THRESHOLD = 16.0, 0.25
"""A token says a name when the cosine to the name's word vector exceeds the threshold."""
THERE, GONE = 0.06, 0.004
"""Share of a visual token's ground from which a kind stands in it, and up to which it does not."""
TENS = 11
"""0 to 10 tenths of the picture."""
BOX_WEIGHT, CAPTION_WEIGHT = 3.0, 3.0
"""Distances are shares of a token's side, and few words of many are said: both losses are small."""


@dataclass(frozen=True, slots=True)
class Read:
    """Logits of all readings."""

    nouns: Tensor
    """(B, N) linear."""
    classes: Tensor
    """(B, C) linear."""
    tokens: Tensor
    """(B, S, M) names in each token."""
    somewhere: Tensor
    """(B, M) names in any token."""
    spoken: Tensor
    """(B, C) classes by their word vectors."""
    ground: Tensor
    """(B, S, cells, K) linear in each token."""
    things: Tensor
    """(B, S, T) linear in each token."""
    boxes: Tensor
    """(B, S, T, 4) linear in each token; see `Known.boxes`."""
    said: Tensor
    """(B, W) linear."""
    digits: Tensor
    """(A, S, T, 4, TENS + 1) linear halfway through the language part; see `_digits`."""


class Hints(nn.Module):
    """Readings of visual tokens, and their loss against what is known of the pictures."""

    names: Tensor
    classes: Tensor
    noun_of: Tensor
    local: Tensor
    kind_of: Tensor

    def __init__(self, dim: int, vocab_size: int, encode: Callable[[str], Sequence[int]], n_said: int) -> None:
        """`n_said`: words of captions."""
        super().__init__()
        self.linear = nn.Linear(dim, len(words.NOUNS) + len(CLASS_NAMES))
        self.ground = nn.Linear(dim, CELLS_PER_TOKEN**2 * len(words.GROUND))
        self.things = nn.Linear(dim, len(words.BOXED) * 5)
        self.digits = nn.Linear(dim, len(words.BOXED) * 4 * (TENS + 1))
        self.said = nn.Parameter(torch.zeros(n_said, dim))
        self.said_bias = nn.Parameter(torch.zeros(n_said))
        spoken = [
            (words.bare(name), i) for i, noun in enumerate(words.NOUNS.values()) for name in (*noun.one, *noun.many)
        ]
        self.register_buffer("names", _shares([n for n, _ in spoken], vocab_size, encode), persistent=False)
        self.register_buffer("classes", _shares(CLASS_NAMES, vocab_size, encode), persistent=False)
        self.register_buffer("noun_of", torch.tensor([i for _, i in spoken]), persistent=False)
        kinds = {noun: words.GROUND.index(label) for label, noun in words.SCENE_NOUNS.items()}
        names = [(m, kinds[noun]) for m, (_, i) in enumerate(spoken) if (noun := list(words.NOUNS)[i]) in kinds]
        self.register_buffer("local", torch.tensor([m for m, _ in names]), persistent=False)
        self.register_buffer("kind_of", torch.tensor([kind for _, kind in names]), persistent=False)

    def forward(self, seen: Seen, vectors: Tensor) -> Read:
        """What was seen, (V, D) word vectors -> what it says."""
        visual, vectors = seen.visual.float(), vectors.float()
        digits = self.digits(seen.halfway).unflatten(-1, (len(words.BOXED), 4, TENS + 1))
        tokens = F.normalize(visual, dim=-1)
        match = STEEPNESS * (tokens @ F.normalize(self.names @ vectors, dim=-1).T - THRESHOLD)  # (B, S, M)
        somewhere = match.logsumexp(dim=1) - torch.tensor(float(visual.shape[1])).log()
        whole = F.normalize(visual.mean(dim=1), dim=-1) @ F.normalize(self.classes @ vectors, dim=-1).T
        n_nouns = len(words.NOUNS)
        linear = self.linear(visual.mean(dim=1))
        ground = self.ground(visual).unflatten(-1, (CELLS_PER_TOKEN**2, len(words.GROUND)))
        things = self.things(visual).unflatten(-1, (len(words.BOXED), 5))
        return Read(
            linear[:, :n_nouns], linear[:, n_nouns:], match, somewhere, STEEPNESS * whole, ground, things[..., 0],
            things[..., 1:], F.linear(visual.mean(dim=1), self.said, self.said_bias), digits,
        )  # fmt: skip

    def loss(self, read: Read, known: Known) -> Tensor:
        """Readings against what is known; what is unknown does not count."""
        pictures = _presence(read.nouns, known.nouns) + _presence(read.somewhere, known.nouns[:, self.noun_of])
        scenes = _class(read.classes, known.scene) + _class(read.spoken, known.scene)
        places = _presence(read.tokens[..., self.local], _stands(known.ground)[..., self.kind_of])
        things = _presence(read.things, known.things) + BOX_WEIGHT * _sides(read.boxes, known.boxes, known.things == 1)
        said = CAPTION_WEIGHT * _presence(read.said, known.said)
        digits = _digits(read.digits, known.boxes[: len(read.digits)], known.things[: len(read.digits)] == 1)
        return (pictures + scenes) / 2 + places + _shared(read.ground, known.ground) + things + said + digits


def _sides(boxes: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Mean distance of the sides of known things, in token sides."""
    loss = F.smooth_l1_loss(boxes.float(), truth, beta=0.1, reduction="none").sum(dim=-1)
    return (loss * known).sum() / known.sum().clamp(min=1)


def _digits(logits: Tensor, boxes: Tensor, known: Tensor) -> Tensor:
    """Loss of the first digit of each side of known things as they will be written, and of the side in tenths.

    A visual token knows where in itself a thing is; where it stands in the picture only the language part can tell it.
    """
    grid = round(boxes.shape[1] ** 0.5)
    at = torch.arange(grid, device=boxes.device)
    row, col = (axis.flatten() for axis in torch.meshgrid(at, at, indexing="ij"))
    middle = torch.stack([col, row, col, row], dim=-1) + 0.5  # (S, 4)
    tenths = ((boxes + middle[:, None]) / grid * 10).clamp(0, 10)[known]  # (things, 4)
    first, exact = torch.split(logits[known].float(), [TENS, 1], dim=-1)
    written = (tenths * 10).round().long() // 10
    loss = F.cross_entropy(first.flatten(0, 1), written.flatten(), reduction="sum")
    loss = loss + F.smooth_l1_loss(exact[..., 0], tenths, beta=0.2, reduction="sum")
    return loss / (4 * known.sum()).clamp(min=1)


def _stands(ground: Tensor) -> Tensor:
    """(B, S, cells, K) shares -> (B, S, K): 1 the kind stands in the token, 0 it does not, -1 unknown."""
    share = ground.mean(dim=2)
    stands = torch.where(share >= THERE, 1.0, torch.where(share <= GONE, 0.0, -1.0))
    return torch.where(ground.sum(dim=(2, 3))[..., None] > 0, stands, -1.0)


def _shared(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross entropy of (…, K) shares that sum to one, or to zero where unknown."""
    return -(shares * logits.float().log_softmax(dim=-1)).sum() / shares.sum().clamp(min=1)


def _presence(logits: Tensor, truth: Tensor) -> Tensor:
    known = truth >= 0
    loss = F.binary_cross_entropy_with_logits(logits.float(), truth.float().clamp(min=0.0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def _class(logits: Tensor, scene: Tensor) -> Tensor:
    named = (scene != IGNORE).sum()
    return F.cross_entropy(logits.float(), scene, ignore_index=IGNORE, reduction="sum") / named.clamp(min=1)


def _shares(names: Sequence[str], vocab_size: int, encode: Callable[[str], Sequence[int]]) -> Tensor:
    """-> (names, V): a name's word vector is the mean of its tokens', as they stand inside a sentence."""
    table = torch.zeros(len(names), vocab_size)
    for row, name in enumerate(names):
        ids = encode(f" {name}")
        for token in ids:
            table[row, token] += 1 / len(ids)
    return table
