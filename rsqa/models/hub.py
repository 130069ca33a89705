"""Models by their name on the Hugging Face hub. Naming one is asking for the network; nothing else is. No torch."""

from __future__ import annotations

from pathlib import Path

from rsqa.errors import ModelError
from rsqa.models.adapter import is_adapter, open_adapter
from rsqa.models.checkpoint import open_checkpoint

WANTED = ["*.safetensors", "*.json", "*.txt"]
"""Weights, configuration, tokenizer: no pickles, no code."""


def fetch(hub_id: str, revision: str | None = None) -> Path:
    """-> the folder of `owner/name`: from the local cache when it is whole there, else fetched. ModelError if not."""
    kept = cached(hub_id, revision)
    if kept is not None:
        return kept
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=WANTED))
    except Exception as error:  # its own errors, and those of its HTTP library, which changes between versions
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise ModelError(
            f"{hub_id!r} is not on this machine and can't be fetched ({type(error).__name__}: {reason}); "
            "check the name and the network, or give a folder with --model"
        ) from error


def cached(hub_id: str, revision: str | None = None) -> Path | None:
    """-> the folder of `owner/name` in the local cache; None when it is not there, or not whole. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=WANTED, local_files_only=True))
    except HFValidationError as error:
        raise ModelError(f"{hub_id!r} is no hub name; give `owner/name` or a folder") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        return None
    try:
        open_adapter(folder) if is_adapter(folder) else open_checkpoint(folder)
    except ModelError:
        return None  # an interrupted download, or a model that is refused: fetching names the reason
    return folder
