"""What an answer costs in arithmetic: floating-point operations of any Qwen2-VL shape, two for a multiply and add.

Counted is the useful work, each thing once: the vision tower and the shared prompt once per tile, every question and
its answer behind them. A way that does more does not get credit for it.

N patches of 14 x 14 pixels, S new tokens behind P cached ones, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PATCH_VALUES = 3 * 2 * 14**2
"""Numbers in a patch: a still picture is shown to the vision tower as two equal frames."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen2-VL model that its cost depends on."""

    vision_dim: int
    vision_layers: int
    vision_ratio: int
    """Width of the vision blocks' inner layer over `vision_dim`."""
    dim: int
    inner_dim: int
    layers: int
    query_dim: int
    """Heads times width of a head."""
    key_dim: int
    """The same for keys and values, which have fewer heads."""
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From config.json, whether the settings of the language part stand at the top or on their own."""
        text, vision = config.get("text_config") or config, config["vision_config"]
        heads = int(text["num_attention_heads"])
        head_dim = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
        return cls(
            vision_dim=int(vision["embed_dim"]),
            vision_layers=int(vision["depth"]),
            vision_ratio=int(vision.get("mlp_ratio", 4)),
            dim=int(text["hidden_size"]),
            inner_dim=int(text["intermediate_size"]),
            layers=int(text["num_hidden_layers"]),
            query_dim=heads * head_dim,
            key_dim=int(text.get("num_key_value_heads") or heads) * head_dim,
            vocabulary=int(text["vocab_size"]),
        )

    def vision(self, patches: int) -> int:
        """One picture of N patches -> N / 4 visual tokens."""
        e, merged = self.vision_dim, 4 * self.vision_dim
        embed = 2 * patches * _PATCH_VALUES * e
        linears = 2 * patches * (4 + 2 * self.vision_ratio) * e**2 * self.vision_layers
        attention = 4 * patches**2 * e * self.vision_layers
        merger = 2 * (patches // 4) * (merged**2 + merged * self.dim)
        return embed + linears + attention + merger

    def language(self, new: int, cached: int = 0) -> int:
        """S tokens behind P cached ones, without the head."""
        projections = 2 * self.dim * self.query_dim + 2 * self.dim * self.key_dim
        linears = 2 * new * self.layers * (projections + 3 * self.dim * self.inner_dim)
        attention = 4 * self.query_dim * self.layers * (new * cached + new**2 // 2)
        return linears + attention

    def head(self) -> int:
        """Scores of the whole vocabulary at one token."""
        return 2 * self.dim * self.vocabulary

    def tile(self, patches: int, prompt: int, suffixes: Sequence[int], budget: int) -> int:
        """All questions of one tile, each thing once.

        `prompt`: tokens around the picture that all questions share; `suffixes`: tokens of each question behind them;
        `budget`: tokens of each answer, the first of which is read off the question's last token.
        """
        prefix = prompt + patches // 4
        flops = self.vision(patches) + self.language(prefix)
        for suffix in suffixes:
            flops += self.language(suffix, prefix) + budget * self.head()
            flops += sum(self.language(1, prefix + suffix + step) for step in range(budget - 1))
        return flops
