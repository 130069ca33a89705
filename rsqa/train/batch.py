"""What one forward pass of training is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rsqa.train.forward import Framed
from rsqa.train.packing import Packed


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the pictures of a batch without asking."""

    nouns: Tensor
    """(B, nouns) 1 present, 0 absent, -1 unknown, in the order of words.NOUNS."""
    scene: Tensor
    """(B,) index into CLASS_NAMES, IGNORE where the class is unknown."""
    ground: Tensor
    """(B, S, cells, kinds) share of each of words.GROUND in the cells of each visual token; zero where unknown."""
    things: Tensor
    """(B, S, nouns of words.BOXED) 1 the middle of a thing stands in the token, 0 none does, -1 unknown."""
    boxes: Tensor
    """(B, S, nouns of words.BOXED, 4) sides of the largest such thing, from the token's middle, in token sides."""
    said: Tensor
    """(B, W) 1 a word of the captions, 0 not, -1 where there are none; see `rsqa.train.data.CaptionWords`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B pictures of one size, the first A of them with chains of text packed behind them."""

    pixels: Tensor | None
    """(B, 3, h, w) on the scale 0..255; None: text alone."""
    framed: Framed
    text: Packed
    known: Known | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        known = None if self.known is None else Known(*(t.to(device) for t in _tensors(self.known)))
        pixels = None if self.pixels is None else self.pixels.to(device)
        return replace(self, pixels=pixels, text=self.text.to(device), known=known)


def ahead(draw: Callable[[int], list[Batch]], first: int, end: int) -> Iterator[tuple[int, list[Batch]]]:
    """Steps with what is drawn for them; while one is worked on, the next one's pictures are decoded."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, first) if first < end else None
        for step in range(first, end):
            assert coming is not None
            drawn = coming.result()
            coming = pool.submit(draw, step + 1) if step + 1 < end else None
            yield step, drawn


def split(batch: Batch, n: int) -> list[Batch]:
    """A batch with pictures in `n`, each with its share of those that have text; shares differ by one at most."""
    if n == 1:
        return [batch]
    assert batch.pixels is not None  # text alone comes in its own small batches
    b, a = len(batch.pixels), len(batch.text.ids)
    pieces = []
    for i in range(n):
        asked, rest = torch.arange(a).tensor_split(n)[i], torch.arange(a, b).tensor_split(n)[i]
        chosen = torch.cat([asked, rest])
        known = None if batch.known is None else Known(*(t[chosen] for t in _tensors(batch.known)))
        pieces.append(Batch(batch.pixels[chosen], batch.framed, batch.text.pictures(asked), known))
    return pieces


def _tensors(known: Known) -> list[Tensor]:
    return [getattr(known, f.name) for f in fields(known)]
