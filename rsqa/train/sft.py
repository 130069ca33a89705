"""Stages 1 to 3: supervised training, one visible loop.

What differs between the stages is in the recipe: data, trainable parts, rates. The image is encoded once per picture,
its chains of text are packed behind it; the loss is the mean over the answers' tokens of a whole step, however it is
cut into micro batches and processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from rsqa.engines.cards import ModelCard
from rsqa.engines.registry import find_model, locate
from rsqa.errors import ModelError, OutputError
from rsqa.models.loading import load_network
from rsqa.train import checkpoint
from rsqa.train.adapter import save_adapter, with_lora
from rsqa.train.batch import Batch
from rsqa.train.checkpoint import Progress
from rsqa.train.forward import FLOAT32_ATTENTION, Attention, Reader, Said
from rsqa.train.hints import Hints
from rsqa.train.log import NOBODY, Log, Watcher
from rsqa.train.nano import Pictures
from rsqa.train.published import Published
from rsqa.train.recipe import Recipe


class Supply(Protocol):
    """Where the batches of a run come from: a pure function of the step, so that a resumed run sees what it would
    have seen.
    """

    @property
    def tokenizer(self) -> Any: ...
    @property
    def steps(self) -> int: ...
    def draw(self, step: int, n_micro: int) -> list[Batch]: ...
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
        if self.hints is None or batch.known is None or seen is None:
            return said, said.logprob.new_zeros(())
        vectors = self.reader.network.model.language_model.embed_tokens.weight
        return said, self.hints.loss(self.hints(seen, vectors), batch.known)


def learning_rate(step: int, recipe: Recipe, steps: int) -> float:
    """Share of the peak rate at a step."""
    warmup = recipe.warmup or math.ceil(steps * recipe.warmup_ratio)
    rising = min(1.0, (step + 1) / max(1, warmup))
    if recipe.schedule == "stable":  # so that the end can be moved
        return min(rising, (steps - step) / max(1, recipe.decay))
    return rising * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))) / 2


def parameter_groups(learner: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Vision, merger and language at their own rates, a part of rate 0 frozen; no weight decay on vectors."""
    rates = {"vision": recipe.lr_vision, "merger": recipe.lr_merger, "language": recipe.lr_language}
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, weight in learner.named_parameters():
        part = "merger" if "merger" in name else "vision" if "visual" in name else "language"
        if not rates[part]:
            weight.requires_grad_(False)
        if weight.requires_grad:
            groups.setdefault((part, weight.ndim > 1), []).append(weight)
    return [
        {"params": weights, "lr": rates[part], "peak": rates[part], "weight_decay": recipe.weight_decay * decayed}
        for (part, decayed), weights in sorted(groups.items())
    ]


def initial_network(recipe: Recipe, supply: Supply) -> Any:
    """The weights of `init` in float32, an adapter around them where the recipe asks for one; or random ones."""
    if not recipe.init:
        return supply.network()
    network = load_network(locate(find_model(recipe.init)), "cpu", "float32").requires_grad_(True).train()
    if not recipe.lora_rank:
        return network
    torch.manual_seed(recipe.seed)
    return with_lora(network, recipe.lora_rank, recipe.lora_alpha or 2 * recipe.lora_rank, recipe.lora_parts)


def export(folder: Path, network: Any, supply: Supply, recipe: Recipe) -> None:
    """Write what inference loads: the model, or the adapter alone."""
    card = supply.card(sum(weight.numel() for weight in network.parameters()))
    if recipe.lora_rank:
        save_adapter(folder, network, find_model(recipe.init), card)
    else:
        checkpoint.export(folder, network, supply.tokenizer, card)


def train(recipe: Recipe, data: Path, out: Path, resume: bool = False, watcher: Watcher = NOBODY) -> Path:
    """Run a recipe on what is in `data` -> the model folder `out/model`; `resume`: from the newest checkpoint.

    Raises InputError for data that can't be used, OutputError where `out` holds a run or can't be written, ModelError
    when the loss is no number; what was saved stays.
    """
    if checkpoint.checkpoints(out) and not resume:
        raise OutputError(f"{out.name} holds a run already; continue it with --resume or name another --out")
    accelerator = Accelerator(mixed_precision="bf16" if recipe.bf16 else "no")
    main, ranks = accelerator.is_main_process, accelerator.num_processes
    n_micro = math.ceil(recipe.batch / ranks / recipe.micro) if recipe.micro else 1
    with checkpoint.writing(out), accelerator.main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        say = watcher.say if main else _silent
        supply = supply_of(recipe, data, out, (accelerator.process_index, ranks, n_micro), say)
    steps = supply.steps
    network = initial_network(recipe, supply)
    vocab_size, dim = network.model.language_model.embed_tokens.weight.shape
    attend = FLOAT32_ATTENTION if accelerator.device.type == "cpu" and recipe.bf16 else Attention()
    single = Learner(Reader(network, attend, recipe.compile, recipe.recompute), supply.hints(dim, vocab_size))
    optimizer = torch.optim.AdamW(parameter_groups(single, recipe), betas=(0.9, recipe.beta2), fused=True)
    begun = checkpoint.restore(out, single, optimizer) if resume else Progress(0, 0.0)
    learner, optimizer = accelerator.prepare(single, optimizer)

    log = Log(out, watcher, begun, steps) if main else None
    started = time.monotonic() - begun.seconds
    for step in range(begun.step, steps):
        batches = [batch.to(accelerator.device) for batch in supply.draw(step, n_micro)]
        n_learned = torch.tensor(sum(batch.text.n_learned for batch in batches), device=accelerator.device)
        n_learned = accelerator.reduce(n_learned, "sum")
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(step, recipe, steps)
        losses = torch.zeros(2, device=accelerator.device)
        for number, batch in enumerate(batches):
            with accelerator.no_sync(learner) if number < len(batches) - 1 else nullcontext():
                said, hint = learner(batch)
                loss = -said.logprob.sum() * ranks / n_learned
                accelerator.backward(loss + recipe.hint * hint / len(batches))
            losses += torch.stack([loss.detach() / ranks, hint.detach() / len(batches)])
        norm = accelerator.clip_grad_norm_(learner.parameters(), recipe.clip)
        told = accelerator.reduce(torch.stack([*(losses * torch.tensor([1, 1 / ranks])), norm / ranks]), "sum").tolist()
        done, seconds = step + 1, time.monotonic() - started
        if not all(map(math.isfinite, told)):
            raise ModelError(f"loss is {told[0]} at step {done}; resume with a lower rate, the last checkpoint is kept")
        optimizer.step()
        optimizer.zero_grad()
        if log is None:
            continue
        log.step(Progress(done, seconds), *told, pictures=recipe.batch, tokens=int(n_learned))
        if done % recipe.log_every == 0:
            log.flush()
        if done % recipe.eval_every == 0 or done == steps:
            log.write(step=done, validation=supply.validate(single))
        if done % recipe.save_every == 0 or done == steps:
            with checkpoint.writing(out):
                checkpoint.save(out, single, optimizer, Progress(done, seconds))
                export(out / "model", network, supply, recipe)
                log.draw()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return out / "model"


def supply_of(recipe: Recipe, data: Path, out: Path, share: tuple[int, int, int], say: Callable[[str], None]) -> Supply:
    """Conversations in the published format; else pictures with facts. `share`: process, processes, micro batches."""
    rank, ranks, n_micro = share
    if recipe.conversations:
        return Published.of(recipe, data, rank, ranks, n_micro, say)
    return Pictures.of(recipe, data, out, rank, ranks, say)


def _silent(line: str) -> None:
    """For all processes but the first."""
