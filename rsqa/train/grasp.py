"""Adapters around a frozen base: GRASP and its rivals, one visible loop.

The tower stands still, so each picture is seen once, before the first step; questions are read once, too. Only for
`vpt` and `full` the tower is run again at every step. One process. At the end `held.json` tells what became of each
question that was held back: what methods are compared by.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from rsqa.engines.grasp import question_vector
from rsqa.engines.registry import ModelRef, choose_device, find_model, locate
from rsqa.engines.visual import as_visual
from rsqa.engines.words import Words
from rsqa.errors import ModelError, OutputError, RecipeError
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.grasp import Prompted, spread
from rsqa.models.language import language_of
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.sinks.whole import write_whole_bytes
from rsqa.tasks.prompts import END
from rsqa.train import checkpoint
from rsqa.train.adapter import save_adapter
from rsqa.train.batch import Batch
from rsqa.train.checkpoint import Progress
from rsqa.train.forward import Framed, Said
from rsqa.train.grasp_data import Quiz, Rows, alike, chain_of, picture_order, read_quizzes, rows_of, seen_once
from rsqa.train.grasp_learner import Learner, grid_of
from rsqa.train.grasp_recipe import GraspRecipe
from rsqa.train.guide import drift, held_by
from rsqa.train.log import NOBODY, Log, Watcher
from rsqa.train.packing import IGNORE, Chain
from rsqa.train.prompt_adapter import save_prompt_adapter
from rsqa.train.turns import Turn

UNSURE = 0.95
"""Entropy of the weights, as a share of the most there can be, above which blocks are hardly chosen."""
HELD_FILE = "held.json"


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Questions, and what the frozen base makes of them once."""

    quiz: Quiz
    visual: NDArray[Any] | None
    """(n, S, D) what the tower sees, see `seen_once`; None where that changes with each step."""


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
    cache: Path
    """What runs on the same data share."""
    vectors: dict[str, Tensor]
    """(D,) of the text of each question."""
    answers: dict[str, int]
    """For a probe: the number of each answer that is learned from; all others have the next one."""


@dataclass(frozen=True, slots=True)
class HeldItem:
    """A question that was held back."""

    picture: int
    kind: str
    right: bool
    """Whether every token of the answer is the likeliest."""


def train(
    recipe: GraspRecipe,
    data: Path,
    out: Path,
    resume: bool = False,
    watcher: Watcher = NOBODY,
    cache: Path | None = None,
) -> Path:
    """Run a recipe on what is in `data` -> the adapter's folder `out/model`; `resume`: from the newest checkpoint.

    `cache`: folder of what many runs on the same data may share, scenes and what the tower sees; by default `out`.
    Raises InputError for data that can't be used, OutputError where `out` holds a run or can't be written, ModelError
    when the loss is no number; what was saved stays.
    """
    if checkpoint.checkpoints(out) and not resume:
        raise OutputError(f"{out.name} holds a run already; continue it with --resume or name another --out")
    bench = set_up(recipe, cache or out)
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        bench.cache.mkdir(parents=True, exist_ok=True)
        learned, held = (prepared(bench, quiz) for quiz in read_quizzes(recipe, data, bench.cache, bench.side))
    trained = nn.ParameterDict({name.replace(".", "/"): weight for name, weight in bench.learner.trained().items()})
    watcher.say(told(bench, learned, held, trained))
    optimizer = torch.optim.AdamW(parameter_groups(bench.learner, recipe))
    begun = checkpoint.restore(out, trained, optimizer) if resume else Progress(0, 0.0)
    per_epoch = math.ceil(len(learned.quiz) / recipe.batch)
    steps = recipe.steps or recipe.epochs * per_epoch
    log, figures = Log(out, watcher, begun, steps), {}
    started, spent = time.monotonic() - begun.seconds, 0.0
    for step in range(begun.step, steps):
        done = step + 1
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(step, steps, recipe.warmup_ratio)
        before = time.process_time()
        optimizer.zero_grad()
        figures = backward(bench, learned, picture_order(len(learned.quiz), recipe.batch, step, recipe.seed))
        figures["norm"] = nn.utils.clip_grad_norm_(trained.parameters(), recipe.clip).item()
        if not all(map(math.isfinite, figures.values())):
            raise ModelError(f"loss is {figures['loss']} at step {done}; lower the rates ({checkpoint.kept(out)})")
        optimizer.step()
        spent += time.process_time() - before
        seconds, ending = time.monotonic() - started, done == steps or watcher.stopped()
        each = (seconds - begun.seconds) / (done - begun.step)
        watcher.step(done, steps, figures["loss"], figures["tokens"] / each, (steps - done) * each)
        if done % recipe.log_every == 0 or ending:
            log.write(step=done, **figures, seconds=seconds)
        if done % recipe.eval_every == 0 or done == steps:
            items = held_items(bench, held)
            log.write(step=done, validation=accuracies(items))
            if done == steps:
                write_held(out / HELD_FILE, bench, items, spent / (steps - begun.step) * per_epoch)
        if done % recipe.save_every == 0 or ending:
            with checkpoint.writing(out):
                export(out / "model", bench)
                checkpoint.save(out, trained, optimizer.state_dict(), Progress(done, seconds))
        if ending:
            break
    if figures.get("entropy", 0.0) > UNSURE:
        watcher.say(f"the blocks weigh nearly alike to the end (entropy {figures['entropy']:.2f}): the prompt is blind")
    return out / "model"


def set_up(recipe: GraspRecipe, cache: Path) -> Bench:
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
    return Bench(recipe, base, files, Words(load_tokenizer(files), base.card), learner, side, cache, {}, {})


def prepared(bench: Bench, quiz: Quiz) -> Lesson:
    """See the pictures and read the questions, once."""
    learner, where = bench.learner, bench.recipe.question
    if learner.prompter is not None and learner.prompter.shape.asks:
        language = language_of(learner.network)
        with torch.no_grad():
            for text in {turn.question.text for turns in quiz.turns for turn in turns} - bench.vectors.keys():
                bench.vectors[text] = question_vector(language, bench.words.encode(text), where)
    if bench.recipe.method == "probe" and learner.head is None:  # the first lesson is the one that is learned
        known = sorted({turn.answer for turns in quiz.turns for turn in turns})
        bench.answers.update({answer: number for number, answer in enumerate(known)})
        learner.probe(len(known) + 1)
    if learner.sees:
        return Lesson(quiz, None)
    tower = f"{bench.base.weights_id} {'bfloat16' if bench.recipe.bf16 else 'float32'}"
    return Lesson(quiz, seen_once(quiz.pixels, learner.see, learner.device, bench.cache, tower))


def told(bench: Bench, learned: Lesson, held: Lesson, trained: nn.ParameterDict) -> str:
    """What the run is about, in a line."""
    asked = sum(map(len, learned.quiz.turns))
    return (
        f"{bench.recipe.method}: {count(trained):,} of {count(bench.learner):,} parameters learn, "
        f"from {asked:,} questions on {len(learned.quiz):,} pictures; "
        f"{sum(map(len, held.quiz.turns)):,} on {len(held.quiz):,} are held back"
    )


def count(module: nn.Module) -> int:
    """Numbers in its parameters."""
    return sum(weight.numel() for weight in module.parameters())


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
        return chain_of(turn, words.suffix(turn.question), answer, slots)

    def answer(text: str) -> Sequence[int]:
        if recipe.method == "probe":
            return (bench.answers.get(text.removesuffix(END), len(bench.answers)),)
        return words.encode(text)

    return rows_of(pictures, quiz, chain, recipe.before_image)


def said_of(bench: Bench, lesson: Lesson, rows: Rows) -> tuple[Said, Prompted | None]:
    """See `Learner.forward`."""
    learner, before = bench.learner, bench.words.before
    if bench.recipe.before_image:  # as rsqa.engines.grasp.Guide has it
        before = (*before[:-1], *range(-1, -1 - bench.recipe.tokens, -1), before[-1])
    if lesson.visual is None:
        visual = learner.see(lesson.quiz.pixels[rows.pictures].to(learner.device))
    else:
        visual = as_visual(torch.from_numpy(lesson.visual[rows.pictures.numpy()]).to(learner.device))
    width = visual.shape[-1]
    nothing = torch.zeros(width, device=learner.device)
    vectors = [[bench.vectors.get(text, nothing) for text in texts] for texts in rows.questions]
    batch = Batch(None, Framed(before, bench.words.after), rows.text).to(learner.device)
    table = pad_sequence([torch.stack(some) for some in vectors], batch_first=True)
    read: tuple[Said, Prompted | None] = learner(visual, grid_of(bench.side), batch.framed, batch.text, table)
    return read


def backward(bench: Bench, lesson: Lesson, pictures: Sequence[int]) -> dict[str, float]:
    """Add the gradient of the mean loss of the pictures' answers, some rows at a time, to what there is of it.

    -> that loss, how many tokens it is over, how the weights of blocks are spread, and how much of them lies where the
    asked things are, over the questions about things that are known to be in some blocks and not in all.
    """
    pieces = [drawn(bench, lesson.quiz, some) for some in alike(pictures, lesson.quiz)]
    n, loss = sum(rows.text.n_learned for rows in pieces), 0.0
    n_known = sum(boxes is not None for rows in pieces for each in rows.boxes for boxes in each)
    chosen, placed = list[Tensor](), list[Tensor]()
    for rows in pieces:
        said, prompted = said_of(bench, lesson, rows)
        share = -said.logprob.sum() / n
        loss += share.item()
        if prompted is not None and prompted.weights.shape[-1] > 1:
            weights, held = prompted.weights.detach(), held_by(rows.boxes, prompted.weights)
            asked = torch.tensor([[c < len(texts) for c in range(weights.shape[1])] for texts in rows.questions])
            chosen.append(weights[asked.to(weights.device)])
            placed.append((weights * (held > 0)).sum(dim=-1)[(held == 0).any(dim=-1)])
            if prompted.scores is not None and n_known:
                known = ~held.isnan().any(dim=-1)
                share = share + bench.recipe.guide / n_known * drift(
                    weights[known], prompted.scores[known], held[known]
                )
        share.backward()  # type: ignore[no-untyped-call]
    figures = {"loss": loss, "tokens": n} | (sparsity(torch.cat(chosen)) if chosen else {})
    return figures | ({"placed": torch.cat(placed).mean().item()} if sum(map(len, placed)) else {})


def sparsity(weights: Tensor) -> dict[str, float]:
    """(n, N) weights of blocks -> their entropy (1: all alike), and how many of them are zero."""
    return {"entropy": spread(weights).mean().item(), "zeros": (weights == 0).sum(dim=-1).float().mean().item()}


@torch.no_grad()
def held_items(bench: Bench, held: Lesson) -> list[HeldItem]:
    """What becomes of each question that was held back, in an order that is the same for all methods."""
    items: list[HeldItem] = []
    for pictures in alike(range(len(held.quiz)), held.quiz):
        rows = drawn(bench, held.quiz, pictures)
        said, _ = said_of(bench, held, rows)
        asked = rows.text.labels != IGNORE
        number, turn = asked.nonzero()[:, 0].tolist(), rows.text.turn[asked].tolist()
        hits: dict[tuple[int, int], bool] = {}
        for place, hit in zip(zip(number, turn, strict=True), said.hit.tolist(), strict=True):
            hits[place] = hits.get(place, True) and hit
        shown = rows.pictures.tolist()
        items += [HeldItem(shown[place[0]], rows.text.kind[place], hit) for place, hit in hits.items()]
    return items


def write_held(path: Path, bench: Bench, items: Sequence[HeldItem], cpu_s_per_epoch: float) -> None:
    """What a run came to, for tables that compare methods."""
    trained = sum(weight.numel() for weight in bench.learner.trained().values())
    facts = {
        "trained": trained,
        "base": count(bench.learner) - (0 if bench.recipe.method == "full" else trained),
        "cpu_s_per_epoch": cpu_s_per_epoch,
        "items": [asdict(item) for item in items],
    }
    write_whole_bytes(path, json.dumps(facts).encode())


def accuracies(items: Sequence[HeldItem]) -> dict[str, float]:
    """Share that is right: of all, as mean over kinds, and of each kind."""
    right: dict[str, list[bool]] = {}
    for item in items:
        right.setdefault(item.kind, []).append(item.right)
    each = {kind: float(np.mean(hits)) for kind, hits in sorted(right.items())}
    return {"OA": float(np.mean([item.right for item in items])), "AA": float(np.mean(list(each.values())))} | each


def export(folder: Path, bench: Bench) -> None:
    """Write what inference loads. Of vpt and probe nothing: no engine runs them."""
    learner, base = bench.learner, bench.base
    card = replace(base.card, temperatures={})  # those of the base were fitted to its own answers
    if learner.prompter is not None:
        save_prompt_adapter(folder, learner.prompter, base, card)
    elif bench.recipe.method in ("lora", "dora"):
        save_adapter(folder, learner.network, base, card)
    elif bench.recipe.method == "full":
        tokenizer = AutoTokenizer.from_pretrained(bench.checkpoint.folder)
        checkpoint.export(folder, learner.network, tokenizer, card)
