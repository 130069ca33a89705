import numpy as np
import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rsqa.models.vision import encode, vision_of

SIZE = {"shortest_edge": 3136, "longest_edge": 12_845_056}


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    vision = {"depth": 3, "embed_dim": 64, "hidden_size": 48, "num_heads": 4, "mlp_ratio": 4, "patch_size": 14}
    text = {
        "vocab_size": 50, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4]},
    }  # fmt: skip
    network = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision)).eval()
    visual = network.model.visual.requires_grad_(False)
    with torch.no_grad():
        for name, weight in visual.named_parameters():  # attention that looks somewhere, biases that are there
            gain = 0.7 if "patch_embed" in name else 2.0
            weight.normal_(0, gain * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.5)
    return visual


def chips(height, width):
    return np.random.default_rng(0).integers(0, 256, (3, 3, height, width), dtype=np.uint8)


def processed(pixels):
    processor = Qwen2VLImageProcessorPil(size=SIZE)
    return processor(images=list(np.moveaxis(pixels, 1, 3)), return_tensors="pt", input_data_format="channels_last")


@pytest.mark.parametrize("size", [(56, 56), (112, 84), (448, 448)])
def test_pixels_through_the_first_layer_equal_the_processor_and_the_convolution(tower, size):
    pixels = chips(*size)
    with torch.no_grad():
        expected = tower.patch_embed(processed(pixels)["pixel_values"])
        embed = vision_of(tower).embed
        for given in (torch.from_numpy(pixels), torch.from_numpy(pixels).float()):
            torch.testing.assert_close(embed(given).flatten(0, 1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(56, 56), (84, 140)])
def test_tower_equals_transformers(tower, size):
    pixels, vision = chips(*size), vision_of(tower)
    inputs = processed(pixels)
    with torch.no_grad():
        expected = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        ours = encode(vision, torch.from_numpy(pixels), vision.turns(*size))
    torch.testing.assert_close(ours.flatten(0, 1), expected, rtol=1e-4, atol=1e-4)


def test_sides_must_fit(tower):
    with pytest.raises(ValueError, match="multiples of 28, got 56 x 60"):
        vision_of(tower).embed(torch.zeros(1, 3, 56, 60, dtype=torch.uint8))


@pytest.mark.slow  # compiles with the machine's C++ compiler
def test_compiled_equals_plain(tower):
    vision = vision_of(tower)
    with torch.no_grad():
        for size in ((56, 56), (84, 140)):
            pixels, turns = torch.from_numpy(chips(*size)), vision.turns(*size)
            torch.testing.assert_close(
                encode(vision.compiled(), pixels, turns), encode(vision, pixels, turns), rtol=1e-4, atol=1e-4
            )
