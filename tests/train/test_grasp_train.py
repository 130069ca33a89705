from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.engines.registry import find_model, load_engine, locate
from rsqa.errors import InputError, ModelError, OutputError, RecipeError
from rsqa.models.loading import load_network
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import write_random_checkpoint
from rsqa.train.grasp import HELD_FILE, backward, drawn, learning_rate, prepared, said_of, set_up, train
from rsqa.train.grasp_data import picture_order, read_quizzes
from rsqa.train.grasp_recipe import METHODS, GraspRecipe
from rsqa.train.log import LOG_FILE, Watcher
from rsqa.train.packing import IGNORE
from rsqa.train.parts import part_of

STAGE1 = Path(__file__).parents[2] / "recipes" / "nano" / "stage1"
SIDE = 84
GROUND = {"forest": ((30, 90, 30), ["trees"]), "beach": ((220, 200, 150), ["sand", "sea"])}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of two colours: which labels there are is planted."""
    folder, rows = tmp_path_factory.mktemp("data"), []
    for i in range(60):
        name = list(GROUND)[i % 2]
        colour, labels = GROUND[name]
        stream = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), colour).save(stream, "PNG")
        asked = [{"question": "is there water?", "answer": "yes" if name == "beach" else "no"}]
        rows.append({
            "id": f"{name}{i:02}", "image": stream.getvalue(), "cls": name, "labels": labels, "captions": [],
            "vqa": json.dumps(asked),
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "ucm.parquet")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = write_random_checkpoint(tmp_path_factory.mktemp("base"), 3)
    card = ModelCard("tiny", "Tiny", PromptStyle(system="Look."), "Apache-2.0", side_px=SIDE, temperatures={"yesno": 2})
    (folder / CARD_FILE).write_text(card_to_json(card))
    return folder


@pytest.fixture
def recipe(base):
    return GraspRecipe("test", str(base), inner=8, tokens=2, batch=32, steps=3, log_every=1, eval_every=3, rank=2)


def lines(out):
    return [json.loads(line) for line in (out / LOG_FILE).read_text().splitlines()]


PAPER = {"mode": "paper", "tokens": 1, "context": 0, "placement": "before_image"}
CASES = [
    *({"method": method} for method in METHODS),
    *({"fusion": fusion} for fusion in ("mean", "softmax", "top2", "sparsemax")),
    PAPER,
    {"question": "words", "blocks": 9, "positions": False},
    {"context": 0},
    {"bf16": True},
    {"method": "dora", "bf16": True},
]  # fmt: skip


@pytest.mark.parametrize("change", CASES, ids=str)
def test_three_steps_of_each_move_the_adapter_and_nothing_else(change, recipe, data, tmp_path):
    recipe = replace(recipe, **change)
    bench = set_up(recipe, tmp_path)
    before = {name: weight.clone() for name, weight in bench.learner.named_parameters()}
    learns = bench.learner.trained().keys()
    assert all(not name.startswith("network.") or "lora" in name for name in learns) or recipe.method == "full"
    told = []
    folder = train(recipe, data, tmp_path / "run", watcher=Watcher(told.append))
    assert recipe.method == "probe" or f"{sum(before[name].numel() for name in learns):,} of" in told[0]
    assert [line["step"] for line in lines(tmp_path / "run") if "loss" in line] == [1, 2, 3]
    told = json.loads((tmp_path / "run" / HELD_FILE).read_text())
    right = np.mean([item["right"] for item in told["items"]])
    assert lines(tmp_path / "run")[-1]["validation"]["OA"] == pytest.approx(right, rel=1e-4)
    assert told["base"] == sum(w.numel() for w in load_network(locate(bench.base), "cpu", "float32").parameters())
    if recipe.method in ("vpt", "probe"):
        assert not folder.exists()
        return
    if recipe.method == "dora":
        with pytest.raises(ModelError, match="use_dora"):
            find_model(str(folder))
        return
    ref = find_model(str(folder))
    assert recipe.method == "full" or find_model(adapter=folder) == ref
    assert ref.weights_id != bench.base.weights_id
    assert (ref.card.side_px, ref.card.temperatures) == (SIDE, {})
    chips = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), dtype=np.uint8)
    asked = [Question("q", "Is there water?", "yesno", YES_NO)]
    found, plain = (load_engine(r, "cpu").prepare(asked, (SIDE, SIDE), 2).answer(chips)[0] for r in (ref, bench.base))
    assert np.abs(found.option_logprob - plain.option_logprob).max() > 0
    assert bench.base.weights_id == find_model(recipe.init).weights_id


@pytest.mark.parametrize("change", [{}, PAPER, {"method": "lora"}], ids=str)
def test_the_base_gets_no_gradient_and_stays_as_it_is(change, recipe, data, tmp_path):
    bench = set_up(replace(recipe, **change), tmp_path)
    lesson = prepared(bench, read_quizzes(bench.recipe, data, tmp_path, SIDE)[0])
    kept = {name: weight.clone() for name, weight in bench.learner.named_parameters()}
    said, _ = said_of(bench, lesson, drawn(bench, lesson.quiz, range(8)))
    (-said.logprob.mean()).backward()
    trained = bench.learner.trained()
    assert trained
    for name, weight in bench.learner.named_parameters():
        assert (weight.grad is None) == (name not in trained), name
        assert torch.equal(weight, kept[name])
    assert any(weight.grad.abs().max() > 0 for weight in trained.values())


@pytest.mark.parametrize("change", [{}, PAPER, {"method": "cocoop"}], ids=str)
def test_training_reads_what_the_engine_reads(change, recipe, data, tmp_path):
    """The probability of the right answer is that which the saved adapter gives it."""
    recipe = replace(recipe, **change, questions=("rsivqa",), steps=1, lr_prompts=0.3)
    folder = train(recipe, data, tmp_path / "run")
    bench = set_up(recipe, tmp_path)
    engine = load_engine(find_model(str(folder)), "cpu")
    bench.learner.prompter.load_state_dict(engine.guide._prompter.state_dict())
    lesson = prepared(bench, read_quizzes(recipe, data, tmp_path, SIDE)[0])
    rows = drawn(bench, lesson.quiz, range(6))
    with torch.no_grad():
        said, _ = said_of(bench, lesson, rows)
    place = (rows.text.labels != IGNORE).nonzero()[:, 0]
    total = torch.zeros(6).index_add(0, place, said.logprob).numpy()
    question, answers = lesson.quiz.turns[0][0].question, [turns[0].answer for turns in lesson.quiz.turns[:6]]
    session = engine.prepare([question], (SIDE, SIDE), 4)
    (reply,) = session.answer(lesson.quiz.pixels[:6].numpy())
    expected = [reply.option_logprob[i, YES_NO.index(answer)] for i, answer in enumerate(answers)]
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-4)


def test_some_rows_at_a_time_give_the_gradient_of_all_together(recipe, data, tmp_path):
    bench = set_up(recipe, tmp_path)
    lesson = prepared(bench, read_quizzes(recipe, data, tmp_path, SIDE)[0])
    pictures = range(2, 22)
    loss = -said_of(bench, lesson, drawn(bench, lesson.quiz, pictures))[0].logprob.mean()
    expected = torch.autograd.grad(loss, list(bench.learner.trained().values()))
    loudest = max(float(gradient.abs().max()) for gradient in expected)
    told = backward(bench, lesson, pictures)
    assert told["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for weight, gradient in zip(bench.learner.trained().values(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=0, atol=1e-3 * loudest)


def test_what_the_tower_sees_is_kept_for_the_next_run(recipe, data, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = train(replace(recipe, steps=1), data, tmp_path / "a", cache=cache)
    kept = {path.name: path.read_bytes() for path in cache.glob("seen-*.npy")}
    assert len(kept) == 2
    monkeypatch.setattr("rsqa.train.grasp_learner.Learner.see", None)
    again = train(replace(recipe, steps=1), data, tmp_path / "b", cache=cache)
    assert (first / "adapter_model.safetensors").read_bytes() == (again / "adapter_model.safetensors").read_bytes()
    assert {path.name: path.read_bytes() for path in cache.glob("seen-*.npy")} == kept


def test_the_planted_answers_are_learned(data, tmp_path):
    """On the base of the recipes, which never saw a question about a real picture."""
    recipe = GraspRecipe("planted", str(STAGE1), tokens=4, batch=16, steps=12, log_every=1, eval_every=12)
    train(recipe, data, tmp_path / "run")
    told = lines(tmp_path / "run")
    losses = [line["loss"] for line in told if "loss" in line]
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
    assert told[-1]["validation"]["OA"] > 0.5
    assert {"entropy", "zeros", "norm"} <= told[0].keys()


def test_stopped_and_resumed_it_is_the_same_run(recipe, data, tmp_path):
    recipe = replace(recipe, steps=4, save_every=1)
    whole = train(recipe, data, tmp_path / "whole")
    done = []
    stopping = Watcher(step=lambda *told: done.append(told), stopped=lambda: len(done) == 1)
    train(recipe, data, tmp_path / "halves", watcher=stopping)
    with pytest.raises(OutputError, match="holds a run already"):
        train(recipe, data, tmp_path / "halves")
    resumed = train(recipe, data, tmp_path / "halves", resume=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_what_is_asked_is_balanced_and_held_back_pictures_are_others(recipe, data, tmp_path):
    learned, held = read_quizzes(replace(recipe, questions=("labels",)), data, tmp_path, SIDE)
    names = [f"{list(GROUND)[i % 2]}{i:02}" for i in range(60)]
    assert len(learned) == sum(part_of(name) == "train" for name in names)
    assert len(held) == sum(part_of(name) == "validation" for name in names)
    turns = [turn for some in learned.turns for turn in some]
    assert {turn.kind for turn in turns} == {"presence"}
    assert 0.35 < np.mean([turn.answer == "yes" for turn in turns]) < 0.65


def test_every_epoch_shows_every_picture_once():
    for epoch in range(2):
        shown = [i for step in range(4) for i in picture_order(10, 3, 4 * epoch + step, seed=1)]
        assert sorted(shown) == list(range(10))
    assert picture_order(10, 3, 0, 1) != picture_order(10, 3, 4, 1)


def test_rates_rise_and_fall():
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1)
    assert rates[-1] < 1e-3
    assert (np.diff(rates[9:]) <= 0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"method": "adapter"}, "none of grasp"), ({"questions": ("rsvqa",)}, "choose from rsivqa"),
     ({"questions": ("scenes",)}, "scene_windows"), ({"steps": 0, "epochs": 0}, "nothing to do"),
     ({"method": "full", "bf16": True}, "bfloat16"), ({"stage": "cot"}, "it is 'grasp'"),
     ({"guide": -1.0}, "0 or more"), ({"guide": 1.0, "method": "static"}, "chooses no blocks")],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense(recipe, change, said):
    with pytest.raises(RecipeError, match=said):
        replace(recipe, **change)


def test_what_can_not_be_run_is_said_in_a_line(recipe, tmp_path):
    with pytest.raises(RecipeError, match=f"side_px is 112, .* sees {SIDE}"):
        train(replace(recipe, side_px=112), tmp_path, tmp_path / "run")
    with pytest.raises(InputError, match=r"no ucm\.parquet"):
        train(recipe, tmp_path, tmp_path / "run")


@pytest.fixture(scope="module")
def saved(base, data, tmp_path_factory):
    recipe = GraspRecipe("test", str(base), inner=8, tokens=2, batch=64, steps=1)
    return train(recipe, data, tmp_path_factory.mktemp("run"))


class TestFolder:
    @pytest.fixture
    def copy(self, saved, tmp_path):
        for path in saved.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    def config(self, folder, **change):
        path = folder / "adapter_config.json"
        told = json.loads(path.read_text()) | change
        path.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))

    def test_it_may_be_given_as_model_or_as_adapter(self, saved, base):
        ref = find_model(str(saved))
        assert find_model(adapter=saved) == ref
        named = find_model(str(base), adapter=saved)
        assert (named.weights_id, named.base) == (ref.weights_id, str(base))
        assert type(named).from_json(json.loads(json.dumps(named.to_json()))) == named
        assert "base" not in ref.to_json()
        assert locate(named).prompt == locate(ref).prompt

    def test_a_base_elsewhere_is_found_by_its_weights(self, copy, base):
        self.config(copy, base_model_name_or_path="gone")
        with pytest.raises(ModelError, match=r"is not on this machine.*--model MODEL --adapter"):
            find_model(adapter=copy)
        assert load_engine(find_model(str(base), adapter=copy), "cpu").guide is not None

    def test_another_base_is_refused(self, saved, tmp_path):
        other = write_random_checkpoint(tmp_path / "other", 4)
        with pytest.raises(ModelError, match="changes a model of weights"):
            find_model(str(other), adapter=saved)

    def test_it_is_neither_merged_nor_trained_on_nor_stacked(self, saved, copy, tmp_path):
        from rsqa.train.merge import merge_adapter

        with pytest.raises(ModelError, match="depends on picture and question"):
            merge_adapter(saved, tmp_path / "merged", None, "auto", False)
        with pytest.raises(ModelError, match="depends on picture and question"):
            set_up(GraspRecipe("test", str(saved)), tmp_path)
        self.config(copy, base_model_name_or_path=str(saved))
        with pytest.raises(ModelError, match="on top of a prompt"):
            find_model(str(saved), adapter=copy)

    @pytest.mark.parametrize(
        ("change", "said"),
        [({"format": 2}, "another format"), ({"fusion": "max"}, "choose from"), ({"blocks": 3}, "square"),
         ({"tokens": "2"}, "tokens = '2'"), ({"inner": None}, "'inner' for one"), ({"more": 1}, "'more' for one"),
         ({"base_model_name_or_path": ""}, "names no base")],
    )  # fmt: skip
    def test_a_bad_configuration_is_refused(self, copy, change, said):
        self.config(copy, **change)
        with pytest.raises(ModelError, match=said):
            find_model(adapter=copy)

    @pytest.mark.parametrize(("change", "said"), [({"width": 64}, "other weights"), ({"blocks": 9}, "other weights")])
    def test_weights_of_another_shape_are_refused(self, copy, change, said):
        self.config(copy, **change)
        with pytest.raises(ModelError, match=said):
            load_engine(find_model(adapter=copy), "cpu")

    def test_no_adapter_there(self, tmp_path):
        with pytest.raises(ModelError, match="holds no adapter"):
            find_model(adapter=tmp_path)
