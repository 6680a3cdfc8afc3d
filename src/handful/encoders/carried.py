"""Encoders that a model brings along: their files in its own file, and a place in the cache where they are unpacked."""

import re
from pathlib import Path

import torch
from torch import Tensor

from handful.encoders.cache import cache_folder
from handful.encoders.published import CARD, ENCODER_FILES, folder_digest
from handful.errors import ArtifactError
from handful.storage import write_bytes

PREFIX = "encoder files/"
"""How the names of these files begin among the tensors of a model."""


def packed(folder: Path) -> dict[str, Tensor]:
    """The files of an encoder's folder as bytes `(n,)`, by the names that they have in a model."""
    paths = [path for path in folder.rglob("*") if path.suffix in ENCODER_FILES or path.name == CARD]
    return {
        f"{PREFIX}{path.relative_to(folder).as_posix()}": torch.frombuffer(
            bytearray(path.read_bytes()), dtype=torch.uint8
        )
        for path in sorted(paths)
        if path.is_file() and path.stat().st_size
    }


def unpacked(tensors: dict[str, Tensor], revision: str, source: object) -> None:
    """Put the files among a model's tensors where encoders are looked for, unless they are there.

    revision: of the encoder, a digest of its files: those of a published commit cannot be checked, and other models
    would take them for it. source: what messages call the model. Raises `ArtifactError` where the files are of another
    revision, or would be written elsewhere, and `UserError` where the cache cannot be written.
    """
    if not revision.startswith("sha256:"):
        raise ArtifactError(f"{source} brings an encoder whose files it does not identify by their digest.")
    folder = carried_folder(revision)
    if folder.is_dir():
        return
    temporary = folder.with_name(f"{folder.name}.part")
    for name, content in tensors.items():
        path = temporary / name.removeprefix(PREFIX)
        if not path.resolve().is_relative_to(temporary.resolve()) or path.suffix not in {
            *ENCODER_FILES,
            Path(CARD).suffix,
        }:
            raise ArtifactError(f"{source} brings an encoder with a file {name!r}, which is none of an encoder's.")
        write_bytes(path, content.numpy().tobytes())
    if folder_digest(temporary) != revision:
        raise ArtifactError(f"{source} brings another encoder than the one that it was trained with.")
    temporary.replace(folder)


def carried_folder(revision: str) -> Path:
    """Where the files of an encoder of this revision are, if a model has brought them.

    Raises `ArtifactError` where that could be a folder elsewhere: a revision may come from a file.
    """
    if not re.fullmatch(r"\w[\w:.-]*", revision):
        raise ArtifactError(f"{revision!r} is no revision of an encoder.")
    return cache_folder() / "encoders" / revision.replace(":", "-")
