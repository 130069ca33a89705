"""From a question to the text that the model reads.

Every Qwen2-VL conversation here is cut in two where the image ends: the *prefix* is the same for all questions of a
tile, the *suffix* for all tiles of a question. The cut lies between two special tokens, so that both halves can be
tokenised on their own.

    <|im_start|>system⏎…<|im_end|>⏎<|im_start|>user⏎<|vision_start|> IMAGE <|vision_end|>   prefix
    {VQA} Is there water? <|im_end|>⏎<|im_start|>assistant⏎                                 suffix
    yes<|im_end|>                                                                            answer

Tags, system prompts and ends of TinyRS: arXiv 2505.12099 and its published evaluation code.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsqa.tasks.question import COUNTS, Question

END = "<|im_end|>"
IMAGE_PAD = "<|image_pad|>"

DIRECT_SYSTEM = "You are a helpful assistant."
REASONING_SYSTEM = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <reasoning> </reasoning> and <answer> </answer> tags, respectively, i.e., "
    "<reasoning> reasoning process here </reasoning><answer> answer here </answer>"
)


MOST_LISTED = 64
"""Longer lists of options are scored without being told to the model: they would fill the prompt."""


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How one family of checkpoints was taught to be asked."""

    system: str = DIRECT_SYSTEM
    closed_tag: str = ""
    """Before yes/no and choice questions, its space included."""
    count_tag: str = ""
    labels_tag: str = ""
    boxes_tag: str = ""
    caption: str = "Describe the image."
    """What asks for a description."""
    tail: str = ""
    """After a tagged question; not after one for a label."""
    reasoning: bool = False
    """Whether the model writes `<reasoning>…</reasoning><answer>…</answer>`."""
    answer_ends: tuple[str, ...] = (END,)
    """What may close an answer; the probability of an option is summed over them."""


def prefix_text(style: PromptStyle) -> tuple[str, str]:
    """-> text before and after the image tokens."""
    before = f"<|im_start|>system\n{style.system}{END}\n<|im_start|>user\n<|vision_start|>"
    return before, "<|vision_end|>"


def query(question: Question, style: PromptStyle) -> str:
    """-> the user's words, with the tag that the checkpoint knows. Options that the text does not name are listed."""
    text = question.text
    own = question.kind in ("choice", "label") or (question.kind == "count" and question.options != COUNTS)
    if (
        own
        and len(question.options) <= MOST_LISTED
        and not all(option.lower() in text.lower() for option in question.options)
    ):
        text = f"{text} Choose one of: {', '.join(question.options)}."
    tags = {"count": style.count_tag, "label": style.labels_tag, "box": style.boxes_tag, "open": ""}
    tag = tags.get(question.kind, style.closed_tag)
    if not tag:
        return text
    return f"{tag}{text}" if question.kind == "label" else f"{tag}{text}{style.tail}"


def suffix_text(question: Question, style: PromptStyle) -> str:
    """-> everything between the image and the first token of the answer."""
    return f"{query(question, style)}{END}\n<|im_start|>assistant\n"
