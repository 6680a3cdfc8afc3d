"""Encoders contained in a model: their files in its own file, and a cache folder where they are unpacked."""

import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from handful.encoders.cache import CACHE, cache_folder
from handful.encoders.published import CARD, ENCODER_FILES, folder_digest
from handful.errors import ArtifactError, UserError
from handful.storage import write_bytes

PREFIX = "encoder files/"
"""The prefix of these files' names among the tensors of a model."""
PUBLISHED = "models--"
"""The prefix of the folders of published encoders in the cache of the hub."""
SUFFIXES = {*ENCODER_FILES, Path(CARD).suffix}
"""Names of the files that may be unpacked."""


def carried_name(name: str) -> str:
    """The name of an encoder in a model that contains it, without paths of the machine.

    name: the given name, or a folder: of a folder the last part is kept, of one in the cache of the hub the published
        name.
    """
    folder = Path(name)
    if not folder.is_absolute():
        return name
    published = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith(PUBLISHED)
    return folder.parent.parent.name.removeprefix(PUBLISHED).replace("--", "/", 1) if published else folder.name


def packed(folder: Path) -> dict[str, Tensor]:
    """The files of an encoder's folder as bytes `(n,)`, by the names that they have in a model."""
    paths = [path for path in folder.rglob("*") if path.suffix in ENCODER_FILES or path.name == CARD]
    found = {}
    for path in sorted(path for path in paths if path.is_file()):
        content = bytearray(path.read_bytes())
        as_tensor = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        found[f"{PREFIX}{path.relative_to(folder).as_posix()}"] = as_tensor
    return found


def unpacked(tensors: dict[str, Tensor], revision: str, source: object) -> None:
    """Unpack the files among a model's tensors into the folder where encoders are searched, unless they exist.

    revision: of the encoder, a digest of its files: files of a published commit could not be verified, but other models
        would use them.
    source: the name of the model in messages.

    Raises `ArtifactError` if the files are of another revision, or would be written elsewhere, and `UserError` if the
    cache is not writable.
    """
    if not revision.startswith("sha256:"):
        raise ArtifactError(f"{source} contains an encoder whose files it does not identify by their digest.")
    folder = carried_folder(revision)
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:  # of this process alone: others may load it, too
            temporary = Path(made).resolve() / folder.name
            for name, content in tensors.items():
                path = temporary / name.removeprefix(PREFIX)
                if not path.resolve().is_relative_to(temporary) or path.suffix not in SUFFIXES:
                    raise ArtifactError(f"{source} contains an encoder with a file {name!r}, which is not allowed.")
                write_bytes(path, content.numpy().tobytes())
            if folder_digest(temporary) != revision:
                raise ArtifactError(f"{source} contains another encoder than the one of its training.")
            temporary.replace(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return
        raise UserError(
            f"The encoder in {source} cannot be unpacked into {folder.parent} ({error.strerror}). Set {CACHE} to a "
            f"writable folder.",
            code="unwritable",
        ) from error


def carried_folder(revision: str) -> Path:
    """The folder for files of an encoder of this revision from a model. Raises `ArtifactError` if that could be a
    folder elsewhere, since a revision may come from a file.
    """
    if not re.fullmatch(r"\w[\w:.-]*", revision):
        raise ArtifactError(f"{revision!r} is not a revision of an encoder.")
    return cache_folder() / "encoders" / revision.replace(":", "-")
