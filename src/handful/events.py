"""Progress events of long work, all passed to one callback `on_event`; and stopping it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class PlanEvent:
    """Meta-training is about to take its first step: the learner, the tasks and the plan.

    parameters: how many numbers are trained.
    way, shot: of the training tasks, a pair where they vary.
    per_step: of these tasks, how many a step takes.
    inputs: a description of the encoded inputs; None without a pipeline.
    small_tasks: how small tasks are used; None without any.
    plan: how a meta-batch is run; None if nothing is meta-trained.
    workers: processes that share each step.
    seconds: the expected time, if a step was timed; not compared.
    bytes: the largest expected size of the process, if known; not compared.
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
    """Progress of some work: a meta-step, a batch of pre-training, or a batch of tasks.

    work: such as "meta-training".
    loss: the mean meta-loss of a meta-step.
    unit: what is counted; not compared, as the next two.
    why: the purpose of the work.
    seconds: expected for the rest, if measured beforehand.
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

    metric: its name.
    diverged: on how many draws no prediction is finite.
    undefined: on how many the score is undefined.
    """

    step: int
    score: float
    metric: str
    diverged: int = 0
    undefined: int = 0


@dataclass(frozen=True)
class CheckpointEvent:
    """The work can be resumed from this meta-step."""

    step: int


@dataclass(frozen=True)
class NoteEvent:
    """Information for the user, such as why nothing progresses for half a minute."""

    message: str


@dataclass(frozen=True)
class DoneEvent:
    """Some work has ended.

    seconds: its time, including that before an interruption.
    """

    work: str
    seconds: float


Event: TypeAlias = PlanEvent | StepEvent | ValidationEvent | CheckpointEvent | NoteEvent | DoneEvent
OnEvent: TypeAlias = Callable[[Event], None]

META_TRAINING, PRETRAINING, LADDER_PRETRAINING = "meta-training", "pre-training", "pre-training for the ladder"
CONTINUED = frozenset({META_TRAINING, PRETRAINING, LADDER_PRETRAINING})
"""Work that can be resumed after a stop."""


def ignore(event: Event) -> None:
    """The default callback, which ignores events."""


class Stop(Protocol):
    """A request to stop, such as a `threading.Event`: long work checks it after each step."""

    def is_set(self) -> bool:
        """Whether the work is to stop."""


class StoppedError(Exception):
    """The work was stopped on request. This is not an error of the package."""


def until(stop: Stop | None, on_event: OnEvent) -> OnEvent:
    """A callback that forwards events, and ends the work with a `StoppedError` once it is to stop."""

    def hear(event: Event) -> None:
        on_event(event)
        if stop is not None and stop.is_set():
            raise StoppedError("The work was stopped on request.")

    return hear
