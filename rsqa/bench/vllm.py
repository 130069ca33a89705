"""(d) vLLM, run by the Python of an environment that has it; rsqa lends it the prompts.

All questions of a tile stand side by side, so that its caches of prefixes and encoder outputs can serve them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import vllm
from PIL import Image

from rsqa.bench.work import Case, Setup, pictures, prompt_ids, questions
from rsqa.engines.cards import load_card
from rsqa.engines.words import Words
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import load_tokenizer

ROOM = 512
"""Tokens of a prompt beside its picture, at most."""
MEMORY = 0.5
"""Share of the GPU that vLLM takes at once: the other sides stay loaded beside it."""


class Vllm:
    """vLLM's offline `generate`."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._room = setup, 0
        self._llm: Any = None
        card = load_card(setup.folder)
        self._card, self._words = card, Words(load_tokenizer(open_checkpoint(Path(setup.folder))), card)

    def prepare(self, case: Case) -> list[str]:
        """Ready an engine with room for this case, answer the first tile; -> what was done."""
        side = self._card.model_side(case.tile_px, case.tile_px)
        room = side[0] * side[1] // 28**2 + ROOM + case.budget
        if self._llm is None or room > self._room:
            self._llm, self._room = self._engine(room), room
        # One placeholder a picture: vLLM puts in as many as the picture has.
        ids = prompt_ids(self._words, questions(case), 1)
        self._prompts = [
            {"prompt_token_ids": row, "multi_modal_data": {"image": Image.fromarray(np.moveaxis(tile, 0, 2))}}
            for tile in pictures(case)
            for row in ids
        ]
        self._case = case
        self._ask(1)
        return [
            f"vLLM {vllm.__version__}, offline generate, prefix caching, all pairs in one call; its cache of processed "
            "pictures may be warm from the run before"
        ]

    def run(self) -> dict[str, float]:
        """Everything, timed by the caller; nothing is remembered from the run before."""
        self._llm.reset_prefix_cache()
        self._ask(self._case.n_tiles)
        return {}

    def tokens(self, n_tiles: int) -> list[list[list[int]]]:
        """The first `n_tiles` tiles."""
        flat = self._ask(n_tiles)
        step = self._case.n_questions
        return [flat[first : first + step] for first in range(0, len(flat), step)]

    def _ask(self, n_tiles: int) -> list[list[int]]:
        budget = self._case.budget
        how = vllm.SamplingParams(
            temperature=0.0, max_tokens=budget, min_tokens=budget, ignore_eos=True, detokenize=False
        )
        replies = self._llm.generate(self._prompts[: n_tiles * self._case.n_questions], how, use_tqdm=False)
        return [list(reply.outputs[0].token_ids) for reply in replies]

    def _engine(self, room: int) -> Any:
        return vllm.LLM(
            self._setup.folder,
            dtype=self._setup.dtype,
            max_model_len=room,
            enable_prefix_caching=True,
            limit_mm_per_prompt={"image": 1},
            gpu_memory_utilization=MEMORY,
            seed=0,
        )
