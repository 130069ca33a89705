from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from rsqa.engines.cards import CARD_FILE, card_from_json
from rsqa.engines.registry import embedded_folder, embedded_names, find_model, load_engine
from rsqa.evaluate.asking import Examiner, ask
from rsqa.evaluate.items import ItemSet, Picture
from rsqa.evaluate.looked import weight_on_things
from rsqa.evaluate.reading import question_of
from rsqa.evaluate.scene_items import box_items, scene_presence, scene_tiles
from rsqa.evaluate.scoring import score
from rsqa.evaluate.validation import class_items, label_items
from rsqa.tasks.boxes import format_boxes
from rsqa.tasks.parse import split_reasoning
from rsqa.tasks.prompts import DIRECT_SYSTEM, REASONING_SYSTEM
from rsqa.tasks.question import COUNTS
from rsqa.train.nano import NANO_STYLE
from rsqa.train.parts import part_of
from rsqa.train.pictures import read_rows
from rsqa.train.reasoning import concluded
from rsqa.train.scene_windows import FIRST_HELD_SEED, scene_windows
from rsqa.train.tokenizer import SPECIAL

FOLDER = embedded_folder()
MOST_BYTES = 14_000_000
"""Of all models that are shipped."""
REASONING = ("tinyrs-nano-cot", "tinyrs-nano-r1")
GRASP = "tinyrs-nano-grasp"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def test_it_is_small_enough_to_ship():
    assert embedded_names() == ["tinyrs-nano", REASONING[0], GRASP, REASONING[1]]
    assert sum(file.stat().st_size for file in FOLDER.parent.rglob("*")) <= MOST_BYTES


def test_weights_are_half_precision_and_finite():
    parameters = 0
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        for name in weights.keys():  # noqa: SIM118  not a mapping
            tensor = weights.get_tensor(name)
            assert tensor.dtype == torch.float16, name
            assert torch.isfinite(tensor).all(), name
            parameters += tensor.numel()
    card = card_from_json((FOLDER / CARD_FILE).read_text(encoding="utf-8"), CARD_FILE)
    assert 3_000_000 <= parameters == card.parameters <= 6_000_000


def test_card_says_how_it_was_trained():
    card = card_from_json((FOLDER / CARD_FILE).read_text(encoding="utf-8"), CARD_FILE)
    assert card.prompt == NANO_STYLE
    assert card.prompt.system == DIRECT_SYSTEM
    assert card.side_px == 112
    assert "research" in card.licence
    assert set(card.temperatures) >= {"yesno", "choice"}


def test_special_tokens_are_single_and_the_last_ids(tokenizer):
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in SPECIAL]
    assert ids == [[tokenizer.vocab_size - len(SPECIAL) + i] for i in range(len(SPECIAL))] or ids == [
        [len(tokenizer) - len(SPECIAL) + i] for i in range(len(SPECIAL))
    ]
    assert len(tokenizer) == 2048


@pytest.mark.parametrize(
    "text",
    ["Is there water?", "Gibt es hier einen Fluß? 水はありますか", "12345 ships\n\n\ttabs",
    "{VQA} <reasoning>no</reasoning><answer>yes</answer>",
     DIRECT_SYSTEM, REASONING_SYSTEM, "", "'re  it'S …"],
)  # fmt: skip
def test_tokens_spell_the_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_stand_alone_and_usual_texts_are_short(tokenizer):
    assert len(tokenizer.encode("2048", add_special_tokens=False)) == 4
    lengths = {text: len(tokenizer.encode(text, add_special_tokens=False)) for text in (
        "{VQA}", "<answer>", "</reasoning>", DIRECT_SYSTEM, REASONING_SYSTEM, "Are there any buildings?")}  # fmt: skip
    assert lengths["{VQA}"] <= 3
    assert lengths["<answer>"] <= 3
    assert lengths[DIRECT_SYSTEM] <= 8
    assert lengths[REASONING_SYSTEM] <= 100
    assert lengths["Are there any buildings?"] <= 6


def test_chat_template_writes_the_prompt_of_the_engine(tokenizer):
    talk = [
        {"role": "system", "content": DIRECT_SYSTEM},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "{VQA} Is there water? "}]},
    ]
    said = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert said == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "{VQA} Is there water? <|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.apply_chat_template(talk[1:], tokenize=False, add_generation_prompt=True) == said


def accuracy(tests: ItemSet, model: str = "tinyrs-nano") -> float:
    examiner = Examiner(load_engine(model, device="cpu"), lambda size: 64, "cpu")
    asked = ask(examiner, tests, lambda done, n: None)
    return float(np.mean([score(i, a.value, a.size) for i, a in zip(tests.items, asked.answers, strict=True)]))


def test_it_knows_procedural_presence():
    """A sample of the benchmark: scenes of styles and seeds that it was not trained on."""
    assert accuracy(scene_presence("held-out", 1, 3)) >= 0.92


@pytest.fixture(scope="module")
def boxed_tiles():
    pictures, tiles = scene_tiles("held-out", 1, 6)
    return ItemSet(pictures, tuple(box_items(tiles, "box")))


def test_it_knows_where_things_are(boxed_tiles):
    assert accuracy(boxed_tiles) >= 0.5


@pytest.mark.parametrize(("name", "floor"), [(REASONING[0], 0.2), (REASONING[1], 0.3)])
def test_the_others_give_reasons_and_know_it_too(boxed_tiles, name, floor):
    card = find_model(name).card
    assert (card.name, card.prompt.reasoning, card.prompt.system) == (name, True, REASONING_SYSTEM)
    assert "research" in card.licence
    assert accuracy(boxed_tiles, name) >= floor


def test_the_prompts_look_where_the_asked_thing_is(tmp_path):
    """And under the other questions about the same window as much as anywhere else."""
    found = weight_on_things(load_engine(find_model(GRASP), "cpu"), scene_windows(128, 112, tmp_path, FIRST_HELD_SEED))
    assert found.n >= 12
    assert found.asked.weight > 2 * found.chance
    assert found.shuffled.weight < 1.4 * found.chance


def test_a_count_follows_from_its_reason():
    """Of texts that end in a sum, nearly all lead to the answer that is scored highest."""
    pictures, _ = scene_tiles("held-out", 1, 2)
    chips = np.stack([picture.load() for picture in pictures.values()])
    question = question_of("How many ships are there?", "count", COUNTS)
    session = load_engine("tinyrs-nano-r1", device="cpu").prepare([question], chips.shape[2:], len(chips))
    (told,) = session.answer(chips)
    answers = [COUNTS[i] for i in told.option_logprob.argmax(axis=1)]
    follows = [concluded(split_reasoning(text)[0] or "", "count") for text in told.text]
    assert sum(there is not None for there in follows) >= 0.9 * len(chips)
    assert np.mean([there == answer for there, answer in zip(follows, answers, strict=True)]) >= 0.8


def test_a_box_fits_into_the_budget(tokenizer):
    """The longest box and its end, in the tokens that an answer may have."""
    card = card_from_json((FOLDER / CARD_FILE).read_text(encoding="utf-8"), CARD_FILE)
    longest = format_boxes([(0.123, 0.234, 0.999, 1.0)])
    assert len(tokenizer.encode(longest, add_special_tokens=False)) < card.max_new_tokens


@pytest.mark.data
@pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA names no folder of real pictures")
def test_it_is_worth_asking_about_real_pictures():
    """Floors below the figures of the model card, by about the width of the interval of so small a sample."""
    data = Path(os.environ["RSQA_TEST_DATA"])
    ucm, aid = (
        [row for row in read_rows(data, name) if part_of(row["id"]) == "validation"][:120] for name in ("ucm", "aid")
    )
    assert accuracy(label_items(ucm)) >= 0.84
    assert accuracy(class_items("ucm", ucm)) >= 0.87
    assert accuracy(class_items("aid", aid)) >= 0.68
    seen = class_items("ucm", ucm)
    grey = {name: Picture(name, lambda: np.full((3, 256, 256), 128, np.uint8), name) for name in seen.pictures}
    assert accuracy(ItemSet(grey, seen.items)) <= 0.15
