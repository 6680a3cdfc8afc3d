"""Folders of meta-models: finding them, and protecting other files."""

import contextlib
from pathlib import Path

from handful.errors import ArtifactError, UserError
from handful.storage import check_folder, is_run, is_there, read_json, read_tensors

MODEL_FORMAT = "handful meta-model"
"""The format name in a meta-model's configuration."""


def model_folder(path: Path) -> Path:
    """The folder of a meta-model, given it or the run that holds it."""
    for folder in (path / "model", path):
        if is_there(folder / "model.safetensors"):
            return folder
    check_folder(path)
    if is_run(path):
        raise ArtifactError(
            f"The run {path} has no finished model.",
            code="missing-artifact",
            hint="Continue its training with {resume}.",
        )
    raise ArtifactError(
        f"{path} is neither a run nor a meta-model: it has no model.safetensors.",
        code="missing-artifact",
        hint="Use a folder made by `handful train`.",
    )


def check_model_folder(folder: Path) -> None:
    """Raise `UserError` if saving a model here could replace files that are not a model's."""
    if not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir()):
        return
    with contextlib.suppress(ArtifactError, AttributeError):
        if read_json(folder / "config.json").get("format") == MODEL_FORMAT:
            return
    with contextlib.suppress(ArtifactError):
        if read_tensors(folder / "model.safetensors")[1].get("format") == MODEL_FORMAT:
            return
    raise UserError(f"{folder} contains other files than a meta-model's. Save to a new or an empty folder.")
