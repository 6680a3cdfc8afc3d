"""Where an encoder's files are: in a folder, or published by a name, on this machine or to be downloaded."""

import contextlib
import hashlib
from pathlib import Path

from handful.errors import ArtifactError, UserError

ENCODER_FILES = frozenset({".json", ".safetensors", ".txt", ".model"})
"""The files of an encoder's folder that decide what it computes."""
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
        if any(folder.rglob("*.safetensors")):
            return folder
    if revision is not None:
        raise UserError(
            f"The encoder {repository} of the model is not on this machine, and a model downloads nothing. Fetch it "
            f"with `hf download {repository} --revision {revision}`.",
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


def check_no_pickle(folder: Path, part: Path | None = None) -> None:
    """Raise an `ArtifactError` where weights are in a pickle alone. part: the folder in it that has them."""
    part = part or folder
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
