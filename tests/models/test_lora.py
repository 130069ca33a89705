"""Layers that peft adapted, in our forward: peft around transformers' own forward is the oracle."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rsqa.errors import ModelError
from rsqa.models.language import language_of, read, take_language
from rsqa.models.linear import AS_LOADED, Lora, eight_bits, linear, rounded, scaled_linear
from rsqa.models.rotary import image_positions
from rsqa.models.vision import encode, patchify, vision_of

peft = pytest.importorskip("peft")

LANGUAGE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VISION = r"model\.visual\.(blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)|merger\.mlp\.[02])"
N = 7


def plain():
    torch.manual_seed(1)
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    text = {
        "vocab_size": 60, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    made = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 2 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.5)
    return made.requires_grad_(False)


def adapted(targets, network=None, **settings):
    """With A and B at random: B of peft is zero, and would hide everything."""
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, **settings)
    network = peft.inject_adapter_in_model(config, network or plain())
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".lora_" in name and weight.ndim == 2:
                weight.normal_(0, weight.shape[1] ** -0.5)
    return network


def switch(network, on):
    for module in network.modules():
        if hasattr(module, "lora_A"):
            module.enable_adapters(on)


def words(network):
    language = language_of(network)
    positions, _ = image_positions(2, 1, 3, 2)
    x = language.embed(torch.randint(0, 60, (4, N), generator=torch.Generator().manual_seed(2)))
    return read(language, x, language.turns(positions))[0]


def words_of_transformers(network):
    positions, _ = image_positions(2, 1, 3, 2)
    x = network.model.language_model.embed_tokens(
        torch.randint(0, 60, (4, N), generator=torch.Generator().manual_seed(2))
    )
    out = network.model.language_model(
        inputs_embeds=x, position_ids=positions[:, None].expand(-1, 4, -1), use_cache=False
    )
    return out.last_hidden_state


PIXELS = torch.randint(0, 256, (2, 3, 56, 84), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def pictures(network):
    tower = vision_of(network.model.visual)
    return encode(tower, PIXELS, tower.turns(56, 84)).flatten(0, 1)


def pictures_of_transformers(network):
    """Pixels as its processor gives them: normalised, both frames of a patch the same."""
    visual, mean, std = network.model.visual, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (PIXELS / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    patches = patchify(pixels, 14, 2, torch.float32).reshape(-1, 3, 1, 14, 14).expand(-1, -1, 2, -1, -1).flatten(1)
    return visual(patches, grid_thw=torch.tensor([[1, 4, 6]] * 2)).pooler_output


CASES = [
    pytest.param(words, words_of_transformers, LANGUAGE, id="language"),
    pytest.param(words, words_of_transformers, ["q_proj", "v_proj"], id="queries and values"),
    pytest.param(words, words_of_transformers, ["k_proj", "down_proj"], id="keys"),
    pytest.param(pictures, pictures_of_transformers, VISION, id="vision"),
]


@pytest.mark.parametrize(("ours", "theirs", "targets"), CASES)
def test_values_and_gradients_equal_those_of_peft(ours, theirs, targets):
    network = adapted(targets)
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert all(".lora_" in name for name in trained)
    found, expected = ours(network), theirs(network)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, ours(plain()), rtol=1e-2, atol=1e-2)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    pairs = (torch.autograd.grad((out * pull).sum(), trained.values()) for out in (found, expected))
    for name, a, b in zip(trained, *pairs, strict=True):
        assert b.abs().max() > 0, name
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()), msg=name)


@pytest.mark.parametrize(("ours", "theirs", "targets"), [CASES[0], CASES[3]])
def test_rows_of_learned_length(ours, theirs, targets):
    """DoRA, moved off its start, at which it is the base."""
    network = adapted(targets, use_dora=True)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "magnitude" in name:
                weight.mul_(torch.linspace(0.8, 1.2, len(weight)))
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert any("magnitude" in name for name in trained)
    found, expected = ours(network), theirs(network)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    pairs = (torch.autograd.grad((out * pull).sum(), trained.values()) for out in (found, expected))
    for name, a, b in zip(trained, *pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()), msg=name)


@pytest.mark.parametrize(("ours", "theirs", "targets"), CASES)
def test_switched_off_it_is_the_base_to_the_last_bit_and_comes_back(ours, theirs, targets):
    network = adapted(targets)
    with torch.no_grad():
        changed, base = ours(network), ours(plain())
        switch(network, False)
        assert torch.equal(ours(network), base)
        switch(network, True)
        assert torch.equal(ours(network), changed)


def test_without_an_adapter_the_matrices_are_those_of_the_network():
    network = plain()
    layer, module = language_of(network).layers[0], network.model.language_model.layers[0]
    assert layer.gate is module.mlp.gate_proj.weight
    assert layer.out is module.self_attn.o_proj.weight
    assert type(layer.qkv) is torch.Tensor
    block, module = vision_of(network.model.visual).blocks[0], network.model.visual.blocks[0]
    assert block.qkv is module.attn.qkv.weight
    assert block.outer is module.mlp.fc2.weight


@pytest.mark.parametrize("targets", [None, LANGUAGE], ids=["plain", "adapted"])
def test_a_copy_in_another_type_is_rounded_once(targets):
    network = adapted(targets) if targets else plain()
    exact, half = (language_of(network, precision) for precision in (AS_LOADED, rounded(torch.bfloat16)))
    for layer, copy in zip(exact.layers, half.layers, strict=True):
        for name in ("qkv", "out", "gate", "up", "down", "norm_in", "qkv_bias"):
            weight = getattr(layer, name)
            whole = weight.merged() if isinstance(weight, Lora) else weight
            assert torch.equal(getattr(copy, name), whole.bfloat16()), name
    tower = vision_of(network.model.visual, rounded(torch.bfloat16))
    assert {tower.embed.weight.dtype, tower.blocks[0].qkv.dtype, tower.norm[0].dtype} == {torch.bfloat16}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_several_adapters_add_up():
    network = adapted(LANGUAGE)
    more = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["k_proj", "up_proj"], init_lora_weights=False)
    network = peft.inject_adapter_in_model(more, network, "more")
    for module in network.modules():
        if hasattr(module, "lora_A"):
            module.set_adapter(["default", "more"])
    with torch.no_grad():
        torch.testing.assert_close(words(network), words_of_transformers(network), rtol=1e-4, atol=1e-4)


def test_a_narrow_base_with_a_wide_adapter():
    """As it is trained: the base in bfloat16, the adapter in float32; the answer has the base's type."""
    network = adapted(LANGUAGE, plain().bfloat16())
    for name, weight in network.named_parameters():
        if ".lora_" in name:
            weight.data = weight.data.float()
    out = words(network)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    grads = [weight.grad for weight in network.parameters() if weight.requires_grad]
    assert all(grad.dtype == torch.float32 and grad.abs().sum() > 0 for grad in grads)


def test_products():
    draw = torch.Generator().manual_seed(0)
    weight, a, b, x, bias = (torch.randn(s, generator=draw) for s in ((5, 4), (2, 4), (5, 2), (3, 2, 4), (5,)))
    lora, whole = Lora(weight, a, b), weight + b @ a
    torch.testing.assert_close(lora.merged(), whole)
    torch.testing.assert_close(linear(x, lora), F.linear(x, whole))
    torch.testing.assert_close(linear(x, lora, bias), F.linear(x, whole, bias))
    torch.testing.assert_close(scaled_linear(x, lora, bias, 0.3), 0.3 * F.linear(x, whole) + bias)


@torch.no_grad()
def test_rounded_to_8_bits_the_adapter_is_in_the_matrix():
    language = take_language(adapted(LANGUAGE), eight_bits(torch.float32))
    layer, module = language.layers[1], adapted(LANGUAGE).model.language_model.layers[1].mlp.up_proj
    merged = module.base_layer.weight + module.scaling["default"] * (
        module.lora_B["default"].weight @ module.lora_A["default"].weight
    )
    assert (layer.up.values * layer.up.steps[:, None] - merged).abs().max() <= layer.up.steps.max()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"alora_invocation_tokens": [1], "task_type": "CAUSAL_LM"}, "ALora.*LoRA and DoRA"),
        ({"lora_dropout": 0.1}, "dropout"),
        ({"lora_bias": True}, "biases"),
    ],
)
def test_more_than_lora_is_refused(settings, match):
    network = adapted(["q_proj"], **settings)
    with pytest.raises(ModelError, match=match) as caught:
        language_of(network)
    assert "\n" not in str(caught.value)


def test_other_kinds_of_adapters_are_refused():
    config = peft.LoHaConfig(r=2, target_modules=["q_proj"])
    with pytest.raises(ModelError, match="plain LoRA"):
        language_of(peft.inject_adapter_in_model(config, plain()))


def test_merged_in_place_is_refused():
    network = adapted(["up_proj"])
    for module in network.modules():
        if hasattr(module, "lora_A"):
            module.merge()
    with pytest.raises(ModelError, match="unmerge"):
        language_of(network)


@pytest.mark.slow  # compiles with the machine's C++ compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch itself looks at it
def test_compiled_equals_plain():
    gradients = []
    for compiled in (False, True):
        network = adapted(LANGUAGE)
        language = language_of(network).compiled() if compiled else language_of(network)
        x, turns = language.embed(torch.arange(12).reshape(2, 6)), language.turns(torch.arange(6).expand(3, -1))
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        gradients.append(torch.autograd.grad(read(language, x, turns)[0].square().sum(), trained))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
