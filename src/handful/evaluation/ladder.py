"""The ladder: the ordinary methods that stand beside every result."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import torch

from handful.errors import UserError
from handful.evaluation.comparison import Comparison
from handful.evaluation.data_equivalence import Equivalence, equivalence
from handful.evaluation.intervals import Interval
from handful.evaluation.scoring import Evaluation, evaluate
from handful.events import LADDER_PRETRAINING, Event, OnEvent, StepEvent, ignore
from handful.learners.learner import Keeper, Learner
from handful.metrics import Metric
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.distribution import Pool, SizeRanges, TaskDistribution

CHOOSING_TASKS, COSTLY_CHOOSING_TASKS = 50, 5
SETTLING = 5
"""On how many times as many tasks a costly rung is scored that would decide by its few."""

EXAMPLES = (1, 2, 5, 10, 20, 50, 100)
"""What the conventional way is given to learn from, for the data equivalence."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without notes that classes or tasks are too small: nobody asked for the sizes that are tried inside."""
    with collecting():
        yield


class Ladder:
    """The rungs that can do the tasks of a distribution, built once and climbed on several settings.

    learner: the one to stand beside; rungs with a network get one of its kind. pool: what a network is pre-trained on
    once for all rungs that start from it (None: they are left out), for `examples` examples: as many as the learner saw
    in its own training. keeper: where that pre-training is kept while it runs. metric: see `find_metric`. on_event:
    called with a `StepEvent` as work goes on.
    """

    def __init__(
        self,
        learner: Learner,
        pool: Pool | None,
        *,
        examples: int,
        costly_tasks: int = 50,
        seed: int = 0,
        metric: Metric | str | None = None,
        on_event: OnEvent = ignore,
        keeper: Keeper | None = None,
    ) -> None:
        self.learner = learner
        self.costly_tasks = costly_tasks
        self.seed = seed
        self.on_event, self.metric = on_event, metric
        self.pretraining_seconds = 0.0
        self._chosen: dict[tuple[str, SizeRanges], dict[str, Any]] = {}
        spec = learner.recipe["spec"]
        self.rungs = [
            rung
            for _, rung in LEARNERS.items()
            if rung.baseline
            and rung is not type(learner)
            and spec.kind in rung.kinds
            and (spec.kind == "regression" or spec.labels in rung.labels)
            and (rung.start != "pretrained" or pool is not None)
            and (costly_tasks > 0 or not rung.costly)
        ]
        self._pretrained: Any = None
        first = next((rung for rung in self.rungs if rung.start == "pretrained"), None)
        if first is not None:
            self._pretrained = self._build(first, {})
            self.pretraining_seconds = self._pretrained.pretrain(
                pool,
                examples=examples,
                seed=seed,
                progress=lambda done, total: on_event(
                    StepEvent(LADDER_PRETRAINING, done, total, unit="examples", why="the network of the baselines")
                ),
                keeper=keeper,
            )

    def run(self, setting: TaskDistribution, validation: TaskDistribution, *, tasks: int = 600) -> Comparison:
        """Score the learner and all rungs on the first tasks of `setting`'s present split.

        Options of rungs are chosen on tasks of `validation`, once for each of its sizes.
        """
        if not self.rungs:
            raise UserError("No baseline of the registry can do these tasks, so there is nothing to compare with.")
        own = self._evaluate(self.learner, setting, tasks, "the learner of the run")

        def scored(rung: type[Learner], count: int) -> tuple[Evaluation, dict[str, Any]]:
            chosen = self._choose(rung, validation)
            return self._evaluate(self._build(rung, chosen), setting, count, "a baseline"), chosen

        few = min(self.costly_tasks, tasks)
        found = {rung.key: scored(rung, few if rung.costly else tasks) for rung in self.rungs}
        comparison = Comparison.of(own, list(found.values()))
        # Of several rungs on a few tasks each one is soon ahead by chance: the one that decides gets more of them.
        while (best := LEARNERS[comparison.best_rung.evaluation.learner]).costly and (
            len(found[best.key][0].scores) == few < tasks
        ):
            found[best.key] = scored(best, min(SETTLING * few, tasks))
            comparison = Comparison.of(own, list(found.values()))
        return comparison

    @_quiet()
    def shots_curve(
        self,
        setting: TaskDistribution,
        validation: TaskDistribution,
        comparison: Comparison,
        shots: Sequence[int],
        *,
        tasks: int,
    ) -> dict[str, list[tuple[int, Interval]]]:
        """Scores against shots: of the learner, of the best cheap rung, and of the best one on raw inputs.

        All on the same tasks with the same queries: those of the largest shot, of whose support a part is kept; or
        drawn anew for each shot, where a part of a support is none (see `TaskDistribution.nested`). Shots for which the
        data has too few examples, for which classes of the setting's own tasks have too few, or for which less than
        half of the user's tasks have enough, are left out; none of them left is an empty result.
        """
        cheap = [rung for row in comparison.rows[1:] if not (rung := LEARNERS[row.evaluation.learner]).costly]
        raw = [rung for rung in cheap if rung.start == "raw"]
        rungs = list(dict.fromkeys([*cheap[:1], *raw[:1]]))
        curves: dict[str, list[tuple[int, Interval]]] = {self.learner.key: []} | {rung.key: [] for rung in rungs}
        own = setting.sizes.largest().shot
        reference = _of_shot(setting, own)
        sizes: list[tuple[TaskDistribution, TaskDistribution]] = []
        for shot in shots:
            try:
                at = _of_shot(setting, max(shot, own) if setting.nested else shot)
                choosing = _of_shot(validation, shot)
                if setting.sizes.way is not None and not _same_tasks(at, reference, tasks):
                    break
            except UserError:
                break
            if at.units is not None and setting.units is not None and 2 * at.units < setting.units:
                break
            sizes.append((at, choosing))
        if not sizes:
            return {}
        why = "what more examples bring"
        for number, (shot, (at, choosing)) in enumerate(zip(shots, sizes, strict=False)):
            self.on_event(StepEvent("shots curve", number, len(sizes), unit="sizes", why=why))
            place, part = (sizes[-1][0], shot) if setting.nested else (at, None)
            built = [self.learner, *(self._build(rung, self._choose(rung, choosing)) for rung in rungs)]
            for learner in built:
                curves[learner.key].append(
                    (shot, evaluate(learner, place, tasks=tasks, metric=self.metric, shot=part).score)
                )
        return curves

    def conventional(
        self, setting: TaskDistribution, validation: TaskDistribution, *, tasks: int, shot: int | None = None
    ) -> dict[str, Evaluation]:
        """What the rungs that know no other tasks score on the first tasks of `setting`'s present split, by their key.

        They are those on raw inputs and, unless costly ones are left out, the network trained from scratch. Their
        options are chosen on tasks of `validation`. shot: see `evaluate`.
        """
        return {
            rung.key: evaluate(
                self._build(rung, self._choose(rung, validation)), setting, tasks=tasks, metric=self.metric, shot=shot
            )
            for rung in self.rungs
            if rung.start != "pretrained"
        }

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
        it surely beats the learner, or the same tasks have no more; fewer ones are a part of its support, where that
        can be (see `TaskDistribution.nested`). None where shots vary, no rung can do the tasks, or draws are left out
        of the score of the learner or, for some size, of each rung: they are no basis for a factor.
        """
        shot = setting.sizes.shot
        if isinstance(shot, tuple) or all(rung.start == "pretrained" for rung in self.rungs):
            return None
        own = evaluate(self.learner, setting, tasks=tasks, metric=self.metric)
        if not own.scores.isfinite().all():
            return None
        sizes: list[int] = []
        ways: list[list[Evaluation]] = []
        wanted = sorted({*examples, shot})
        why = "what the ordinary way needs"
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
        scored = {way.learner for way in ways[0]} if ways else set()
        scored -= {way.learner for found in ways for way in found if not way.scores.isfinite().all()}
        if not scored:
            return None
        ways = [[way for way in found if way.learner in scored] for found in ways]
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

    def _build(self, rung: type[Learner], options: dict[str, Any]) -> Learner:
        recipe = self.learner.recipe
        if rung.start == "pretrained" and self._pretrained is not None:
            return self._pretrained.twin(rung, **options).to(self.learner.device)  # type: ignore[no-any-return]
        built = rung.build(
            recipe["spec"],
            backbone=recipe["backbone"],
            backbone_options=recipe["backbone_options"],
            seed=self.seed,
            **options,
        )
        return built.eval().to(self.learner.device)

    def _choose(self, rung: type[Learner], validation: TaskDistribution) -> dict[str, Any]:
        """The best of the rung's choices on validation tasks; chosen once for each of their sizes."""
        at = (rung.key, validation.sizes)
        if at not in self._chosen:
            self._chosen[at] = self._best_choice(rung, validation)
        return self._chosen[at]

    def _best_choice(self, rung: type[Learner], validation: TaskDistribution) -> dict[str, Any]:
        candidates = [
            dict(zip(rung.search_space, values, strict=True)) for values in product(*rung.search_space.values())
        ]
        if len(candidates) == 1:
            return candidates[0]
        count = COSTLY_CHOOSING_TASKS if rung.costly else CHOOSING_TASKS
        scores = []
        for done, options in enumerate(candidates):
            why = "on validation tasks"
            self.on_event(StepEvent(f"choosing for {rung.key}", done, len(candidates), unit="choices", why=why))
            evaluation = evaluate(self._build(rung, options), validation, tasks=count, metric=self.metric)
            mean = evaluation.metric.sign * evaluation.score.mean
            scores.append((-evaluation.unscored, -math.inf if math.isnan(mean) else mean))
        return candidates[scores.index(max(scores))]

    def _evaluate(self, learner: Learner, setting: TaskDistribution, tasks: int, why: str) -> Evaluation:
        def hear(event: Event) -> None:
            self.on_event(replace(event, why=why) if isinstance(event, StepEvent) else event)

        return evaluate(learner, setting, tasks=tasks, metric=self.metric, on_event=hear)


def _of_shot(tasks: TaskDistribution, shot: int) -> TaskDistribution:
    """The tasks with another number of examples and as many queries."""
    return tasks.with_sizes(shot=shot, query_shot=tasks.sizes.query_shot)


def _same_tasks(one: TaskDistribution, other: TaskDistribution, tasks: int) -> bool:
    """Whether the first tasks of both are of the same classes or units: with more examples, some may be too small."""
    if one.units != other.units:
        return False
    return all(
        one.unit(index) == other.unit(index) and one.manifest(index).classes == other.manifest(index).classes
        for index in range(tasks)
    )
