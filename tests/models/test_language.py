import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rsqa.models.language import language_of, read, take_language
from rsqa.models.packing import TokenTree
from rsqa.models.rotary import image_positions

N = 11


def network(layers=3):
    torch.manual_seed(1)
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    text = {
        "vocab_size": 60, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": layers,
        "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    made = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 2 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.7)
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def pair():
    whole = network()
    return whole.model.language_model, language_of(whole)


def inputs(language):
    positions, _ = image_positions(3, 2, 3, 2)
    x = language.embed(torch.randint(0, 60, (4, N), generator=torch.Generator().manual_seed(2)))
    return x, positions


def reference(model, x, positions, mask=None):
    given = None if mask is None else mask.expand(len(x), 1, -1, -1)
    out = model(
        inputs_embeds=x, position_ids=positions[:, None].expand(-1, len(x), -1), use_cache=False,
        attention_mask={"full_attention": given},
    )  # fmt: skip
    return out.last_hidden_state


def test_causal_reading_equals_transformers(pair):
    model, language = pair
    x, positions = inputs(language)
    hidden, kept = read(language, x, language.turns(positions))
    torch.testing.assert_close(hidden, reference(model, x, positions), rtol=1e-4, atol=1e-4)
    assert [k.shape for k, _ in kept] == [(4, 2, N, 8)] * 3


def test_behind_a_prefix_with_a_mask(pair):
    """Branches of a tree behind four tokens, against one forward over everything with the whole mask."""
    model, language = pair
    x, _ = inputs(language)
    tree = TokenTree()
    tree.add([1, 2, 3]), tree.add([1, 2, 4, 5]), tree.add([6, 7])
    assert len(tree) == N - 4
    mask = torch.zeros(N, N, dtype=torch.bool)
    mask[:4, :4] = torch.ones(4, 4).tril()
    mask[4:, :4] = True
    mask[4:, 4:] = tree.mask()
    positions = torch.cat([torch.arange(4), 4 + tree.depths()]).expand(3, -1)
    expected = reference(model, x, positions, mask)
    _, kept = read(language, x[:, :4], language.turns(positions[:, :4]))
    turns = language.turns(positions[:, 4:])
    hidden, _ = read(language, x[:, 4:], turns, mask[4:], kept)
    torch.testing.assert_close(hidden, expected[:, 4:], rtol=1e-4, atol=1e-4)
    wanted = torch.tensor([6, 0, 3])
    some, keys = read(language, x[:, 4:], turns, mask[4:], kept, wanted)
    torch.testing.assert_close(some, hidden[:, wanted], rtol=1e-5, atol=1e-5)
    assert keys[-1][0].shape[2] == N - 4


def test_wanted_without_a_mask_and_nothing_wanted(pair):
    _, language = pair
    x, positions = inputs(language)
    turns = language.turns(positions)
    whole, kept = read(language, x, turns)
    some, _ = read(language, x, turns, wanted=torch.tensor([N - 1, 2]))
    torch.testing.assert_close(some, whole[:, [N - 1, 2]], rtol=1e-5, atol=1e-5)
    nothing, keys = read(language, x, turns, wanted=torch.tensor([], dtype=torch.long))
    assert nothing.shape == (4, 0, 48)
    for a, b in zip(kept, keys, strict=True):
        torch.testing.assert_close(a, b)


def test_taking_uses_the_layers_up():
    whole = network()
    before = language_of(whole)
    taken = take_language(whole)
    assert len(whole.model.language_model.layers) == 0
    x, positions = inputs(taken)
    for a, b in zip(read(taken, x, taken.turns(positions)), read(before, x, before.turns(positions)), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_reach_every_parameter():
    whole = network(layers=2).requires_grad_(True)
    language = language_of(whole)
    x, positions = inputs(language)
    language.logits(read(language, x, language.turns(positions))[0]).logsumexp(-1).sum().backward()
    parts = {**dict(whole.model.language_model.named_parameters())}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts.values())


@pytest.mark.slow  # compiles with the machine's C++ compiler
def test_compiled_equals_plain(pair):
    _, language = pair
    x, positions = inputs(language)
    turns = language.turns(positions)
    expected = read(language, x, turns)[0]
    torch.testing.assert_close(read(language.compiled(), x, turns)[0], expected, rtol=1e-4, atol=1e-4)
