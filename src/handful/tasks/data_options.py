"""The options that say how the user's own data is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from handful.errors import UserError, named
from handful.limits import LOCAL, Limits
from handful.pipelines.pipeline import InputPipeline
from handful.tasks.splits import Split

AnyPipeline = TypeVar("AnyPipeline", bound=InputPipeline)

COLUMNS = ("label", "task", "target", "group", "drop", "text", "encoder", "split_by")
"""The options that say which column of a table is what."""


@dataclass(frozen=True)
class Options:
    """What `open_tasks` was asked for beside the source."""

    label: str | None = None
    task: str | None = None
    target: str | None = None
    group: str | None = None
    drop: tuple[str, ...] = ()
    image_size: int | None = None
    text: str | None = None
    encoder: str | None = None
    split_by: str | None = None
    seed: int = 0
    splits: Mapping[str, Split] | None = None
    limits: Limits = LOCAL

    def refuse(self, source: str, *names: str) -> None:
        """Raise a `UserError` where one of these options is given, for it means nothing for this source."""
        for name in names:
            if getattr(self, name):
                raise UserError(
                    f"The option {name} does not apply to {source}.", field=(name,), hint=f"Leave out {named(name)}."
                )


def checked_kind(pipeline: InputPipeline | None, wanted: type[AnyPipeline], path: Path) -> AnyPipeline | None:
    """The pipeline, if there is one; `UserError` where it reads inputs of another kind than the path holds."""
    if pipeline is None or isinstance(pipeline, wanted):
        return pipeline
    raise UserError(
        f"This model reads inputs of the kind {pipeline.kind!r}, but {path} is of the kind {wanted.kind!r}."
    )
