"""Leave-one-out scores: each example is predicted by its task adapted without it and its group."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from handful.engine.parts import adapting_numbers, parts
from handful.engine.planner import rule
from handful.evaluation.scoring import head_of, predict_tasks, works_on_features
from handful.learners.learner import Learner
from handful.metrics import find_metric, finite_tasks
from handful.types import Examples, Prediction, Task, TaskSpec


def left_out(learner: Learner, support: Examples, spec: TaskSpec, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The score of each example `(tasks, n)` by its task adapted without the example's group, and whether it diverged.

    groups: `(tasks, n)` numbers; no group is a whole task.
    """
    predictions = predict_left_out(learner, support, spec, groups)
    single = type(predictions)(*(leaf.flatten(0, 1).unsqueeze(1) for leaf in predictions))
    targets = support.targets.cpu().flatten(0, 1).unsqueeze(1)
    every = torch.ones(targets.shape[:2], dtype=torch.bool, device="cpu")
    scores = find_metric(None, spec.kind).score(single, targets, every).mean(1)
    return scores.reshape(groups.shape), ~finite_tasks(single).reshape(groups.shape)


def predict_left_out(learner: Learner, support: Examples, spec: TaskSpec, groups: Tensor) -> Prediction:
    """The prediction for each example `(tasks, n, ...)` of its task adapted without the example's group.

    groups: `(tasks, n)` numbers; no group is a whole task.
    """
    tasks, count = groups.shape
    together = groups.unsqueeze(2) == groups.unsqueeze(1)  # (tasks, n, n)
    sizes, first = together.sum(2), together.int().argmax(2) == torch.arange(count, device=groups.device)
    found: list[tuple[tuple[Tensor, Tensor], Prediction]] = []
    with torch.no_grad():
        if works_on_features(learner):  # else each example would pass the network once for each other one
            features = learner.feature_network(support.inputs.flatten(0, 1).to(learner.device)).cpu()
            support = Examples(features.unflatten(0, (tasks, count)), support.targets)
            spec = replace(spec, input_shape=tuple(features.shape[1:]))
            learner = head_of(learner, spec.input_shape)
        for size in sorted(set(sizes.flatten().tolist())):
            task, member = (first & (sizes == size)).nonzero().unbind(1)
            order = together[task, member].int().argsort(stable=True)  # the group's examples are the last
            for part in parts(len(task), adapting_numbers(learner, count - size, spec.input_shape)):
                own, rows = task[part.start : part.stop].unsqueeze(1), order[part.start : part.stop]
                rest, out = (
                    Examples(*(leaf[own, some] for leaf in support)) for some in (rows[:, :-size], rows[:, -size:])
                )
                predictions = predict_tasks(learner, Task(rest, out), spec, rule(learner, len(part)))
                found.append(((own, rows[:, -size:]), predictions))
    joined = [leaf.new_zeros(tasks, count, *leaf.shape[2:], device="cpu") for leaf in found[0][1]]
    for places, predictions in found:
        for whole, leaf in zip(joined, predictions, strict=True):
            whole[places] = leaf.cpu()
    return type(found[0][1])(*joined)


def kin(inputs: Tensor, groups: Sequence[str] | None) -> Tensor:
    """Numbers `(n,)` of the connected components of examples: those of one group or with equal inputs are connected."""
    from scipy.sparse.csgraph import connected_components

    equal: Tensor = torch.unique(inputs.flatten(1), dim=0, return_inverse=True)[1]
    if groups is None:
        return equal
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    named = torch.tensor([numbers[name] for name in groups], device="cpu")
    together = (equal.unsqueeze(1) == equal) | (named.unsqueeze(1) == named)
    return torch.from_numpy(connected_components(together.numpy(), directed=False)[1]).long()
