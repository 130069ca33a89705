"""Print how much of a GRASP prompt lies on the block that holds what is asked, in procedural windows of unseen styles.

    python recipes/grasp/looked.py RUN/model [RUN/model …] [--windows 640] [--cache DIR]

Counted are questions "Is there a ship?" (plane, storage tank, building) about windows in which all such things lie in
one block. Beside them: the weight of a block when all weigh the same, and the same weights under the window's other
questions. `--cache` is where the windows are kept, by default beside the first model. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rsqa.engines.registry import find_model, load_engine
from rsqa.evaluate.looked import Looked, weight_on_things
from rsqa.train.scene_windows import FIRST_HELD_SEED, scene_windows


def main(arguments: Sequence[str] | None = None) -> dict[str, Looked]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--windows", type=int, default=640)
    parser.add_argument("--cache", type=Path)
    told = parser.parse_args(arguments)
    cache = told.cache or told.models[0].parent / "scenes"
    found = {}
    print(f"{'':40}{'n':>6}{'on the block':>14}{'95 % interval':>16}{'most there':>12}{'shuffled':>10}{'chance':>8}")
    for folder in told.models:
        ref = find_model(adapter=folder)
        side = ref.card.side_px
        assert side is not None  # adapters are trained on pictures of one side
        looked = weight_on_things(load_engine(ref), scene_windows(told.windows, side, cache, FIRST_HELD_SEED))
        found[str(folder)] = looked
        asked, name = looked.asked, str(folder)[-38:]
        between = f"{asked.low:.3f}-{asked.high:.3f}"
        print(f"{name:40}{looked.n:>6,}{asked.weight:>14.3f}{between:>16}{asked.most:>12.3f}"
              f"{looked.shuffled.weight:>10.3f}{looked.chance:>8.3f}")  # fmt: skip
    print(json.dumps({name: asdict(looked) for name, looked in found.items()}))
    return found


if __name__ == "__main__":
    main()
