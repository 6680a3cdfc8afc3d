"""The cache folder: what can be computed again, and embeddings by the content that they are of."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from handful.errors import ArtifactError, UserError
from handful.notes import note
from handful.storage import read_tensors, write_tensors

CACHE = "HANDFUL_CACHE"
"""The environment variable with another folder for what can be computed again."""


def cache_folder() -> Path:
    """Where things are kept that can be computed again: `$HANDFUL_CACHE`, else in the user's cache folder.

    Of a user without a home it is where nothing can be written.
    """
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    home = os.path.expanduser("~")
    return Path(os.environ.get("XDG_CACHE_HOME") or f"{os.devnull if home == '~' else home}/.cache") / "handful"


def kept(
    encoder: str, contents: Iterable[bytes], facts: dict[str, Any], compute: Callable[[], tuple[Tensor, int]]
) -> tuple[Tensor, int]:
    """Embeddings of these contents, and how many of them were cut: from the cache, else computed and kept there.

    encoder: what tells it, and how it is used, from all others. facts: what the file says of itself, for readers.
    """
    content = hashlib.sha256(encoder.encode())
    for part in contents:
        content.update(len(part).to_bytes(8, "little") + part)
    path = cache_folder() / "embeddings" / f"{content.hexdigest()[:32]}.safetensors"
    try:
        tensors, found, _ = read_tensors(path)
        return tensors["embeddings"], int(found["cut"])
    except (ArtifactError, KeyError):  # not there, or not whole
        embeddings, cut = compute()
    try:
        write_tensors(path, {"embeddings": embeddings}, facts | {"cut": cut})
    except UserError:
        note(
            "not-kept",
            f"The embeddings cannot be kept in {path.parent}, so they are computed again the next time. Let {CACHE} "
            "name a folder that can be written.",
        )
    return embeddings, cut
