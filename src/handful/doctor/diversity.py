"""Task diversity: alike tasks leave nothing to adapt to."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.doctor.finding import Finding
from handful.evaluation.intervals import SHARES_APART, Interval, interval
from handful.functional.closed_form_heads import ridge, spread
from handful.tasks.distribution import TaskDistribution

MOST_TASKS = 30
ALIKE, REPRODUCED = 0.2, 0.05
"""Diversity below the first means alike tasks. A similarity of halves not significantly above the second is too
noisy."""


def diversity(split: TaskDistribution, tasks: int) -> Finding:
    """How far tasks differ in the relation of inputs and labels.

    After the diversity coefficient of *The Curse of Low Task Diversity* (Miranda et al., 2022),
    https://arxiv.org/abs/2208.01545, the mean distance of two tasks in the space of Task2Vec, made cheap: a task is
    embedded by its ridge head on raw inputs, and to correct for noise, the similarity of two tasks is divided by that
    of two halves of one task. 0: all tasks have one head; 1: heads of two tasks have nothing in common. The numbers do
    not compare with the paper's.
    """
    found = coefficient(split, tasks)
    if found is None:
        return Finding(
            "diversity",
            "skipped",
            "The halves of a task hardly resemble each other: it has too few examples, or its raw inputs are too "
            "noisy, to measure task diversity.",
        )
    between = f"{max(0.0, found.low):.2f} to {found.high:.2f}" if math.isfinite(found.high) else "no interval"
    ends = f"{found.mean:.2f} ({between}, {found.tasks} training tasks)"
    if (found.high if math.isfinite(found.high) else found.mean) < ALIKE:
        return Finding(
            "diversity",
            "warning",
            f"Tasks are much alike: diversity {ends}, where 0 is one task and 1 tasks with nothing in common. Transfer "
            f"learning may do as well as meta-learning: compare with 'pooled', 'transfer' and 'fine-tune-all'.",
        )
    return Finding("diversity", "ok", f"Tasks differ: diversity {ends}, on a scale from 0 (one task) to 1.")


def coefficient(split: TaskDistribution, tasks: int) -> Interval | None:
    """1 - (similarity of heads of different tasks) / (similarity of heads of halves of a task), with its interval.

    The interval is the jackknife's over tasks; it does not exist if no task changes the value. None if halves of a task
    are not alike.
    """
    units: dict[int, int] = {}
    for index in range(min(tasks, MOST_TASKS)):
        units.setdefault(split.unit(index), index)
    halves = [_heads(split, index) for index in units.values()]
    if len(halves) < 3:
        return None
    signed = not (split.spec.classification and split.spec.labels == "permuted")
    count = len(halves)
    table = torch.tensor([[_similarity(a, b, signed=signed) for _, b in halves] for a, _ in halves])
    alike = table.double()
    self_alike = alike.diagonal()
    if interval(self_alike, bounds=SHARES_APART).low < REPRODUCED:  # they are cosines
        return None

    def value(kept: Tensor) -> float:
        part = alike[kept][:, kept]
        size = len(part)
        between = (part.sum() - part.diagonal().sum()) / (size * (size - 1))
        return 1 - float(between / part.diagonal().mean())

    everything = torch.arange(count)
    without = torch.tensor([value(everything[everything != left_out]) for left_out in range(count)]).double()
    whole = value(everything)
    half = 1.96 * float(((count - 1) / count * (without - without.mean()).square().sum()).sqrt()) or math.inf
    return Interval(whole, whole - half, whole + half, count)


def _heads(split: TaskDistribution, index: int) -> tuple[Tensor, Tensor]:
    """Ridge heads `(d + 1, outputs)` of the even and of the odd examples of a task, the last row their mean target."""
    task, spec = split.task(index), split.spec_of(index)
    inputs = torch.cat([part.inputs.flatten(1) for part in task]).double()
    targets = torch.cat([part.targets for part in task])
    values = F.one_hot(targets, spec.outputs).double() if spec.classification else targets.double()
    order = torch.argsort(targets, stable=True) if spec.classification else torch.arange(len(inputs))
    inputs = inputs / spread(inputs)
    one, other = (_head(inputs[order[start::2]], values[order[start::2]]) for start in (0, 1))
    return one, other


def _head(inputs: Tensor, values: Tensor) -> Tensor:
    weights, bias = ridge(inputs, values, 1.0)
    return torch.cat([weights, (bias + inputs.mean(0) @ weights).unsqueeze(0)])


def _similarity(one: Tensor, other: Tensor, *, signed: bool) -> float:
    """Cosine of two heads; for permuted class numbers, of the subspaces that they span."""
    if signed:
        return float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-12))
    one, other = one[:-1], other[:-1]
    sizes = (one.T @ one).norm() * (other.T @ other).norm()
    return float((one.T @ other).square().sum() / sizes.clamp(min=1e-12))
