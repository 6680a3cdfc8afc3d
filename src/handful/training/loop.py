"""The meta-training loop: sample, meta-gradient, clip, step, schedule; validate, and keep the best."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from handful import streams
from handful.engine.cost import resident_bytes
from handful.engine.hidden_randomness import drawing_operation
from handful.engine.meta_gradient import Leaf, MetaGradient, shared_tree_sum
from handful.engine.plan import Plan
from handful.engine.planner import PlanTrial, one_by_one, planned, shortage
from handful.engine.threads import one_core_each
from handful.errors import HandfulError, UserError, count_of, unknown_name
from handful.evaluation.scoring import check_tasks, evaluate, metric_of
from handful.events import (
    META_TRAINING,
    PRETRAINING,
    CheckpointEvent,
    DoneEvent,
    NoteEvent,
    OnEvent,
    PlanEvent,
    StepEvent,
    Stop,
    StoppedError,
    ValidationEvent,
    ignore,
)
from handful.functional.normalization import recalibrate
from handful.functional.own_settings import own_settings
from handful.functional.stateless import shared_copy
from handful.learners.learner import Learner
from handful.learners.pretraining import Pretraining
from handful.tasks.distribution import BLOCK, TaskDistribution
from handful.training import kept_layers
from handful.training.budget import CLOSE, StepCount, affordable, validation_interval
from handful.training.checkpoint import PretrainingCheckpoints, TrainingState
from handful.training.fitting import fit, rows_to_fit
from handful.training.run import Run
from handful.training.settings import Settings
from handful.training.workers import PeerError, Workers, check_shared, shared
from handful.types import Task, TaskSpec, stack, take, to_device

RECALIBRATION_TASKS = 10
TIMED_STEPS, TIMED_TASKS = 3, 10
"""The numbers of meta-steps and validation tasks that are timed for a time budget."""
MOST_DIVERGED = 0.05
"""Of the draws of a validation: with more of them without a finite prediction, the training has diverged."""
PLANNING_BLOCKS = 64
"""Of which the one with the largest tasks is planned for, where sizes are varied."""
COUNTED_BLOCKS = 64
"""Of which the mean size of tasks is taken then."""


class Training(TrainingState):
    """A training in progress. With several workers each has one, with the same bits; only the first one has scores and
    best weights.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trials: list[PlanTrial] = []
        self.expected_seconds: float | None = None
        self._gradient: MetaGradient | None = None
        self.network_draws = False

    @property
    def steps(self) -> int:
        """Meta-steps to take: none if nothing is meta-trained."""
        assert self.step_count is not None, "fixed before"
        return self.step_count.total if self.parameters else 0

    def cores(self) -> AbstractContextManager[None]:
        """With task threads no operation takes more than a core, and no bit depends on the number of cores, nor in the
        optimizer and validation: otherwise workers and one process would differ.
        """
        return one_core_each() if self.plan is not None and self.plan.threads else nullcontext()

    @property
    def stagnant(self) -> bool:
        """Whether the last `patience` validations brought no better weights."""
        later = [row for row in self.history if "val" in row and row["step"] > self.best_step]
        return 0 < self.settings.patience <= len(later)

    def advance(self) -> float:
        """One meta-step; returns the mean meta-loss.

        Raises `HandfulError`, before any weight changes, where the loss or its gradient is no longer finite, or cannot
        be computed since a matrix has become singular.
        """
        start = time.perf_counter()
        settings, count = self.settings, self.step_count
        assert count is not None, "fixed before"
        position = count.position(self.step)
        self.learner.progress.fill_(position / count.first)
        with self._solvable("meta-gradient"):
            losses, gradients = self._meta_gradient()
        loss = float(losses.mean())
        self._check_finite(loss, "meta-loss")
        for parameter, gradient in zip(self.parameters, gradients.values(), strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self._check_finite(float(norm), "meta-gradient's norm")
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * settings.rate(position, count.first)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.seconds += time.perf_counter() - start
        return loss

    def see_to_randomness(self, on_event: OnEvent) -> None:
        """If the network draws random numbers itself, run tasks one by one, each with its own seed. Raises `UserError`
        if predictions would be random, or if its draws cannot be seeded.
        """
        tasks, spec, noise = self.draw(range(1))
        task, drawn = take(tasks, 0), None if noise is None else take(noise, 0)
        learner = shared_copy(self.learner)

        def evaluated() -> object:
            with torch.no_grad():
                return learner.predict(learner.adapt(task.support, spec), task.query.inputs)

        of_training = drawing_operation(lambda: learner(task, spec, drawn)) if self.parameters else None
        learner.eval()
        of_evaluation = drawing_operation(evaluated)
        if of_evaluation:
            raise UserError(
                f"The network draws random numbers in evaluation mode too ({of_evaluation[0]}), so predictions could "
                f"not be repeated. Draw only if its attribute `training` is true, as in "
                "F.dropout(x, p, self.training)."
            )
        if not of_training:
            return
        operation, own = of_training
        if own or self.workers.count > 1:
            what = "from a generator of its own" if own else "by itself, and several workers share the training"
            way = "Remove the generator: training then seeds the draws." if own else "Train with one worker."
            raise UserError(f"The network draws random numbers {what} ({operation}), which training cannot seed. {way}")
        self.network_draws, self.plan = True, Plan("loop")
        on_event(
            NoteEvent(
                f"The network draws random numbers by itself ({operation}). Tasks are therefore run one by one, each "
                f"with its own seed, so that the same seed gives the same weights."
            )
        )

    def _seeded(self, parts: Iterator[Leaf], own: range) -> Iterator[Leaf]:
        """Each part, which is one task, is run when it is asked for, and draws by its number."""
        first = self.step * self.settings.meta_batch_size
        for index in own:
            with streams.network_draws("meta-loss", self.settings.seed, first + index):
                leaf = next(parts)
            yield leaf

    def choose_plan(self, on_event: OnEvent) -> None:
        """Choose the best plan on the first meta-batch, unless it is given."""
        self.see_to_randomness(on_event)
        count = self.settings.meta_batch_size
        if self.plan is None and self.parameters:
            first = max(self.distribution.typical(PLANNING_BLOCKS), key=self._examples)  # the plan has to hold for all
            tasks, spec, noise = self.draw(range(first, first + count))
            fixed = not (self.distribution.ragged or self.distribution.varied)
            held = resident_bytes()
            plan, self.trials, grown = planned(
                self.learner,
                tasks,
                spec,
                noise=noise,
                steps=None if self.step_count is None else self.steps,
                seconds=60 * (self.settings.minutes or 0),
                compilable=fixed,
                say=lambda message: on_event(NoteEvent(message)),
            )
            of_process = self.learner.device.type == "cpu"
            self.predicted_bytes = None if held is None or grown is None or not of_process else held + grown
            self.plan = shared(plan, count, self.workers.count)
        try:
            check_shared(self.plan, count, self.workers.count)
        except UserError as error:
            raise UserError(
                f"This run continues with its plan ({self.plan}), which does not suit {self.workers.count} workers. "
                f"Resume it with the number that it was started with.",
                hint="Or start over with {force}.",
            ) from error

    def take_fixed(self, run: Run) -> None:
        """What the run has fixed by the clock, where no checkpoint has it."""
        fixed = run.fixed()
        self.step_count = run.step_count() or self.step_count
        if self.plan is None and fixed.get("plan"):
            self.plan = Plan.parse(fixed["plan"])
        if self.kept_splits is None:
            self.kept_splits = fixed.get("kept_splits")

    def fix_steps(self, run: Run | None, on_event: OnEvent) -> None:
        """As many steps as the budget allows; all workers time the first meta-batch, and the first one decides."""
        minutes, long = self.settings.minutes, one_by_one(self.learner)
        if self.step_count is not None:
            if self.steps > self.step:
                self.keep_lower_layers(self.steps, run, on_event)
            if long and self.steps > self.step:
                self.expected_seconds = (self.steps - self.step) * self._seconds_per_step(1)
            return
        assert minutes is not None, "without steps"
        per_step, steps = self._seconds_per_step(TIMED_STEPS), 0
        if self.workers.first:
            self._time_validation()
            steps = self._affordable(60 * minutes - self.spent, per_step)
        steps = self._agreed(steps)
        if self.keep_lower_layers(steps, run, on_event):  # so that more of them fit
            per_step = self._seconds_per_step(TIMED_STEPS)
            steps = self._agreed(max(steps, self._affordable(60 * minutes - self.spent, per_step)))
        self._keep_steps(StepCount(steps), run)

    def keep_lower_layers(self, steps: int, run: Run | None, on_event: OnEvent) -> bool:
        """Run the frozen layers of an encoder once for each example, if that is cheaper.

        steps: the least number of steps to come.

        Returns whether some are kept. The decision is final, since the last bits differ.
        """
        settings, encoder, plan = self.settings, kept_layers.encoder_of(self.learner), self.plan
        if encoder is None or plan is None or plan.memory != "whole" or settings.precision != "fp32":
            return False
        train, val = self.distribution.rows(), self.validation.rows()
        shown = examples_seen(self.distribution, settings, steps)
        validations = steps // validation_interval(steps, settings.validate_every)
        uses = {"train": (train, shown / len(train) if train else 0.0), "val": (val, float(validations))}
        new = self.kept_splits is None
        if self.kept_splits is None:
            found = kept_layers.worth_keeping(encoder, uses, self.learner.device)
            self.kept_splits = list(self._agreed(found))
            if run is not None and self.workers.first:
                run.fix(kept_splits=self.kept_splits)
        count = kept_layers.keep(encoder, uses, self.kept_splits, self.learner.device)
        if count and new:
            kept = encoder.bytes_kept()
            self.predicted_bytes = None if self.predicted_bytes is None else self.predicted_bytes + kept
            on_event(
                NoteEvent(
                    f"The frozen layers of the encoder have run for {count:,} examples, once for all steps "
                    f"({kept / 2**20:.0f} MiB)."
                )
            )
        return count > 0

    def shortage(self) -> str | None:
        """Why a step on the largest tasks exceeds the memory, in words; None if it does not."""
        first = max(self.distribution.typical(PLANNING_BLOCKS), key=self._examples)
        tasks, spec, noise = self.draw(range(first, first + 1))
        with streams.network_draws("memory", self.settings.seed, first):
            return shortage(self.learner, tasks, spec, noise=noise)

    def timed(self) -> tuple[float, float]:
        """Seconds of the next step and of a validation, by taking a few of them without changing anything."""
        per_step = self._seconds_per_step(TIMED_STEPS)
        self._time_validation()
        return per_step, self.validation_seconds

    def _time_validation(self) -> None:
        """By a few of its tasks, unless one was made already."""
        if not self.validation_seconds:
            start, few = time.perf_counter(), min(TIMED_TASKS, self.settings.validation_tasks)
            evaluate(self.learner, self.validation, tasks=few, metric=self.settings.metric)
            self.validation_seconds = (time.perf_counter() - start) * self.settings.validation_tasks / few

    def _seconds_per_step(self, steps: int) -> float:
        """The median time of the next step, taken so often without changing anything."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            with self._solvable("meta-gradient"):
                self._meta_gradient()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def correct_steps(self, run: Run | None, on_event: OnEvent) -> None:
        """Correct the number of steps once, if their time differs from the measurement before the first one."""
        minutes, count = self.settings.minutes, self.step_count
        assert count is not None, "fixed before"
        if minutes is None or count.corrected is not None or self.step != count.correction_step:
            return
        steps = count.first
        if self.workers.first:
            first, last = self.history[0], self.history[-1]
            taken = last["step"] - first["step"]
            if taken:
                left, per_step = 60 * minutes - self.spent, (last["seconds"] - first["seconds"]) / taken
                steps = self.step + self._affordable(left, per_step)
            if abs(steps - count.first) <= CLOSE * count.first:
                steps = count.first
            if steps != count.first:
                on_event(
                    NoteEvent(
                        f"Step times differ from the first ones: {count_of(steps, 'step')} instead of {count.first} "
                        f"fit into {count_of(round(minutes, 2), 'minute')}."
                    )
                )
        self._keep_steps(replace(count, corrected=self._agreed(steps)), run)

    def _affordable(self, seconds: float, per_step: float) -> int:
        return affordable(seconds, per_step, self.validation_seconds, self.settings.validate_every)

    def _agreed(self, value: Any) -> Any:
        """The first worker's number, or list."""
        return value if self.workers.count == 1 else self.workers.share({}, {"value": value})[1]["value"]

    def _keep_steps(self, count: StepCount, run: Run | None) -> None:
        self.step_count = count
        if run is not None and self.workers.first:
            run.fix(**count.to_json())

    def follow(self) -> None:
        """Set all workers to the state of the first one."""
        if self.workers.count > 1:
            state = self.workers.share(*self.state())
            if not self.workers.first:
                self.restore(*state)

    def draw(self, own: range) -> tuple[Task, TaskSpec, Any]:
        """These tasks of the next meta-batch, with their noise, on the learner's device.

        Both are drawn on the CPU, with the same bits for every device.
        """
        first = self.step * self.settings.meta_batch_size
        indices = range(first + own.start, first + own.stop)
        tasks = self.distribution.batch(indices)
        moved, noise = to_device((tasks, self._noise(tasks, indices)), self.learner.device)
        return moved, self.distribution.spec_of(indices[0]), noise

    def _examples(self, index: int) -> int:
        """How many examples a task has, up to a factor that all tasks share."""
        sizes = self.distribution.sizes_of(index)
        return max(1, sizes.way) * (sizes.shot + sizes.query_shot)

    def _meta_gradient(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the next meta-batch, of which each worker runs its own tasks.

        Under the plan, or a leaner one from now on if the GPU runs out of memory.
        """
        count = self.settings.meta_batch_size
        while True:
            plan = self.plan
            assert plan is not None, "chosen before"
            if self._gradient is None or self._gradient.plan != plan:
                self._gradient = MetaGradient(self.learner, plan, self.settings.precision)
            own, size = self.workers.own(plan, count), plan.size(count)

            def add(parts: Iterator[Leaf], own: range = own, plan: Plan = plan, size: int = size) -> Leaf:
                parts = self._seeded(parts, own) if self.network_draws else parts
                return shared_tree_sum(parts, plan.parts(count), self.workers, size=size)

            try:
                return self._gradient(*self.draw(own), add)
            except torch.OutOfMemoryError as error:
                leaner = None if self.network_draws else plan.leaner(count)  # a step taken again would draw again
                if leaner is None:
                    raise
                if self.workers.count > 1:  # the others do not know of it
                    raise HandfulError(
                        f"Out of memory with the plan ({plan}). A plan with less memory is {leaner.written()}.",
                        code="out-of-memory",
                        hint="Start over with {force}, and set it as {plan}.",
                    ) from error
                self.plan = leaner

    def pretrain(self, run: Run | None, on_event: OnEvent, stop: Stop | None) -> None:
        """Train the backbone on the pool of the train split, from the checkpoint if one exists."""
        pool = self.distribution.pool()
        assert pool is not None, "checked before"
        settings = self.settings

        def save(pretraining: Pretraining) -> None:
            if run is not None:
                self.pretraining = pretraining
                run.save(self)

        keeper = PretrainingCheckpoints(save, self.unfinished, stop)
        with self.cores():
            self.seconds += self.learner.pretrain(
                pool,
                examples=settings.pretrain_examples,
                seed=settings.seed,
                progress=lambda done, total: on_event(
                    StepEvent(PRETRAINING, done, total, unit="examples", why="features to start from")
                ),
                keeper=keeper,
            )
        self.pretraining = self.unfinished = None

    def described(self) -> PlanEvent:
        """The description of the training: learner, tasks and plan."""
        tasks = self.distribution
        return PlanEvent(
            parameters=sum(parameter.numel() for parameter in self.parameters),
            way=tasks.sizes.way,
            shot=tasks.sizes.shot,
            per_step=self.settings.meta_batch_size,
            inputs=tasks.pipeline.described() if tasks.pipeline else None,
            small_tasks=tasks.small_tasks() or None,
            plan=str(self.plan) if self.plan else None,
            steps=self.steps,
            workers=self.workers.count,
            seconds=self.expected_seconds,
            bytes=self.predicted_bytes,
        )

    def validate(self) -> dict[str, Any]:
        """Score on validation tasks with precise normalization statistics; keep the weights if it is the best yet.

        Returns the entries for the history: {"val": score}, with "val_diverged" for diverged draws and "val_undefined"
        for undefined scores. Weights with which fewer draws are left out of the score are better. Raises `HandfulError`
        if too many diverged. With several workers all measure the statistics, and the first one scores.
        """
        start = time.perf_counter()
        with self._solvable("validation score"):
            self._recalibrate()
            if not self.workers.first:
                return {}
            evaluation = evaluate(
                self.learner, self.validation, tasks=self.settings.validation_tasks, metric=self.settings.metric
            )
        self.validation_seconds = time.perf_counter() - start
        score, draws = evaluation.score, len(evaluation.scores)
        if score.diverged > MOST_DIVERGED * draws:
            raise self._diverged(f"No prediction was finite on {score.diverged} of {draws} validation draws")
        if math.isnan(score.mean):
            raise UserError(
                f"The metric {evaluation.metric.name!r} is undefined on all validation tasks. Choose another metric, "
                f"or tasks with more queries.",
                field=("metric",),
            )
        rank = (-evaluation.unscored, evaluation.metric.sign * score.mean)
        if not self.best or rank > self.best_rank:
            self.best_rank, self.best_score, self.best_diverged = rank, score.mean, score.diverged
            self.best_step = self.step
            self.best = {name: tensor.detach().clone() for name, tensor in self.learner.state_dict().items()}
        counts = {"val_diverged": score.diverged, "val_undefined": score.undefined}
        return {"val": score.mean} | {name: count for name, count in counts.items() if count}

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            if not self.workers.first:
                raise PeerError(f"The {what} became {value}.")
            raise self._diverged(f"The {what} became {value}")

    @contextmanager
    def _solvable(self, what: str) -> Iterator[None]:
        """A matrix that cannot be factorized counts as a divergence, too, on any worker."""
        try:
            yield
        except LinAlgError as error:
            raise self._diverged(f"The {what} cannot be computed ({str(error).splitlines()[0]})") from error

    def _diverged(self, found: str) -> HandfulError:
        return HandfulError(
            f"{found} at step {self.step}: the training diverged with outer_lr {self.settings.outer_lr:g}.",
            code="training-diverged",
            hint="Lower {outer_lr}, or the learner's {inner_lr}.",
        )

    def _noise(self, tasks: Task, indices: range) -> Any:
        spec = self.distribution.spec_of(indices[0])
        drawn = [
            self.learner.draw_noise(take(tasks, i), spec, streams.task_noise(self.settings.seed, index))
            for i, index in enumerate(indices)
        ]
        return None if drawn[0] is None else stack(drawn)

    def _recalibrate(self) -> None:
        def run(index: int) -> Callable[[], object]:
            task, spec = self.distribution.task(index), self.distribution.spec_of(index)

            def forward() -> None:
                with streams.network_draws("recalibration", self.settings.seed, index):
                    self.learner.meta_loss(to_device(task, self.learner.device), spec)

            return forward

        recalibrate(self.learner, (run(index) for index in self.distribution.typical(RECALIBRATION_TASKS)))


@dataclass(frozen=True)
class Trained:
    """What `meta_train` returns: which weights it kept, how it chose them, and the history.

    selection: how the weights were chosen, in words.
    best_step: the step whose weights are kept; 0 is before the first step.
    best_score: their validation score.
    best_diverged: on how many of the validation draws no prediction was finite; a squared error leaves them out.
    seconds: in steps and pre-training, those before an interruption included; no validation.
    examples: see `examples_seen`.
    plan: how the steps were run; None if none was chosen.
    predicted_bytes: the largest size of the process that the choice of the plan expected; None if it chose none.
    history: one row a step, with `step`, `loss` and `seconds`, and `val` where it was validated; step 0 has no loss.
    """

    selection: str
    best_step: int
    best_score: float
    best_diverged: int
    seconds: float
    examples: int
    plan: Plan | None
    predicted_bytes: int | None
    history: list[dict[str, Any]]


@own_settings()
def meta_train(
    learner: Learner,
    distribution: TaskDistribution,
    *,
    validation: TaskDistribution | None = None,
    run: Run | None = None,
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
    **settings: Any,
) -> Trained:
    """Meta-train `learner` on the train split; on return it holds the weights of the best validation.

    learner: made by `Learner.build`; it is changed.
    distribution: the tasks; those of its "train" split are trained on.
    validation: tasks to validate on, by default those of the distribution's "val" split with the same sizes.
    run: where to keep checkpoints and metrics; a run that holds a checkpoint is continued bit for bit, under its plan.
    on_event: called with each event, see `handful.events`.
    stop: once it is set, such as a `threading.Event`, the step or that of pre-training is finished and saved, and then
        a `StoppedError` raised.
    settings: see `Settings`. The same seed, settings, plan and number of threads give the same bits.

    Where `torch.distributed` is initialized, its processes are workers: each calls this with the same arguments, runs
    its own tasks of each step, and returns the same. Only the first one validates, writes to `run` and calls back. The
    bits are then those of one process under the same plan, which must have task threads; so are those of any number of
    cores.

    Raises `UserError` for settings that do not exist or do not fit the tasks, and `DivergedError` if no step has a
    finite loss.

    Example:
        >>> import handful
        >>> tasks = handful.open_tasks("sine").with_sizes(shot=5, query_shot=10)
        >>> learner = handful.LEARNERS["r2d2"].build(tasks.spec, seed=0)
        >>> trained = meta_train(learner, tasks, steps=4, validate_every=2, validation_tasks=5, plan="vmap")
        >>> [row["step"] for row in trained.history if "val" in row]
        [2, 4]
    """
    workers = Workers.present()
    distribution = distribution.split("train")
    validation = validation if validation is not None else distribution.split("val")
    chosen = checked(learner, distribution, validation, settings, workers=workers.count)
    if chosen.device is not None:
        learner.to(chosen.device)
    distribution = fit(learner, distribution)
    training = Training(learner, distribution, validation, chosen, workers=workers)
    learner.train()
    try:
        with run.threads() if run is not None and workers.first else nullcontext():
            _train(training, run, on_event if workers.first else ignore, stop)
    finally:
        kept_layers.forget(learner)
    training.follow()  # to what the first one has kept
    learner.load_state_dict(training.best)
    learner.eval()
    assert training.best_score is not None
    return Trained(
        selection=(
            f"best of {len([1 for row in training.history if 'val' in row])} validations, each on the same "
            f"{training.settings.validation_tasks} tasks of the val split"
        ),
        best_step=training.best_step,
        best_score=training.best_score,
        best_diverged=training.best_diverged,
        seconds=training.seconds,
        examples=examples_seen(distribution, training.settings, training.steps),
        plan=training.plan,
        predicted_bytes=training.predicted_bytes,
        history=training.history,
    )


def _train(training: Training, run: Run | None, on_event: OnEvent, stop: Stop | None) -> None:
    """All steps, from where the run's last checkpoint is."""
    workers, chosen = training.workers, training.settings
    saved = run if workers.first else None
    if workers.first:
        restored = run is not None and run.restore(training)
        if run is not None:
            training.take_fixed(run)
        training.choose_plan(on_event)
        if run is not None and training.plan is not None:
            run.fix(plan=training.plan.written())
        if chosen.pretrain_examples and (training.unfinished or not restored):
            training.pretrain(run, on_event, stop)
            if run is not None and training.learner.start != "pretrained":  # whose network stays as it is
                run.keep_network(training.learner.backbone.state_dict())
            if run is not None:
                run.save(training)
    training.follow()
    with training.cores():
        if chosen.validate_start and not training.history:
            _validate_start(training, saved, on_event)
        training.fix_steps(run, on_event)
    count = training.step_count
    assert count is not None
    validate_every = validation_interval(count.first, chosen.validate_every)
    checkpoint_every = chosen.checkpoint_every or max(1, count.first // 50)
    on_event(training.described())
    with training.cores():
        while training.step < training.steps and not training.stagnant:
            training.correct_steps(run, on_event)
            workers.asked = stop is not None and stop.is_set()  # which the others hear with the gradients
            loss = training.advance()
            found: dict[str, Any] = {}
            if training.step % validate_every == 0 or training.step == training.steps:
                found = training.validate()
            row = {"step": training.step, "loss": loss, "seconds": round(training.seconds, 3)}
            training.history.append(row | found)
            if found:
                on_event(_validation(training, found))
            why = "learning to adapt to tasks"
            on_event(StepEvent(META_TRAINING, training.step, training.steps, loss, "steps", why))
            stopped = workers.agreed if workers.count > 1 else stop is not None and stop.is_set()
            if saved is not None:
                last = stopped or training.step == training.steps or training.stagnant
                if last or found or training.step % checkpoint_every == 0:
                    saved.save(training)
                    on_event(CheckpointEvent(training.step))
            if stopped:
                raise StoppedError(f"The training was stopped on request, after step {training.step}.")
        if training.step < training.steps:
            on_event(
                NoteEvent(
                    f"Stopped after step {training.step}: no validation has been better since step "
                    f"{training.best_step}."
                )
            )
        if not training.steps and not training.history:  # a learner that is pre-trained only
            _validate_start(training, saved, on_event)
    on_event(DoneEvent(META_TRAINING, training.seconds))


def _validate_start(training: Training, run: Run | None, on_event: OnEvent) -> None:
    """Validate the weights before the first step."""
    found = training.validate()
    training.history.append({"step": 0, "seconds": round(training.seconds, 3)} | found)
    if found:
        on_event(_validation(training, found))
    if run is not None:
        run.save(training)


def _validation(training: Training, found: dict[str, Any]) -> ValidationEvent:
    """Of what `validate` found."""
    metric = metric_of(training.validation, training.settings.metric)
    counts = (found.get(name, 0) for name in ("val_diverged", "val_undefined"))
    return ValidationEvent(training.step, found["val"], metric.name, *counts)


def checked(
    learner: Learner,
    distribution: TaskDistribution,
    validation: TaskDistribution,
    settings: dict[str, Any],
    *,
    workers: int = 1,
) -> Settings:
    """The settings, where so many workers can train this learner with them on these tasks; else a `UserError`."""
    for name in settings:
        if name not in (known := [field.name for field in fields(Settings)]):
            raise unknown_name("setting", name, known)
    for tasks in (distribution, validation):
        tasks.check()
        check_tasks(learner, tasks)
    chosen = Settings(**settings)
    metric_of(validation, chosen.metric)
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        if learner.start not in ("pretrained", "fitted"):
            raise UserError(
                f"The learner {learner.key!r} has nothing to meta-train. Train another one"
                f"{'; `handful evaluate` compares it with the baselines' if learner.baseline else ''}."
            )
        pretrained = learner.start == "pretrained"
        if pretrained and not chosen.pretrain_examples:
            raise UserError(
                f"The learner {learner.key!r} is not meta-trained but pre-trained.",
                hint="Set the number of examples with {pretrain_examples}.",
            )
        if chosen.minutes is not None:
            raise UserError(
                f"The learner {learner.key!r} is {'pre-trained' if pretrained else 'fitted'} only and has no "
                f"meta-steps that minutes could limit.",
                hint="Remove {minutes}.",
            )
    if chosen.pretrain_examples and distribution.pool() is None:
        raise UserError(
            "These tasks come from a generator and have no common examples to pre-train on. Remove {pretrain_examples}."
        )
    if learner.fits:
        rows_to_fit(learner, distribution)
    check_precision(chosen, learner)
    if chosen.patience and workers > 1:
        raise UserError("Early stopping needs one process: set patience to 0, or train with one worker.")
    check_shared(cast(Plan | None, chosen.plan), chosen.meta_batch_size, workers)
    return chosen


def check_precision(chosen: Settings, learner: Learner) -> None:
    """Raise `UserError` if the device has no steps of this precision."""
    if chosen.precision == "bf16" and (place := chosen.device or learner.device.type) != "cuda":
        raise UserError(
            f"The precision bf16 needs the device cuda, not {place}.",
            field=("precision",),
            hint="Remove {precision}, or set another {device}.",
        )


def examples_seen(distribution: TaskDistribution, settings: Settings, steps: int) -> int:
    """The number of examples that the network processes in the whole training, counting repeats."""
    blocks = math.ceil(steps * settings.meta_batch_size / BLOCK)
    indices = distribution.typical(min(max(1, blocks), COUNTED_BLOCKS)) if distribution.varied else range(1)
    counts = [sum(len(part.inputs) for part in distribution.task(index)) for index in indices]
    return settings.pretrain_examples + round(steps * settings.meta_batch_size * sum(counts) / len(counts))
