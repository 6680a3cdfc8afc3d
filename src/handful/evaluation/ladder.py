"""The ladder: the baselines that every result is compared with."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from handful.backbones import Backbone
from handful.engine.evaluation_copy import evaluation_copy
from handful.errors import UserError
from handful.evaluation.comparison import Comparison
from handful.evaluation.data_equivalence import Equivalence, equivalence
from handful.evaluation.grounds import Ground, Unencoded, encoder_grounds
from handful.evaluation.intervals import Interval
from handful.evaluation.pace import Costs, pace
from handful.evaluation.scoring import TUNED, Evaluation, evaluate, row_name, works_on_features
from handful.events import LADDER_PRETRAINING, Event, OnEvent, StepEvent, ignore
from handful.learners.learner import BATCH, Keeper, Learner
from handful.metrics import Metric
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.distribution import Pool, Remembered, SizeRanges, TaskDistribution

MINUTES = 2.0
"""Minutes for the pre-training of baselines and for costly baselines."""
PART_FOR_PRETRAINING = 0.4
"""The share of this time for the pre-training."""
CHOOSING_TASKS = 50
TIMED_STEPS = 3
"""Steps of the pre-training that predict its time; the first one warms up."""

EXAMPLES = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of examples for the conventional way, for the data equivalence."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress notes that classes or tasks are too small, since the sizes tried here are not the user's."""
    with collecting():
        yield


@dataclass(frozen=True)
class Rung:
    """A learner of the ladder, and what it gets: inputs or vectors of an encoder."""

    learner: type[Learner]
    ground: Ground

    @property
    def name(self) -> str:
        """The name, unique in a ladder."""
        return row_name(self.learner.key, self.ground.name)

    @property
    def uses_other_tasks(self) -> bool:
        """Whether it learns from other tasks: by itself, or through an encoder that was tuned on them."""
        return self.learner.uses_other_tasks or self.ground.name == TUNED

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The options that are tried on validation tasks."""
        space = self.learner.search_space
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]


class Ladder:
    """The baselines that support the tasks of a distribution, built once and scored on several settings.

    If an encoder is a part of the learner, baselines on raw inputs get its vectors instead: those of the encoder as
    published, and those of the tuned one, which show the gain from tuning; those that train a network get the former.

    learner: the one to compare with; baselines with a network get one of its kind.
    trained: the training tasks, from whose pool a network is pre-trained once for all baselines that start from it.
        None, or tasks without a pool: they are left out.
    examples: of that pre-training: as many as the learner was trained on, or as many as the time allows. A learner that
        is only pre-trained shares its network instead. 0: those baselines are left out, since an untrained network has
        learned nothing from other tasks; `pretrained_on` states so.
    seen_by: what was trained on so many examples, in words.
    network: the weights of the learner's network after its own pre-training, used instead if no head is needed; None
        without a pre-training.
    backbone: the network of baselines, and its options, beside a learner that has none of its own.
    unencoded: the scored data as inputs of the frozen encoder whose vectors the learner gets, for a baseline that tunes
        it; None: no such baseline.
    minutes: for the pre-training and for costly baselines, which `costly.with_costly` adds. 0: costly baselines are
        left out, and the pre-training is not limited, so that nothing depends on the clock.
    keeper: stores the pre-training while it runs. A shorter one that it has is used, unless the time allows for twice
        as many examples.
    metric: see `find_metric`.
    on_event: called with a `StepEvent` as work goes on.

    Example:
        >>> import handful
        >>> tasks = handful.open_tasks("sine").with_sizes(shot=5, query_shot=20)
        >>> learner = handful.LEARNERS["r2d2"].build(tasks.spec, seed=0)
        >>> ladder = Ladder(learner, None, examples=0)  # None: no network is pre-trained for the baselines
        >>> found = ladder.run(tasks.split("test"), validation=tasks.split("val"), tasks=10)
        >>> sorted(row.evaluation.name for row in found.rows)
        ['dummy', 'neighbors', 'r2d2', 'ridge-probe']
    """

    def __init__(
        self,
        learner: Learner,
        trained: TaskDistribution | None,
        *,
        examples: int,
        seen_by: str = "the learner",
        network: dict[str, Tensor] | None = None,
        backbone: tuple[Backbone, dict[str, Any]] = ("auto", {}),
        unencoded: Unencoded | None = None,
        minutes: float = MINUTES,
        seed: int = 0,
        metric: Metric | str | None = None,
        on_event: OnEvent = ignore,
        keeper: Keeper | None = None,
    ) -> None:
        self.learner = learner
        self.minutes = minutes
        self.seed = seed
        self.on_event, self.metric = on_event, metric
        self.pretraining_seconds = 0.0
        self.pretrained_on = ""
        self._chosen: dict[tuple[str, SizeRanges], dict[str, Any]] = {}
        self._remembered: dict[str, Remembered] = {}
        self._alone: dict[SizeRanges, str | None] = {}
        spec = learner.recipe["spec"]
        own = learner.recipe["backbone"], learner.recipe["backbone_options"]
        self._backbone = backbone if learner.start in ("raw", "fitted") else own
        self._inputs, self._encoders = Ground(), encoder_grounds(learner, trained)
        self._unencoded = unencoded
        pool = (self._encoders[0] if self._encoders else self._inputs).pool(trained)
        # What is fitted on rows is not for the vectors of an encoder.
        self._rows = pool.table(spec.input_shape) if pool is not None and self._encoders is None else None
        self._fitted: dict[type[Learner], Learner] = {}
        can = [
            rung
            for _, rung in LEARNERS.items()
            if rung.baseline
            and rung is not type(learner)
            and spec.kind in rung.kinds
            and (spec.kind == "regression" or spec.labels in rung.labels)
            and (rung.start != "pretrained" or pool is not None)
            and (rung.start != "fitted" or self._rows is not None)
            and (minutes > 0 or not rung.costly)
        ]
        lent = examples > 0 or learner.start == "pretrained"
        fitting = [rung for rung in can if lent or rung.start != "pretrained"]
        self.rungs = [Rung(rung, ground) for rung in fitting for ground in self._grounds(rung)]
        if untrained := [rung.key for rung in can if rung not in fitting]:
            self.pretrained_on = f"none, because no learner was trained; left out: {', '.join(untrained)}"
        self._pretrained: Any = None
        first = next((rung for rung in self.rungs if rung.learner.start == "pretrained"), None)
        if first is not None:
            assert pool is not None, "otherwise the rung does not exist"
            self._pretrain(first, pool, examples, network, keeper, seen_by)

    def _pretrain(
        self,
        rung: Rung,
        pool: Pool,
        examples: int,
        network: dict[str, Tensor] | None,
        keeper: Keeper | None,
        seen_by: str,
    ) -> None:
        """Get a pre-trained network for all rungs: the run's own, a stored one, or a new one."""
        if self.learner.start == "pretrained" and self._encoders is None:
            self._pretrained = self.learner
            self.pretrained_on = "the learner's own network"
            return
        self._pretrained = self.build(rung, {})
        if network is not None and self._encoders is None and self._takes(network):
            self._pretrained.backbone.load_state_dict(network)
            self.pretrained_on = "the learner's own network, as its pre-training left it"
            return
        affordable = self._affordable(rung, pool, examples, keeper)
        self.pretraining_seconds = self._pretrained.pretrain(
            pool,
            examples=affordable,
            seed=self.seed,
            progress=lambda done, total: self.on_event(
                StepEvent(LADDER_PRETRAINING, done, total, unit="examples", why="the network of the baselines")
            ),
            keeper=keeper,
        )
        self.pretrained_on = f"pre-trained on {affordable:,} examples, as many as {seen_by} was trained on"
        if affordable < examples:
            self.pretrained_on = f"pre-trained on {affordable:,} examples, as many as the time allowed"
            self.pretrained_on += f" ({seen_by}: {examples:,})"

    def _takes(self, network: dict[str, Tensor]) -> bool:
        """Whether baselines can use these weights of a network, without a head."""
        own = self._pretrained.backbone.state_dict()
        same = {name: value.shape for name, value in own.items()} == {name: w.shape for name, w in network.items()}
        return same and self._pretrained.head is None

    def _affordable(self, rung: Rung, pool: Pool, examples: int, keeper: Keeper | None) -> int:
        """As many of these examples as the time allows, at least two batches."""
        kept = keeper.steps * BATCH if keeper is not None and keeper.steps is not None else 0
        if not self.minutes or kept == examples or examples <= TIMED_STEPS * BATCH:
            return examples
        seconds = _seconds_per_example(self.build(rung, {}), pool, self.seed)
        found = min(examples, max(2 * BATCH, int(PART_FOR_PRETRAINING * 60 * self.minutes / seconds)))
        return kept if 0 < kept <= examples and 2 * kept > found else found

    def _grounds(self, rung: type[Learner]) -> Sequence[Ground]:
        """What a baseline gets; none if it tunes an encoder and none reads the inputs."""
        if self._encoders is None:
            own = self._unencoded if rung.start == "encoder" else self._inputs
            return () if own is None else (own,)
        if rung.start == "encoder" or not rung.uses_inputs:
            return (self._inputs,)
        return self._encoders if rung.start == "raw" else self._encoders[:1]

    def run(
        self,
        setting: TaskDistribution,
        validation: TaskDistribution,
        *,
        tasks: int = 600,
        choosing: int | None = None,
    ) -> Comparison:
        """Score the learner and all baselines that are not costly.

        setting: the tasks to score on, the first ones of its present split.
        validation: tasks on which options of baselines are chosen, once for each of its sizes.
        tasks: how many to score on.
        choosing: how many to choose options on; None: `CHOOSING_TASKS`.
        """
        rungs = [rung for rung in self.rungs if not rung.learner.costly]
        if not rungs:
            raise UserError("No baseline of the registry supports these tasks, so no comparison is possible.")
        own = self._own(setting, tasks, "the learner of the run")
        found = []
        for rung in rungs:
            chosen = self.choose(rung, validation, choosing)
            found.append((self.scored(rung, chosen, setting, tasks), chosen))
        return Comparison.of(own, found, alone=self._best_alone(validation, choosing))

    def costs(self, setting: TaskDistribution, *, together: bool = False) -> Costs:
        """The estimated time of `run` on this setting, from its first task; with `together`, from a few tasks at
        once."""
        rungs, seen = [], False
        for rung in self.rungs:
            if rung.learner.costly:
                continue
            options = rung.learner.for_vectors if rung.ground.vectors(setting) else {}
            tried = len(rung.choices) if len(rung.choices) > 1 else 0
            choices = tried + (not rung.uses_other_tasks)  # the best of these is chosen on validation tasks, too
            found = pace(self.build(rung, options), rung.ground.tasks(setting), choices=choices, together=together)
            shared = rung.learner.start == "pretrained" and math.isfinite(found.most)
            if not (shared and seen):  # all of them take the features that the first one makes
                rungs.append(found)
            seen = seen or shared
        return Costs(pace(self.learner, setting, together=together), tuple(rungs), CHOOSING_TASKS)

    @_quiet()
    def shots_curve(
        self,
        setting: TaskDistribution,
        validation: TaskDistribution,
        comparison: Comparison,
        shots: Sequence[int],
        *,
        tasks: int,
        choosing: int | None = None,
        end: float = math.inf,
    ) -> dict[str, list[tuple[int, Interval]]]:
        """Scores against shots: of the learner, of the best cheap baseline, and of the best one on raw inputs.

        All on the same tasks with the same queries: those of the largest shot, with a part of their support; or drawn
        anew for each shot, if a part of a support is not one (see `TaskDistribution.nested`). Shots for which the data
        or the classes of the setting's tasks have too few examples, or for which less than half of the user's tasks
        have enough, are left out; the result may be empty.

        setting, validation, tasks, choosing: see `run`.
        comparison: what `run` returned for this setting.
        shots: the numbers of support examples.
        end: by `time.monotonic`; no shot begins that would end later, were it like the one before.
        """
        named = {rung.name: rung for rung in self.rungs}
        rungs_by_score = [named[row.evaluation.name] for row in comparison.rows[1:]]
        cheap = [rung for rung in rungs_by_score if not rung.learner.costly and rung.ground.name != TUNED]
        raw = [rung for rung in cheap if rung.learner.start == "raw"]
        rungs = list(dict.fromkeys([*cheap[:1], *raw[:1]]))
        curves: dict[str, list[tuple[int, Interval]]] = {
            name: [] for name in (self.learner.key, *(rung.name for rung in rungs))
        }
        own = setting.sizes.largest().shot
        reference = _of_shot(setting, own)
        sizes: list[tuple[TaskDistribution, TaskDistribution]] = []
        for shot in shots:
            try:
                at = _of_shot(setting, max(shot, own) if setting.nested else shot)
                options_on = _of_shot(validation, shot)
                if setting.sizes.way is not None and not _same_tasks(at, reference, tasks):
                    break
            except UserError:
                break
            if at.units is not None and setting.units is not None and 2 * at.units < setting.units:
                break
            sizes.append((at, options_on))
        if not sizes:
            return {}
        why = "the gain from more examples"
        took = 0.0
        for number, (shot, (at, options_on)) in enumerate(zip(shots, sizes, strict=False)):
            began = time.monotonic()
            if began + took >= end:
                break
            self.on_event(StepEvent("shots curve", number, len(sizes), unit="sizes", why=why))
            place, part = (sizes[-1][0], shot) if setting.nested else (at, None)
            curves[self.learner.key].append((shot, self._own(place, tasks, shot=part).score))
            for rung in rungs:
                found = self.scored(rung, self.choose(rung, options_on, choosing), place, tasks, shot=part)
                curves[rung.name].append((shot, found.score))
            took = time.monotonic() - began
        return curves if curves[self.learner.key] else {}

    def conventional(
        self, setting: TaskDistribution, validation: TaskDistribution, *, tasks: int, shot: int | None = None
    ) -> dict[str, Evaluation]:
        """The scores of the baselines that learn from each task alone on the first tasks of `setting`'s present split,
        by name.

        They are those on raw inputs, or on the vectors of an encoder that is not tuned, and, unless costly ones are
        left out, the network trained from scratch. Their options are chosen on tasks of `validation`.

        shot: see `evaluate`.
        """
        return {
            rung.name: self.scored(rung, self.choose(rung, validation), setting, tasks, shot=shot)
            for rung in self._conventional
        }

    @property
    def _conventional(self) -> list[Rung]:
        rungs = [rung for rung in self.rungs if rung.learner.start in ("raw", "own")]
        return [rung for rung in rungs if rung.ground.name != TUNED]

    @_quiet()
    def equivalence(
        self,
        setting: TaskDistribution,
        validation: TaskDistribution,
        *,
        tasks: int,
        examples: Sequence[int] = EXAMPLES,
    ) -> Equivalence | None:
        """How many times more examples the conventional way needs on the first tasks of `setting`'s present split.

        The conventional way is the best of `conventional`. It gets more `examples` (of each class, or of a task) until
        it significantly beats the learner, or the same tasks have no more; smaller supports are parts of larger ones,
        if possible (see `TaskDistribution.nested`). None if shots vary, no baseline supports the tasks, or draws have
        no score for the learner or, for some size, for each baseline.
        """
        shot = setting.sizes.shot
        if isinstance(shot, tuple) or not self._conventional:
            return None
        own = self._own(setting, tasks)
        if not own.scores.isfinite().all():
            return None
        sizes: list[int] = []
        ways: list[list[Evaluation]] = []
        wanted = sorted({*examples, shot})
        why = "the examples that the conventional way needs"
        for number, size in enumerate(wanted):
            self.on_event(StepEvent("data equivalence", number, len(wanted), unit="sizes", why=why))
            fewer = setting.nested and size < shot
            try:
                at, choosing = setting if fewer else _of_shot(setting, size), _of_shot(validation, size)
                if not _same_tasks(at, setting, tasks):
                    break
                part = size if fewer else None
                found = list(self.conventional(at, choosing, tasks=tasks, shot=part).values())
            except UserError:
                break
            sizes.append(size)
            ways.append(found)
            if size >= shot and any(way.gain_over(own).low > 0 for way in found):
                break
        scored = {way.name for way in ways[0]} if ways else set()
        scored -= {way.name for found in ways for way in found if not way.scores.isfinite().all()}
        if not scored:
            return None
        ways = [[way for way in found if way.name in scored] for found in ways]
        result = equivalence(
            own.scores,
            shot,
            [torch.stack([way.scores for way in found]) for found in ways],
            sizes,
            units=own.units,
            higher_is_better=own.metric.higher_is_better,
            seed=self.seed,
        )
        best = [max((way.score for way in found), key=lambda score: own.metric.sign * score.mean) for found in ways]
        return replace(result, curve=list(zip(sizes, best, strict=True)))

    def build(self, rung: Rung, options: dict[str, Any]) -> Learner:
        """The baseline with these options, pre-trained or fitted if needed."""
        ground = rung.ground
        if rung.learner.start == "pretrained" and self._pretrained is not None:
            return self._pretrained.twin(rung.learner, **options).to(self.learner.device)  # type: ignore[no-any-return]
        spec, (backbone, backbone_options) = self.learner.recipe["spec"], self._backbone
        if ground.network is not None:
            spec, backbone, backbone_options = replace(spec, input_shape=(ground.width,)), "linear", {}
        elif isinstance(ground, Unencoded):
            pipeline = ground.opened.pipeline
            assert pipeline is not None, "an encoder is a part of one"
            spec = replace(spec, input_shape=pipeline.input_shape)
            backbone, backbone_options = pipeline.backbone, dict(pipeline.backbone_options)
        elif rung.learner.start == "encoder":
            backbone_options = backbone_options | {"layers": None}
        built = rung.learner.build(
            spec, backbone=backbone, backbone_options=backbone_options, seed=self.seed, **options
        )
        if rung.learner.start == "fitted" and self._rows is not None:
            if rung.learner not in self._fitted:
                built.fit(self._rows)
                self._fitted[rung.learner] = built
            built.load_state_dict(self._fitted[rung.learner].state_dict())
        return built.eval().to(self.learner.device)

    def choose(self, rung: Rung, validation: TaskDistribution, count: int | None = None, **more: Any) -> dict[str, Any]:
        """The best of the baseline's choices on `count` validation tasks; chosen once for each of their sizes.

        more: of `scored`.
        """
        at = (rung.name, validation.sizes)
        if at not in self._chosen:
            self._chosen[at] = self._best_choice(rung, validation, count, **more)
        return self._chosen[at]

    def _best_choice(
        self, rung: Rung, validation: TaskDistribution, count: int | None = None, **more: Any
    ) -> dict[str, Any]:
        candidates = rung.choices
        if len(candidates) == 1:
            return candidates[0]
        ranks = []
        for done, options in enumerate(candidates):
            why = "on validation tasks"
            self.on_event(StepEvent(f"choosing for {rung.name}", done, len(candidates), unit="choices", why=why))
            ranks.append(self.rank(rung, options, validation, count, **more))
        return candidates[ranks.index(max(ranks))]

    def _best_alone(self, validation: TaskDistribution, count: int | None) -> str | None:
        """The best baseline on validation tasks that learns from each task alone, costly ones excluded.

        Choosing it on the scored tasks would favor it by chance.
        """
        sizes = validation.sizes
        if sizes not in self._alone:
            rungs = [rung for rung in self.rungs if not (rung.uses_other_tasks or rung.learner.costly)]
            chosen = [(rung, self.choose(rung, validation)) for rung in rungs]
            ranks = {rung.name: self.rank(rung, options, validation, count) for rung, options in chosen}
            self._alone[sizes] = max(ranks, key=lambda name: ranks[name], default=None)
        return self._alone[sizes]

    def rank(
        self,
        rung: Rung,
        options: dict[str, Any],
        validation: TaskDistribution,
        count: int | None = None,
        **more: Any,
    ) -> tuple[int, float]:
        """How good a baseline is on `count` validation tasks with these options: the larger, the better.

        more: of `scored`.
        """
        count = CHOOSING_TASKS if count is None else count
        found = self.scored(rung, options, rung.ground.choosing(validation), count, why=None, **more)
        mean = found.metric.sign * found.score.mean
        return -found.unscored, -math.inf if math.isnan(mean) else mean

    def _own(
        self, setting: TaskDistribution, tasks: int, why: str | None = None, *, shot: int | None = None
    ) -> Evaluation:
        """Scores of the learner; on the vectors of a tuned encoder that are already computed."""
        return self._evaluate(
            self.learner, setting, tasks, why, shot=shot, features=self._features(self.learner, setting)
        )

    def _features(self, learner: Learner, setting: TaskDistribution) -> TaskDistribution | None:
        """The features of examples by the learner's network, or the pre-trained one, kept for all scoring; None if
        keeping them does not pay."""
        if not works_on_features(learner):
            return None
        if learner is self.learner and self._encoders:
            assert self._encoders[1].network is not None, "a ground of vectors has one"
            return setting.mapped(self._encoders[1].network)
        whose = "own" if learner is self.learner else "pretrained"
        if whose not in self._remembered:
            self._remembered[whose] = Remembered(evaluation_copy(learner).feature_network)
        return setting.mapped(self._remembered[whose])

    def scored(
        self,
        rung: Rung,
        options: dict[str, Any],
        setting: TaskDistribution,
        tasks: int,
        why: str | None = "a baseline",
        **more: Any,
    ) -> Evaluation:
        """Scores of a baseline with these options, and with those for vectors.

        more: see `evaluate`.
        """
        ground = rung.ground
        for_vectors = rung.learner.for_vectors if ground.vectors(setting) else {}
        learner = self.build(rung, for_vectors | options)
        if rung.learner.start == "pretrained" and ground.network is None:
            more["features"] = self._features(learner, setting)
        found = self._evaluate(learner, ground.tasks(setting), tasks, why, **more)
        return replace(
            found,
            ground=ground.name,
            uses_other_tasks=rung.uses_other_tasks,
            adapt_seconds=found.adapt_seconds + ground.seconds(setting),
        )

    def _evaluate(
        self, learner: Learner, setting: TaskDistribution, tasks: int, why: str | None, **more: Any
    ) -> Evaluation:
        def hear(event: Event) -> None:
            if why is not None:
                self.on_event(replace(event, why=why) if isinstance(event, StepEvent) else event)

        return evaluate(learner, setting, tasks=tasks, metric=self.metric, on_event=hear, **more)


class _TimedError(Exception):
    """Raised when a pre-training has run long enough to predict its time."""


def _seconds_per_example(learner: Any, pool: Pool, seed: int) -> float:
    """The estimated time of a learner's pre-training, from its first steps; do not use the learner afterwards."""
    ends: list[float] = []

    def hear(done: int, total: int) -> None:
        ends.append(time.perf_counter())
        if len(ends) == TIMED_STEPS:
            raise _TimedError

    with suppress(_TimedError):
        learner.pretrain(pool, examples=TIMED_STEPS * BATCH, seed=seed, progress=hear)
    return (ends[-1] - ends[0]) / (BATCH * (TIMED_STEPS - 1))


def _of_shot(tasks: TaskDistribution, shot: int) -> TaskDistribution:
    """The tasks with another number of examples and as many queries."""
    return tasks.with_sizes(shot=shot, query_shot=tasks.sizes.query_shot)


def _same_tasks(one: TaskDistribution, other: TaskDistribution, tasks: int) -> bool:
    """Whether the first tasks of both have the same classes or units: with more examples, some may be too small."""
    if one.units != other.units:
        return False
    return all(
        one.unit(index) == other.unit(index) and one.manifest(index).classes == other.manifest(index).classes
        for index in range(tasks)
    )
