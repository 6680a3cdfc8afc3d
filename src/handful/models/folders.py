"""Folders of meta-models: which there are, and what may be replaced."""

import contextlib
from pathlib import Path

from handful.errors import ArtifactError, UserError
from handful.storage import check_folder, is_run, is_there, read_json, read_tensors

MODEL_FORMAT = "handful meta-model"
"""What the configuration of a meta-model says it is."""


def model_folder(path: Path) -> Path:
    """The folder of a meta-model, given it or the run that holds it."""
    for folder in (path / "model", path):
        if is_there(folder / "model.safetensors"):
            return folder
    check_folder(path)
    if is_run(path):
        raise ArtifactError(
            f"The run {path} holds no finished model.",
            code="missing-artifact",
            hint="Continue its training with {resume}.",
        )
    raise ArtifactError(
        f"{path} is neither a run nor a meta-model: there is no model.safetensors in it.", code="missing-artifact"
    )


def check_model_folder(folder: Path) -> None:
    """Raise a `UserError` where saving a model here could replace files that are not a model's."""
    if not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir()):
        return
    with contextlib.suppress(ArtifactError, AttributeError):
        if read_json(folder / "config.json").get("format") == MODEL_FORMAT:
            return
    with contextlib.suppress(ArtifactError):
        if read_tensors(folder / "model.safetensors")[1].get("format") == MODEL_FORMAT:
            return
    raise UserError(f"{folder} holds files that are not of a meta-model. Save it to a new or an empty folder.")
