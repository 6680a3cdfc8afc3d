"""Where an encoder's files are: in a folder, or published by a name, on this machine or to be downloaded."""

import contextlib
import hashlib
import json
import re
from pathlib import Path

from handful.errors import ArtifactError, UserError

ENCODER_FILES = frozenset({".json", ".safetensors", ".txt", ".model"})
"""The files of an encoder's folder that decide what it computes."""
INDEX, SHARD = ".safetensors.index.json", re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
"""How files end that name those in which the weights of a large encoder are, and how these do."""
CARD = "README.md"
"""What an encoder says of itself: its licence, and what it was trained on."""
MISSING = (
    "Encoders need sentence-transformers and transformers, which are not installed: pip install '.[encoders]' in the "
    "folder of handful."
)


def folder_digest(folder: Path) -> str:
    """What tells the files of an encoder's folder from those of any other."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in ENCODER_FILES and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return f"sha256:{digest.hexdigest()[:32]}"


def published_folder(repository: str, revision: str | None) -> Path:
    """The folder in which a published encoder was downloaded: now, where no revision is asked for and there is none.

    repository: its name on the hub. revision: the commit that is meant; None: any. Raises `UserError` where it is
    neither on this machine nor may be downloaded.
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
            f"The encoder {repository} of the model is not on this machine, or not whole, and a model downloads "
            f"nothing. Fetch it with `hf download {repository} --revision {revision}`.",
            code="missing-encoder",
        )
    wanted = [*(f"*{end}" for end in ENCODER_FILES), CARD]
    try:  # in one request before all others: those of each file are made again and again where there is no network
        return Path(snapshot_download(repository, allow_patterns=wanted, etag_timeout=5))
    except Exception as error:  # of any kind, by what is wrong with the network
        raise UserError(
            f"The encoder {repository} is not on this machine and cannot be downloaded ({reason(error)}). Where there "
            f"is a network, fetch it with `hf download {repository}`.",
            code="missing-encoder",
            hint="Or give the folder of one with {encoder}.",
        ) from error


def provenance(folder: Path) -> dict[str, str]:
    """What an encoder's card says of it: its "licence", and what it was "trained on"; empty where it says nothing."""
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
    """The files that an interrupted download of weights has not brought into a folder, as those that are there tell."""
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
    """Raise an `ArtifactError` where weights are in a pickle alone, or not all there.

    folder: that of the encoder.
    part: the folder in it that has them; None: itself.
    """
    part = part or folder
    if missing := missing_weights(part):
        raise ArtifactError(
            f"The encoder in {folder} lacks files of its weights, such as {missing[0]}, as after an interrupted "
            "download. Fetch it again, or take a whole copy of it.",
            code="missing-encoder",
        )
    if any(part.glob("*.bin")) and not any(part.glob("*.safetensors")):
        raise ArtifactError(
            f"The encoder in {folder} has its weights in a pickle (.bin), which can run any code. Take one that "
            "has them as safetensors.",
            code="untrusted-model",
        )


def not_loaded(name: str, error: Exception) -> UserError:
    """The error for an encoder that cannot be loaded."""
    return UserError(
        f"The encoder {name} cannot be loaded ({reason(error)}). Give the folder of one, or the name of one that is "
        "published or downloaded already.",
        code="missing-encoder",
    )


def reason(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
