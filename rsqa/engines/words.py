"""Between text and tokens: prompts, allowed answers and replies in the vocabulary of one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from rsqa.engines.cards import ModelCard
from rsqa.errors import ModelError, QuestionError
from rsqa.tasks.prompts import END, prefix_text, suffix_text
from rsqa.tasks.question import Question

ENDS = (END, "<|endoftext|>")
"""Tokens that end a reply, whatever the checkpoint's generation settings say."""


class Words:
    """The tokenizer of a checkpoint with the prompts of its card."""

    def __init__(self, tokenizer: Tokenizer, card: ModelCard) -> None:
        self._tokenizer = tokenizer
        self._style = card.prompt
        added = tokenizer.get_added_tokens_decoder()
        self._added = sorted(token.content for token in added.values())
        self._mute = {i for i, token in added.items() if token.special and token.content.startswith("<|")}
        before, after = prefix_text(card.prompt)
        for text in (END, "<|im_start|>", before[before.rindex("<|") :], after):
            if tokenizer.token_to_id(text) is None:
                raise ModelError(f"the tokenizer has no token {text!r}; it is not the one of a Qwen2-VL model")
        self.before, self.after = self.encode(before), self.encode(after)
        """Tokens around the image: the prefix that all questions of a tile share."""
        self.stops = frozenset(i for i in map(tokenizer.token_to_id, ENDS) if i is not None)

    def encode(self, text: str) -> tuple[int, ...]:
        """Text, special tokens by their names -> ids."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens -> text without control tokens. Tags such as `<answer>` stay, special to the tokenizer or not."""
        return str(self._tokenizer.decode([i for i in ids if i not in self._mute], skip_special_tokens=False))

    def check(self, question: Question) -> None:
        """QuestionError when the text would be read as something else than text."""
        for text in (question.text, *question.options):
            if token := next((token for token in self._added if token in text), None):
                raise QuestionError(
                    f"question {question.id!r} contains {token!r}, which steers the model; say it in plain words"
                )

    def suffix(self, question: Question) -> tuple[int, ...]:
        """Everything between the image and the first token of the reply."""
        return self.encode(suffix_text(question, self._style))

    def options(self, question: Question, before: str = "") -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Per option its token paths, one for each way to end it: what the tokenizer makes of `before` + option + end.

        `before` is text that stands before the answer and may share a token with it: Qwen2-VL writes `<answer>rural` as
        `<`, `answer`, `>r`, `ural`.
        """
        paths = tuple(
            tuple(self.encode(before + option + end) for end in self._style.answer_ends) for option in question.options
        )
        spelled = [ends[0] for ends in paths]
        if len(set(spelled)) < len(spelled):
            twice = next(o for o, p in zip(question.options, spelled, strict=True) if spelled.count(p) > 1)
            raise QuestionError(
                f"question {question.id!r} has options that the model can't tell apart, {twice!r} among them"
            )
        return paths
