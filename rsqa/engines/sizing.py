"""How many tiles go through the model at once. No torch unless a GPU is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsqa.engines.batching import MAX_CHIP_BYTES, PACKED_TOKENS, ROWS_PER_TILE
from rsqa.engines.cards import ModelCard
from rsqa.engines.registry import ModelRef, is_loaded, locate
from rsqa.models.checkpoint import Checkpoint

MAX_PATCHES = 32_768
"""Patches of 14 x 14 pixels in a batch: a GPU is busy with so many, more only costs memory."""
MAX_PATCHES_CPU = 1_024
"""On a CPU a larger batch falls out of the caches: tinyrs-nano, 2 cores, 529 tiles and 8 questions, batches of
32 / 64 / 128 / 512 tiles: 37 / 33 / 32 / 22 tiles/s at 1.1 / 1.3 / 1.5 / 2.4 GB; those of 16
were as fast as those of 32, within the noise of two rounds, and took 30 to 50 MB less."""
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 4}
"""Of activations."""
_USABLE = 0.8
"""Share of free memory that a batch may be planned to fill."""


def default_batch(model: ModelRef, tile_shape: tuple[int, int], device: str, dtype: str, processes: int = 1) -> int:
    """Tiles at a time for chips of `tile_shape` (H, W), when `processes` of this machine share `device`.

    Bounded by patches, by bytes of the chips, and by an estimate of what fits into the memory that is free now.
    """
    height, width = tile_shape
    most_patches = MAX_PATCHES_CPU if device == "cpu" else MAX_PATCHES
    bounds = [most_patches // _patches(model.card, tile_shape), MAX_CHIP_BYTES // (3 * height * width)]
    if model.weights_id:
        checkpoint = locate(model)
        weights = 0 if is_loaded(model, device, dtype) else checkpoint.weight_bytes
        free = _USABLE * _free_bytes(device) / processes - weights
        bounds.append(int(free // memory_estimate(checkpoint, model.card, tile_shape, dtype)))
    return max(1, min(bounds))


def _patches(card: ModelCard, tile_shape: tuple[int, int]) -> int:
    side = card.model_side(*tile_shape)
    return side[0] * side[1] // 14**2


def memory_estimate(checkpoint: Checkpoint, card: ModelCard, tile_shape: tuple[int, int], dtype: str) -> int:
    """-> bytes that one more tile in the batch needs at the worst moment, beside the weights."""
    config: dict[str, Any] = checkpoint.config
    text: dict[str, Any] = config.get("text_config") or config  # the hub's files keep the language part at the top
    vision: dict[str, Any] = config["vision_config"]
    dim, inner, layers = int(text["hidden_size"]), int(text["intermediate_size"]), int(text["num_hidden_layers"])
    kv_dim = (
        dim // int(text["num_attention_heads"]) * int(text.get("num_key_value_heads") or text["num_attention_heads"])
    )
    item, patches = _ITEM_BYTES[dtype], _patches(card, tile_shape)
    prefix = patches // 4 + 128  # visual tokens, system prompt and tags
    # The shared prefix, and texts that are written behind copies of it.
    held = 2 * layers * kv_dim * item * (prefix + ROWS_PER_TILE * (prefix + 128 + card.max_new_tokens))
    seeing = patches * int(vision["embed_dim"]) * 18 * item
    per_token = (3 * inner + 10 * dim) * item
    reading = max(prefix, PACKED_TOKENS) * per_token + 2 * dim * item * (prefix + PACKED_TOKENS)
    pixels = 3 * tile_shape[0] * tile_shape[1] * (1 + 2 * 4)  # uint8, and float32 before and after resampling
    return held + max(seeing + pixels, reading)


def _free_bytes(device: str) -> int:
    if device == "cpu":
        return _free_ram()
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # ours, to be used again
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def _free_ram() -> int:
    """Bytes that can be had without swapping, on Linux also within the limit of the container."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        available.append(int(limit.read_text()) - int(used.read_text()))
    return min(available, default=8 * 2**30)
