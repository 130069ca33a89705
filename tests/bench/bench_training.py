"""What a step of training costs: `python tests/bench/bench_training.py SHAPE DEVICE DTYPE [OPTIONS]`.

    python tests/bench/bench_training.py 2b cuda bfloat16              # each stage at its recipe's settings
    python tests/bench/bench_training.py 2b cpu bfloat16 --steps 1     # proof that a step runs; 18 GB of memory
    python tests/bench/bench_training.py nano cpu float32 --stages pretrain --set compile=false

SHAPE is nano or 2b, its weights random. Of each stage whose recipe ships, in this order: batches as the recipe's, made
of random pictures of one side and random tokens in the lengths of `ANSWER_TOKENS`; forward, backward and AdamW, or for
GRPO sampling by the engine and all that follows. The first step is not timed, unless it is the only one. Prints a table
and, as the last line, one JSON object.

Model FLOPs are those of vision, merger, language and head in the shapes of `rsqa.bench.cost`, backward counted as twice
forward; what `recompute` does again is not counted, nor is the optimiser, nor are the hints of nano, which are not run.
Utilisation is their share of a matrix product in DTYPE on the same machine, minutes before.

Weights, gradients and moments are float32 and bfloat16 is autocast, as in `rsqa train`. The 2b shape on a CPU is held
in bfloat16 throughout, reads one picture of 224 px a step and runs stage 1 alone, unless told otherwise: that proves
the step and its memory, not the recipe's numerics.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rsqa.bench.ceiling import Ceiling
from rsqa.bench.checkpoint import NANO, TWO_B, two_b_config
from rsqa.bench.cost import Shape
from rsqa.bench.machine import load, machine, versions
from rsqa.bench.work import Case, Setup
from rsqa.engines.cards import CARDS, ModelCard
from rsqa.engines.registry import embedded_folder, find_model
from rsqa.engines.words import Words
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import DTYPES, load_tokenizer
from rsqa.tasks.prompts import PromptStyle, suffix_text
from rsqa.tasks.question import Question
from rsqa.train import grpo
from rsqa.train.adapter import with_lora
from rsqa.train.batch import Batch, split
from rsqa.train.forward import FLOAT32_ATTENTION, Attention, Framed, Reader
from rsqa.train.groups import Group, Sampler
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.nano import NANO_REASONING, NANO_STYLE
from rsqa.train.packing import Chain, packed
from rsqa.train.prompts import EXACT, Prompt, Shuffled
from rsqa.train.recipe import Recipe, values_of
from rsqa.train.sft import Learner, parameter_groups
from rsqa.train.stages import load as load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
ANSWER_TOKENS = {"pretrain": 60, "instruct": 4, "cot": 280, "grpo": 280}
"""Of a caption, a word with its end, a reason with its answer. Texts of GRPO end there, or where the recipe says, or by
chance.
"""
QUESTION = Question("asked", "How many storage tanks are there north of the river, and is one of them red?", "open")
REASONING = ("cot", "grpo")
PATCH, TOKEN = 14, 28
"""Pixels a side."""
SPARE_GB = 1.5
"""For libraries, activations and the gradients of the word vectors, which are made three times and added up."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is held for all stages."""

    config: Mapping[str, Any]
    """config.json of the network."""
    styles: tuple[PromptStyle, PromptStyle]
    """Of the stages before reasoning, and from there on."""
    device: str
    dtype: str
    """In which products are computed."""
    held: str
    """In which weights, gradients and moments are."""
    side: int
    """Of pictures, pixels."""
    steps: int

    @property
    def shape(self) -> Shape:
        """What its cost depends on."""
        return Shape.of(self.config)

    def words(self, stage: str) -> Words:
        """Prompts in the embedded tokenizer, whose numbers every vocabulary holds."""
        card = ModelCard("bench", "Bench", self.styles[stage in REASONING], "")
        return Words(load_tokenizer(open_checkpoint(embedded_folder())), card)

    def network(self) -> Any:
        """Random weights, made in the precision in which they are held."""
        torch.manual_seed(0)
        with torch.device(self.device):
            network = Qwen2VLForConditionalGeneration._from_config(self.transformers_config(), dtype=DTYPES[self.held])
        return network.requires_grad_(True).train()

    def transformers_config(self) -> Qwen2VLConfig:
        return Qwen2VLConfig.from_dict(dict(self.config))

    def accelerator(self) -> Accelerator:
        return Accelerator(cpu=self.device == "cpu", mixed_precision="bf16" if self.dtype == "bfloat16" else "no")

    def attention(self) -> Attention:
        """As in `rsqa.train.sft`."""
        return FLOAT32_ATTENTION if self.device == "cpu" and self.dtype == "bfloat16" else Attention()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the optimiser."""

    seconds: float
    flops: float
    """Of the model."""
    answer_tokens: int
    """From which is learned."""
    tokens: int
    """That the language part reads while it learns: prompt, picture, question and answer."""
    writing_s: float = 0.0
    """Of the seconds, those in which texts were sampled and rewarded."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How often a part's forward cost is paid in a step: 3 where its weights learn, 2 where gradients only pass
    through or to an adapter (attention without weights of its own costs 3 there, too: a little is left out), 1 where
    there are none. A merger that learns alone counts as the tower, at 1.
    """

    vision: int
    language: int

    @classmethod
    def of(cls, network: Any) -> Passes:
        """By what is trainable."""
        vision, language = (
            {".lora_" in name for name, w in part.named_parameters() if w.requires_grad and "merger" not in name}
            for part in (network.model.visual, network.model.language_model)
        )
        return cls(3 if False in vision else 2 if vision else 1, 3 if False in language else 2)


def flops_of_texts(
    shape: Shape, side: int, prompt: int, texts: Sequence[tuple[int, int]], passes: Passes = Passes(1, 1)
) -> int:
    """One picture and the texts that are read behind it, each (tokens read, of which so many are learned).

    `prompt`: tokens around the picture. Without `passes`: forward alone.
    """
    prefix = prompt + (side // TOKEN) ** 2
    language = shape.language(prefix) if texts else 0
    language += sum(shape.language(read, prefix) + learned * shape.head() for read, learned in texts)
    return passes.vision * shape.vision((side // PATCH) ** 2) + passes.language * language


def flops_of_writing(shape: Shape, side: int, prompt: int, suffix: int, lengths: Sequence[int]) -> int:
    """Texts of one prompt: picture and question are read once, every token is a step with the head."""
    whole = prompt + (side // TOKEN) ** 2 + suffix
    steps = (shape.language(length - 1, whole) + length * shape.head() for length in lengths)
    return shape.vision((side // PATCH) ** 2) + shape.language(whole) + sum(steps)


# Stages 1 to 3


def batch_of(recipe: Recipe, setting: Setting) -> tuple[Batch, list[tuple[int, int]]]:
    """-> the pictures of a step with their texts, and the texts of each picture as (tokens read, learned)."""
    words, rng = setting.words(recipe.stage), np.random.default_rng(0)
    asked = words.encode(suffix_text(QUESTION, setting.styles[recipe.stage in REASONING]))
    answer = rng.integers(0, setting.shape.vocabulary, ANSWER_TOKENS[recipe.stage]).tolist()
    chain = Chain.of([(asked, False), (answer, True)], "text")
    n_chains = 1 if recipe.conversations else max(1, recipe.suffix_tokens // len(chain.ids))
    n_asked = recipe.batch if recipe.conversations else recipe.asked
    pixels = rng.integers(0, 256, (recipe.batch, 3, setting.side, setting.side), dtype=np.uint8)
    text = packed([[chain] * n_chains] * n_asked, 0)
    batch = Batch(torch.from_numpy(pixels).float(), Framed(words.before, words.after), text)
    return batch, [(len(chain.ids), len(answer))] * n_chains


def supervised(recipe: Recipe, setting: Setting) -> Iterator[Step]:
    """Steps as in `rsqa.train.sft.train`."""
    accelerator, network = setting.accelerator(), setting.network()
    if recipe.lora_rank:
        with_lora(network, recipe.lora_rank, recipe.lora_alpha or 2 * recipe.lora_rank, recipe.lora_parts)
    learner: Any = Learner(Reader(network, setting.attention(), recipe.compile, recipe.recompute), None)
    optimizer: Any = torch.optim.AdamW(parameter_groups(learner, recipe), betas=(0.9, recipe.beta2), fused=True)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    batch, texts = batch_of(recipe, setting)
    n_asked, prompt = len(batch.text.ids), len(batch.framed.before) + len(batch.framed.after)
    asked = flops_of_texts(setting.shape, setting.side, prompt, texts, Passes.of(network))
    bare = flops_of_texts(setting.shape, setting.side, prompt, [], Passes.of(network))
    flops = n_asked * asked + (recipe.batch - n_asked) * bare
    tokens = n_asked * (prompt + (setting.side // TOKEN) ** 2 + sum(read for read, _ in texts))
    pieces = split(batch, math.ceil(recipe.batch / recipe.micro) if recipe.micro else 1)
    n_learned = batch.text.n_learned
    for _ in range(setting.steps):
        start = _clock(setting.device)
        for piece in pieces:
            said, _ = learner(piece.to(accelerator.device))
            accelerator.backward(-said.logprob.sum() / n_learned)
        accelerator.clip_grad_norm_(learner.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        yield Step(_clock(setting.device) - start, flops, n_learned, tokens)


# Stage 4


def reinforced(recipe: GrpoRecipe, setting: Setting) -> Iterator[Step]:
    """Steps as in `rsqa.train.grpo.train`. All texts have one reward: that changes numbers, not their cost."""
    recipe = replace(recipe, skip_limit=0, max_new_tokens=min(recipe.max_new_tokens, ANSWER_TOKENS["grpo"]))
    accelerator, model = setting.accelerator(), model_of(recipe, setting)
    trained = [weight for weight in model.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    pixels = np.random.default_rng(0).integers(0, 256, (3, setting.side, setting.side), dtype=np.uint8)
    prompts = Shuffled(lambda _: Prompt(pixels, QUESTION.text, EXACT, "4"), recipe.prompts, recipe.seed)
    sampler = Sampler(recipe, prompts, model.words, model.card, None)
    for step in range(setting.steps):
        start = _clock(setting.device)
        groups = sampler.collect(model.network, step, 0, 1).groups
        written = _clock(setting.device)
        micros = list(grpo.micro_batches(groups, recipe.micro, accelerator.device))
        grpo.learn(accelerator, model, optimizer, micros, recipe, step)
        seconds = _clock(setting.device) - start
        flops, answers, tokens = zip(*(cost_of_group(group, recipe, model, setting) for group in groups), strict=True)
        yield Step(seconds, sum(flops), sum(answers), sum(tokens), written - start)


def model_of(recipe: GrpoRecipe, setting: Setting) -> grpo.Model:
    """As `rsqa.train.grpo.load_model`, of random weights."""
    network = setting.network()
    attend, reference = setting.attention(), None
    reader = Reader(network, attend, recompute=recipe.recompute, temperature=recipe.temperature)
    if recipe.lora_rank:
        with_lora(network, recipe.lora_rank, 2 * recipe.lora_rank)
        reference = reader if recipe.beta else None
    elif recipe.beta:
        reference = Reader(copy.deepcopy(network).requires_grad_(False), attend, temperature=recipe.temperature)
    card = ModelCard("bench", "Bench", setting.styles[1], "")
    return grpo.Model(network, reader, reference, setting.words("grpo"), card, None, find_model(None))


def cost_of_group(group: Group, recipe: GrpoRecipe, model: grpo.Model, setting: Setting) -> tuple[int, int, int]:
    """-> model FLOPs of writing a group, reading it by the reference and learning from it; its tokens written, read."""
    shape, side, suffix = setting.shape, setting.side, len(group.asked.suffix)
    prompt = len(model.words.before) + len(model.words.after)
    lengths = [len(row.tokens) for row in group.rows]
    texts = [(suffix + length - 1, length) for length in lengths]
    flops = flops_of_writing(shape, side, prompt, suffix, lengths)
    flops += recipe.updates * flops_of_texts(shape, side, prompt, texts, Passes.of(model.network))
    if model.reference is not None:
        flops += flops_of_texts(shape, side, prompt, texts)
    return flops, sum(lengths), prompt + (side // TOKEN) ** 2 + sum(read for read, _ in texts)


# All stages


def measure(recipe: Recipe | GrpoRecipe, setting: Setting, ceiling: float) -> dict[str, Any]:
    """Run the steps of one stage -> its row of the table. `ceiling`: FLOP/s."""
    gc.collect()  # what the stage before held
    check_memory(recipe, setting)
    _reset_peak(setting.device)
    run = supervised(recipe, setting) if isinstance(recipe, Recipe) else reinforced(recipe, setting)
    steps = list(run)
    timed = steps[1:] or steps
    seconds = sum(step.seconds for step in timed)
    flops = sum(step.flops for step in timed)
    return {
        "stage": recipe.stage, "px": setting.side, "batch": _batch(recipe), "micro": recipe.micro,
        "lora_rank": recipe.lora_rank, "step_s": seconds / len(timed), "first_step_s": steps[0].seconds,
        "writing_s": sum(step.writing_s for step in timed) / len(timed),
        "answer_tokens_per_s": sum(step.answer_tokens for step in timed) / seconds,
        "tokens_per_s": sum(step.tokens for step in timed) / seconds,
        "flop_per_step": flops / len(timed), "utilisation": flops / seconds / ceiling,
        "peak_gb": _peak_gb(setting.device),
    }  # fmt: skip


def check_memory(recipe: Recipe | GrpoRecipe, setting: Setting) -> None:
    """Stop before the machine's memory is used up: a system out of memory ends other programs, too."""
    if setting.device != "cpu":
        return
    with torch.device("meta"):
        numbers = sum(w.numel() for w in Qwen2VLForConditionalGeneration(setting.transformers_config()).parameters())
    copies = 1 if recipe.lora_rank else 4  # weights, their gradients and two moments
    copies += isinstance(recipe, GrpoRecipe) and recipe.beta > 0 and not recipe.lora_rank  # the reference
    wanted = copies * numbers * DTYPES[setting.held].itemsize / 1e9 + SPARE_GB
    [line] = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable")]
    free = int(line.split()[1]) * 1024 / 1e9
    if wanted > free:
        sys.exit(f"{recipe.stage} needs about {wanted:.1f} GB and {free:.1f} GB are free; try --set lora_rank=16")


def run(recipes: Sequence[Recipe | GrpoRecipe], setting: Setting) -> dict[str, Any]:
    """All stages, one after another."""
    product = Ceiling(Setup("", setting.device, setting.dtype, torch.get_num_threads(), ""))
    product.prepare(Case(0, 0, 0, None))
    ceiling = product.run()["flop_per_s"]
    del product
    print(f"a matrix product in {setting.dtype} does {ceiling / 1e9:,.0f} GFLOP/s", flush=True)
    print(f"{'stage':>9} {'px':>5} {'batch':>6} {'micro':>6} {'s/step':>9} {'writing':>9} {'answer tok/s':>13} "
          f"{'tok/s':>9} {'TFLOP/step':>11} {'of the product':>15} {'peak GB':>8}")  # fmt: skip
    rows = []
    for recipe in recipes:
        row = measure(recipe, setting, ceiling)
        rows.append(row)
        print(f"{row['stage']:>9} {row['px']:>5} {row['batch']:>6} {row['micro'] or row['batch']:>6} "
              f"{row['step_s']:>9.3f} {row['writing_s']:>9.3f} {row['answer_tokens_per_s']:>13.1f} "
              f"{row['tokens_per_s']:>9.1f} {row['flop_per_step'] / 1e12:>11.3f} {row['utilisation']:>15.1%} "
              f"{row['peak_gb']:>8.2f}", flush=True)  # fmt: skip
    facts = asdict(setting)
    told = {name: facts[name] for name in ("device", "dtype", "held", "side", "steps")}
    return {"bench": "training", **told, "machine": machine(setting.device), "load": load(), "versions": versions(),
            "threads": torch.get_num_threads(), "ceiling_flop_per_s": ceiling, "stages": rows}  # fmt: skip


def _batch(recipe: Recipe | GrpoRecipe) -> int:
    return recipe.batch if isinstance(recipe, Recipe) else recipe.prompts


def recipes_of(given: argparse.Namespace) -> list[Recipe | GrpoRecipe]:
    """Those that ship for a shape, with what the command line says in place of their own values."""
    chosen = []
    for file in sorted((RECIPES / ("tinyrs" if given.shape == TWO_B else "nano")).glob("*.toml")):
        text = file.read_text(encoding="utf-8")
        stage = values_of(text)["stage"]
        one = ["prompts=1" if stage == "grpo" else "batch=1", "micro=1"] if _is_proof(given) else []
        if stage in (given.stages or (["pretrain"] if _is_proof(given) else ANSWER_TOKENS)):
            chosen.append(load_recipe(text, [*one, *given.set]))
    return chosen


def setting_of(given: argparse.Namespace) -> Setting:
    """What the command line says; the defaults of the 2b shape on a CPU are those of the proof."""
    config = json.loads((embedded_folder() / "config.json").read_text())
    side, styles = find_model(None).card.side_px, (NANO_STYLE, NANO_REASONING)
    if given.shape == TWO_B:
        config = two_b_config(load_tokenizer(open_checkpoint(embedded_folder())))
        side, styles = 224 if _is_proof(given) else 448, (CARDS["tinyrs"].prompt, CARDS["tinyrs-cot"].prompt)
    held = given.held or ("bfloat16" if _is_proof(given) else "float32")
    return Setting(config, styles, given.device, given.dtype, held, given.side or side, given.steps)


def _is_proof(given: argparse.Namespace) -> bool:
    return given.shape == TWO_B and given.device == "cpu"


def _clock(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _reset_peak(device: str) -> None:
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gb(device: str) -> float:
    """Of the GPU's memory, or of all that the process holds."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=(NANO, TWO_B))
    parser.add_argument("device")
    parser.add_argument("dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--stages", nargs="+", choices=ANSWER_TOKENS)
    parser.add_argument("--side", type=int, help="pixels, a multiple of 28")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of the recipes' own")
    parser.add_argument("--held", choices=("float32", "bfloat16"), help="precision of weights, gradients and moments")
    given = parser.parse_args()
    print(json.dumps(run(recipes_of(given), setting_of(given))))


if __name__ == "__main__":
    main()
