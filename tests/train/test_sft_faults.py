"""What goes wrong while a run trains: one line that says what to do, and nothing lost but the steps since the last
checkpoint.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_conversations import KilledError, recipe_of, write_set

from rsqa import cli
from rsqa.errors import InputError, ModelError, OutputError, RecipeError
from rsqa.train import sft
from rsqa.train.checkpoint import checkpoints
from rsqa.train.log import LOG_FILE
from rsqa.train.sft import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recipe(data):
    return replace(recipe_of(data), held=())


@pytest.fixture(scope="module")
def whole(data, recipe, tmp_path_factory):
    """The weights of a run that was left alone."""
    out = tmp_path_factory.mktemp("whole")
    train(recipe, data, out)
    return weights(out)


def weights(out):
    return load_file(checkpoints(out)[-1] / "model.safetensors")


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(weight.equal(other[name]) for name, weight in one.items())


def names(out):
    return [folder.name for folder in checkpoints(out)]


def at_step(monkeypatch, number, do):
    """Before a step, `do` is done with its batches; what it gives takes their place."""
    ahead = sft.ahead

    def drawn(draw, first, end):
        for step, batches in ahead(draw, first, end):
            yield step, ((do(batches) or batches) if step == number else batches)

    monkeypatch.setattr(sft, "ahead", drawn)


def killed(batches):
    raise KilledError


@pytest.fixture
def cut(data, recipe, tmp_path, monkeypatch):
    """A run that was killed in its fourth step and has a checkpoint of its second one."""
    with monkeypatch.context() as patched:
        at_step(patched, 3, killed)
        with pytest.raises(KilledError):
            train(recipe, data, tmp_path / "cut")
    assert names(tmp_path / "cut") == ["step-0000002"]
    return tmp_path / "cut"


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_loss_that_is_no_number_reaches_no_weight(data, recipe, whole, tmp_path, monkeypatch):
    def planted(batches):
        return [replace(b, pixels=None if b.pixels is None else b.pixels * torch.nan) for b in batches]

    with monkeypatch.context() as patched:
        at_step(patched, 3, planted)
        with pytest.raises(ModelError) as error:
            train(recipe, data, tmp_path)
    assert one_line(error).startswith("loss is nan at step 4; lower the rates (step-0000002 is kept")
    assert names(tmp_path) == ["step-0000002"]
    train(recipe, data, tmp_path, resume=True)
    assert_same(weights(tmp_path), whole)


def test_rates_that_are_none_are_refused(recipe):
    for rate in (float("nan"), float("inf"), -1.0):
        with pytest.raises(RecipeError, match="lr_vision is"):
            replace(recipe, lr_vision=rate)


def small_files(most):
    """From here on no file grows beyond `most` bytes: the system says so as it says that a disk is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_keeps_the_last_checkpoint(data, recipe, whole, cut, file, monkeypatch):
    n_bytes = (checkpoints(cut)[0] / file).stat().st_size
    with monkeypatch.context() as patched:
        at_step(patched, 3, lambda batches: small_files(n_bytes - 100))
        try:
            with pytest.raises(OutputError) as error:
                train(recipe, data, cut, resume=True)
        finally:
            small_files(resource.RLIM_INFINITY)
    message = one_line(error)
    assert "File too large" in message
    assert message.endswith("step-0000002 is kept, go on from it with --resume")
    assert error.value.exit_code == 5
    assert names(cut) == ["step-0000002"]
    assert not list(cut.glob(".*"))
    train(recipe, data, cut, resume=True)
    assert_same(weights(cut), whole)


def test_a_log_that_can_not_be_written_is_an_output_error(data, recipe, cut):
    (cut / LOG_FILE).unlink()
    (cut / LOG_FILE).mkdir()
    with pytest.raises(OutputError, match="step-0000002 is kept"):
        train(recipe, data, cut, resume=True)


def test_a_torn_line_of_the_log_is_taken_away(data, recipe, cut):
    whole_lines = (cut / LOG_FILE).read_bytes()
    (cut / LOG_FILE).write_bytes(whole_lines + b'{"step": 3, "lo')
    train(recipe, data, cut, resume=True)
    written = (cut / LOG_FILE).read_bytes()
    assert written.startswith(whole_lines)
    assert [json.loads(line)["step"] for line in written.splitlines()][-1] == 6


def test_an_output_that_is_no_folder(data, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written") as error:
        train(recipe, data, tmp_path / "file" / "run")
    one_line(error)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-50])


def emptied(path):
    path.write_bytes(b"")


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", truncated),
        ("model.safetensors", os.unlink),
        ("optimizer.pt", truncated),
        ("optimizer.pt", emptied),
        ("optimizer.pt", lambda path: path.write_bytes(pickle.dumps(Code(), protocol=2))),
        ("optimizer.pt", lambda path: torch.save({"state": Code()}, path)),
        ("progress.json", truncated),
        ("progress.json", lambda path: path.write_text('{"steps": 2}')),
    ],
)
def test_a_damaged_checkpoint_is_named(data, recipe, cut, monkeypatch, tmp_path, file, damage):
    monkeypatch.chdir(tmp_path)
    newest = checkpoints(cut)[-1]
    damage(newest / file)
    with pytest.raises(ModelError) as error:
        train(recipe, data, cut, resume=True)
    message = one_line(error)
    assert message.startswith("checkpoint step-0000002 is damaged (")
    assert message.endswith(f"delete the folder {newest} and start again without --resume")
    assert not (tmp_path / "ran").exists()


def test_behind_a_damaged_checkpoint_an_older_one_is_named(data, recipe, whole, cut):
    newest = shutil.copytree(cut / "step-0000002", cut / "step-0000003")
    emptied(newest / "optimizer.pt")
    with pytest.raises(ModelError, match=r"step-0000003 and go on from step-0000002 with --resume$"):
        train(recipe, data, cut, resume=True)
    shutil.rmtree(newest)
    train(recipe, data, cut, resume=True)
    assert_same(weights(cut), whole)


@pytest.mark.parametrize(("change", "message"), [({"lora_rank": 2}, "another network"), ({"lr_vision": 0.0}, "parts")])
def test_a_checkpoint_of_another_recipe_is_refused(data, recipe, cut, change, message):
    with pytest.raises(RecipeError, match=message) as error:
        train(replace(recipe, **change), data, cut, resume=True)
    one_line(error)


@pytest.mark.parametrize("damage", [os.unlink, truncated, emptied])
def test_a_picture_that_is_gone_while_it_trains(data, recipe, whole, tmp_path, monkeypatch, damage):
    shutil.copytree(data, tmp_path / "data")
    pictures = sorted((tmp_path / "data").glob("*.png"))
    with monkeypatch.context() as patched:
        at_step(patched, 2, lambda batches: [damage(picture) for picture in pictures] and None)
        with pytest.raises(InputError, match=r"can't decode picture .*--resume") as error:
            train(recipe, tmp_path / "data", tmp_path / "run")
    one_line(error)
    assert names(tmp_path / "run")
    for picture in pictures:
        shutil.copy(data / picture.name, picture)
    train(recipe, tmp_path / "data", tmp_path / "run", resume=True)
    assert_same(weights(tmp_path / "run"), whole)


@pytest.fixture
def command(data, recipe, tmp_path):
    """`rsqa train` of the recipe as a user writes it."""
    keys = ("name", "stage", "init", "conversations", "batch", "micro", "steps", "warmup", "lr_vision", "lr_merger",
            "lr_language", "weight_decay", "bf16", "log_every", "eval_every", "save_every")  # fmt: skip
    plain = {key: getattr(recipe, key) for key in keys}
    file = tmp_path / "recipe.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in plain.items()))
    return ["train", str(file), "--data", str(data), "--out", str(tmp_path / "run")]


@pytest.mark.parametrize("extra", [["--set", "batches=3"], ["--set", "lr_vision=nan"], ["--set", "steps="]])
def test_a_recipe_that_makes_no_sense_is_exit_2(command, capsys, extra):
    assert cli.run([*command, *extra]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_behind_its_step(command, whole, tmp_path, monkeypatch, capsys, signum, code):
    """Step 3 has no checkpoint by the recipe."""
    before = signal.getsignal(signum)
    with monkeypatch.context() as patched:
        at_step(patched, 2, lambda batches: os.kill(os.getpid(), signum))
        assert cli.run(command) == code
    assert "--resume goes on" in capsys.readouterr().err
    assert names(tmp_path / "run") == ["step-0000003"]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert signal.getsignal(signum) is before
    assert cli.run([*command, "--resume"]) == 0
    assert_same(weights(tmp_path / "run"), whole)
