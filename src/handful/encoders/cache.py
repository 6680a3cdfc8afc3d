"""The cache folder: results that can be recomputed, such as embeddings by content."""

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
"""The environment variable that sets the cache folder."""


def cache_folder() -> Path:
    """The folder of the cache: `$HANDFUL_CACHE`, else in the user's cache folder. Without a home folder it is not
    writable.
    """
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    home = os.path.expanduser("~")
    return Path(os.environ.get("XDG_CACHE_HOME") or f"{os.devnull if home == '~' else home}/.cache") / "handful"


def kept(
    encoder: str, contents: Iterable[bytes], facts: dict[str, Any], compute: Callable[[], tuple[Tensor, int]]
) -> tuple[Tensor, int]:
    """Embeddings of these contents, and how many of them were cut: from the cache, else computed and cached.

    encoder: identifies the encoder and its use.
    facts: describe the cache file to readers.
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
            f"The embeddings cannot be cached in {path.parent}, so they are recomputed next time. Set {CACHE} to a "
            f"writable folder.",
        )
    return embeddings, cut
