"""Adapters around a frozen base: GRASP and its rivals, one visible loop.

The tower stands still, so each picture is seen once, before the first step; questions are read once, too. Only for
`vpt` and `full` the tower is run again at every step. One process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from rsqa.engines.grasp import question_vector
from rsqa.engines.registry import ModelRef, choose_device, find_model, locate
from rsqa.engines.words import Words
from rsqa.errors import ModelError, OutputError, RecipeError
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.grasp import spread
from rsqa.models.language import language_of
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.train import checkpoint
from rsqa.train.adapter import save_adapter
from rsqa.train.batch import Batch
from rsqa.train.checkpoint import Progress
from rsqa.train.forward import Framed, Said
from rsqa.train.grasp_data import Quiz, Rows, chain_of, picture_order, read_quizzes, rows_of, seen_once
from rsqa.train.grasp_learner import Learner, grid_of
from rsqa.train.grasp_recipe import GraspRecipe
from rsqa.train.log import NOBODY, Log, Watcher
from rsqa.train.packing import IGNORE, Chain
from rsqa.train.prompt_adapter import save_prompt_adapter
from rsqa.train.turns import Turn

UNSURE = 0.95
"""Entropy of the weights, as a share of the most there can be, above which blocks are hardly chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Questions, and what the frozen base makes of them once."""

    quiz: Quiz
    visual: Tensor | None
    """(n, S, D) what the tower sees; None where that changes with each step."""


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What stays the same over a run."""

    recipe: GraspRecipe
    base: ModelRef
    checkpoint: Checkpoint
    words: Words
    learner: Learner
    side: int
    """Of the pictures as the model sees them, pixels."""
    vectors: dict[str, Tensor]
    """(D,) of the text of each question."""


def train(recipe: GraspRecipe, data: Path, out: Path, resume: bool = False, watcher: Watcher = NOBODY) -> Path:
    """Run a recipe on what is in `data` -> the adapter's folder `out/model`; `resume`: from the newest checkpoint.

    Raises InputError for data that can't be used, OutputError where `out` holds a run or can't be written, ModelError
    when the loss is no number; what was saved stays.
    """
    if checkpoint.checkpoints(out) and not resume:
        raise OutputError(f"{out.name} holds a run already; continue it with --resume or name another --out")
    bench = set_up(recipe)
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        learned, held = (prepared(bench, quiz) for quiz in read_quizzes(recipe, data, out, bench.side))
    trained = nn.ParameterDict({name.replace(".", "/"): weight for name, weight in bench.learner.trained().items()})
    watcher.say(told(bench, learned, held, trained))
    optimizer = torch.optim.AdamW(parameter_groups(bench.learner, recipe))
    begun = checkpoint.restore(out, trained, optimizer) if resume else Progress(0, 0.0)
    steps = recipe.steps or recipe.epochs * math.ceil(len(learned.quiz) / recipe.batch)
    log, figures = Log(out, watcher, begun, steps), {}
    started = time.monotonic() - begun.seconds
    for step in range(begun.step, steps):
        done = step + 1
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(step, steps, recipe.warmup_ratio)
        rows = drawn(bench, learned.quiz, picture_order(len(learned.quiz), recipe.batch, step, recipe.seed))
        said, weights = said_of(bench, learned, rows)
        loss = -said.logprob.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(trained.parameters(), recipe.clip)
        figures = {"loss": loss.item(), "norm": norm.item()} | sparsity(rows, weights)
        if not all(map(math.isfinite, figures.values())):
            raise ModelError(f"loss is {figures['loss']} at step {done}; lower the rates ({checkpoint.kept(out)})")
        optimizer.step()
        seconds, ending = time.monotonic() - started, done == steps or watcher.stopped()
        each = (seconds - begun.seconds) / (done - begun.step)
        watcher.step(done, steps, figures["loss"], rows.text.n_learned / each, (steps - done) * each)
        if done % recipe.log_every == 0 or ending:
            log.write(step=done, **figures, seconds=seconds)
        if done % recipe.eval_every == 0 or done == steps:
            log.write(step=done, validation=validate(bench, held))
        if done % recipe.save_every == 0 or ending:
            with checkpoint.writing(out):
                export(out / "model", bench)
                checkpoint.save(out, trained, optimizer.state_dict(), Progress(done, seconds))
        if ending:
            break
    if figures.get("entropy", 0.0) > UNSURE:
        watcher.say(f"the blocks weigh nearly alike to the end (entropy {figures['entropy']:.2f}): the prompt is blind")
    return out / "model"


def set_up(recipe: GraspRecipe) -> Bench:
    """Load the base and put what is trained around it."""
    base = find_model(recipe.init)
    side = recipe.side_px or base.card.side_px
    if side is None:
        raise RecipeError(f"{recipe.init!r} sees pictures at their own size; choose one with side_px")
    if base.card.model_side(side, side) != (side, side):
        raise RecipeError(f"side_px is {side}, {recipe.init!r} sees {base.card.model_side(side, side)[0]}; give that")
    files = locate(base)
    network = load_network(files, choose_device(), "bfloat16" if recipe.bf16 else "float32")
    torch.manual_seed(recipe.seed)
    learner = Learner(network, recipe).to(network.lm_head.weight.device)
    return Bench(recipe, base, files, Words(load_tokenizer(files), base.card), learner, side, {})


def prepared(bench: Bench, quiz: Quiz) -> Lesson:
    """See the pictures and read the questions, once."""
    learner, where = bench.learner, bench.recipe.question
    if learner.prompter is not None and learner.prompter.shape.asks:
        language = language_of(learner.network)
        with torch.no_grad():
            for text in {turn.question.text for turns in quiz.turns for turn in turns} - bench.vectors.keys():
                bench.vectors[text] = question_vector(language, bench.words.encode(text), where)
    return Lesson(quiz, None if learner.sees else seen_once(quiz.pixels, learner.see, learner.device))


def told(bench: Bench, learned: Lesson, held: Lesson, trained: nn.ParameterDict) -> str:
    """What the run is about, in a line."""
    n_trained, n_all = (sum(w.numel() for w in some.parameters()) for some in (trained, bench.learner))
    asked = sum(map(len, learned.quiz.turns))
    return (
        f"{bench.recipe.method}: {n_trained:,} of {n_all:,} parameters learn, from {asked:,} questions on "
        f"{len(learned.quiz):,} pictures; {sum(map(len, held.quiz.turns)):,} on {len(held.quiz):,} are held back"
    )


def learning_rate(step: int, steps: int, warmup_ratio: float) -> float:
    """Share of the peak rate at a step."""
    warmup = math.ceil(steps * warmup_ratio)
    rising = min(1.0, (step + 1) / max(1, warmup))
    return rising * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))) / 2


def parameter_groups(learner: Learner, recipe: GraspRecipe) -> list[dict[str, Any]]:
    """Prompts at their own rate; no weight decay on them and on vectors."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in learner.trained().items():
        prompts = name.endswith(("prompts", "patches"))
        groups.setdefault((prompts, weight.ndim > 1 and not prompts), []).append(weight)
    return [
        {"params": weights, "peak": recipe.lr_prompts if prompts else recipe.lr,
         "weight_decay": recipe.weight_decay * decayed}
        for (prompts, decayed), weights in groups.items()
    ]  # fmt: skip


def drawn(bench: Bench, quiz: Quiz, pictures: Sequence[int]) -> Rows:
    """The questions of some pictures as tokens."""
    recipe, words = bench.recipe, bench.words
    prompter, k = bench.learner.prompter, recipe.tokens

    def chain(turn: Turn, place: int) -> Chain:
        inside = prompter is not None and not recipe.before_image
        slots = range(-1 - place * k, -1 - (place + 1) * k, -1) if inside else ()
        return chain_of(turn, words.suffix(turn.question), words.encode, slots)

    return rows_of(pictures, quiz, chain, recipe.before_image)


def said_of(bench: Bench, lesson: Lesson, rows: Rows) -> tuple[Said, Tensor | None]:
    """See `Learner.forward`."""
    learner, before = bench.learner, bench.words.before
    if bench.recipe.before_image:  # as rsqa.engines.grasp.Guide has it
        before = (*before[:-1], *range(-1, -1 - bench.recipe.tokens, -1), before[-1])
    if lesson.visual is None:
        visual = learner.see(lesson.quiz.pixels[rows.pictures].to(learner.device))
    else:
        visual = lesson.visual[rows.pictures]
    width = visual.shape[-1]
    nothing = torch.zeros(width, device=learner.device)
    vectors = [[bench.vectors.get(text, nothing) for text in texts] for texts in rows.questions]
    batch = Batch(None, Framed(before, bench.words.after), rows.text).to(learner.device)
    table = pad_sequence([torch.stack(some) for some in vectors], batch_first=True)
    said, weights = learner(visual, grid_of(bench.side), batch.framed, batch.text, table)
    return said, weights


def sparsity(rows: Rows, weights: Tensor | None) -> dict[str, float]:
    """(R, C, N) weights of blocks -> their entropy (1: all alike), and how many of them are zero."""
    if weights is None or weights.shape[-1] < 2:
        return {}
    asked = torch.tensor([[c < len(texts) for c in range(weights.shape[1])] for texts in rows.questions])
    chosen = weights.detach()[asked.to(weights.device)]
    return {"entropy": spread(chosen).mean().item(), "zeros": (chosen == 0).sum(dim=-1).float().mean().item()}


@torch.no_grad()
def validate(bench: Bench, held: Lesson) -> dict[str, float]:
    """Share of questions whose every answer token is the likeliest: of all, as mean over kinds, and of each kind."""
    right: dict[str, list[bool]] = {}
    for first in range(0, len(held.quiz), bench.recipe.batch):
        rows = drawn(bench, held.quiz, range(first, min(first + bench.recipe.batch, len(held.quiz))))
        said, _ = said_of(bench, held, rows)
        asked = rows.text.labels != IGNORE
        number, turn = asked.nonzero()[:, 0].tolist(), rows.text.turn[asked].tolist()
        hits: dict[tuple[int, int], bool] = {}
        for place, hit in zip(zip(number, turn, strict=True), said.hit.tolist(), strict=True):
            hits[place] = hits.get(place, True) and hit
        for place, hit in hits.items():
            right.setdefault(rows.text.kind[place], []).append(hit)
    each = {kind: float(np.mean(hits)) for kind, hits in sorted(right.items())}
    every = [hit for hits in right.values() for hit in hits]
    return {"OA": float(np.mean(every)), "AA": float(np.mean(list(each.values())))} | each


def export(folder: Path, bench: Bench) -> None:
    """Write what inference loads. Of vpt nothing: no engine runs it."""
    learner, base = bench.learner, bench.base
    card = replace(base.card, temperatures={})  # those of the base were fitted to its own answers
    if learner.prompter is not None:
        save_prompt_adapter(folder, learner.prompter, base, card)
    elif bench.recipe.method in ("lora", "dora"):
        save_adapter(folder, learner.network, base, card)
    elif bench.recipe.method == "full":
        tokenizer = AutoTokenizer.from_pretrained(bench.checkpoint.folder)
        checkpoint.export(folder, learner.network, tokenizer, card)
