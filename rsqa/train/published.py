"""What stages 1 to 3 learn from in the published format: conversations about pictures, from a model that is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from rsqa.engines.cards import ModelCard, load_card, native_side
from rsqa.engines.registry import find_model, locate
from rsqa.errors import RecipeError
from rsqa.tasks.prompts import DIRECT_SYSTEM
from rsqa.train.batch import Batch
from rsqa.train.conversation_batches import ConversationBatches, Steps
from rsqa.train.conversations import Conversations, read_conversations
from rsqa.train.hints import Hints
from rsqa.train.packing import IGNORE
from rsqa.train.prompts import OPEN, Prompt
from rsqa.train.recipe import Recipe
from rsqa.train.sampling import SHOWN


@dataclass(frozen=True, slots=True)
class Published:
    """Batches of conversations, and those held back."""

    recipe: Recipe
    tokenizer: Any
    base: ModelCard
    """Card of what is tuned, with the prompts of what comes out."""
    batches: ConversationBatches
    held: dict[str, ConversationBatches]
    rank: int

    @classmethod
    def of(
        cls, recipe: Recipe, data: Path, rank: int, ranks: int, n_micro: int, say: Callable[[str], None]
    ) -> Published:
        """Find every record below `data`. Raises InputError for records that can't be used, unless they are skipped."""
        if not recipe.init:
            raise RecipeError("conversations tune a model that is there; name it with init")
        found = find_model(recipe.init)
        base = found.card if not recipe.card else replace(load_card(recipe.card), side_px=found.card.side_px)
        tokenizer = AutoTokenizer.from_pretrained(locate(found).folder, local_files_only=True, trust_remote_code=False)

        def side(height: int, width: int) -> tuple[int, int]:
            if base.side_px is not None:
                return base.side_px, base.side_px
            return native_side(height, width, recipe.min_pixels, recipe.max_pixels)

        def batches(files: list[Conversations], weights: tuple[float, ...], steps: Steps) -> ConversationBatches:
            return ConversationBatches(
                files, weights, lambda text: tokenizer.encode(text, add_special_tokens=False), 0, side, steps,
                *(("sft", DIRECT_SYSTEM) if recipe.form == "sft" else ("chat", base.prompt.system)),
            )  # fmt: skip

        files = []
        for name in recipe.conversations:
            files.append(read_conversations(data / name, data / recipe.images, recipe.skip_bad))
            left_out = f", {files[-1].left_out.total} left out" if files[-1].left_out.total else ""
            say(f"{name}: {len(files[-1]):,} conversations about {len(files[-1].size):,} pictures{left_out}")
        share = -(-recipe.batch // ranks)
        steps = Steps(recipe.seed, -(-share // n_micro), n_micro, ranks, recipe.pack)
        weights = recipe.weights or (1.0,) * len(files)
        held = {
            name: batches(
                [read_conversations(data / name, data / recipe.images, recipe.skip_bad)], (1.0,), Steps(0, steps.micro)
            )
            for name in recipe.held
        }
        return cls(recipe, tokenizer, base, batches(files, weights, steps), held, rank)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.recipe.steps or self.batches.n_steps(self.recipe.epochs)

    def network(self) -> Qwen2VLForConditionalGeneration:
        """There is always a model to start from."""
        raise AssertionError("Published.of asks for init")

    def card(self, parameters: int) -> ModelCard:
        """What is trained."""
        return replace(
            self.base, name=self.recipe.name, title=self.recipe.name, hub_id="", temperatures={}, parameters=parameters
        )

    def hints(self, dim: int, vocab_size: int) -> Hints | None:
        """Nothing is known of these pictures but what is said about them."""
        return None

    def samples(self) -> list[Prompt]:
        """Questions about pictures that are held back, from all over each file."""
        found = []
        for batches in self.held.values():
            (source,) = batches.sets
            shown = np.flatnonzero(source.picture >= 0)
            for record in shown[:: max(1, len(shown) // SHOWN)][: -(-SHOWN // len(self.held))]:
                said = source[int(record)]
                question, answer = said.exchanges[0]
                if "<|" not in question:  # names of special tokens steer the model
                    found.append(Prompt(source.pixels(said), question, OPEN, answer))
        return found[:SHOWN]

    def draw(self, step: int, n_micro: int) -> list[Batch]:
        """The micro batches of a step of this process."""
        return [_float(Batch(*self.batches.batch(step, micro, self.rank))) for micro in range(n_micro)]

    @torch.no_grad()
    def validate(self, learner: nn.Module) -> dict[str, float]:
        """Mean loss of a token, and share of conversations whose every learned token is the likeliest, of each file."""
        learner.eval()
        scores: dict[str, float] = {}
        device = next(learner.parameters()).device
        for name, batches in self.held.items():
            n_batches = min(batches.n_steps(1), -(-self.recipe.eval_pictures // batches.steps.micro))
            loss, tokens, right = 0.0, 0, []
            for step in range(n_batches):
                batch = _float(Batch(*batches.batch(step, 0, 0))).to(device)
                said, _ = learner(batch)
                loss, tokens = loss - float(said.logprob.sum()), tokens + len(said.logprob)
                asked = batch.text.labels != IGNORE
                hits = torch.ones_like(asked)
                hits[asked] = said.hit
                for i, row in enumerate(batch.text.turn):
                    right += [bool(hits[i][row == j].all()) for j in range(int(row.max()) + 1)]
            scores |= {f"{name} loss": loss / tokens, f"{name} right": sum(right) / len(right)}
        learner.train()
        return scores


def _float(batch: Batch) -> Batch:
    return batch if batch.pixels is None else replace(batch, pixels=batch.pixels.float())
