"""Estimates of a task's own score, on its few examples."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from handful.evaluation.intervals import interval
from handful.evaluation.leave_one_out import kin, left_out
from handful.learners.learner import Learner
from handful.metrics import find_metric
from handful.models.adapted_task import Estimate
from handful.notes import note
from handful.pipelines.pipeline import InputPipeline
from handful.types import Examples, TaskSpec


def own_scores(
    learner: Learner,
    pipeline: InputPipeline | None,
    support: Examples,
    spec: TaskSpec,
    groups: Sequence[Sequence[str] | None],
) -> list[Estimate | None]:
    """The scores of supports `(tasks, n, ...)` on themselves, each example without those of its group.

    None if that does not leave every class an example, and two examples in all; and, with a note, where the groups that
    the model was trained with are not known, or where it was trained with an order: each example would be predicted
    from later ones.
    """
    estimates: list[Estimate | None] = [None] * len(support.inputs)
    count = support.targets.shape[1]
    if reason := obstacle(pipeline, grouped=all(own is not None for own in groups)):
        note("no-estimate", reason)
        return estimates
    if learner.costly or not 3 <= count <= 100:
        return estimates
    relatives = torch.stack([kin(*pair) for pair in zip(support.inputs, groups, strict=True)])  # (tasks, n)
    chosen = scorable(relatives, support.targets, spec).nonzero().flatten()
    if not len(chosen):
        return estimates
    found = left_out(learner, Examples(*(leaf[chosen] for leaf in support)), spec, relatives[chosen])
    unit = 1.0  # errors of several targets, each in a unit of its own, stay standardized
    if pipeline and not spec.classification and spec.outputs == 1:
        unit = pipeline.target_scale.square().item()
    for task, scores, diverged in zip(chosen.tolist(), *found, strict=True):
        mean = interval(scores).mean * unit
        if math.isfinite(mean):
            kinds = len(set(relatives[task].tolist()))
            by = "leave-one-out" if kinds == count else "leave-one-group-out"
            estimates[task] = Estimate(find_metric(None, spec.kind).name, mean, count, kinds, by, int(diverged.sum()))
    return estimates


def obstacle(pipeline: InputPipeline | None, *, grouped: bool) -> str:
    """Why tasks of a model have no own score; "" if they have.

    grouped: whether examples have groups.
    """
    if pipeline and pipeline.order:
        return (
            "No estimate of the task's own score: the model was trained on examples that precede their queries by "
            f"{pipeline.order!r}, and each example would be scored by later ones."
        )
    if pipeline and pipeline.group and not grouped:
        return (
            f"No estimate of the task's own score: the model was trained with groups ({pipeline.group!r}), of similar "
            f"examples, but these examples have no groups."
        )
    return ""


def scorable(groups: Tensor, targets: Tensor, spec: TaskSpec) -> Tensor:
    """Which tasks keep an example of every class, and two in all, whichever group is left out `(tasks,)`.

    groups: `(tasks, n)` numbers.
    targets: `(tasks, n)` classes or `(tasks, n, outputs)` values.
    """
    together = groups.unsqueeze(2) == groups.unsqueeze(1)  # (tasks, n, n)
    left = groups.shape[1] - together.sum(2).amax(1) >= 2
    if spec.classification:
        others = ~together & (targets.unsqueeze(2) == targets.unsqueeze(1))
        left &= others.any(2).all(1)
    return left
