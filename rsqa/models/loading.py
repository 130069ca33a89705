"""Weights into a network: whole, finite and named as expected, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from rsqa.errors import ModelError
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.merging import merge_adapters

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_network(checkpoint: Checkpoint, device: str, dtype: str) -> Any:
    """-> transformers' Qwen2VLForConditionalGeneration in evaluation mode on `device`; `dtype` auto: that of the files.

    Adapters are merged into it. ModelError when a weight is missing, left over, misshapen, unreadable or not finite,
    and for an adapter that no network can hold.
    """
    if checkpoint.prompt:
        raise ModelError(
            f"adapter {checkpoint.prompt.folder.name!r} depends on picture and question and can't become a part of its "
            "base; name the base alone, or use the adapter as it is with --adapter"
        )
    name, wanted = checkpoint.folder.name, None if dtype == "auto" else DTYPES[dtype]
    try:
        with quiet():
            architecture: Any = transformers.Qwen2VLForConditionalGeneration
            network, info = architecture.from_pretrained(
                checkpoint.folder,
                dtype="auto" if wanted is None or checkpoint.adapters else wanted,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{name!r} can't be loaded ({reason}); fetch it again or give another --model") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(str(key) for key in info[what]):
            kind = what.removesuffix("_keys")
            raise ModelError(
                f"{name!r} has {len(keys)} {kind} weights, {keys[0]} among them; it is no whole Qwen2-VL checkpoint"
            )
    if checkpoint.adapters:
        merge_adapters(network, checkpoint.adapters, wanted)
    network = network.to(device).eval().requires_grad_(False)
    for key, weight in network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(f"{name!r} has weights that are no finite numbers ({key}); fetch it again")
    return network


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """-> the tokenizer alone, without chat templates or code."""
    try:
        whole = checkpoint.folder / "tokenizer.json"
        if whole.is_file():
            return Tokenizer.from_file(str(whole))
        wrapped = transformers.AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
        return wrapped.backend_tokenizer
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            f"the tokenizer of {checkpoint.folder.name!r} can't be read ({error}); fetch the model again"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and reports of transformers on stderr: what matters in them is raised."""
    logging: Any = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
