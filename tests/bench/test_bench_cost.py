from __future__ import annotations

import pytest

from rsqa.bench.checkpoint import TWO_B_SIZES
from rsqa.bench.cost import Shape

SHAPE = Shape.of(TWO_B_SIZES)


@pytest.mark.parametrize(
    ("px", "vision", "prefill", "total"),
    [
        (224, 338, 247, 586),
        (336, 791, 459, 1250),
        (448, 1481, 756, 2238),
        (504, 1932, 938, 2871),
        (1036, 11913, 3834, 15748),
    ],
)
def test_the_published_shape_costs_what_its_formulas_say(px, vision, prefill, total):
    """GFLOP of Qwen2-VL-2B, one question of 30 tokens with the system prompt, counted by hand."""
    patches = (px // 14) ** 2
    assert SHAPE.vision(patches) / 1e9 == pytest.approx(vision, abs=0.6)
    assert SHAPE.language(patches // 4 + 30) / 1e9 == pytest.approx(prefill, abs=0.6)
    assert SHAPE.tile(patches, 0, [30], 1) / 1e9 == pytest.approx(total, abs=0.6)


def test_a_decoded_token_and_the_head():
    assert SHAPE.head() / 1e9 == pytest.approx(0.467, abs=1e-3)
    assert (SHAPE.language(1) + SHAPE.head()) / 1e9 == pytest.approx(3.09, abs=0.01)


def test_a_prefix_is_counted_once():
    """Cut anywhere, a sequence costs the same; a second question costs only itself."""
    assert SHAPE.language(40) == SHAPE.language(30) + SHAPE.language(10, 30)
    one, two = SHAPE.tile(256, 6, [24], 1), SHAPE.tile(256, 6, [24, 24], 1)
    assert two - one == SHAPE.language(24, 70) + SHAPE.head()


def test_written_tokens_come_on_top():
    one, three = SHAPE.tile(256, 6, [24], 1), SHAPE.tile(256, 6, [24], 3)
    assert three - one == 2 * SHAPE.head() + SHAPE.language(1, 94) + SHAPE.language(1, 95)


def test_settings_at_the_top_and_on_their_own_are_the_same():
    inner = {key: value for key, value in TWO_B_SIZES.items() if key != "vision_config"}
    assert Shape.of({"text_config": inner, "vision_config": TWO_B_SIZES["vision_config"]}) == SHAPE
