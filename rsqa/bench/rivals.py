"""The other sides: transformers' own `generate`, from the way most people call it to the best that it can do.

T tiles, N patches of a tile, Q questions, B (tile, question) pairs, S tokens of the longest prompt, D width.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from rsqa.bench.work import Case, Setup, pictures, prompt_ids, questions
from rsqa.engines.cards import MAX_PIXELS, MIN_PIXELS, ModelCard, load_card
from rsqa.engines.words import Words
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import DTYPES, load_tokenizer
from rsqa.tasks.prompts import END
from rsqa.tasks.question import Question

BATCHES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Pairs at once that the best batch is looked for among."""
SLOWER = 0.8
"""Of the best rate: larger batches than one that falls below are not tried."""
CAP = 1024
"""Most new tokens in the loop of TinyRS's authors."""
Tokens = list[list[list[int]]]
"""Per tile and question the tokens that were generated."""
Inputs = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(B,) tiles, (B,) questions -> what `generate` is called with."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A checkpoint as transformers loads it."""

    network: Any
    processor: Any
    words: Words
    card: ModelCard
    device: str
    on_device: bool
    """Whether pictures are processed on the device, by torchvision, or by Pillow on the CPU."""

    @property
    def processed_by(self) -> str:
        """What makes numbers of a picture, in words."""
        return f"torchvision on {self.device}" if self.on_device else "Pillow"

    def pixels(self, images: list[Any]) -> tuple[Tensor, Tensor]:
        """(H, W, 3) uint8 or PIL pictures -> (patches of all, values of a patch), (1, 3) the grid of one picture."""
        more = {"device": self.device} if self.on_device else {}
        made = self.processor(images=images, return_tensors="pt", **more)
        return made["pixel_values"].to(self.device), made["image_grid_thw"][:1].to(self.device)

    def generate(self, budget: int, **inputs: Any) -> list[list[int]]:
        """Greedy -> the `budget` new tokens of every row."""
        made = self.network.generate(**inputs, max_new_tokens=budget, do_sample=False)
        new: list[list[int]] = made[:, -budget:].tolist()
        return new


def load_rival(setup: Setup, on_device: bool) -> Rival:
    """Load the checkpoint of `setup`; `on_device`: see `Rival`."""
    architecture: Any = transformers.Qwen2VLForConditionalGeneration
    network = architecture.from_pretrained(
        setup.folder, dtype=DTYPES[setup.dtype], attn_implementation="sdpa", local_files_only=True
    )
    network = network.to(setup.device).eval().requires_grad_(False)
    card = load_card(setup.folder)
    words = Words(load_tokenizer(open_checkpoint(Path(setup.folder))), card)
    # No end token: all sides write equally many tokens, and random weights never end.
    settings: Any = transformers.GenerationConfig
    network.generation_config = settings(pad_token_id=words.encode("<|endoftext|>")[0])
    return Rival(network, _processor(on_device), words, card, setup.device, on_device)


class LinearPatches(nn.Module):
    """The patch embedding as the matrix product that it is; as a convolution it is many times slower.

    transformers can do so itself (`fusion_config`), but 5.23 leaves the new weights at random for checkpoints whose
    names begin with `model.`.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.proj = nn.Linear(convolution.weight[0].numel(), len(convolution.weight), bias=False, device="meta")
        self.proj.weight = nn.Parameter(convolution.weight.flatten(1), requires_grad=False)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, values of a patch) -> (N, width)."""
        embedded: Tensor = self.proj(patches.to(self.proj.weight.dtype))
        return embedded


def can_process_on(device: str) -> bool:
    """Whether transformers' processor can use the GPU: only with torchvision."""
    return device != "cpu" and find_spec("torchvision") is not None


def _processor(on_device: bool) -> Any:
    size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    if on_device:
        return transformers.Qwen2VLImageProcessor(size=size)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(size=size)


class OneByOne:
    """(a) One tile and one question per call, the picture processed anew each time."""

    def __init__(self, rival: Rival) -> None:
        self._rival = rival

    def prepare(self, case: Case) -> list[str]:
        """Answer once, untimed; -> what was done."""
        self._case, self._asked = case, questions(case)
        self._images = np.ascontiguousarray(np.moveaxis(pictures(case), 1, 3))
        side = self._rival.card.model_side(case.tile_px, case.tile_px)
        self._ids = prompt_ids(self._rival.words, self._asked, side[0] * side[1] // 28**2)
        self._answer(0, 0)
        how = f"pictures processed by {self._rival.processed_by}"
        return [f"transformers generate, one tile and one question per call; prompts tokenised ahead, {how}"]

    def run(self) -> dict[str, float]:
        """Everything, timed by the caller."""
        self.tokens(self._case.n_tiles)
        return {}

    def tokens(self, n_tiles: int) -> Tokens:
        """The first `n_tiles` tiles."""
        return [[self._answer(tile, q) for q in range(self._case.n_questions)] for tile in range(n_tiles)]

    def option_logprobs(self, n_tiles: int) -> list[list[list[float]]] | None:
        """Per tile, question and option its log-probability with the end token, each option on its own."""
        if self._case.answer_tokens is not None:
            return None
        return [
            [[self._path(tile, q, option) for option in self._asked[q].options] for q in range(self._case.n_questions)]
            for tile in range(n_tiles)
        ]

    def _answer(self, tile: int, question: int) -> list[int]:
        with torch.inference_mode():
            return self._rival.generate(self._case.budget, **self._inputs(tile, self._ids[question]))[0]

    def _path(self, tile: int, question: int, option: str) -> float:
        before, after = self._ids[question], list(self._rival.words.encode(option + END))
        self._rival.network.model.rope_deltas = None  # of the call before: positions would be taken from it
        with torch.inference_mode():
            logits = self._rival.network(**self._inputs(tile, before + after)).logits[0, len(before) - 1 : -1]
        steps = logits.float().log_softmax(-1)
        return float(steps[range(len(after)), after].sum())

    def _inputs(self, tile: int, ids: list[int]) -> dict[str, Tensor]:
        pixels, grid = self._rival.pixels([self._images[tile]])
        return _prompt(self._rival, ids) | {"pixel_values": pixels, "image_grid_thw": grid}


def one_by_one(setup: Setup) -> OneByOne:
    """(a)"""
    return OneByOne(load_rival(setup, can_process_on(setup.device)))


def reference(setup: Setup) -> OneByOne:
    """What all sides are compared with: as (a), with pictures by Pillow on any device."""
    return OneByOne(load_rival(setup, on_device=False))


def _prompt(rival: Rival, ids: list[int]) -> dict[str, Tensor]:
    row = torch.tensor([ids], device=rival.device)
    types = (row == rival.network.config.image_token_id).int()
    return {"input_ids": row, "attention_mask": torch.ones_like(row), "mm_token_type_ids": types}


class FromFiles:
    """(c) The published evaluation loop of TinyRS, re-enacted: a file opened, a prompt built, one call, one answer."""

    def __init__(self, setup: Setup) -> None:
        self._rival, self._folder = load_rival(setup, can_process_on(setup.device)), Path(setup.scratch)

    def prepare(self, case: Case) -> list[str]:
        """Write the files, answer once, untimed; -> what was done."""
        from PIL import Image

        self._case, self._asked = case, questions(case)
        for number, tile in enumerate(pictures(case)):
            Image.fromarray(np.moveaxis(tile, 0, 2)).save(self._folder / f"{number}.png")
        self._answer(0, self._asked[0])
        return [
            "transformers re-enactment of TinyRS's evaluation loop (batch 1, PNG files, prompt prefixes, cap of 1024 "
            "new tokens); LMDeploy's PyTorch engine with CUDA graphs would decode faster"
        ]

    def run(self) -> dict[str, float]:
        """Everything, timed by the caller."""
        self.tokens(self._case.n_tiles)
        return {}

    def tokens(self, n_tiles: int) -> Tokens:
        """The first `n_tiles` tiles."""
        return [[self._answer(tile, question) for question in self._asked] for tile in range(n_tiles)]

    def _answer(self, tile: int, question: Question) -> list[int]:
        from PIL import Image

        with Image.open(self._folder / f"{tile}.png") as file:
            image = file.convert("RGB")
        pixels, grid = self._rival.pixels([image])
        [ids] = prompt_ids(self._rival.words, [question], int(grid.prod()) // 4)
        inputs = _prompt(self._rival, ids) | {"pixel_values": pixels, "image_grid_thw": grid}
        with torch.inference_mode():
            [new] = self._rival.generate(min(self._case.budget, CAP), **inputs)
        self._rival.words.decode(new)
        return new


@dataclass(frozen=True, slots=True)
class Prompts:
    """The questions of a case, padded on the left to one length."""

    ids: Tensor
    """(Q, S)"""
    mask: Tensor
    types: Tensor
    embeds: Tensor
    """(Q, S, D), the picture's places not filled in."""
    positions: Tensor
    """(4, Q, S): in the text alone, then of time, row and column."""
    grid: Tensor
    """(1, 3)"""


def pad_prompts(rival: Rival, ids: list[list[int]], grid: Tensor) -> Prompts:
    """What does not depend on the tile, done once."""
    longest = max(map(len, ids))
    fill = rival.network.generation_config.pad_token_id
    padded = torch.tensor([[fill] * (longest - len(row)) + row for row in ids], device=rival.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=rival.device)
    types = (padded == rival.network.config.image_token_id).int()
    places, _ = rival.network.model.get_rope_index(
        padded, mm_token_type_ids=types, image_grid_thw=grid.expand(len(ids), 3), attention_mask=mask
    )
    in_text = (mask.cumsum(-1) - 1).clamp(min=0)
    embeds = rival.network.get_input_embeddings()(padded)
    return Prompts(padded, mask, types, embeds, torch.cat([in_text[None], places]), grid)


def pixels_again(rival: Rival, prompts: Prompts, pixels: Tensor) -> Inputs:
    """(T, N, values of a patch) -> inputs that take a tile through the vision tower for each of its questions."""

    def inputs(tiles: Tensor, asked: Tensor) -> dict[str, Tensor]:
        return {
            "input_ids": prompts.ids[asked],
            "attention_mask": prompts.mask[asked],
            "mm_token_type_ids": prompts.types[asked],
            "pixel_values": pixels[tiles].flatten(0, 1),
            "image_grid_thw": prompts.grid.expand(len(tiles), 3),
        }

    return inputs


def features_once(rival: Rival, prompts: Prompts, pixels: Tensor) -> Inputs:
    """(T, N, values of a patch) -> inputs with the visual tokens filled in, computed once per tile."""
    grid = prompts.grid.expand(len(pixels), 3)
    seen = torch.stack(list(rival.network.model.get_image_features(pixels.flatten(0, 1), grid).pooler_output))

    def inputs(tiles: Tensor, asked: Tensor) -> dict[str, Tensor]:
        embeds = prompts.embeds[asked]  # a copy
        embeds[prompts.types[asked] == 1] = seen[tiles].flatten(0, 1).to(embeds.dtype)
        return {
            "inputs_embeds": embeds,
            "attention_mask": prompts.mask[asked],
            "position_ids": prompts.positions[:, asked],
        }

    return inputs


class Batched:
    """(b), (b') Many pairs per call, the best batch found by trying, the next pictures processed meanwhile."""

    def __init__(self, setup: Setup, feed: Callable[[Rival, Prompts, Tensor], Inputs], way: str) -> None:
        self._rival, self._feed, self._way = load_rival(setup, can_process_on(setup.device)), feed, way
        visual = self._rival.network.model.visual
        visual.patch_embed = LinearPatches(visual.patch_embed.proj)

    def prepare(self, case: Case) -> list[str]:
        """Find the best batch; -> what was done."""
        self._case = case
        self._images = np.ascontiguousarray(np.moveaxis(pictures(case), 1, 3))
        side = self._rival.card.model_side(case.tile_px, case.tile_px)
        ids = prompt_ids(self._rival.words, questions(case), side[0] * side[1] // 28**2)
        with torch.inference_mode():
            self._prompts = pad_prompts(self._rival, ids, self._rival.pixels([self._images[0]])[1])
        rates = self._sweep()
        self._batch = max(rates, key=lambda batch: rates[batch])
        if self._rival.device != "cpu":
            torch.cuda.empty_cache()
        tried = ", ".join(f"{batch}: {rate:.1f}/s" for batch, rate in rates.items())
        return [
            f"transformers generate, {self._way}; {self._batch} pairs at once, tried {tried}; sdpa, padded on the "
            "left, patch embedding as a matrix product, pictures processed once per tile by "
            f"{self._rival.processed_by} in a thread ahead"
        ]

    def run(self) -> dict[str, float]:
        """Everything, timed by the caller."""
        self.tokens(self._case.n_tiles)
        return {}

    def tokens(self, n_tiles: int) -> Tokens:
        """The first `n_tiles` tiles."""
        return self._all(self._images[:n_tiles], self._batch)

    def _sweep(self) -> dict[int, float]:
        """-> pairs at once: pairs per second."""
        pairs, rates = self._case.n_tiles * self._case.n_questions, dict[int, float]()
        sizes = [batch for batch in BATCHES if batch <= pairs] or [pairs]
        for batch in sizes:
            try:
                rates[batch] = max(self._rate(batch) for _ in range(2))  # the first is a warm-up, and may be a stall
            except torch.OutOfMemoryError:
                break
            if rates[batch] < SLOWER * max(rates.values()):
                break
        if not rates:
            raise torch.OutOfMemoryError(f"out of memory at {sizes[0]} pairs")
        return rates

    def _rate(self, batch: int) -> float:
        n_tiles = max(1, batch // self._case.n_questions)
        start = time.perf_counter()
        self._all(self._images[:n_tiles], batch)
        return n_tiles * self._case.n_questions / (time.perf_counter() - start)

    def _all(self, images: NDArray[np.uint8], batch: int) -> Tokens:
        n_questions = self._case.n_questions
        step = max(1, batch // n_questions)
        pieces = (images[first : first + step] for first in range(0, len(images), step))
        answers: Tokens = []
        with torch.inference_mode():
            for pixels in ahead(pieces, self._patches):
                inputs = self._feed(self._rival, self._prompts, pixels)
                pairs = torch.cartesian_prod(torch.arange(len(pixels)), torch.arange(n_questions))
                new: list[list[int]] = []
                for some in torch.split(pairs.to(self._rival.device), batch):
                    new += self._rival.generate(self._case.budget, **inputs(some[:, 0], some[:, 1]))
                answers += [new[first : first + n_questions] for first in range(0, len(new), n_questions)]
        return answers

    def _patches(self, images: NDArray[np.uint8]) -> Tensor:
        pixels, _ = self._rival.pixels(list(images))
        return pixels.reshape(len(images), -1, pixels.shape[-1])


def batched(setup: Setup) -> Batched:
    """(b)"""
    return Batched(setup, pixels_again, "many pairs per call")


def cached(setup: Setup) -> Batched:
    """(b')"""
    return Batched(setup, features_once, "many pairs per call, the vision tower once per tile")


def ahead(pieces: Iterator[Any], make: Callable[[Any], Tensor]) -> Iterator[Tensor]:
    """`make` of each piece in order, done by a thread, at most two ahead of whoever takes them."""
    made: queue.Queue[Tensor | Exception | None] = queue.Queue(maxsize=2)

    def work() -> None:
        try:
            for piece in pieces:
                made.put(make(piece))
            made.put(None)
        except Exception as error:
            made.put(error)

    threading.Thread(target=work, daemon=True).start()
    while (item := made.get()) is not None:
        if isinstance(item, Exception):
            raise item
        yield item
