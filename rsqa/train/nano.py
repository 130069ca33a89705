"""What is particular to tinyrs-nano: a network of its own shape, its tokenizer, card and pictures with facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rsqa.engines.cards import ModelCard
from rsqa.engines.registry import find_model, locate
from rsqa.tasks.prompts import REASONING_SYSTEM, PromptStyle, query
from rsqa.train import words
from rsqa.train.batch import Batch, split
from rsqa.train.data import CLASS_NAMES, Batches, CaptionWords, Looks, Phrasing
from rsqa.train.facts import Facts
from rsqa.train.hints import Hints
from rsqa.train.packing import IGNORE
from rsqa.train.pictures import FILES, PictureSet, facts_in, read_parquet
from rsqa.train.prompts import OPEN, Prompt
from rsqa.train.recipe import Recipe
from rsqa.train.sampling import SHOWN
from rsqa.train.scene_windows import FIRST_HELD_SEED, scene_windows
from rsqa.train.tokenizer import corpus, train_tokenizer
from rsqa.train.turns import turns_of

NANO_STYLE = PromptStyle(closed_tag="{VQA} ", count_tag="{IT} ", labels_tag="{CLS} ", boxes_tag="{VG} ", tail=" ")
NANO_REASONING = replace(NANO_STYLE, system=REASONING_SYSTEM, reasoning=True, answer_ends=("</answer>",))
EVAL_SEED = 7
HELD_WINDOWS = 640


def nano_card(recipe: Recipe, parameters: int) -> ModelCard:
    """The card of what this recipe trains; temperatures are fitted later."""
    reasons = recipe.reasoning > 0
    name = "tinyrs-nano-cot" if reasons else "tinyrs-nano"
    return ModelCard(
        name=name, title=f"{name}, embedded", prompt=NANO_REASONING if reasons else NANO_STYLE,
        licence="research use only", data_licence="UC Merced (public domain imagery), AID and RSICD (academic use), "
        "NWPU VHR-10 (research use only), airports (public domain), procedural scenes (own)",
        side_px=recipe.side_px, gsd_m=(0.2, 2.0), side_range_px=(112, 672),
        max_new_tokens=192 if reasons else 96, boxes="many", parameters=parameters,
    )  # fmt: skip


def new_network(recipe: Recipe, tokenizer: Any) -> Qwen2VLForConditionalGeneration:
    """A Qwen2-VL of the recipe's shape with random weights."""
    token = tokenizer.convert_tokens_to_ids
    head_dim = recipe.hidden // recipe.heads
    time = head_dim // 8  # of the rotary pairs a quarter turns with time, the rest with row and column
    space = (head_dim // 2 - time) // 2
    config = Qwen2VLConfig(
        text_config=dict(
            vocab_size=recipe.vocab_size, hidden_size=recipe.hidden, intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.kv_heads,
            rope_parameters=dict(rope_type="default", rope_theta=recipe.rope_theta, mrope_section=[time, space, space]),
            max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=token("<|endoftext|>"),
            eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"),
        ),
        vision_config=dict(depth=recipe.vision_depth, embed_dim=recipe.vision_width, hidden_size=recipe.hidden,
                           num_heads=recipe.vision_heads, mlp_ratio=4, patch_size=14),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(recipe.seed)
    return Qwen2VLForConditionalGeneration(config)


def load_sets(
    recipe: Recipe, data: Path, out: Path, say: Callable[[str], None]
) -> tuple[list[PictureSet], list[PictureSet]]:
    """-> training and validation picture sets, in the order of FILES and then scenes."""
    train, held = [], []
    for name in FILES:
        if getattr(recipe, name) > 0:
            train.append(PictureSet.of(name, read_parquet(data, name, "train")))
            held.append(PictureSet.of(name, read_parquet(data, name, "validation")))
    if recipe.scenes > 0:
        say(f"rendering {recipe.scene_windows} procedural windows, unless they are there")
        rare = tuple(words.SCENE_NOUNS.values())
        windows = scene_windows(recipe.scene_windows, recipe.side_px, out / "scenes")
        train.append(PictureSet.of("scenes", windows, rare=rare))
        fresh = scene_windows(HELD_WINDOWS, recipe.side_px, out / "scenes", FIRST_HELD_SEED)
        held.append(PictureSet.of("scenes", fresh, rare=rare))
    say(", ".join(f"{s.name} {len(s.pictures)}" for s in train) + " pictures")
    return train, held


def captions_alone(pictures: PictureSet) -> PictureSet:
    """The same pictures, of which nothing but their captions is known."""
    bare = [replace(picture, facts=Facts(captions=picture.facts.captions)) for picture in pictures.pictures]
    return PictureSet.of(pictures.name, bare)


def own_tokenizer(recipe: Recipe, sets: Sequence[PictureSet], out: Path) -> Any:
    """The tokenizer of `init`, of an earlier start of this run, or a new one learned from the corpus."""
    if recipe.init:
        return AutoTokenizer.from_pretrained(locate(find_model(recipe.init)).folder)
    with PartialState().main_process_first():  # the others find what it wrote
        if not (out / "tokenizer" / "tokenizer.json").is_file():
            learned = train_tokenizer(corpus(sets, NANO_STYLE, recipe.seed), recipe.vocab_size)
            learned.save_pretrained(out / "tokenizer")
    return AutoTokenizer.from_pretrained(out / "tokenizer")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Batches of pictures with facts, and the pictures held back."""

    recipe: Recipe
    tokenizer: Any
    batches: Batches
    held: tuple[PictureSet, ...]
    rank: int
    ranks: int

    @classmethod
    def of(cls, recipe: Recipe, data: Path, out: Path, rank: int, ranks: int, say: Callable[[str], None]) -> Pictures:
        """Read and render what the recipe asks for."""
        sets, held = load_sets(recipe, data, out, say)
        tokenizer = own_tokenizer(recipe, sets, out)
        said = CaptionWords([p.facts.captions for s in sets if s.name != "scenes" for p in s.pictures])
        if recipe.captions_only:
            sets, held = ([s if s.name == "scenes" else captions_alone(s) for s in some] for some in (sets, held))
        encode = lru_cache(maxsize=200_000)(lambda text: tuple(tokenizer.encode(text, add_special_tokens=False)))
        styles = ((NANO_STYLE, 1 - recipe.reasoning), (NANO_REASONING, recipe.reasoning))
        phrasings = [(Phrasing(encode, style), chance) for style, chance in styles if chance > 0]
        shares = [getattr(recipe, s.name) for s in sets]
        batches = Batches(sets, shares, phrasings, recipe.side_px, recipe.suffix_tokens, recipe.turns, said)
        return cls(recipe, tokenizer, batches, tuple(held), rank, ranks)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.recipe.steps

    def network(self) -> Qwen2VLForConditionalGeneration:
        """Random weights of the recipe's shape."""
        return new_network(self.recipe, self.tokenizer)

    def card(self, parameters: int) -> ModelCard:
        """What is trained."""
        return nano_card(self.recipe, parameters)

    def hints(self, dim: int, vocab_size: int) -> Hints | None:
        """What visual tokens are asked by themselves."""
        if not self.recipe.hint:
            return None
        return Hints(dim, vocab_size, self.batches.phrasings[0].encode, len(self.batches.said))

    def samples(self) -> list[Prompt]:
        """A question about each of some pictures that are held back."""
        style = self.card(0).prompt
        found = []
        for number in range(SHOWN):
            source = self.held[number % len(self.held)]
            picture = source.pictures[number % len(source.pictures)]
            rng = np.random.default_rng([EVAL_SEED, number])
            turns = turns_of(facts_in(picture, None), source.rates, CLASS_NAMES, True, rng, self.batches.asked)
            for turn in turns[:1]:
                found.append(Prompt(np.array(picture.pixels), query(turn.question, style), OPEN, turn.answer))
        return found

    def draw(self, step: int, n_micro: int) -> list[Batch]:
        """The micro batches of a step of this process."""
        recipe = self.recipe
        looks = Looks(recipe.crop_min, recipe.jitter, recipe.blend)
        size, asked = recipe.batch // self.ranks, recipe.asked // self.ranks
        return split(self.batches.train((recipe.seed, step, self.rank), size, asked, looks), n_micro)

    @torch.no_grad()
    def validate(self, learner: nn.Module) -> dict[str, float]:
        """Share of turns whose every answer token is the likeliest, per set and kind, of whole pictures held back."""
        learner.eval()
        device = next(learner.parameters()).device
        right: dict[str, list[bool]] = {}
        n = self.recipe.eval_pictures
        for phrasing in self.batches.phrasings:
            form = "reasoned " if phrasing.style.reasoning else ""
            for pictures in self.held:
                for first in range(0, min(n, len(pictures.pictures)), 64):
                    batch = self.batches.whole(pictures, first, min(64, n - first), EVAL_SEED, phrasing)
                    said, _ = learner(replace(batch, known=None).to(device))
                    asked = batch.text.labels != IGNORE
                    row, turn = asked.nonzero()[:, 0], batch.text.turn[asked]
                    hits: dict[tuple[int, int], list[bool]] = {}
                    for i, j, hit in zip(row.tolist(), turn.tolist(), said.hit.tolist(), strict=True):
                        hits.setdefault((i, j), []).append(hit)
                    for place, all_hit in hits.items():
                        right.setdefault(f"{form}{pictures.name} {batch.text.kind[place]}", []).append(all(all_hit))
        learner.train()
        return {key: round(float(np.mean(values)), 4) for key, values in sorted(right.items()) if values}
