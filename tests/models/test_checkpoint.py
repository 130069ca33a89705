import json
import struct

import pytest

from rsqa.errors import ExitCode, ModelError
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.testing import write_random_checkpoint


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("models") / "pristine")


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy to be damaged."""
    for path in pristine.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(path, **values):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **values}))


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as caught:
        load_network(open_checkpoint(folder), "cpu", "float32")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.MODEL


def test_whole(folder):
    checkpoint = open_checkpoint(folder)
    network = load_network(checkpoint, "cpu", "float32")
    assert network.lm_head.weight.data_ptr() == network.model.language_model.embed_tokens.weight.data_ptr()
    assert load_tokenizer(checkpoint).token_to_id("<|im_end|>") == network.config.text_config.eos_token_id
    assert checkpoint.weight_bytes == (folder / "model.safetensors").stat().st_size


def test_the_id_is_of_the_content(folder, pristine):
    first = open_checkpoint(folder).weights_id()
    assert first == open_checkpoint(pristine).weights_id()
    (folder / "README.md").write_text("not part of the model")
    assert open_checkpoint(folder).weights_id() == first
    edit(folder / "config.json", rms_norm_eps=1e-3)
    assert open_checkpoint(folder).weights_id() != first


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "own code"),
        ({"text_config": {"auto_map": {}}}, "own code"),
        ({"_attn_implementation": "someone/kernel"}, "attention kernel 'someone/kernel'"),
        ({"_attn_implementation_internal": "someone/kernel"}, "attention kernel"),
        ({"vision_config": {"_attn_implementation": "a/b:c"}}, "attention kernel"),
        ({"model_type": "llava"}, "'llava' model"),
    ],
)
def test_configurations_that_are_refused(folder, values, match):
    edit(folder / "config.json", **values)
    refused(folder, match)


def test_code_named_by_the_tokenizer_is_refused(folder):
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}')
    refused(folder, "own code")


def test_adapters_are_refused(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    refused(folder, "merge it")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("model.safetensors", "no model.safetensors"),
    ],
)
def test_missing_files(folder, name, match):
    (folder / name).unlink()
    refused(folder, match)


def test_no_folder(tmp_path):
    refused(tmp_path / "nothing", "no model folder")


def test_pickles_are_never_opened(folder):
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    open_checkpoint(folder)  # ignored beside safetensors
    (folder / "model.safetensors").unlink()
    refused(folder, r"pickled weights only \(pytorch_model.bin\)")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "truncated or no safetensors")


def test_text_instead_of_weights(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(folder, "truncated or no safetensors")


def tensors(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_missing_weights(folder):
    from safetensors.torch import save_file

    weights = tensors(folder / "model.safetensors")
    del weights["visual.blocks.1.norm1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, "1 missing weights")


def test_left_over_weights(folder):
    import torch
    from safetensors.torch import save_file

    weights = {**tensors(folder / "model.safetensors"), "model.extra.weight": torch.zeros(2)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, "1 unexpected weights, .*extra.weight among them")


def test_misshapen_weights(folder):
    edit(
        folder / "config.json",
        text_config={**json.loads((folder / "config.json").read_text())["text_config"], "intermediate_size": 80},
    )
    refused(folder, "can't be loaded|mismatched")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder, value):
    from safetensors.torch import save_file

    weights = tensors(folder / "model.safetensors")
    weights[sorted(weights)[0]].view(-1)[3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, "no finite numbers")


def shard(folder):
    """Rewrite the weights in three files with an index."""
    from safetensors.torch import save_file

    weights = tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {key: f"model-{n % 3 + 1:05}-of-00003.safetensors" for n, key in enumerate(sorted(weights))}
    for name in set(names.values()):
        save_file({key: w for key, w in weights.items() if names[key] == name}, folder / name, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_shards(folder, pristine):
    import torch

    shard(folder)
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.weights) == 3
    a, b = (load_network(open_checkpoint(f), "cpu", "float32").state_dict() for f in (folder, pristine))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_missing_shard(folder):
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, "no model-00002-of-00003.safetensors")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin"])
def test_an_index_that_points_elsewhere(folder, name):
    index = shard(folder)
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, "only \\*.safetensors beside it")


@pytest.mark.parametrize(("old", "new"), [("visual.", "model.visual."), ("model.", "model.language_model.")])
def test_both_generations_of_names(folder, pristine, old, new):
    """Weights are named as on the hub or as in transformers 5; the language part's settings may stand at the top."""
    from safetensors.torch import save_file

    weights = tensors(folder / "model.safetensors")
    renamed = {new + k.removeprefix(old) if k.startswith(old) else k: w for k, w in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    (folder / "config.json").write_text(json.dumps({**text, **config}))
    network = load_network(open_checkpoint(folder), "cpu", "float32")
    expected = load_network(open_checkpoint(pristine), "cpu", "float32")
    assert network.config.text_config.rope_parameters["mrope_section"] == rope["mrope_section"]
    for (key, a), (_, b) in zip(network.state_dict().items(), expected.state_dict().items(), strict=True):
        assert (a == b).all(), key


def test_a_header_that_claims_too_much(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + data[8:])
    refused(folder, "truncated or no safetensors")
