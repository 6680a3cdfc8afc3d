"""The candidates of a race without meta-training, and what all candidates share."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from handful.evaluation.scoring import Evaluation, evaluate, metric_of
from handful.events import OnEvent, Stop, StoppedError
from handful.learners.learner import Learner
from handful.metrics import Metric
from handful.notes import note
from handful.storage import read_tensors, write_tensors
from handful.tasks.distribution import TaskDistribution
from handful.training.fitting import part_of, rows_to_fit
from handful.training.heads import (
    FEWEST_TASKS,
)
from handful.training.run import Run
from handful.types import Examples, to_device
from handful.workflows.experiment import Experiment
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_scores import Judge, Scored

TASKS = 200
"""Validation tasks on which candidates are compared; with less than a minute as many fewer, down to a few."""
PROBING, PROBED = 0.05, 5
"""The largest share of the budget for scoring a method without training, and the tasks by which that is timed."""

FITTED = 5000
"""Rows on which a method is always fitted; they determine on how many more the time allows fitting."""


@dataclass
class Track:
    """What all candidates of a race share.

    experiment: without a learner.
    tasks: with the sizes for evaluation.
    validation: the tasks that compare candidates.
    """

    experiment: Experiment
    tasks: TaskDistribution
    validation: TaskDistribution
    run: Run
    record: RaceRecord
    on_event: OnEvent
    stop: Stop | None
    metric: Metric = field(init=False)

    def __post_init__(self) -> None:
        self.metric = metric_of(self.validation, self.experiment.settings.get("metric"))

    @property
    def scored_tasks(self) -> int:
        """The number of validation tasks that compare candidates."""
        most = self.experiment.settings.get("validation_tasks", TASKS)
        return int(min(TASKS, most, max(FEWEST_TASKS, TASKS * self.record.seconds / 60)))

    @cached_property
    def judge(self) -> Judge:
        """Compares their scores."""
        return Judge(self.validation, self.metric, self.scored_tasks)

    @property
    def encoded(self) -> bool:
        """Whether inputs are vectors of an encoder, which are informative before any training."""
        pipeline = self.tasks.pipeline
        return pipeline is not None and pipeline.encoded

    def check_stop(self) -> None:
        """Raise `StoppedError` if the work has been asked to stop."""
        if self.stop is not None and self.stop.is_set():
            raise StoppedError("The race was stopped on request.")

    def scored(self, name: str, evaluation: Callable[[], Evaluation]) -> Scored:
        """The scores of a learner on the validation tasks, recorded under a unique name."""
        cost = f"seconds to adapt {name}"

        def make() -> dict[str, Any]:
            found = evaluation()
            self.record.decide(cost, lambda: found.adapt_seconds)
            return Scored(found.scores).to_json()

        self.check_stop()
        return Scored.from_json(self.record.found(f"scores of {name}", make), self.record.decided[cost])

    def evaluated(self, learner: Learner) -> Evaluation:
        """A learner on the validation tasks."""
        return evaluate(learner, self.validation, tasks=self.scored_tasks, metric=self.metric)


class Entrant(ABC):
    """A candidate.

    cls: its learner.
    track: the race's.
    backbone: another than that of the experiment.
    batch: tasks of a step.
    predicted_bytes: see `Trained`.
    """

    steps, kept_step, examples = 0, 0, 0
    batch = 1
    plan: str | None = None
    predicted_bytes: int | None = None

    def __init__(self, cls: type[Learner], track: Track, backbone: str | None = None) -> None:
        self.cls, self.track, self.backbone = cls, track, backbone
        self.history: list[dict[str, Any]] = []
        settled = track.experiment.settled(track.tasks)  # the learner for such tasks has options and sizes of its own
        self.experiment = settled if settled.learner == cls.key else replace(track.experiment, learner=cls.key)
        if backbone is not None:
            options = {"columns": track.tasks.spec.outputs}  # what trees of other tasks predict
            self.experiment = replace(self.experiment, backbone=backbone, backbone_options=options)

    @property
    def name(self) -> str:
        """Its name."""
        return self.cls.key if self.backbone is None else f"{self.cls.key} on {self.backbone}"

    @abstractmethod
    def learner(self) -> Learner:
        """The best of it so far, in evaluation mode."""

    @property
    def file(self) -> Path:
        """The folder of its state during the race."""
        folder = self.track.run.path / "checkpoints" / "race"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.name}.safetensors"

    def built(self, **options: Any) -> Learner:
        """Its learner, untrained."""
        learner = replace(self.experiment, options=self.experiment.options | options).build(self.track.tasks)
        return learner.to(self.track.experiment.settings.get("device") or learner.device)

    def training_tasks(self) -> TaskDistribution:
        """Its training tasks."""
        return self.experiment.training_tasks(self.track.tasks.split("train"))

    def scored(self, when: str = "") -> Scored:
        """Its scores on the validation tasks."""
        return self.track.scored(f"{self.name}{when}", lambda: self.track.evaluated(self.learner()))

    def share_to_fit(self, learner: Learner, rows: list[Examples]) -> float:
        """The share of the rows on which it is fitted: all if they are few, else what a small share of the budget
        allows."""
        track, count = self.track, sum(len(one.inputs) for one in rows)

        def affordable() -> float:
            start = time.perf_counter()
            learner.fit(part_of(rows, FITTED / count))
            seconds = time.perf_counter() - start
            return min(1.0, FITTED / count * max(1.0, PROBING * track.record.seconds / seconds))

        if count <= FITTED:
            return 1.0
        share: float = track.record.decide(f"share of the rows that {self.name} is fitted on", affordable)
        return share


class Untrained(Entrant):
    """A method without meta-steps, whose options are chosen on validation tasks."""

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The options to choose from."""
        space = self.cls.search_space
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]

    @abstractmethod
    def choice(self, options: dict[str, Any]) -> Learner:
        """The method with these options, in evaluation mode."""

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The options with the best scores."""
        if len(self.choices) == 1:
            return self.choices[0]
        ranks = [self.track.judge.rank(self._scored(options)) for options in self.choices]
        return self.choices[ranks.index(max(ranks))]

    def _scored(self, options: dict[str, Any]) -> Scored:
        with_options = "".join(f", {name} {value}" for name, value in options.items())
        return self.track.scored(f"{self.name}{with_options}", lambda: self.track.evaluated(self.choice(options)))

    def learner(self) -> Learner:
        """The method with the chosen options."""
        return self.choice(self.chosen)

    def scored(self, when: str = "") -> Scored:
        """The scores of the chosen options."""
        return self._scored(self.chosen)


class Probe(Untrained):
    """A method that learns from each task alone, or is fitted on the rows of all training tasks."""

    @property
    def affordable(self) -> bool:
        """Whether scoring it takes a small part of the budget."""
        track = self.track

        def timed() -> float:
            learner, start = self.choice(self.choices[0]), time.perf_counter()
            evaluate(learner, track.validation, tasks=PROBED, metric=track.metric)
            each = (time.perf_counter() - start) / PROBED
            return each * track.scored_tasks * len(self.choices)

        seconds: float = track.record.decide(f"seconds to score {self.name}", timed)
        return seconds <= PROBING * track.record.seconds

    def choice(self, options: dict[str, Any]) -> Learner:
        """The method, fitted if it needs it."""
        learner = self.built(**(self.cls.for_vectors if self.track.encoded else {}) | options)
        if learner.fits:
            if not self.file.exists():
                self._fit(learner)
                write_tensors(self.file, learner.state_dict(), {})
            learner.load_state_dict(read_tensors(self.file)[0])
        return learner.eval()

    def _fit(self, learner: Learner) -> None:
        """Fit it on all rows of the training tasks, or on as many as a small share of the budget allows, with a
        note."""
        rows = to_device(rows_to_fit(learner, self.training_tasks()), learner.device)
        share = self.share_to_fit(learner, rows)
        if share < 1:
            count = sum(len(one.inputs) for one in rows)
            note("fewer-rows", f"The time allows fitting {self.name} on {share:.1%} of the {count:,} rows.")
        learner.fit(part_of(rows, share))
