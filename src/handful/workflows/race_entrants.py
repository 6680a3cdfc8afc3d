"""The candidates of a race: what is trained, what is pre-trained, and what needs no training."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from handful.engine.plan import Plan
from handful.evaluation.scoring import evaluate, metric_of
from handful.events import OnEvent, StepEvent, Stop, StoppedError
from handful.learners.learner import Learner
from handful.learners.pretraining import BATCH
from handful.metrics import Metric
from handful.storage import read_tensors, write_tensors
from handful.tasks.distribution import TaskDistribution
from handful.training.loop import Training, checked, examples_seen
from handful.training.run import Run
from handful.workflows.experiment import Experiment
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_scores import Judge, Scored
from handful.workflows.race_steps import LAST_PART, Course

TASKS, VALIDATION_TASKS, FEWEST_TASKS = 200, 100, 10
"""Validation tasks on which candidates are compared, and those by which the steps of one are; with less than a minute,
as many fewer."""
SAVE_AFTER = 10.0
"""Seconds of training after which it is saved again."""
LOOKS = 50
"""How often a last training looks at the clock."""
PROBING, PROBED = 0.05, 5
"""The most of the budget that a method without training may take to be scored, and by how many tasks that is timed."""
WARM_UP = 0.02
"""Of the steps that a candidate takes if it wins: most take part of them only."""
TIMED_BATCHES = 3
MANY, FEW = 16, 4
"""Tasks of a step: of vectors, and of images."""


@dataclass
class Track:
    """What all candidates of a race share.

    experiment: without a learner. tasks: of it, with the sizes that count. validation: those by which candidates are
    compared.
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
        """On how many validation tasks candidates are compared."""
        return max(FEWEST_TASKS, min(TASKS, int(TASKS * self.record.minutes)))

    @cached_property
    def judge(self) -> Judge:
        """Compares their scores."""
        return Judge(self.validation, self.metric, self.scored_tasks)

    def training_tasks(self) -> TaskDistribution:
        """What is trained on."""
        return self.experiment.training_tasks(self.tasks.split("train"))

    def check_stop(self) -> None:
        """Raise a `StoppedError` where the work is to stop."""
        if self.stop is not None and self.stop.is_set():
            raise StoppedError("The race was stopped on request.")

    def scored(self, name: str, learner: Callable[[], Learner]) -> Scored:
        """The scores of a learner on the validation tasks, by a name that it has alone."""
        cost = f"seconds to adapt {name}"

        def make() -> dict[str, Any]:
            found = evaluate(learner(), self.validation, tasks=self.scored_tasks, metric=self.metric)
            self.record.decide(cost, lambda: found.adapt_seconds)
            return Scored(found.scores).to_json()

        self.check_stop()
        return Scored.from_json(self.record.found(f"scores of {name}", make), self.record.decided[cost])


class Entrant(ABC):
    """A candidate. cls: its learner. track: the race's."""

    steps, kept_step, examples = 0, 0, 0
    plan: str | None = None

    def __init__(self, cls: type[Learner], track: Track) -> None:
        self.cls, self.track = cls, track
        self.history: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """What it is called."""
        return self.cls.key

    @abstractmethod
    def learner(self) -> Learner:
        """The best of it so far, in evaluation mode."""

    def built(self, **options: Any) -> Learner:
        """Its learner, untrained."""
        experiment = replace(self.track.experiment, learner=self.cls.key, options=options)
        learner = experiment.build(self.track.tasks)
        return learner.to(self.track.experiment.settings.get("device") or learner.device)

    def scored(self, when: str = "") -> Scored:
        """Its scores on the validation tasks."""
        return self.track.scored(f"{self.name}{when}", self.learner)


class Probe(Entrant):
    """A method that needs no training: its options are chosen by the scores on validation tasks."""

    @property
    def affordable(self) -> bool:
        """Whether scoring it takes a small part of the budget."""
        track = self.track

        def timed() -> float:
            start = time.perf_counter()
            evaluate(self._choice(self._choices[0]), track.validation, tasks=PROBED, metric=track.metric)
            each = (time.perf_counter() - start) / PROBED
            return each * track.scored_tasks * len(self._choices)

        seconds: float = track.record.decide(f"seconds to score {self.name}", timed)
        return seconds <= PROBING * 60 * track.record.minutes

    @property
    def _choices(self) -> list[dict[str, Any]]:
        space = self.cls.search_space
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]

    def _choice(self, options: dict[str, Any]) -> Learner:
        pipeline = self.track.tasks.pipeline
        return self.built(**(self.cls.for_vectors if pipeline and pipeline.encoded else {}) | options).eval()

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The options with the best scores."""
        if len(self._choices) == 1:
            return self._choices[0]
        ranks = [self.track.judge.rank(self._scored(options)) for options in self._choices]
        return self._choices[ranks.index(max(ranks))]

    def _scored(self, options: dict[str, Any]) -> Scored:
        with_options = "".join(f", {name} {value}" for name, value in options.items())
        return self.track.scored(f"{self.name}{with_options}", lambda: self._choice(options))

    def learner(self) -> Learner:
        """With the chosen options."""
        return self._choice(self.chosen)

    def scored(self, when: str = "") -> Scored:
        """Those of the chosen options."""
        return self._scored(self.chosen)


class Pretrained(Entrant):
    """A learner that is pre-trained on the pool and not meta-trained.

    It keeps its pre-training where the ladder of an evaluation looks for one.
    """

    def prepare(self, seconds: float) -> None:
        """Fix on how many examples it is pre-trained within so many seconds."""
        track = self.track
        pool = track.training_tasks().pool()
        assert pool is not None, "else it is no candidate"

        def affordable() -> int:
            learner, start = self.built(), time.perf_counter()
            learner.pretrain(pool, examples=TIMED_BATCHES * BATCH, seed=track.experiment.seed)
            per_batch = (time.perf_counter() - start) / TIMED_BATCHES
            return BATCH * max(1, int(seconds / per_batch))

        self.examples = track.record.decide(f"pre-training examples of {self.name}", affordable)

    @property
    def _file(self) -> Path:
        return _folder(self.track) / f"{self.name}.safetensors"

    def pretrain(self) -> None:
        """Do it, unless that was done before an interruption."""
        if self._file.exists():
            return
        track, learner = self.track, self.built()
        pool = track.training_tasks().pool()
        assert pool is not None, "else it is no candidate"

        def hear(done: int, total: int) -> None:
            track.on_event(StepEvent(f"pre-training {self.name}", done, total, unit="examples", why="a candidate"))

        learner.pretrain(
            pool,
            examples=self.examples,
            seed=track.experiment.seed,
            progress=hear,
            keeper=track.run.ladder_checkpoints(track.stop),
        )
        write_tensors(self._file, learner.state_dict(), {})

    def learner(self) -> Learner:
        """As it was pre-trained."""
        learner = self.built()
        learner.load_state_dict(read_tensors(self._file)[0])
        return learner.eval()


class Trainee(Entrant):
    """A learner that is meta-trained, part by part: between these its state is on disk.

    course: its steps; set by the race.
    """

    course: Course

    def __init__(self, cls: type[Learner], track: Track) -> None:
        super().__init__(cls, track)
        self.per_step = self.per_validation = 0.0
        self._training: Training | None = None

    @property
    def _file(self) -> Path:
        return _folder(self.track) / f"{self.name}.safetensors"

    def prepare(self, seconds: float) -> None:
        """Fix how its steps are run, and time them. seconds: that its whole training takes at the most."""
        with self.open(seconds) as training:
            times = self.track.record.decide(f"seconds of a step and a validation of {self.name}", training.timed)
            self.per_step, self.per_validation = times

    @contextmanager
    def open(self, seconds: float) -> Iterator[Training]:
        """Its training, from where it is on disk; seconds: that a plan is chosen for."""
        track = self.track
        learner = self.built()
        settings = self._settings() | {"minutes": max(seconds, 1e-3) / 60, "seed": track.experiment.seed}
        tasks = track.training_tasks()
        chosen = checked(learner, tasks, track.validation, settings)
        training = Training(learner, tasks, track.validation, chosen)
        if self._file.exists():
            tensors, facts, _ = read_tensors(self._file)
            training.restore(tensors, facts)
        if planned := track.record.decided.get(f"plan of {self.name}"):
            training.plan = Plan.parse(planned)
        training.learner.train()
        training.choose_plan(track.on_event)
        assert training.plan is not None, "it is meta-trained"
        track.record.decide(f"plan of {self.name}", training.plan.written)
        self.plan = str(training.plan)
        with training.cores():
            yield training

    @property
    def batch(self) -> int:
        """Tasks of a step."""
        images = len(self.track.tasks.spec.input_shape) > 1
        return int(self.track.experiment.settings.get("meta_batch_size") or (FEW if images else MANY))

    def _settings(self) -> dict[str, Any]:
        """How it is trained."""
        track = self.track
        few = max(FEWEST_TASKS, min(VALIDATION_TASKS, int(VALIDATION_TASKS * track.record.minutes)))
        own = {name: value for name, value in track.experiment.settings.items() if name not in ("minutes", "steps")}
        return {"meta_batch_size": self.batch, "warmup": WARM_UP, "validation_tasks": few} | own

    def advance(self, target: int, every: int, *, last: float | None = None) -> None:
        """Train up to a step, and validate each `every` steps and there.

        last: in the last part of a race, seconds that are needed behind it; then the schedule jumps to its end when
        time runs out.
        """
        track, saved = self.track, time.monotonic()
        with self.open(0.0) as training:
            look = max(1, (target - training.step) // LOOKS)
            while training.step < self._end(target, last):
                if last is not None and training.step % look == 0:
                    self._hurry(training, last)
                training.step_count = self.course
                loss, end = training.advance(), self._end(target, last)
                found = training.validate() if training.step % every == 0 or training.step >= end else {}
                row = {"step": training.step, "loss": loss, "seconds": round(training.seconds, 3)}
                training.history.append(row | found)
                track.on_event(StepEvent(f"racing {self.name}", training.step, end, loss, "steps", "a candidate"))
                asked = track.stop is not None and track.stop.is_set()
                if found or asked or time.monotonic() > saved + SAVE_AFTER:
                    write_tensors(self._file, *training.state())
                    saved = time.monotonic()
                track.check_stop()
            self._seen(training)

    def _end(self, target: int, last: float | None) -> int:
        return target if last is None else self.course.total

    def _hurry(self, training: Training, behind: float) -> None:
        """Jump to the last part of the schedule where the time that is left suffices for no more."""
        record, course, name = self.track.record, self.course, f"ending of {self.name}"
        if course.ending is not None:
            return
        steps = max(1, round(LAST_PART * course.first))
        if name not in record.decided and not record.given:
            done = training.step - training.history[0]["step"] if training.history else 0
            per_step = (training.seconds - training.history[0]["seconds"]) / done if done > 0 else self.per_step
            needed = steps * per_step + training.validation_seconds + behind
            if course.total - training.step <= steps or record.left > needed:
                return
            record.decide(name, lambda: {"step": training.step, "steps": steps})
        decided = record.decided.get(name)
        if decided and decided["step"] == training.step:
            self.course = replace(course, ending=decided["step"], ending_steps=decided["steps"])

    def _seen(self, training: Training) -> None:
        self.steps, self.kept_step, self.history = training.step, training.best_step, training.history
        self.examples = examples_seen(training.distribution, training.settings, training.step)

    def learner(self) -> Learner:
        """With its best weights so far."""
        tensors, _, _ = read_tensors(self._file)
        learner = self.built()
        learner.load_state_dict(
            {name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name.startswith("best/")}
        )
        return learner.eval()

    def restored(self) -> None:
        """Know again what became of it, from disk."""
        with self.open(0.0) as training:
            self._seen(training)

    def seconds_per_step(self) -> float:
        """As its training has taken them so far."""
        first, last = self.history[0], self.history[-1]
        taken = last["step"] - first["step"]
        return (last["seconds"] - first["seconds"]) / taken if taken else self.per_step


def _folder(track: Track) -> Path:
    folder = track.run.path / "checkpoints" / "race"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
