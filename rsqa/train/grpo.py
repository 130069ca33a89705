"""GRPO, one visible loop: ask, write a group of texts, reward, learn from those that did better than their group.

    prompts ── write ──> G texts each ── reward ──> advantages ─────────┐
                              ├── read again, with gradients ──> ratio ─┼─> loss ──> step
                              └── read by the reference ──> KL ─────────┘

arXiv 2402.03300, as in TinyRS-R1 (arXiv 2505.12099). G texts of a prompt, N texts, T tokens of the longest.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from rsqa.engines.cards import ModelCard
from rsqa.engines.registry import ModelRef, find_model, locate
from rsqa.engines.words import Words
from rsqa.errors import ModelError, OutputError, RecipeError
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.train import checkpoint
from rsqa.train.adapter import save_adapter, with_lora, without_lora
from rsqa.train.checkpoint import Progress
from rsqa.train.forward import FLOAT32_ATTENTION, Attention, Framed, Reader
from rsqa.train.groups import Group, Sampler
from rsqa.train.grpo_log import Sums, added, averages, evaluate, gain, learning_sums, text_sums
from rsqa.train.grpo_loss import Clip, Judged, group_advantage, grpo_loss, parts, token_weights
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.log import NOBODY, Log, Watcher
from rsqa.train.packing import Chain, Packed, packed
from rsqa.train.processes import split_wanted
from rsqa.train.prompts import Prompt, Prompts
from rsqa.train.rewards import load_judge


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What is trained, and what it is held against."""

    network: Any
    """transformers' Qwen2VLForConditionalGeneration, float32."""
    reader: Reader
    reference: Reader | None
    """The network as it was at the start, or at the last synchronisation; with an adapter the reader itself, which
    is then read without it. None without a KL term.
    """
    words: Words
    card: ModelCard
    tokenizer: Any
    init: ModelRef

    @property
    def framed(self) -> Framed:
        """Tokens around the picture."""
        return Framed(self.words.before, self.words.after)


@dataclass(frozen=True, slots=True, eq=False)
class Micro:
    """Groups with pictures of one size, read in one forward pass."""

    pixels: Tensor
    """(A, 3, h, w) uint8, a picture a group."""
    text: Packed
    """Its texts behind it."""
    lengths: list[int]
    """Tokens of each text."""
    mask: Tensor
    """(N, T) 1 where there is a token to learn from; all 0 for a text without a reward."""
    advantage: Tensor
    """(N,)."""


def train(
    recipe: GrpoRecipe,
    prompts: Prompts,
    held: Sequence[Prompt],
    out: Path,
    resume: bool = False,
    watcher: Watcher = NOBODY,
) -> Path:
    """Run a recipe -> the model folder `out/model`; `held`: prompts by which it is evaluated.

    Several processes share the prompts of a step, each with the whole network; their gradients are added up.
    """
    if checkpoint.checkpoints(out) and not resume:
        raise OutputError(f"{out.name} holds a run already; continue it with --resume or name another --out")
    if split_wanted():
        raise RecipeError("GRPO needs the whole network in every process to write its texts; launch it without FSDP")
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="bf16" if recipe.bf16 else "no")
    rank, ranks = accelerator.process_index, accelerator.num_processes
    if recipe.prompts % ranks:
        raise RecipeError(f"prompts is {recipe.prompts} for {ranks} processes; make it a multiple of their number")
    model = load_model(recipe, accelerator.device)
    sampler = Sampler(recipe, prompts, model.words, model.card, load_judge(recipe.judge) if recipe.judge else None)
    trained = [weight for weight in model.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    state = saved_state(model, recipe)
    begun = checkpoint.restore(out, state, optimizer) if resume else Progress(0, 0.0)

    steps = recipe.steps or ceil(recipe.epochs * len(prompts) / recipe.prompts)
    log = Log(out, watcher, begun, steps) if accelerator.is_main_process else None
    started = time.monotonic() - begun.seconds

    def validate(step: int) -> None:
        if not held:
            return
        found = evaluate(recipe, model.network, model.words, model.card, held, rank, ranks)
        if log is not None:
            log.write(step=step, validation=found.scores, right=found.right, samples=found.samples)

    if not begun.step:
        validate(0)
    stopped = False
    for step in range(begun.step, steps):
        if stopped:
            break
        done = step + 1
        collected = sampler.collect(model.network, step, rank, ranks)
        for part in optimizer.param_groups:
            part["lr"] = recipe.lr * (1 - step / steps if recipe.schedule == "linear" else 1)
        micros = list(micro_batches(collected.groups, recipe.micro, accelerator.device))
        learned = learn(accelerator, model, optimizer, micros, recipe, done)
        if model.reference is not None and recipe.reference_sync and done % recipe.reference_sync == 0:
            model.reference.network.load_state_dict(model.network.state_dict())
        figures = averages(text_sums(collected, model.words) | learned)
        stopped = bool(accelerator.reduce(torch.tensor(int(watcher.stopped()), device=accelerator.device)))
        ending = done == steps or stopped
        seconds = time.monotonic() - started
        if log is not None:
            spent = seconds - begun.seconds
            tokens = figures.get("length", 0.0) * recipe.group * recipe.prompts * (done - begun.step)
            left = (steps - done) * spent / (done - begun.step)
            watcher.step(done, steps, figures.get("loss", 0.0), tokens / spent, left)
            log.write(step=done, **figures, lr=optimizer.param_groups[0]["lr"], seconds=seconds)
        if done % recipe.eval_every == 0 or done == steps:
            validate(done)
        if log is not None and (done % recipe.save_every == 0 or ending):
            with checkpoint.writing(out):
                export(out / "model", model, recipe)
                checkpoint.save(out, state, optimizer.state_dict(), Progress(done, seconds))
                log.draw()
    if log is not None and held and not stopped:
        log.write(step=steps, gain=gain(out))
    accelerator.wait_for_everyone()
    return out / "model"


def learn(
    accelerator: Accelerator,
    model: Model,
    optimizer: torch.optim.Optimizer,
    micros: Sequence[Micro],
    recipe: GrpoRecipe,
    step: int,
) -> Sums:
    """`recipe.updates` steps of the optimiser on the texts of a step -> what the log says about the last of them.

    ModelError when the loss is no number, before it reaches the weights.
    """
    clip = Clip(recipe.clip_low, recipe.clip_high)
    own = sum((parts(micro.mask, recipe.normalise) for micro in micros), torch.zeros((), device=accelerator.device))
    n_parts = accelerator.reduce(own)  # over all processes
    if not n_parts:
        return {}
    judged: list[Judged] = []
    sums: Sums = {}
    for update in range(recipe.updates):
        sums, total = {}, 0.0
        for number, micro in enumerate(micros):
            with accelerator.autocast():
                logprob = said(model.reader, model.framed, micro)
                if update == 0:  # the weights are still those that wrote the texts
                    judged.append(_judge(micro, model, logprob.detach(), n_parts, recipe))
            loss = grpo_loss(logprob, judged[number], clip, recipe.beta)
            accelerator.backward(loss)
            total += loss.item()
            sums = added(sums, learning_sums(logprob.detach(), judged[number], micro.mask, clip))
        add_up(accelerator, model.network)
        norm = float(accelerator.clip_grad_norm_(model.network.parameters(), recipe.max_norm))
        if not isfinite(norm):
            raise ModelError(
                f"the gradient is {norm} at step {step}; resume with a lower lr, the last checkpoint is kept"
            )
        optimizer.step()
        optimizer.zero_grad()
    return sums | {"norm": (norm, 1.0), "loss": (total, 1 / accelerator.num_processes)}  # shares of a sum


def _judge(micro: Micro, model: Model, logprob: Tensor, n_parts: Tensor, recipe: GrpoRecipe) -> Judged:
    """What stays as it is through all updates of a step; `logprob` (N, T): before the first of them."""
    weight = token_weights(micro.mask, recipe.normalise, recipe.max_new_tokens) / n_parts
    if model.reference is None:
        return Judged(micro.advantage, weight, logprob, None)
    with torch.no_grad(), without_lora(model.network) if recipe.lora_rank else nullcontext():
        return Judged(micro.advantage, weight, logprob, said(model.reference, model.framed, micro))


def said(reader: Reader, framed: Framed, micro: Micro) -> Tensor:
    """-> (N, T) log-probabilities of the tokens that were written, 0 where there is none."""
    answers, _ = reader(micro.pixels.float(), framed, micro.text)
    return pad_sequence(list(torch.split(answers.logprob, micro.lengths)), batch_first=True)


def micro_batches(groups: Sequence[Group], size: int, device: torch.device) -> Iterator[Micro]:
    """At most `size` groups at a time, those with pictures of one size together."""

    def side(group: Group) -> tuple[int, ...]:
        return tuple(group.asked.pixels.shape)

    for _, alike in groupby(sorted(groups, key=side), key=side):
        some = list(alike)
        for first in range(0, len(some), size):
            yield micro_batch(some[first : first + size], device)


def micro_batch(groups: Sequence[Group], device: torch.device) -> Micro:
    """The texts of each group are packed behind its picture."""
    rewards = torch.cat([group.totals for group in groups])
    rows = [row for group in groups for row in group.rows]
    lengths = [len(row.tokens) for row in rows]
    mask = pad_sequence([torch.ones(length) for length in lengths], batch_first=True)
    mask[rewards.flatten().isnan()] = 0.0
    chains = [
        [Chain.of([(group.asked.suffix, False), (row.tokens, True)], "text") for row in group.rows] for group in groups
    ]
    text = packed(chains, fill=0)  # what stands in padding is never looked at
    return Micro(
        torch.stack([group.asked.pixels for group in groups]).to(device),
        text.to(device),
        lengths,
        mask.to(device),
        group_advantage(rewards).flatten().float().to(device),
    )


def add_up(accelerator: Accelerator, network: nn.Module) -> None:
    """Sum the gradients of all processes. A process without texts to learn from adds nothing."""
    if accelerator.num_processes == 1:
        return
    for weight in filter(lambda weight: weight.requires_grad, network.parameters()):
        own = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad = accelerator.reduce(own)


def load_model(recipe: GrpoRecipe, device: torch.device) -> Model:
    """The weights of `init` in float32, twice where a reference is needed that is not the network without its adapter.

    RecipeError when it does not reason.
    """
    found = find_model(recipe.init)
    if not found.card.prompt.reasoning:
        raise RecipeError(
            f"init {recipe.init!r} answers without reasoning; start GRPO from a model that was taught to reason"
        )
    folder = locate(found)
    network = load_network(folder, str(device), "float32")
    attend = FLOAT32_ATTENTION if device.type == "cpu" and recipe.bf16 else Attention()
    reader = Reader(network, attend, recompute=recipe.recompute, temperature=recipe.temperature)
    reference = None
    if recipe.lora_rank:
        torch.manual_seed(recipe.seed)
        with_lora(network, recipe.lora_rank, 2 * recipe.lora_rank)
        reference = reader if recipe.beta else None
    else:
        if recipe.beta:
            reference = Reader(copy.deepcopy(network), attend, temperature=recipe.temperature)
        network.requires_grad_(True)
    card = replace(found.card, name=recipe.name, title=recipe.name, hub_id="", temperatures={})
    tokenizer = AutoTokenizer.from_pretrained(folder.folder, local_files_only=True, trust_remote_code=False)
    return Model(network, reader, reference, Words(load_tokenizer(folder), card), card, tokenizer, found)


def export(folder: Path, model: Model, recipe: GrpoRecipe) -> None:
    """Write what inference loads: the model, or the adapter alone."""
    if recipe.lora_rank:
        save_adapter(folder, model.network, model.init, model.card)
    else:
        checkpoint.export(folder, model.network, model.tokenizer, model.card)


def saved_state(model: Model, recipe: GrpoRecipe) -> nn.Module:
    """What a checkpoint holds: the network, and the reference once it is no longer `init`."""
    parts = {"network": model.network}
    if model.reference is not None and recipe.reference_sync:
        parts["reference"] = model.reference.network
    return nn.ModuleDict(parts)
