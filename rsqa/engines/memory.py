"""What does not fit into the memory of a device becomes an error that a caller can go on after."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from rsqa.errors import OutOfMemory

R = TypeVar("R")

_CPU_WORDS = ("can't allocate memory", "not enough memory")
"""Of torch's allocator, which raises a plain RuntimeError."""
_CUDA_WORDS = ("CUBLAS_STATUS_ALLOC_FAILED",)
"""Of libraries that allocate beside torch."""


def fitting(call: Callable[[], R]) -> R:
    """-> what `call` returns. OutOfMemory when there was no memory for it, and then nothing of it is held any more."""
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["out of memory"])[0]
    # Only here: what was caught holds the frames of the failed call, and with them its tensors.
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    raise OutOfMemory(f"a batch does not fit into memory ({reason}); choose a smaller --batch-size")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch could help. Any other fault of a GPU is a fault of its process."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _CPU_WORDS + _CUDA_WORDS)
