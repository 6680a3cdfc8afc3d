"""Finding an encoder's files: in a folder, or published under a name, on this machine or to be downloaded."""

import contextlib
import hashlib
import json
import re
from pathlib import Path

from handful.errors import ArtifactError, UserError

ENCODER_FILES = frozenset({".json", ".safetensors", ".txt", ".model"})
"""The files of an encoder's folder that decide what it computes."""
INDEX, SHARD = ".safetensors.index.json", re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
"""Endings of the index files of a large encoder's weights, and of the weights."""
CARD = "README.md"
"""The facts of an encoder: its license, and its training data."""
MISSING = (
    "Encoders need sentence-transformers and transformers, which are not installed: pip install '.[encoders]' in the "
    "folder of handful."
)


def folder_digest(folder: Path) -> str:
    """The digest of the files of an encoder's folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in ENCODER_FILES and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return f"sha256:{digest.hexdigest()[:32]}"


def published_folder(repository: str, revision: str | None) -> Path:
    """The folder in which a published encoder was downloaded: now, if no revision is required and none exists.

    repository: its name on the hub.
    revision: the required commit; None: any.

    Raises `UserError` if it is neither on this machine nor can be downloaded.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(MISSING) from error
    with contextlib.suppress(OSError, ValueError):
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        weights = list(folder.rglob("*.safetensors*"))
        if weights and not any(missing_weights(path.parent) for path in weights):
            return folder
    if revision is not None:
        raise UserError(
            f"The encoder {repository} of the model is missing or incomplete on this machine, and a model downloads "
            f"nothing. Fetch it with `hf download {repository} --revision {revision}`.",
            code="missing-encoder",
        )
    wanted = [*(f"*{end}" for end in ENCODER_FILES), CARD]
    try:  # in one request before all others: those of each file are made again and again where there is no network
        return Path(snapshot_download(repository, allow_patterns=wanted, etag_timeout=5))
    except Exception as error:  # of any kind, by what is wrong with the network
        raise UserError(
            f"The encoder {repository} is not on this machine and cannot be downloaded ({reason(error)}). With network "
            f"access, fetch it with `hf download {repository}`.",
            code="missing-encoder",
            hint="Or set the folder of one with {encoder}.",
        ) from error


def provenance(folder: Path) -> dict[str, str]:
    """The facts in an encoder's card: its "licence", and what it was "trained on"; empty if not stated."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        from huggingface_hub import ModelCard

        data = ModelCard(text, ignore_metadata_errors=True).data
    except Exception:  # of any kind, by what is wrong with the card: what it tells changes no number
        return {}
    datasets = data.datasets if isinstance(data.datasets, list) else [data.datasets] if data.datasets else []
    found = {"licence": data.license, "trained on": ", ".join(map(str, datasets))}
    return {name: str(value) for name, value in found.items() if value}


def missing_weights(folder: Path) -> list[str]:
    """The weight files that an interrupted download has left out of a folder, according to the index there."""
    shards = (path.name for path in folder.glob("*.safetensors") if SHARD.search(path.name))
    indices = {*folder.glob(f"*{INDEX}"), *(folder / SHARD.sub(INDEX, name) for name in shards)}
    split = [index for index in indices if not index.with_name(index.name.removesuffix(".index.json")).exists()]
    return sorted(name for index in split for name in _missing_of(index))


def _missing_of(index: Path) -> set[str]:
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or not whole
        return {index.name}
    return {name for name in names if not (index.parent / name).is_file()}


def check_weights(folder: Path, part: Path | None = None) -> None:
    """Raise `ArtifactError` if weights exist only as a pickle, or are incomplete.

    folder: that of the encoder.
    part: the folder in it that has them; None: itself.
    """
    part = part or folder
    if missing := missing_weights(part):
        raise ArtifactError(
            f"The encoder in {folder} lacks files of its weights, such as {missing[0]}, as after an interrupted "
            "download. Fetch it again, or get a complete copy of it.",
            code="missing-encoder",
        )
    if any(part.glob("*.bin")) and not any(part.glob("*.safetensors")):
        raise ArtifactError(
            f"The encoder in {folder} has its weights in a pickle (.bin), which can run any code. Use one with "
            f"safetensors.",
            code="untrusted-model",
        )


def not_loaded(name: str, error: Exception) -> UserError:
    """The error for an encoder that cannot be loaded."""
    return UserError(
        f"The encoder {name} cannot be loaded ({reason(error)}). Name the folder of one, or one that is published or "
        f"already downloaded.",
        code="missing-encoder",
    )


def reason(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
