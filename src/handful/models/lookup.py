"""Where meta-models are: in a folder or run, or by the digest that an adapted task names."""

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
    """Keep in the user's cache where a model with this digest was last, for tasks that are far from it."""
    if model.path is None:
        return
    try:
        write_bytes(_note(model.digest), os.fsencode(model.path.resolve()))
    except UserError as error:
        note("not-kept", f"{error.message} A task that is not near its model has to be told where that is.")


def model_of(
    task: AdaptedTask, near: Path | None = None, *, given: Path | None = None, trust: Sequence[str] = ()
) -> MetaModel:
    """The meta-model of a task, found by its digest.

    near: the task's file, beside or above which the model may be. given: the only place where to look. trust: see
    `MetaModel.from_pretrained`.

    Raises `ArtifactError` where it is nowhere, or another one is in the given place.
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
        f"The meta-model of this task (digest {task.model_digest[:8]}) was not found beside it, nor where it was last."
        + (f" {failed.message}" if failed else ""),
        code=failed.code if failed else "missing-artifact",
        hint=(failed.hint if failed else "") or "Give its place with {model}.",
    )


def _places(task: AdaptedTask, near: Path | None) -> Iterator[Path]:
    """Folders that may hold the model: where it was last, then around the task's file."""
    with contextlib.suppress(OSError):
        yield Path(os.fsdecode(_note(task.model_digest).read_bytes()))
    if near is None:
        return
    for folder in near.resolve().parents[:3]:
        if any(os.path.exists(place / "model.safetensors") for place in (folder / "model", folder)):
            yield folder


def _note(digest: str) -> Path:
    return cache_folder() / "models" / digest
