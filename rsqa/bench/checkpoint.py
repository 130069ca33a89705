"""The checkpoint that all sides load: the embedded one, somebody's folder, or the shape of Qwen2-VL-2B at random.

The card is the model's own but for one thing: pictures are shown at their own size, so that 224 px means 224 px.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from rsqa.engines.cards import CARD_FILE, MAX_PIXELS, MIN_PIXELS, ModelCard, card_to_json, load_card
from rsqa.engines.registry import embedded_folder
from rsqa.errors import UsageError
from rsqa.models.checkpoint import INDEX_FILE, open_checkpoint
from rsqa.models.loading import load_tokenizer
from rsqa.models.vision import PIXEL_MEAN, PIXEL_STD

NANO, TWO_B = "nano", "2b"
SHARD_BYTES = 10**9
POOL = 1_048_573
"""Random numbers drawn; a prime, so that the rows of a matrix differ."""
TWO_B_SIZES: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": True,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 1536,
        "num_heads": 16,
        "mlp_ratio": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
"""config.json of Qwen2-VL-2B without its token numbers."""
_TOKENS = {
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": MIN_PIXELS,
    "max_pixels": MAX_PIXELS,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": list(PIXEL_MEAN),
    "image_std": list(PIXEL_STD),
}


def bench_checkpoint(shape: str, folder: Path) -> Path:
    """`nano`, `2b` or the folder of a model -> `folder`, ready for every side. ModelError when there is no such model.

    The same one that lies in the folder already is used as it is; UsageError when the folder holds another.
    """
    name = f"bench-{Path(shape).name}"
    if (folder / CARD_FILE).is_file():
        if load_card(str(folder)).name != name:
            raise UsageError(f"{str(folder)!r} holds another model than {shape!r}; choose another --checkpoint-dir")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    source = embedded_folder() if shape in (NANO, TWO_B) else Path(shape)
    if shape == TWO_B:
        write_two_b(folder, load_tokenizer(open_checkpoint(source)))
        _link(source, folder, "tokenizer")
    else:
        open_checkpoint(source)
        _link(source, folder, "")
    if not (folder / "preprocessor_config.json").exists():
        (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR))
    card = _native(load_card(str(source)), name)
    (folder / CARD_FILE).write_text(card_to_json(card), encoding="utf-8")  # last: a folder with a card is whole
    return folder


def _link(source: Path, folder: Path, prefix: str) -> None:
    """Give `folder` the files of `source` whose names begin with `prefix`, but not its card."""
    for path in source.iterdir():
        if path.is_file() and path.name.startswith(prefix) and path.name != CARD_FILE:
            (folder / path.name).symlink_to(path.resolve())


def _native(card: ModelCard, name: str) -> ModelCard:
    """Any tile at its own size, read straight: no answer is off the list, none waits for reasoning."""
    prompt = replace(card.prompt, reasoning=False)
    anything: dict[str, Any] = {"side_px": None, "gsd_m": None, "side_range_px": (1, 1 << 20)}
    return replace(card, name=name, prompt=prompt, temperatures={}, mass_floor=0.0, **anything)


def two_b_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json of Qwen2-VL-2B, its special tokens numbered as in `tokenizer`."""
    tokens = {key: tokenizer.token_to_id(token) for key, token in _TOKENS.items()}
    facts = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "dtype": "bfloat16"}
    return facts | TWO_B_SIZES | tokens


def write_two_b(folder: Path, tokenizer: Tokenizer, seed: int = 0) -> None:
    """Random weights in bfloat16, 4.4 GB, a shard at a time, so that it needs little memory; and config.json.

    The special tokens are numbered as in `tokenizer`, whose own files are not written.
    """
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = two_b_config(tokenizer)
    with torch.device("meta"):
        shapes = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_dict(config)).state_dict()
    del shapes["lm_head.weight"]  # tied to the embeddings
    pool = torch.rand(POOL, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    names: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    last, written, held = list(shapes)[-1], 0, 0
    for key, shape in shapes.items():
        hub_key = key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        names[hub_key] = f"model-{written + 1:05}.safetensors"
        shard[hub_key] = _random(shape.shape, pool, held + written)
        held += 2 * shape.numel()
        if held > SHARD_BYTES or key == last:
            save_file(shard, folder / names[hub_key], {"format": "pt"})
            shard, held, written = {}, 0, written + 1
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def _random(shape: torch.Size, pool: torch.Tensor, start: int) -> torch.Tensor:
    """Numbers of the pool, round and round from `start`: two thousand million fresh ones would take minutes."""
    if len(shape) == 1:  # norms and biases
        return torch.ones(shape, dtype=torch.bfloat16)
    scaled = (pool.roll(-start) * (3 / shape[1:].numel()) ** 0.5).to(torch.bfloat16)
    drawn: torch.Tensor = scaled.repeat(-(-shape.numel() // POOL))[: shape.numel()].reshape(shape).clone()
    return drawn
