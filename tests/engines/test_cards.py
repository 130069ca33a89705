import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from rsqa.engines.cards import CARDS, card_from_json, card_to_json, load_card
from rsqa.errors import ModelError


@pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))
def test_a_card_survives_its_file(card, tmp_path):
    fitted = replace(card, gsd_m=(0.2, 1.5), temperatures={"yesno": 1.3})
    for each in (card, fitted):
        path = tmp_path / "card.json"
        path.write_text(card_to_json(each))
        assert load_card(str(path)) == each
        json.loads(path.read_text(), parse_constant=pytest.fail)  # no Infinity, no NaN


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is no JSON"),
        ("[]", "holds a list"),
        ("{}", "can't be read"),
        ('{"nmae": "x"}', "unknown key 'nmae'"),
        ('{"name": "x", "title": "x", "licence": "x", "prompt": {"sytem": "x"}}', "can't be read"),
        ('{"name": "x", "title": "x", "licence": "x", "side_range_px": 3}', "can't be read"),
        (
            '{"name": "x", "title": "x", "licence": "x", "prompt": {}, "box_format": "yolo"}',
            "box_format is 'yolo', it must be one of tinyrs, qwen2vl, geochat",
        ),
    ],
)
def test_a_wrong_card_is_refused(text, match):
    with pytest.raises(ModelError, match=match) as caught:
        card_from_json(text, "mine")
    assert "\n" not in str(caught.value)


def test_an_unknown_card_names_those_that_ship():
    with pytest.raises(ModelError, match="tinyrs-r1"):
        load_card("tinyrs9")


@pytest.mark.parametrize(
    ("tile", "tokens"), [(224, 64), (256, 81), (448, 256), (512, 324), (600, 441), (800, 841), (1024, 1369)]
)
def test_native_side(tile, tokens):
    height, width = CARDS["tinyrs"].model_side(tile, tile)
    assert height * width // 28**2 == tokens


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_native_side_is_that_of_the_processor(height, width):
    if max(height, width) / min(height, width) <= 200:  # further than that the processor refuses
        assert CARDS["tinyrs"].model_side(height, width) == smart_resize(height, width, 28, 3136, 12_845_056)


def test_fixed_side():
    assert replace(CARDS["tinyrs"], side_px=112).model_side(448, 300) == (112, 112)
