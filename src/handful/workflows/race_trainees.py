"""Candidates of a race that are meta-trained, part by part, with their state on disk in between."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from handful.engine.plan import Plan
from handful.errors import HandfulError
from handful.events import StepEvent
from handful.learners.learner import Learner
from handful.storage import read_tensors, write_tensors
from handful.tasks.distribution import TaskDistribution
from handful.training.fitting import rows_to_fit
from handful.training.heads import FEWEST_TASKS
from handful.training.loop import Training, checked, examples_seen
from handful.types import to_device
from handful.workflows.race_entrants import Entrant, Track
from handful.workflows.race_steps import LAST_PART, Course

VALIDATION_TASKS = 100
"""Validation tasks that select a candidate's best step; proportionally fewer below a minute."""
SAVE_AFTER = 10.0
"""Seconds of training after which it is saved again."""
LOOKS = 50
"""Steps between checks of the time in the last training."""
WARM_UP = 0.02
"""Validations in the steps that a candidate takes if it wins; most take only a part of these."""
MANY, FEW = 16, 4
"""Tasks per step: for vectors, and for images."""


class Trainee(Entrant):
    """A learner that is meta-trained part by part, with its state on disk in between.

    course: its steps; set by the race.
    rounds: after each, its seconds of training and its score.
    fitted: of its boosted trees, if it has some, the columns for its training tasks, and the trees.
    """

    course: Course
    fitted: tuple[Sequence[Tensor] | None, dict[str, Tensor]] | None = None

    def __init__(self, cls: type[Learner], track: Track, backbone: str | None = None) -> None:
        super().__init__(cls, track, backbone)
        self.rounds: list[tuple[float, float]] = []
        self.per_step = self.per_validation = 0.0
        images = len(track.tasks.spec.input_shape) > 1
        self.batch = int(track.experiment.settings.get("meta_batch_size") or (FEW if images else MANY))

    def prepare(self, seconds: float) -> None:
        """Choose the plan of its steps, and time them.

        seconds: of training for which its plan is chosen.
        """
        with self.open(seconds) as training:
            times = self.track.record.decide(f"seconds of a step and a validation of {self.name}", training.timed)
            self.per_step, self.per_validation = times

    @contextmanager
    def open(self, seconds: float) -> Iterator[Training]:
        """Its training, continued from disk; seconds: of training for which a plan is chosen."""
        track = self.track
        learner = self.built()
        settings = self._settings() | {"minutes": max(seconds, 1e-3) / 60, "seed": track.experiment.seed}
        tasks = self.training_tasks()
        chosen = checked(learner, tasks, track.validation, settings)
        tasks = self._fitted(learner, tasks)
        training = Training(learner, tasks, track.validation, chosen)
        if self.file.exists():
            tensors, facts, _ = read_tensors(self.file)
            training.restore(tensors, facts)
        if planned := track.record.decided.get(f"plan of {self.name}"):
            training.plan = Plan.parse(planned)
        training.learner.train()
        if lacking := track.record.decide(f"shortage of memory for {self.name}", training.shortage):
            raise HandfulError(lacking, code="out-of-memory")
        training.choose_plan(track.on_event)
        assert training.plan is not None, "it is meta-trained"
        track.record.decide(f"plan of {self.name}", training.plan.written)
        self.plan = str(training.plan)
        with training.cores():
            yield training

    def _fitted(self, learner: Learner, tasks: TaskDistribution) -> TaskDistribution:
        """Fit what is fitted before its training, once. Returns the training tasks, with columns if it adds some."""
        if not learner.fits:
            return tasks
        if self.fitted is None:
            rows = to_device(rows_to_fit(learner, tasks), learner.device)
            if self.share_to_fit(learner, rows) < 1:
                raise HandfulError("fitting its boosted trees takes too much of the time")
            self.fitted = learner.fit(rows), dict(learner.named_buffers())
        columns, trees = self.fitted
        learner.load_state_dict(trees, strict=False)
        return tasks if columns is None else tasks.with_columns(columns)

    def _settings(self) -> dict[str, Any]:
        """Its training settings."""
        track = self.track
        few = max(FEWEST_TASKS, min(VALIDATION_TASKS, int(VALIDATION_TASKS * track.record.seconds / 60)))
        own = {name: value for name, value in track.experiment.settings.items() if name not in ("minutes", "steps")}
        return {"meta_batch_size": self.batch, "warmup": WARM_UP, "validation_tasks": few} | own

    def advance(self, target: int, every: int, *, last: float | None = None) -> None:
        """Train up to a step, and validate each `every` steps and there.

        last: in the last part of a race, the seconds needed after it; the schedule then jumps to its end when time runs
            out.
        """
        track, saved = self.track, time.monotonic()
        with self.open(0.0) as training:
            if track.encoded and not training.history:  # no weights are kept that are worse than those
                training.history.append({"step": 0, "seconds": 0.0} | training.validate())
            look = max(1, (target - self.course.corrected_at) // LOOKS)
            self._jumped(training.step)
            while training.step < self._end(target, last):
                if last is not None and training.step % look == 0:
                    self._hurry(training, last)
                self._jumped(training.step)
                training.step_count = self.course
                loss, end = training.advance(), self._end(target, last)
                found = training.validate() if training.step % every == 0 or training.step >= end else {}
                row = {"step": training.step, "loss": loss, "seconds": round(training.seconds, 3)}
                training.history.append(row | found)
                track.on_event(StepEvent(f"racing {self.name}", training.step, end, loss, "steps", "a candidate"))
                asked = track.stop is not None and track.stop.is_set()
                if found or asked or time.monotonic() > saved + SAVE_AFTER:
                    write_tensors(self.file, *training.state())
                    saved = time.monotonic()
                track.check_stop()
            self._seen(training)

    def _end(self, target: int, last: float | None) -> int:
        return target if last is None else self.course.total

    def _hurry(self, training: Training, behind: float) -> None:
        """Jump to the last part of the schedule if the remaining time suffices only for that."""
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

    def _jumped(self, step: int) -> None:
        """Apply the recorded decision that the schedule jumps, if it is due by this step."""
        decided = self.track.record.decided.get(f"ending of {self.name}")
        if decided and decided["step"] <= step:
            self.course = replace(self.course, ending=decided["step"], ending_steps=decided["steps"])

    def _seen(self, training: Training) -> None:
        self.steps, self.kept_step, self.history = training.step, training.best_step, training.history
        self.examples = examples_seen(training.distribution, training.settings, training.step)

    def learner(self) -> Learner:
        """The learner with its best weights so far."""
        tensors, _, _ = read_tensors(self.file)
        learner = self.built()
        learner.load_state_dict(
            {name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name.startswith("best/")}
        )
        return learner.eval()

    def restored(self) -> None:
        """Restore its results from disk."""
        with self.open(0.0) as training:
            self._seen(training)

    def seconds_up_to(self, step: int) -> float:
        """Seconds of its training up to a step, which a resumed training may not have reached."""
        return float(next((row["seconds"] for row in reversed(self.history) if row["step"] <= step), 0.0))

    def seconds_per_step(self) -> float:
        """The seconds of its training so far."""
        first, last = self.history[0], self.history[-1]
        taken = last["step"] - first["step"]
        return (last["seconds"] - first["seconds"]) / taken if taken else self.per_step
