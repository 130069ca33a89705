"""A small byte-level BPE with Qwen2-VL's special tokens and chat template, learned from the corpus' own words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rsqa.tasks import schemes
from rsqa.tasks.prompts import DIRECT_SYSTEM, REASONING_SYSTEM, PromptStyle, suffix_text
from rsqa.train import words
from rsqa.train.pictures import PictureSet, facts_in
from rsqa.train.turns import turns_of

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""In Qwen2-VL's order."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 cuts text before merging; digits stand alone."""
CHAT_TEMPLATE = (
    "{% set images = namespace(n=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    + DIRECT_SYSTEM
    + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REPEATS = 3_000
"""How often texts that every prompt holds are seen, so that they become few tokens."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn merges from `texts`; ids 0… are bytes and merges, the special tokens come last."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        extra_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=4096, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def corpus(sets: Iterable[PictureSet], style: PromptStyle, seed: int) -> Iterable[str]:
    """The texts that the nano model will read and write."""
    fixed = (DIRECT_SYSTEM, REASONING_SYSTEM, "<reasoning></reasoning><answer></answer>", "system\nuser\nassistant\n",
             "{VQA} {CLS} {VG} {IT} {IDK}", "yes no rural urban more than 100",
             " open land, built-up area, harbour, airfield",
             "A view of An aerial view of This tile shows An orthophoto of mixed ground")  # fmt: skip
    for text in fixed:
        yield from [text] * _REPEATS
    for noun in words.NOUNS.values():
        for name in (*noun.one, *noun.many):
            yield from [f"Is there {name}?"] * 200
    for name in (*schemes.UCM_NAMES.values(), *schemes.AID_NAMES.values()):
        yield from [f"{name}", f" {name}"] * 500
    rng = np.random.default_rng(seed)
    for pictures in sets:
        for picture in pictures.pictures:
            yield from picture.facts.captions
            for turn in turns_of(facts_in(picture, None), pictures.rates, (), True, rng):
                yield suffix_text(turn.question, style).replace("<|im_end|>", "").replace("<|im_start|>", "")
                yield turn.answer
                yield turn.trace
