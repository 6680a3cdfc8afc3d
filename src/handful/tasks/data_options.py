"""The options for reading the user's own data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from handful.data_options import DataOptions
from handful.errors import UserError
from handful.limits import LOCAL, Limits
from handful.pipelines.pipeline import InputPipeline
from handful.streams import checked_seed
from handful.tasks.splits import Contents

AnyPipeline = TypeVar("AnyPipeline", bound=InputPipeline)

COLUMNS = (
    "label",
    "task",
    "target",
    "group",
    "order",
    "drop",
    "text",
    "encoder",
    "tune_encoder",
    "long_texts",
    "split_by",
)
"""The options that name the roles of a table's columns."""


@dataclass(frozen=True)
class Options(DataOptions):
    """The arguments of `open_tasks` beside the source.

    trust: packages from which an encoder may be built.
    device: for encoders that compute vectors.
    """

    seed: int = 0
    earlier: Contents | None = None
    limits: Limits = LOCAL
    trust: tuple[str, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seed", checked_seed(self.seed))


def checked_kind(pipeline: InputPipeline | None, wanted: type[AnyPipeline], path: Path) -> AnyPipeline | None:
    """The pipeline, if given; `UserError` if it reads inputs of another kind than those at the path."""
    if pipeline is None or isinstance(pipeline, wanted):
        return pipeline
    raise UserError(
        f"This model reads inputs of the kind {pipeline.kind!r}, but {path} is of the kind {wanted.kind!r}."
    )
