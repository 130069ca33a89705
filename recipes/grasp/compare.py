"""Train GRASP and its rivals on the same questions, each with several seeds, and print how they compare.

    python recipes/grasp/compare.py --data DIR --out RUNS [--minutes 60]

In the root of the repository. Runs lie in RUNS/RECIPE-SEED, those of the first seed come first, and as many at a time
as there are cores, one thread each. With `--minutes` they are saved and ended after so long; the same command goes on
where they stand, also after a crash, and does nothing twice. `--minutes 0` trains nothing. `--set KEY=VALUE` changes
all recipes: `--recipes grasp --seeds 1 --set blocks=16 --out RUNS/blocks-16` is a row of the ablations.

The table is over the questions that were held back. A question counts as the share of seeds that were right; intervals
are 95 % of a bootstrap over pictures, differences are of the same questions and seeds. Seconds are of one core (CPU
time). A tile costs what eight questions cost the engine, the base beside it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rsqa.engines.registry import ModelRef, find_model, load_engine
from rsqa.errors import ModelError, RecipeError
from rsqa.evaluate.metrics import average_interval, interval
from rsqa.tasks.question import YES_NO, Question
from rsqa.train import checkpoint, grasp
from rsqa.train.grasp_recipe import GraspRecipe
from rsqa.train.log import Watcher
from rsqa.train.recipe import read_recipe
from rsqa.train.stages import load

HERE = Path(__file__).parent
RECIPES = (
    "grasp", "static", "lora", "dora", "full", "probe", "cocoop", "vpt", "mean", "softmax", "top2", "paper",
)  # fmt: skip
AGAINST = ("static", "lora")
THINGS = ("water", "a road", "a building", "a ship", "an airplane", "a tree", "sand", "a car")
TILES, REPEATS = 64, 3


@dataclass(frozen=True)
class Job:
    """One run."""

    recipe: str
    seed: int
    data: Path
    out: Path
    overrides: tuple[str, ...]
    deadline: float
    """In `time.time()`."""

    @property
    def folder(self) -> Path:
        return self.out / f"{self.recipe}-{self.seed}"

    @property
    def done(self) -> bool:
        return (self.folder / grasp.HELD_FILE).is_file()

    def told(self) -> GraspRecipe:
        """Its recipe. Raises RecipeError."""
        told = load(read_recipe(HERE / f"{self.recipe}.toml"), (*self.overrides, f"seed={self.seed}"))
        if not isinstance(told, GraspRecipe):
            raise RecipeError(f"{self.recipe} is no recipe of stage 'grasp'")
        return told


def do(job: Job) -> str:
    """Train until it is done or the time is up -> what became of it."""
    if job.done or time.time() > job.deadline:
        return f"{job.folder.name}: {'done' if job.done else 'to do'}"
    torch.set_num_threads(1)
    watcher = Watcher(stopped=lambda: time.time() > job.deadline)
    resume = bool(checkpoint.checkpoints(job.folder))
    grasp.train(job.told(), job.data, job.folder, resume, watcher, cache=job.out / "cache")
    return f"{job.folder.name}: {'done' if job.done else 'saved'}"


@dataclass(frozen=True)
class Runs:
    """The finished runs of a recipe, first seeds first."""

    recipe: str
    trained: int
    share: float
    """Of all parameters of the base."""
    cpu_s_per_epoch: float
    right: NDArray[np.float64]
    """(seeds, questions)."""
    kinds: tuple[str, ...]
    """Of each question."""
    pictures: tuple[str, ...]


def finished(recipe: str, folders: Sequence[Path]) -> Runs:
    facts = [json.loads((folder / grasp.HELD_FILE).read_text(encoding="utf-8")) for folder in folders]
    asked = [[(item["picture"], item["kind"]) for item in run["items"]] for run in facts]
    pictures, kinds = zip(*asked[0], strict=True)
    return Runs(
        recipe, facts[0]["trained"], facts[0]["trained"] / facts[0]["base"],
        float(np.median([run["cpu_s_per_epoch"] for run in facts])),
        np.array([[float(item["right"]) for item in run["items"]] for run in facts]), kinds, tuple(map(str, pictures)),
    )  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of the table; pairs are the ends of 95 % intervals."""

    recipe: str
    trained: int
    share: float
    seeds: int
    oa: float
    oa_interval: tuple[float, float]
    oa_deviation: float
    """Over the seeds."""
    aa: float
    aa_interval: tuple[float, float]
    difference: dict[str, tuple[float, float, float]]
    """Recipe -> OA less its OA, with the ends of the interval."""
    cpu_s_per_epoch: float
    tile_ms: float | None
    """None where no engine runs it."""


def line(runs: Runs, all_runs: dict[str, Runs], tile_ms: float | None) -> Line:
    score = runs.right.mean(axis=0)
    members = [np.flatnonzero(np.array(runs.kinds) == kind) for kind in sorted(set(runs.kinds))]
    difference = {}
    for name in AGAINST:
        if name in all_runs and name != runs.recipe:
            other = all_runs[name]
            if (other.kinds, other.pictures) != (runs.kinds, runs.pictures):
                raise SystemExit(f"{runs.recipe} and {name} were asked other questions; train them anew in one --out")
            n = min(len(runs.right), len(other.right))
            better = runs.right[:n].mean(axis=0) - other.right[:n].mean(axis=0)
            difference[name] = (float(better.mean()), *interval(better, runs.pictures))
    return Line(
        runs.recipe, runs.trained, runs.share, len(runs.right), float(score.mean()), interval(score, runs.pictures),
        float(runs.right.mean(axis=1).std(ddof=1)) if len(runs.right) > 1 else 0.0,
        float(np.mean([score[m].mean() for m in members])), average_interval(members, score, runs.pictures),
        difference, runs.cpu_s_per_epoch, tile_ms,
    )  # fmt: skip


def tile_ms(ref: ModelRef) -> float:
    """CPU time of a tile with eight questions, the least of some repeats."""
    side = ref.card.side_px
    assert side is not None  # adapters are trained on pictures of one side
    chips = np.random.default_rng(0).integers(0, 256, (TILES, 3, side, side), dtype=np.uint8)
    asked = [Question(f"q{i}", f"Is there {thing}?", "yesno", YES_NO) for i, thing in enumerate(THINGS)]
    session = load_engine(ref, "cpu").prepare(asked, (side, side), TILES)
    session.answer(chips)
    spent = []
    for _ in range(REPEATS):
        before = time.process_time()
        session.answer(chips)
        spent.append(time.process_time() - before)
    return 1000 * min(spent) / TILES


def cost(folder: Path) -> float | None:
    """The same of a run's model; None where no engine runs it."""
    try:
        return tile_ms(find_model(str(folder / "model"))) if (folder / "model").is_dir() else None
    except ModelError:
        return None


def row(told: Line) -> str:
    def between(ends: Sequence[float]) -> str:
        return f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends[0] < 0 or ends[1] < 0 else f"{ends[0]:.3f} to {ends[1]:.3f}"

    cells = [
        f"{told.recipe:10}{told.trained:>10,}{told.share:>8.2%}{told.seeds:>6}",
        f"{told.oa:>8.3f}{between(told.oa_interval):>16}{told.oa_deviation:>8.3f}",
        f"{told.aa:>8.3f}{between(told.aa_interval):>16}",
    ]
    for name in AGAINST:
        pair = told.difference.get(name)
        cells.append(f"{'–':>32}" if pair is None else f"{pair[0]:>+12.3f}{between(pair[1:]):>20}")
    cells.append(f"{told.cpu_s_per_epoch:>9.1f}{'–' if told.tile_ms is None else f'{told.tile_ms:.2f}':>9}")
    return "".join(cells)


def main(arguments: Sequence[str] | None = None) -> list[Line]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    told = parser.parse_args(arguments)
    deadline = time.time() + 60 * told.minutes
    jobs = [
        Job(recipe, seed, told.data, told.out, tuple(told.overrides), deadline)
        for seed in range(told.seeds)
        for recipe in told.recipes
    ]
    base = find_model(jobs[0].told().init)
    if any(not job.done for job in jobs) and told.minutes > 0:
        with ProcessPoolExecutor(told.workers, multiprocessing.get_context("spawn")) as pool:
            for said in pool.map(do, jobs):
                print(said, flush=True)
    folders = {recipe: [j.folder for j in jobs if j.recipe == recipe and j.done] for recipe in told.recipes}
    all_runs = {recipe: finished(recipe, some) for recipe, some in folders.items() if some}
    torch.set_num_threads(1)
    against = "".join(f"{f'less {name}':>12}{'95 % interval':>20}" for name in AGAINST)
    print(f"{'':10}{'trained':>10}{'share':>8}{'seeds':>6}{'OA':>8}{'95 % interval':>16}{'seeds ±':>8}"
          f"{'AA':>8}{'95 % interval':>16}{against}{'s/epoch':>9}{'ms/tile':>9}")  # fmt: skip
    lines = []
    for recipe, runs in all_runs.items():
        lines.append(line(runs, all_runs, cost(folders[recipe][0])))
        print(row(lines[-1]), flush=True)
    left = sum(not job.done for job in jobs)
    print(f"base {tile_ms(base):.2f} ms/tile; {len(jobs) - left} of {len(jobs)} runs are done")
    print(json.dumps([asdict(told) for told in lines]))
    return lines


if __name__ == "__main__":
    main()
