import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rsqa.engines.cards import CARDS, card_to_json
from rsqa.engines.registry import ModelRef, choose_device, choose_dtype, find_model, load_engine
from rsqa.errors import ExitCode, ModelError, UsageError
from rsqa.testing import EchoEngine


def test_looking_up_a_model_imports_no_torch(random_folder):
    code = (
        "import sys; from rsqa.engines.registry import find_model; from rsqa.engines.sizing import default_batch;"
        f"find_model({str(random_folder(0))!r}, 'tinyrs'); find_model('rsqa.testing:EchoEngine');"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_a_reference_travels_as_json(random_folder):
    ref = find_model(str(random_folder(0)), "tinyrs-r1")
    there = ModelRef.from_json(json.loads(json.dumps(ref.to_json(), allow_nan=False)))
    assert there == ref
    assert load_engine(there, "cpu") is load_engine(ref, "cpu")


def test_the_card_in_the_folder_is_used_and_a_named_one_wins(random_folder, tmp_path):
    for path in random_folder(0).iterdir():
        (tmp_path / path.name).symlink_to(path)
    mine = replace(CARDS["tinyrs"], name="mine", side_px=112)
    (tmp_path / "rsqa-card.json").write_text(card_to_json(mine))
    assert find_model(str(tmp_path)).card == mine
    assert find_model(str(tmp_path), "tinyrs-cot").card == CARDS["tinyrs-cot"]


def test_a_folder_without_a_card_is_not_guessed(random_folder):
    with pytest.raises(ModelError, match=r"no rsqa-card.json; name one with --card") as caught:
        find_model(str(random_folder(0)))
    assert caught.value.exit_code == ExitCode.MODEL


def test_a_copy_is_the_same_model_and_a_changed_one_is_not(random_folder, tmp_path):
    for path in random_folder(0).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ref, copy = find_model(str(random_folder(0)), "tinyrs"), find_model(str(tmp_path), "tinyrs")
    assert ref.weights_id == copy.weights_id
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert find_model(str(tmp_path), "tinyrs").weights_id != ref.weights_id
    with pytest.raises(ModelError, match="not the model that was planned with"):
        load_engine(copy, "cpu", "bfloat16")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("tinyrs-nona", "did you mean 'tinyrs-nano'"),
        ("nonsense", "choose one of tinyrs-nano, tinyrs"),
        ("no.such.module:Engine", "can't be imported"),
        ("rsqa.testing:NoEngine", "can't be imported"),
        ("rsqa.testing:EngineContract", "no class attribute `card`"),
    ],
)
def test_an_unknown_model_names_what_there_is(name, match):
    with pytest.raises(ModelError, match=match) as caught:
        find_model(name)
    assert "\n" not in str(caught.value)


def test_an_engine_of_another_package():
    ref = find_model("rsqa.testing:EchoEngine")
    assert ref.card == EchoEngine.card
    assert isinstance(load_engine(ModelRef.from_json(ref.to_json()), "cpu"), EchoEngine)


def test_a_hub_model_that_is_not_here_says_so(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    for name in ("tinyrs", "nobody/no-such-model"):
        with pytest.raises(ModelError, match="is not on this machine and can't be fetched") as caught:
            find_model(name)
        assert "\n" not in str(caught.value)


def test_a_hub_model_in_the_cache_needs_no_network(random_folder, tmp_path, monkeypatch):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    home, commit = tmp_path / "models--aybora--Qwen2-VL-TinyRS", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir()
    (home / "snapshots" / commit).symlink_to(random_folder(0))
    ref = find_model("tinyrs")
    assert ref == find_model("aybora/Qwen2-VL-TinyRS")
    assert (ref.name, ref.card) == (f"aybora/Qwen2-VL-TinyRS@{commit}", CARDS["tinyrs"])
    elsewhere = replace(ref, folder="/no/such/folder/here")  # a worker on another machine
    assert load_engine(elsewhere, "cpu").card == CARDS["tinyrs"]


def test_no_silent_fallback_to_the_cpu():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert choose_device("auto") == "cpu"
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ModelError, match="0 CUDA devices found"):
            choose_device(device)
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        choose_device("gpu")


def test_dtypes():
    assert [choose_dtype("auto", d) for d in ("cpu", "cuda", "cuda:1")] == ["float32", "bfloat16", "bfloat16"]
    assert choose_dtype("float16", "cpu") == choose_dtype("fp16", "cpu") == "float16"
    assert [choose_dtype(d, "cpu") for d in ("fp32", "bf16", "int8")] == ["float32", "bfloat16", "int8"]
    with pytest.raises(UsageError, match="unknown dtype 'int4'"):
        choose_dtype("int4", "cpu")
