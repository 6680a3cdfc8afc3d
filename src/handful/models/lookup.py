"""Finding meta-models: in a folder or run, or by the digest in an adapted task."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from handful.encoders.cache import cache_folder
from handful.errors import ArtifactError, UserError
from handful.models.adapted_task import AdaptedTask
from handful.models.folders import model_folder
from handful.models.meta_model import MetaModel
from handful.notes import note
from handful.storage import write_bytes


def remember(model: MetaModel) -> None:
    """Record in the user's cache the last path of a model with this digest, for tasks saved elsewhere."""
    if model.path is None:
        return
    try:
        write_bytes(_note(model.digest), os.fsencode(model.path.resolve()))
    except UserError as error:
        note("not-kept", f"{error.message} For a task that is not near its model, name the model's path.")


def model_of(
    task: AdaptedTask, near: Path | None = None, *, given: Path | None = None, trust: Sequence[str] = ()
) -> MetaModel:
    """The meta-model of a task, found by its digest.

    near: the task's file, beside or above which the model may be.
    given: the only path to search.
    trust: see `MetaModel.from_pretrained`.

    Raises `ArtifactError` if it is not found, or if another one is at the given path.
    """
    if given is not None:
        model = MetaModel.from_pretrained(given, trust=trust)
        if model.digest != task.model_digest:
            raise ArtifactError(
                f"The task was made by another meta-model (digest {task.model_digest[:8]}) than the one in {given} "
                f"({model.digest[:8]}). Adapt again with this model.",
                code="other-model",
            )
        return model
    failed: ArtifactError | None = None
    for place in _places(task, near):
        try:
            model = MetaModel.from_pretrained(model_folder(place), trust=trust)
        except ArtifactError as error:
            failed = failed or error
            continue
        if model.digest == task.model_digest:
            return model
    raise ArtifactError(
        f"The meta-model of this task (digest {task.model_digest[:8]}) was not found beside it, nor at its last path."
        + (f" {failed.message}" if failed else ""),
        code=failed.code if failed else "missing-artifact",
        hint=(failed.hint if failed else "") or "Set its path with {model}.",
    )


def _places(task: AdaptedTask, near: Path | None) -> Iterator[Path]:
    """Folders that may contain the model: its last path, then those around the task's file."""
    with contextlib.suppress(OSError):
        yield Path(os.fsdecode(_note(task.model_digest).read_bytes()))
    if near is None:
        return
    for folder in near.resolve().parents[:3]:
        if any(os.path.exists(place / "model.safetensors") for place in (folder / "model", folder)):
            yield folder


def _note(digest: str) -> Path:
    return cache_folder() / "models" / digest
