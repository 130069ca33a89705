"""Supervised training, one visible loop: the image prefix once per picture, its questions packed behind it.

B pictures, P prefix tokens, S suffix tokens, D hidden size.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rsqa.engines.cards import ModelCard
from rsqa.errors import ModelError, OutputError
from rsqa.models import language, vision
from rsqa.models.language import attention as masked_attention
from rsqa.models.rotary import image_positions
from rsqa.tasks.prompts import PromptStyle, prefix_text
from rsqa.train import checkpoint, words
from rsqa.train.checkpoint import Progress
from rsqa.train.data import FILES, IGNORE, Batches, PictureSet, read_parquet
from rsqa.train.hints import Hints, Read
from rsqa.train.recipe import Recipe
from rsqa.train.scene_windows import scene_windows
from rsqa.train.tokenizer import corpus, train_tokenizer
from rsqa.train.turns import Asker

NANO_STYLE = PromptStyle(closed_tag="{VQA} ", count_tag="{IT} ", labels_tag="{CLS} ", boxes_tag="{VG} ", tail=" ")
EVAL_SEED = 7


def nano_card(recipe: Recipe, parameters: int) -> ModelCard:
    """The card of what this recipe trains; temperatures are fitted later."""
    return ModelCard(
        name="tinyrs-nano", title="tinyrs-nano, the embedded model", prompt=NANO_STYLE,
        licence="research use only", data_licence="UC Merced (public domain imagery), AID and RSICD (academic use), "
        "NWPU VHR-10 (research use only), airports (public domain), procedural scenes (own)",
        side_px=recipe.side_px, gsd_m=(0.2, 2.0), side_range_px=(112, 672), max_new_tokens=48, parameters=parameters,
    )  # fmt: skip


def new_model(recipe: Recipe, tokenizer: Any) -> Qwen2VLForConditionalGeneration:
    """A Qwen2-VL of the recipe's shape with random weights."""
    token = tokenizer.convert_tokens_to_ids
    head_dim = recipe.hidden // recipe.heads
    time = head_dim // 8  # of the rotary pairs a quarter turns with time, the rest with row and column
    space = (head_dim // 2 - time) // 2
    config = Qwen2VLConfig(
        text_config=dict(
            vocab_size=recipe.vocab_size, hidden_size=recipe.hidden, intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.kv_heads,
            rope_parameters=dict(rope_type="default", rope_theta=10_000.0, mrope_section=[time, space, space]),
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


def float32_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention in float32 under bfloat16 autocast: on a CPU its backward pass takes a quarter of the time.

    Measured with torch 2.13 on 2 cores, batch 64, 6 heads, 178 tokens: 0.037 s for 0.15 s.
    """
    with torch.autocast(query.device.type, enabled=False):
        seen = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    return seen.to(value.dtype)


def float32_masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """The same for the language part."""
    with torch.autocast(query.device.type, enabled=False):
        return masked_attention(query.float(), key.float(), value.float(), mask).to(value.dtype)


@dataclass(frozen=True, slots=True)
class Attention:
    """How the two parts attend."""

    vision: vision.Attend = F.scaled_dot_product_attention
    language: language.Attend = masked_attention


FLOAT32_ATTENTION = Attention(float32_attention, float32_masked_attention)


class PackedAnswers(nn.Module):
    """Logits of every answer token of a batch: one forward, several turns a picture.

    Beside them the readings of `Hints`.
    """

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: Any,
        attend: Attention = Attention(),
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model, self._attend = model, attend
        self._compiled = compiled
        before, after = (tokenizer.encode(text, add_special_tokens=False) for text in prefix_text(NANO_STYLE))
        self.before: Tensor
        self.after: Tensor
        self.register_buffer("before", torch.tensor(before), persistent=False)
        self.register_buffer("after", torch.tensor(after), persistent=False)
        vocab_size, dim = model.model.language_model.embed_tokens.weight.shape
        self.hints = Hints(dim, vocab_size, tokenizer)

    def forward(self, pixels: Tensor, ids: Tensor, turn: Tensor, depth: Tensor, labels: Tensor) -> tuple[Tensor, Read]:
        """`Batch`'s tensors -> (answer tokens, V) logits in the order of `labels[labels != IGNORE]`, and the hints."""
        qwen = self.model.model
        tower, reader = vision.vision_of(qwen.visual), language.language_of(self.model)
        if self._compiled and self.training:
            tower, reader = tower.compiled(), reader.compiled()
        visual = vision.encode(tower, pixels, tower.turns(*pixels.shape[2:]), self._attend.vision)  # (B, S_visual, D)
        b, n_visual = len(ids), visual.shape[1]
        embed = qwen.language_model.embed_tokens
        before, after = (embed(part).expand(b, -1, -1) for part in (self.before, self.after))
        embeds = torch.cat([before, visual[:b].to(before.dtype), after, embed(ids)], dim=1)  # (A, P + S, D)
        grid = round(n_visual**0.5)
        prefix, start = image_positions(len(self.before), grid, grid, len(self.after))
        positions = torch.cat(
            [prefix.to(ids.device)[:, None].expand(3, b, -1), (depth + start)[None].expand(3, -1, -1)], dim=2
        )
        mask = packed_mask(turn, prefix.shape[1])
        hidden, _ = language.read(reader, embeds, reader.turns(positions), mask, attend=self._attend.language)
        answers = hidden[:, prefix.shape[1] :][labels != IGNORE]
        return self.model.lm_head(answers), self.hints(visual, embed.weight)


def packed_mask(turn: Tensor, n_prefix: int) -> Tensor:
    """(B, S) turn numbers -> (B, 1, P + S, P + S) bool: a token sees the prefix and its own turn up to itself."""
    b, s = turn.shape
    total = n_prefix + s
    mask = torch.ones(total, total, dtype=torch.bool, device=turn.device).tril().expand(b, -1, -1).clone()
    mask[:, n_prefix:, n_prefix:] &= turn[:, :, None] == turn[:, None, :]
    return mask[:, None]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Share of the peak rate at a step: linear warm-up, stable, linear decay to zero (so the end can be moved)."""
    return min(1.0, (step + 1) / max(1, recipe.warmup), (recipe.steps - step) / max(1, recipe.decay))


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Vision, merger and language at their own rates; no weight decay on vectors (norms, biases)."""
    rates = {"vision": recipe.lr_vision, "merger": recipe.lr_merger, "language": recipe.lr_language}
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, weight in model.named_parameters():
        part = "merger" if "merger" in name else "vision" if "visual" in name else "language"
        groups.setdefault((part, weight.ndim > 1), []).append(weight)
    return [
        {"params": weights, "lr": rates[part], "peak": rates[part], "weight_decay": recipe.weight_decay * decayed}
        for (part, decayed), weights in sorted(groups.items())
    ]


@torch.no_grad()
def validate(answers: PackedAnswers, batches: Batches, sets: Sequence[PictureSet], n: int) -> dict[str, float]:
    """Share of turns whose every answer token is the most likely one, per set and kind, on `n` pictures a set."""
    answers.eval()
    right: dict[str, list[bool]] = {}
    for pictures in sets:
        for first in range(0, min(n, len(pictures.pictures)), 64):
            batch = batches.whole(pictures, first, min(64, n - first), EVAL_SEED)
            logits, read = answers(batch.pixels, batch.ids, batch.turn, batch.depth, batch.labels)
            named = batch.known.scene != IGNORE
            linear = read.classes[named].argmax(dim=1) == batch.known.scene[named]
            right.setdefault(f"{pictures.name} class, linear reading", []).extend(linear.tolist())
            asked = batch.labels != IGNORE
            hit = logits.argmax(dim=-1) == batch.labels[asked]
            row, turn = asked.nonzero()[:, 0], batch.turn[asked]
            for i, j in sorted({(int(i), int(j)) for i, j in zip(row, turn, strict=True)}):
                all_right = bool(hit[(row == i) & (turn == j)].all())
                right.setdefault(f"{pictures.name} {batch.kind[i, j]}", []).append(all_right)
    answers.train()
    return {key: round(float(np.mean(values)), 4) for key, values in sorted(right.items()) if values}


def load_sets(
    recipe: Recipe, data: Path, out: Path, log: Callable[[str], None]
) -> tuple[list[PictureSet], list[PictureSet]]:
    """-> training and validation picture sets, in the order of FILES and then scenes."""
    train, held = [], []
    for name in FILES:
        if getattr(recipe, name) > 0:
            train.append(PictureSet.of(name, read_parquet(data, name, "train")))
            held.append(PictureSet.of(name, read_parquet(data, name, "validation")))
    if recipe.scenes > 0:
        log(f"rendering {recipe.scene_windows} procedural windows")
        windows = scene_windows(recipe.scene_windows, recipe.side_px, out / "scenes")
        train.append(PictureSet.of("scenes", windows, rare=tuple(words.SCENE_NOUNS.values())))
    log(", ".join(f"{s.name} {len(s.pictures)}" for s in train) + " pictures")
    return train, held


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    resume: bool = False,
    echo: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Path:
    """Run a recipe on the pictures in `data` -> the model folder `out/model`; `resume`: from the newest checkpoint."""
    if checkpoint.checkpoints(out) and not resume:
        raise OutputError(f"{out.name} holds a run already; continue it with --resume or name another --out")
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="bf16" if recipe.bf16 else "no")
    main, rank, ranks = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    with accelerator.main_process_first():
        sets, held = load_sets(recipe, data, out, echo if main else _silent)
        tokenizer = own_tokenizer(recipe, sets, out)
    model = initial_model(recipe, tokenizer)
    attend = FLOAT32_ATTENTION if accelerator.device.type == "cpu" and recipe.bf16 else Attention()
    single = PackedAnswers(model, tokenizer, attend, recipe.compile)
    shares = [getattr(recipe, s.name) for s in sets]
    batches = Batches(sets, shares, tokenizer, Asker(NANO_STYLE), recipe.side_px, recipe.suffix_tokens)
    optimizer = torch.optim.AdamW(parameter_groups(single, recipe), betas=(0.9, 0.98), fused=True)
    begun = checkpoint.restore(out, single, optimizer) if resume else Progress(0, 0.0)

    answers, optimizer = accelerator.prepare(single, optimizer)
    log = Log(out / "log.jsonl", echo) if main else None
    started = time.monotonic() - begun.seconds
    losses: list[tuple[float, float]] = []
    for step in range(begun.step, recipe.steps):
        batch = batches.train(
            (recipe.seed, step, rank),
            recipe.batch // ranks,
            recipe.asked // ranks,
            recipe.crop_min,
            recipe.jitter,
            recipe.blend,
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(step, recipe)
        logits, read = answers(batch.pixels, batch.ids, batch.turn, batch.depth, batch.labels)
        loss = F.cross_entropy(logits.float(), batch.labels[batch.labels != IGNORE])
        hint = single.hints.loss(read, batch.known)
        accelerator.backward(loss + recipe.hint * hint)
        norm = accelerator.clip_grad_norm_(answers.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append((loss.item(), hint.item()))
        done, seconds = step + 1, time.monotonic() - started
        if not np.isfinite(losses[-1]).all():
            raise ModelError(
                f"loss is {losses[-1][0]} at step {done}; resume with a lower rate, the last checkpoint is kept"
            )
        if log is None:
            continue
        if done % recipe.log_every == 0:
            rate = recipe.batch * (done - begun.step) / (seconds - begun.seconds)
            left = (recipe.steps - done) * recipe.batch / rate
            log.write(
                step=done,
                loss=float(np.mean([loss for loss, _ in losses])),
                hint=float(np.mean([hint for _, hint in losses])),
                norm=float(norm),
                pictures_per_s=rate,
                left_s=left,
            )
            losses.clear()
        if done % recipe.eval_every == 0 or done == recipe.steps:
            log.write(step=done, validation=validate(single, batches, held, recipe.eval_pictures))
        if done % recipe.save_every == 0 or done == recipe.steps:
            checkpoint.save(out, single, optimizer, Progress(done, seconds))
            checkpoint.export(
                out / "model", model, tokenizer, nano_card(recipe, sum(p.numel() for p in model.parameters()))
            )
    accelerator.wait_for_everyone()
    return out / "model"


def own_tokenizer(recipe: Recipe, sets: Sequence[PictureSet], out: Path) -> Any:
    """The tokenizer of `init`, of an earlier start of this run, or a new one learned from the corpus."""
    for folder in filter(None, (str(out / "tokenizer"), recipe.init)):
        if (Path(folder) / "tokenizer.json").is_file():
            return AutoTokenizer.from_pretrained(folder)
    tokenizer = train_tokenizer(corpus(sets, NANO_STYLE, recipe.seed), recipe.vocab_size)
    tokenizer.save_pretrained(out / "tokenizer")
    return tokenizer


def initial_model(recipe: Recipe, tokenizer: Any) -> Qwen2VLForConditionalGeneration:
    """The weights of `init` in float32, or random ones."""
    if recipe.init:
        return Qwen2VLForConditionalGeneration.from_pretrained(recipe.init, dtype=torch.float32)
    return new_model(recipe, tokenizer)


class Log:
    """JSON lines, to a file and to the one who watches."""

    def __init__(self, path: Path, echo: Callable[[str], None]) -> None:
        self._path, self._echo = path, echo

    def write(self, **line: Any) -> None:
        """Append one line; numbers are rounded for reading."""
        text = json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in line.items()})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        self._echo(text)


def _silent(line: str) -> None:
    """For all processes but the first."""
