"""Stages 1 to 3: supervised training, one visible loop.

What differs between the stages is in the recipe: data, trainable parts, rates. The image is encoded once per picture,
its chains of text are packed behind it; the loss is the mean over the answers' tokens of a whole step, however it is
cut into micro batches and processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from rsqa.engines.cards import PIXELS_PER_TOKEN, ModelCard
from rsqa.engines.registry import find_model, locate
from rsqa.engines.words import Words
from rsqa.errors import ModelError, OutputError
from rsqa.models.loading import load_network
from rsqa.train import checkpoint
from rsqa.train.adapter import save_adapter, with_lora
from rsqa.train.batch import Batch, ahead
from rsqa.train.checkpoint import Progress
from rsqa.train.digits import digit_tokens
from rsqa.train.forward import FLOAT32_ATTENTION, Attention, Reader, Said
from rsqa.train.hints import Hints
from rsqa.train.log import NOBODY, Log, Watcher
from rsqa.train.nano import Pictures
from rsqa.train.processes import gathered, spread, untied, whole, whole_state
from rsqa.train.prompts import Prompt
from rsqa.train.published import Published
from rsqa.train.recipe import Recipe
from rsqa.train.sampling import asked, samples


class Supply(Protocol):
    """Where the batches of a run come from: a pure function of the step, so that a resumed run sees what it would
    have seen.
    """

    @property
    def tokenizer(self) -> Any: ...
    @property
    def steps(self) -> int: ...
    def draw(self, step: int, n_micro: int) -> list[Batch]: ...
    def samples(self) -> list[Prompt]: ...
    def validate(self, learner: nn.Module) -> dict[str, float]: ...
    def network(self) -> Qwen2VLForConditionalGeneration: ...
    def hints(self, dim: int, vocab_size: int) -> Hints | None: ...
    def card(self, parameters: int) -> ModelCard: ...


class Learner(nn.Module):
    """The network as training reads it, and what its visual tokens are asked by themselves."""

    def __init__(self, reader: Reader, hints: Hints | None) -> None:
        super().__init__()
        self.reader, self.hints = reader, hints

    def forward(self, batch: Batch) -> tuple[Said, Tensor]:
        """-> what is said of each token that must follow, and the loss of the hints."""
        said, seen = self.reader(batch.pixels, batch.framed, batch.text)
        if seen is None:
            return self._with_vision(said), said.logprob.new_zeros(())
        if self.hints is None or batch.known is None:
            return said, said.logprob.new_zeros(())
        vectors = self.reader.network.model.language_model.embed_tokens.weight
        return said, self.hints.loss(self.hints(seen, vectors), batch.known)

    def _with_vision(self, said: Said) -> Said:
        """The same values with the tower in their graph, so that it has gradients, of zero, where there is text alone.

        All processes then have gradients for the same weights, whatever each of them reads.
        """
        nothing = self.reader.see(torch.zeros(1, 3, PIXELS_PER_TOKEN, PIXELS_PER_TOKEN, device=said.logprob.device))
        return said._replace(logprob=said.logprob + 0 * nothing.float().sum())


def learning_rate(step: int, recipe: Recipe, steps: int) -> float:
    """Share of the peak rate at a step."""
    warmup = recipe.warmup or math.ceil(steps * recipe.warmup_ratio)
    rising = min(1.0, (step + 1) / max(1, warmup))
    if recipe.schedule == "stable":  # so that the end can be moved
        return min(rising, (steps - step) / max(1, recipe.decay))
    return rising * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))) / 2


def freeze(learner: nn.Module, recipe: Recipe) -> None:
    """Take the parts of rate 0 out of training."""
    for name, weight in learner.named_parameters():
        if not getattr(recipe, _rate(name)):
            weight.requires_grad_(False)


def parameter_groups(learner: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Vision, merger and language at their own rates; no weight decay on vectors."""
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, weight in learner.named_parameters():
        if weight.requires_grad:
            groups.setdefault((_rate(name), weight.ndim > 1), []).append(weight)
    return [
        {"params": weights, "lr": peak, "peak": peak, "weight_decay": recipe.weight_decay * decayed}
        for (rate, decayed), weights in sorted(groups.items())
        for peak in [getattr(recipe, rate)]
    ]


def _rate(name: str) -> str:
    """The recipe's key for the rate of a weight."""
    return "lr_merger" if "merger" in name else "lr_vision" if "visual" in name else "lr_language"


def initial_network(recipe: Recipe, supply: Supply) -> Any:
    """The weights of `init` in float32, an adapter around them where the recipe asks for one; or random ones."""
    if not recipe.init:
        return supply.network()
    network = load_network(locate(find_model(recipe.init)), "cpu", "float32").requires_grad_(True).train()
    if not recipe.lora_rank:
        return network
    alpha = recipe.lora_alpha or 2 * recipe.lora_rank
    return with_lora(network, recipe.lora_rank, alpha, recipe.lora_parts, words=recipe.lora_words)


def export(folder: Path, network: Any, tokenizer: Any, card: ModelCard, recipe: Recipe) -> None:
    """Write what inference loads: the model, or the adapter alone."""
    if recipe.lora_rank:
        save_adapter(folder, network, find_model(recipe.init), card)
    else:
        checkpoint.export(folder, network, tokenizer, card)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one process trains with."""

    recipe: Recipe
    out: Path
    accelerator: Accelerator
    supply: Supply
    n_micro: int
    """Micro batches of a step in this process."""
    network: Any
    """transformers' Qwen2VLForConditionalGeneration, float32."""
    card: ModelCard
    alone: Learner
    """The same weights as in `learner` and no ties to other processes: what one process does goes through it."""
    learner: nn.Module
    optimizer: torch.optim.Optimizer
    begun: Progress
    """Where this start takes up the run."""


def train(recipe: Recipe, data: Path, out: Path, resume: bool = False, watcher: Watcher = NOBODY) -> Path:
    """Run a recipe on what is in `data` -> the model folder `out/model`; `resume`: from the newest checkpoint.

    Raises InputError for data that can't be used, OutputError where `out` holds a run or can't be written, ModelError
    when the loss is no number; what was saved stays.
    """
    run = begin(recipe, data, out, resume, watcher)
    accelerator, main, steps = run.accelerator, run.accelerator.is_main_process, run.supply.steps
    log = Log(out, watcher, run.begun, steps) if main else None
    words = Words(run.supply.tokenizer.backend_tokenizer, run.card)
    prompts = run.supply.samples() if main else []
    asks = [asked(prompt, number, words, run.card) for number, prompt in enumerate(prompts)]
    started = time.monotonic() - run.begun.seconds
    for step, drawn in ahead(lambda step: run.supply.draw(step, run.n_micro), run.begun.step, steps):
        taken = take_step(run, step, drawn, watcher.stopped)
        progress = Progress(step + 1, time.monotonic() - started)
        evaluates = progress.step % recipe.eval_every == 0 or progress.step == steps
        saves = progress.step % recipe.save_every == 0 or progress.step == steps or taken.stopped
        if log is not None:
            log.step(progress, taken.loss, taken.hint, taken.norm, pictures=recipe.batch, tokens=taken.tokens)
            if progress.step % recipe.log_every == 0 or saves:
                log.flush()
        if evaluates or saves:
            state = whole_state(run.optimizer, keep=main) if saves else {}
            with gathered(run.learner):  # all processes give what they hold; the first one alone has a log
                if log is not None and evaluates:
                    evaluate(run, log, progress, lambda: samples(run.network, words, asks))
                if log is not None and saves:
                    save(run, log, progress, state)
        if taken.stopped:
            break
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return out / "model"


def begin(recipe: Recipe, data: Path, out: Path, resume: bool, watcher: Watcher) -> Run:
    """Find the data, load the network, take up the newest checkpoint. Raises as `train`."""
    if checkpoint.checkpoints(out) and not resume:
        raise OutputError(f"{out.name} holds a run already; continue it with --resume or name another --out")
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="bf16" if recipe.bf16 else "no")
    ranks = accelerator.num_processes
    n_micro = math.ceil(recipe.batch / ranks / recipe.micro) if recipe.micro else 1
    with checkpoint.writing(out):
        share = accelerator.process_index, ranks, n_micro
        supply = supply_of(recipe, data, out, share, watcher.say if accelerator.is_main_process else _silent)
    torch.manual_seed(recipe.seed)
    network = initial_network(recipe, supply)
    card = supply.card(sum(weight.numel() for weight in network.parameters()))
    vocab_size, dim = network.model.language_model.embed_tokens.weight.shape
    attend = FLOAT32_ATTENTION if accelerator.device.type == "cpu" and recipe.bf16 else Attention()
    digits = digit_tokens(partial(supply.tokenizer.encode, add_special_tokens=False))
    reader = Reader(network, attend, recipe.compile, recipe.recompute, digits=digits)
    alone = Learner(reader, supply.hints(dim, vocab_size))
    freeze(alone, recipe)
    learner = spread(Learner(alone.reader, alone.hints), accelerator)
    optimizer = torch.optim.AdamW(parameter_groups(alone, recipe), betas=(0.9, recipe.beta2), fused=True)
    begun = restored(out, alone, optimizer) if resume else Progress(0, 0.0)
    return Run(recipe, out, accelerator, supply, n_micro, network, card, alone, learner, optimizer, begun)


def restored(out: Path, alone: Learner, optimizer: torch.optim.Optimizer) -> Progress:
    """The newest checkpoint, with the rates of the recipe, which may be lower than those that were saved."""
    told = [{key: group[key] for key in ("peak", "weight_decay")} for group in optimizer.param_groups]
    begun = checkpoint.restore(out, alone, optimizer)
    for group, values in zip(optimizer.param_groups, told, strict=True):
        group |= values
    return begun


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step was like, over all processes."""

    loss: float
    """Mean of the tokens that were taught."""
    hint: float
    norm: float
    """Of the gradients, before they were clipped."""
    tokens: int
    stopped: bool
    """Whether any process was told to stop."""


def take_step(run: Run, step: int, drawn: Sequence[Batch], stopped: Callable[[], bool]) -> Taken:
    """Learn from the batches of this process. ModelError for a loss that is no number, before it reaches a weight.

    `stopped`: whether this process was told to stop.
    """
    accelerator, recipe, optimizer = run.accelerator, run.recipe, run.optimizer
    batches = [batch.to(accelerator.device) for batch in drawn]
    n_learned = torch.tensor(sum(batch.text.n_learned for batch in batches), device=accelerator.device)
    n_learned = accelerator.reduce(n_learned, "sum").clamp(min=1)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * learning_rate(step, recipe, run.supply.steps)
    loss, hint = learn(accelerator, run.learner, batches, n_learned, recipe.hint)
    norm = whole(nn.utils.clip_grad_norm_(run.learner.parameters(), recipe.clip))
    ranks = accelerator.num_processes
    own = torch.stack([loss, hint / ranks, norm / ranks, norm.new_tensor(float(stopped()))])
    all_loss, all_hint, all_norm, stops = accelerator.reduce(own, "sum").tolist()
    if not all(map(math.isfinite, (all_loss, all_hint, all_norm))):
        raise ModelError(f"loss is {all_loss} at step {step + 1}; lower the rates ({checkpoint.kept(run.out)})")
    optimizer.step()
    optimizer.zero_grad()
    return Taken(all_loss, all_hint, all_norm, int(n_learned), stops > 0)


def learn(
    accelerator: Accelerator, learner: nn.Module, batches: Sequence[Batch], n_learned: Tensor, hint_weight: float
) -> Tensor:
    """Add up the gradients of this process's micro batches -> (2,) its share of the step's loss, and its loss of hints.

    `n_learned`: tokens that the step teaches, in all processes.
    """
    losses = torch.zeros(2, device=accelerator.device)
    ranks = accelerator.num_processes
    for number, batch in enumerate(batches):
        with untied(learner) if number < len(batches) - 1 else nullcontext():
            with accelerator.autocast():
                said, hint = learner(batch)
                loss = -said.logprob.sum() / n_learned
            accelerator.backward(loss * ranks + hint_weight * hint / len(batches))  # averaged over processes
        losses += torch.stack([loss.detach(), hint.detach() / len(batches)])
    return losses


def evaluate(run: Run, log: Log, progress: Progress, written: Callable[[], list[dict[str, str]]]) -> None:
    """Tell how well what is held back is answered, and what the network writes about some of it."""
    with run.accelerator.autocast():
        scores = run.supply.validate(run.alone)
    log.write(step=progress.step, validation=scores, samples=written())


def save(run: Run, log: Log, progress: Progress, optimizer: dict[str, Any]) -> None:
    """Write the model, then the checkpoint, which says that all is written. `optimizer`: its state, whole."""
    with checkpoint.writing(run.out):
        export(run.out / "model", run.network, run.supply.tokenizer, run.card, run.recipe)
        checkpoint.save(run.out, run.alone, optimizer, progress)
        log.draw()


def supply_of(recipe: Recipe, data: Path, out: Path, share: tuple[int, int, int], say: Callable[[str], None]) -> Supply:
    """Conversations in the published format; else pictures with facts. `share`: process, processes, micro batches."""
    rank, ranks, n_micro = share
    if recipe.conversations:
        return Published.of(recipe, data, rank, ranks, n_micro, say)
    return Pictures.of(recipe, data, out, rank, ranks, say)


def _silent(line: str) -> None:
    """For all processes but the first."""
