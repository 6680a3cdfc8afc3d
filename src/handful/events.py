"""What long work reports while it runs: events, all through one callback `on_event`; and how it is stopped."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class PlanEvent:
    """Meta-training is about to take its first step: what is trained, on what, and how.

    parameters: how many numbers are trained. way, shot: of the training tasks, a pair where they vary. per_step: of
    these tasks, how many a step takes. inputs: what the input pipeline makes of the data; None without one.
    small_tasks: how small tasks are used; None where there are none. plan: how a meta-batch is run; None where nothing
    is meta-trained. workers: processes that share each step. What no two runs have in common: seconds: that it may
    take, where a step was timed. bytes: the size of the process at the most, where that is known.
    """

    parameters: int
    way: int | tuple[int, int] | None
    shot: int | tuple[int, int]
    per_step: int
    inputs: str | None
    small_tasks: str | None
    plan: str | None
    steps: int
    workers: int
    seconds: float | None = field(default=None, compare=False)
    bytes: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StepEvent:
    """So much of some work is done: a meta-step, a batch of pre-training, or a batch of tasks.

    work: such as "meta-training". loss: the mean meta-loss of a meta-step. For who reads it, and no part of what makes
    two of them equal: unit: what is counted. why: what the work is for. seconds: that the rest may take, where that was
    measured beforehand.
    """

    work: str
    done: int
    total: int
    loss: float | None = None
    unit: str = field(default="tasks", compare=False)
    why: str = field(default="", compare=False)
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ValidationEvent:
    """The score on validation tasks after a meta-step, reported before the `StepEvent` of that step.

    metric: its name. diverged: on how many draws no prediction is finite. undefined: on how many there is no score.
    """

    step: int
    score: float
    metric: str
    diverged: int = 0
    undefined: int = 0


@dataclass(frozen=True)
class CheckpointEvent:
    """The work can be continued from this meta-step."""

    step: int


@dataclass(frozen=True)
class NoteEvent:
    """What a user should know, such as why nothing moves for half a minute."""

    message: str


@dataclass(frozen=True)
class DoneEvent:
    """Some work has ended. seconds: that it took, those before an interruption included."""

    work: str
    seconds: float


Event: TypeAlias = PlanEvent | StepEvent | ValidationEvent | CheckpointEvent | NoteEvent | DoneEvent
OnEvent: TypeAlias = Callable[[Event], None]

META_TRAINING, PRETRAINING, LADDER_PRETRAINING = "meta-training", "pre-training", "pre-training for the ladder"
CONTINUED = frozenset({META_TRAINING, PRETRAINING, LADDER_PRETRAINING})
"""The work that can be continued where it was stopped."""


def ignore(event: Event) -> None:
    """What hears of events where nobody else does."""


class Stop(Protocol):
    """A wish to stop, such as a `threading.Event`: long work looks at it after each step."""

    def is_set(self) -> bool:
        """Whether to stop."""


class StoppedError(Exception):
    """The work was stopped on request. It is no error of this package: nothing went wrong."""


def until(stop: Stop | None, on_event: OnEvent) -> OnEvent:
    """A callback that passes events on, and ends the work by a `StoppedError` once it is to stop."""

    def hear(event: Event) -> None:
        on_event(event)
        if stop is not None and stop.is_set():
            raise StoppedError("The work was stopped on request.")

    return hear
