import numpy as np
import pytest
import torch
from oracle import NATIVE
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rsqa.engines.cards import CARDS
from rsqa.engines.preprocess import resample
from rsqa.models.vision import PIXEL_MEAN, PIXEL_STD, patchify


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (2, 3, height, width), dtype=np.uint8)


def smooth(height, width):
    rows, cols = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 9 + c) * np.cos(cols / (7 + c)) for c in range(3)])
    return np.stack([waves * 120 + 128, waves[::-1] * 90 + 100]).astype(np.uint8)


def ours(chips):
    side = CARDS["tinyrs"].model_side(*chips.shape[2:])
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    return patchify((resample(torch.from_numpy(chips), side) / 255 - mean) / std, 14, 2, torch.float32)


def theirs(chips):
    processor = Qwen2VLImageProcessorPil(size=NATIVE)
    out = processor(images=list(np.moveaxis(chips, 1, 3)), return_tensors="pt", input_data_format="channels_last")
    patches = out["pixel_values"].reshape(len(chips), -1, 3, 2, 14 * 14)
    assert (patches[:, :, :, 0] == patches[:, :, :, 1]).all()  # a still image is shown twice
    return patches[:, :, :, 0].flatten(2)


@pytest.mark.parametrize("size", [(56, 56), (112, 84), (448, 448)])
def test_equal_to_the_processor_where_nothing_is_resized(size):
    chips = noise(*size)
    torch.testing.assert_close(ours(chips), theirs(chips), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(256, 256), (100, 90), (20, 30), (513, 400), (600, 588)])
@pytest.mark.parametrize("make", [noise, smooth])
def test_within_one_level_of_the_processor_where_pixels_are_resized(size, make):
    """Both round to whole levels twice; float32 and Pillow's fixed point differ in less than 1 % of pixels."""
    chips = make(*size)
    a, b = ours(chips), theirs(chips)
    assert a.shape == b.shape
    difference = (a - b).abs()
    level = 1 / 255 / min(PIXEL_STD)
    assert difference.max() <= 2.01 * level
    assert (difference > 1e-5).float().mean() < 0.01


def test_order_of_tiles_and_channels_stays():
    chips = np.zeros((2, 3, 56, 56), np.uint8)
    chips[0, 2], chips[1, 0] = 200, 100
    small = resample(torch.from_numpy(chips), (28, 28))
    assert small[0, 2].eq(200).all()
    assert small[1, 0].eq(100).all()
    assert small[0, :2].eq(0).all()
    assert small[1, 1:].eq(0).all()
