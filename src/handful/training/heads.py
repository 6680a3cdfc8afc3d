"""What stands on a pre-trained network, decided on classes of the validation split."""

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handful.evaluation.intervals import ClassInterval, class_interval
from handful.evaluation.scoring import Evaluation, evaluate
from handful.events import OnEvent, Stop, ignore
from handful.functional.stateless import own_copy
from handful.learners.learner import Learner
from handful.learners.pretrained_blocks import PASSES, PretrainedBlocks
from handful.learners.prototypical import PrototypicalNetwork
from handful.metrics import Metric
from handful.tasks.distribution import TaskDistribution
from handful.training.budget import affordable
from handful.training.loop import Training, checked, meta_train
from handful.training.run import Run
from handful.types import to_device

TASKS, TIMED_TASKS = 200, 3
"""Validation tasks on which heads are compared, and on which that is timed before."""
RIDGE: tuple[str, dict[str, Any]] = ("ridge", {"ridge": True})
VIEWS: dict[int, tuple[str, dict[str, Any]]] = {
    1: ("affine views", {"views": "affine"}),
    3: ("mirrored views", {"views": "mirrored"}),
}
"""Options that are tried; views by the channels of images. The mirror image of a gray one, a letter, is another letter;
turned and shifted photos were told apart worse (by 1 to 3 points on validation photos, six of six times)."""
MANY_CLASSES, FEW_PASSES = 200, 50
"""Classes from which, and images of each up to which, meta-training after a pre-training may pay."""
START = torch.tensor([10.0], dtype=torch.float64)
"""Where the search for each temperature begins: alone it has one optimum, from which both go on together."""
OPTIONS: dict[str, Any] = {"distance": "cosine", "loss": "neighbors"}
"""How: all examples of a task of a high way count, and the angles that the head of the network goes by."""


HIGH_WAY = 100
"""Classes of these tasks, of an example to learn from and one to predict each."""
SETTINGS: dict[str, Any] = {"meta_batch_size": 1, "outer_lr": 1e-3, "weight_decay": 0.1, "warmup": 0.05}
"""Those of the quickstart, which were chosen on validation letters."""


@dataclass(frozen=True)
class Trial:
    """What was tried. gain: in the score, with its interval over classes; None where these validation tasks do not
    tell. score: the mean that it had."""

    name: str
    score: float
    gain: ClassInterval | None
    kept: bool

    def __str__(self) -> str:
        known = (
            "unknown" if self.gain is None else f"{self.gain.mean:+.4f} ({self.gain.low:+.4f} to {self.gain.high:+.4f})"
        )
        return f"{self.name}: {known}, {'kept' if self.kept else 'left out'}"


@dataclass(frozen=True)
class Decided:
    """learner: what is best on validation classes, a copy. trials: all that was tried, in their order."""

    learner: Learner
    trials: tuple[Trial, ...]


def decided(
    learner: PretrainedBlocks,
    validation: TaskDistribution,
    *,
    tasks: int = TASKS,
    on_event: OnEvent = ignore,
) -> Decided:
    """Ridge regression and test-time views, each where it surely tells validation classes apart better.

    "Surely": the paired 95 % interval over the *classes* of these tasks is above zero; where every task has all of the
    classes nothing is known of others, and nothing is switched on. Then the temperatures are fitted.

    learner: pre-trained; it stays as it is.
    validation: tasks of classes that it was not trained on, in the sizes that count.
    tasks: how many of them.
    """
    seen = _Validation(validation, tasks, on_event)
    best = seen.calibrated(learner.twin(PretrainedBlocks, **learner.recipe["options"]))
    kept = seen.scored(best)
    trials = []
    for name, options in _switches(learner.recipe["spec"].input_shape):
        other = seen.calibrated(learner.twin(PretrainedBlocks, **best.recipe["options"] | options))
        found = seen.scored(other)
        trials.append(_trial(name, found, kept))
        if trials[-1].kept:
            best, kept = other, found
    return Decided(best, tuple(trials))


def seconds_to_decide(learner: PretrainedBlocks, validation: TaskDistribution, *, tasks: int = TASKS) -> float:
    """About how long `decided`, and `scored` of what it gives, take: by the examples and heads of a few tasks."""
    few, task = _Validation(validation, TIMED_TASKS), validation.task(0)
    inputs = to_device(torch.cat([task.support.inputs, task.query.inputs]), learner.device)
    few.scored(learner)  # after which the features of these tasks are there
    start = time.perf_counter()
    few.scored(few.calibrated(learner))
    each = (time.perf_counter() - start) / TIMED_TASKS
    start = time.perf_counter()
    with torch.no_grad():
        learner.embed(inputs)
    per_example = (time.perf_counter() - start) / len(inputs)
    switches, rows = _switches(learner.recipe["spec"].input_shape), validation.rows()
    views = max(PASSES[options.get("views", "one")] for _, options in switches)
    examples = tasks * len(inputs) if rows is None else min(len(rows), tasks * len(inputs))
    return examples * per_example * (1 + 2 * views) + tasks * each * (2 + len(switches))


def surely_better(found: Evaluation, than: Evaluation) -> tuple[bool, ClassInterval | None]:
    """Whether the one learner is better than the other with other classes, too, and the interval of its gain.

    Both were evaluated on the first tasks of one distribution; the interval is over the classes of those that both
    have, and None where these do not tell, see `class_interval`.
    """
    count = min(len(found.scores), len(than.scores))
    gain = class_interval(found.metric.sign * (found.scores[:count] - than.scores[:count]), found.classes[:count])
    return gain is not None and gain.low > 0, gain


def scored(
    learner: PretrainedBlocks,
    tasks: TaskDistribution,
    *,
    count: int = TASKS,
    metric: Metric | None = None,
    on_event: OnEvent = ignore,
) -> Evaluation:
    """`evaluate` on so many tasks, but each example goes through the network once, where it looks alike in all.

    The time of adapting is that of a few tasks, with the network.
    """
    found = _Validation(tasks, count, on_event).scored(learner, metric)
    return replace(found, adapt_seconds=evaluate(learner, tasks, tasks=min(count, TIMED_TASKS)).adapt_seconds)


def calibrated(learner: PretrainedBlocks, validation: TaskDistribution, *, tasks: int = TASKS) -> PretrainedBlocks:
    """A copy whose temperatures make the labels of validation tasks as likely as can be.

    *On Calibration of Modern Neural Networks* (Guo et al., 2017), https://arxiv.org/abs/1706.04599. By cosines alone it
    predicts the same classes as before. learner: it stays as it is. tasks: how many validation tasks.
    """
    return _Validation(validation, tasks).calibrated(learner)


def worth_meta_training(classes: int, examples: int) -> bool:
    """Whether a budget that shows so many examples of so many classes may be better spent in part on tasks.

    With many classes and few images seen of each, tasks of a high way teach what a linear head of all classes has not
    learned yet; with more, meta-training makes the features of other classes worse. Validation has the last word.
    """
    return classes >= MANY_CLASSES and examples < FEW_PASSES * classes


def meta_trained(
    learner: PretrainedBlocks,
    tasks: TaskDistribution,
    *,
    validation: TaskDistribution | None = None,
    run: Run | None = None,
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
    **settings: Any,
) -> PretrainedBlocks:
    """The learner with a network that went on, as a prototypical one, on tasks of a high way; it stays as it is.

    tasks: of whose "train" split it draws tasks of `HIGH_WAY` classes, or as many as there are with two examples.
    validation, run, on_event, stop, settings: see `meta_train`, with defaults of its own for the settings that matter.
    Whether the network became better, `surely_better` tells of the two learners by `scored`.
    """
    other = _prototypical(learner)
    meta_train(
        other,
        _of_high_way(tasks),
        validation=tasks.split("val") if validation is None else validation,
        run=run,
        on_event=on_event,
        stop=stop,
        **SETTINGS | settings,
    )
    back = learner.twin(PretrainedBlocks, **learner.recipe["options"])
    back.backbone.load_state_dict(other.backbone.state_dict())
    return back


def steps_within(
    learner: PretrainedBlocks, tasks: TaskDistribution, seconds: float, *, validation: TaskDistribution, **settings: Any
) -> int:
    """How many steps `meta_trained` takes in about so many seconds, with its validations; some are timed on a copy."""
    other, training = _prototypical(learner), _of_high_way(tasks)
    chosen = checked(other, training, validation, SETTINGS | settings | {"minutes": max(seconds, 1e-3) / 60})
    timed = Training(other, training, validation, chosen)
    timed.choose_plan(ignore)
    other.train()
    return affordable(seconds, *timed.timed())


def _prototypical(learner: PretrainedBlocks) -> PrototypicalNetwork:
    """A prototypical network on a copy of the learner's."""
    recipe = learner.recipe
    other = PrototypicalNetwork.build(
        recipe["spec"],
        backbone=recipe["backbone"],
        backbone_options=recipe["backbone_options"],
        normalization=recipe["normalization"],
        seed=recipe["seed"],
        **OPTIONS,
    ).to(learner.device)
    other.backbone.load_state_dict(learner.backbone.state_dict())
    return other


def _of_high_way(tasks: TaskDistribution) -> TaskDistribution:
    """Those of the training split that a pre-trained network is meta-trained on."""
    digests = tasks.contents().splits["train"].values()
    # A class of a single example makes no task; where examples are not told apart, each class has enough of them.
    way = max(2, min(HIGH_WAY, sum(len(own) != 1 for own in digests)))
    return tasks.split("train").with_sizes(way, 1, 1)


def _switches(input_shape: tuple[int, ...]) -> list[tuple[str, dict[str, Any]]]:
    """What is tried one after another, each beside those that were kept."""
    views = VIEWS.get(input_shape[0]) if len(input_shape) == 3 else None
    return [RIDGE] if views is None else [RIDGE, views]


class _Validation:
    """Validation tasks, whose examples each go once through a network with its views, where they stay as they are."""

    def __init__(self, tasks: TaskDistribution, count: int, on_event: OnEvent = ignore) -> None:
        self.tasks, self.count, self.on_event = tasks, count, on_event
        self.features: dict[str, TaskDistribution | None] = {}

    def of(self, learner: PretrainedBlocks) -> tuple[PretrainedBlocks, TaskDistribution]:
        """The same head, and the same tasks, on features."""
        if learner.views not in self.features:
            self.features[learner.views] = self.tasks.mapped(learner.feature_network) if learner.pointwise else None
        mapped = self.features[learner.views]
        if mapped is None:
            return learner, self.tasks
        head = PretrainedBlocks.build(mapped.spec, backbone="raw", **learner.recipe["options"] | {"views": "one"})
        head.temperatures.copy_(learner.temperatures)
        return head.to(learner.device), mapped

    def scored(self, learner: PretrainedBlocks, metric: Metric | None = None) -> Evaluation:
        """On all of them."""
        head, tasks = self.of(learner)
        return evaluate(head, tasks, tasks=self.count, metric=metric, on_event=self.on_event)

    def calibrated(self, learner: PretrainedBlocks) -> PretrainedBlocks:
        """See `calibrated`."""
        head, tasks = self.of(learner)
        held = defaultdict(list)  # by way, so that the queries of all tasks are predicted at once
        with torch.no_grad():
            for index in range(self.count):
                task, spec = to_device(tasks.task(index), learner.device), tasks.spec_of(index)
                state = head.adapt(task.support, spec)
                scores = head.scores(state, task.query.inputs).double()
                held[spec.outputs].append((scores, state["present"].expand_as(scores[0]), task.query.targets))
        queries = [_Queries(*map(_joined, zip(*parts, strict=True))) for parts in held.values()]
        copy = own_copy(learner)
        if learner.ridge:
            alone = [_fitted([one.of(part) for one in queries], START) for part in range(2)]
            copy.temperatures.copy_(_fitted(queries, torch.cat([*alone, torch.ones_like(alone[0])])))
        else:
            copy.temperatures[:1] = _fitted(queries, START)
        return copy


class _Queries(NamedTuple):
    """Queries of tasks of one way. scores: `(parts, n, way)`. present: `(n, way)`. targets: `(n,)`."""

    scores: Tensor
    present: Tensor
    targets: Tensor

    def of(self, part: int) -> "_Queries":
        """By one of the scores alone."""
        return self._replace(scores=self.scores[part : part + 1])


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    """Scores, presences or targets of tasks, query after query."""
    return torch.cat(parts, dim=1 if parts[0].ndim == 3 else 0)


def _fitted(queries: list[_Queries], start: Tensor) -> Tensor:
    """The temperatures that make the targets of queries most likely."""
    logs = start.to(queries[0].scores.device).log().requires_grad_()
    descent = torch.optim.LBFGS([logs], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        descent.zero_grad()
        with torch.enable_grad():
            losses = [
                PretrainedBlocks.combined(one.scores, logs.exp(), one.present).loss(one.targets) for one in queries
            ]
            total = torch.cat(losses).mean()
            total.backward()  # type: ignore[no-untyped-call]
        return total

    descent.step(loss)  # type: ignore[no-untyped-call]
    return logs.detach().exp()


def _trial(name: str, found: Evaluation, kept: Evaluation) -> Trial:
    better, gain = surely_better(found, kept)
    return Trial(name, found.score.mean, gain, better)
