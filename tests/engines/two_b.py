"""A folder of the shape of Qwen2-VL-2B with random weights and the real vocabulary: everything but the knowledge.

    python tests/engines/two_b.py FOLDER

4.4 GB in bfloat16, written shard by shard, so that it needs little memory.
"""

import json
import sys
from pathlib import Path

import torch
from real_vocab import SPECIAL, qwen_tokenizer
from safetensors.torch import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

SHARD_BYTES = 10**9
POOL = 1_048_573
"""Random numbers drawn; a prime, so that the rows of a matrix differ."""
CONFIG = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "dtype": "bfloat16",
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": True,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
    "vision_start_token_id": 151_652,
    "vision_end_token_id": 151_653,
    "image_token_id": 151_655,
    "video_token_id": 151_656,
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
"""As the hub has it: settings of the language part at the top."""


def write_two_b(folder: Path, seed: int = 0) -> Path:
    """Write config.json, tokenizer.json and shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    tokenizer = qwen_tokenizer()
    assert tokenizer.token_to_id(SPECIAL[-2]) == CONFIG["image_token_id"]
    tokenizer.save(str(folder / "tokenizer.json"))
    with torch.device("meta"):
        shapes = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_dict(CONFIG)).state_dict()
    del shapes["lm_head.weight"]  # tied to the embeddings
    pool = torch.rand(POOL, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    names, shard, held = {}, {}, 0
    for key, shape in shapes.items():
        name = f"model-{len(set(names.values())) + (not shard):05}.safetensors"
        names[_hub_name(key)] = name
        shard[_hub_name(key)] = _random(shape.shape, pool, held)
        held += 2 * shape.numel()
        if held > SHARD_BYTES or key == list(shapes)[-1]:
            save_file(shard, folder / name, {"format": "pt"})
            shard, held = {}, 0
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


def _hub_name(key: str) -> str:
    return key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def _random(shape: torch.Size, pool: torch.Tensor, start: int) -> torch.Tensor:
    """Numbers of the pool, round and round from `start`: two thousand million fresh ones would take minutes."""
    if len(shape) == 1:  # norms and biases
        return torch.ones(shape, dtype=torch.bfloat16)
    scaled = (pool.roll(-start) * (3 / shape[1:].numel()) ** 0.5).to(torch.bfloat16)
    return scaled.repeat(-(-shape.numel() // POOL))[: shape.numel()].reshape(shape).clone()


if __name__ == "__main__":
    print(write_two_b(Path(sys.argv[1])))
