"""Near-duplicates: examples that are equal except for noise, compression or rounding."""

import math

import torch
from torch import Tensor

from handful.doctor.finding import Finding
from handful.errors import count_of
from handful.tasks.distribution import Split, TaskDistribution

FEWEST_BITS = 48.0
"""Bits: examples with less information resemble one another by chance."""
BITS_OF_A_NUMBER = 3.0
"""Bits of a number at the resolution of `NEAR_DUPLICATE_DISTANCE`, if it takes more than two values."""
NEAR_DUPLICATE_DISTANCE = 0.02
"""Squared distance of near-duplicates, as a share of the median one between two examples."""
PER_SPLIT = 1000
"""The number of examples of each split that are compared at most, equally many of each task, half of them support."""


def near_duplicates(splits: dict[Split, TaskDistribution], tasks: int) -> Finding:
    """Pairs of support and query, and of examples in two splits, that are nearly equal (equal ones: other checks).

    Each number is standardized over all examples, and an example's mean is subtracted: a slightly brighter picture is
    near its original.
    """
    check = "near-duplicates"
    if not splits:
        return Finding(check, "skipped", "No task of this size can be drawn.")
    tasks = min(tasks, PER_SPLIT // 2)
    names, inputs, of_split, of_task, on_support = _collected(splits, tasks)
    told = _bits(inputs)
    if float(told.sum()) < FEWEST_BITS:
        poor = int((told < BITS_OF_A_NUMBER).sum())
        some = f" ({poor} of them take at most two values)" if poor else ""
        return Finding(
            check, "skipped", f"Examples of {count_of(len(told), 'number')}{some} are nearly equal by chance."
        )
    rows = _standardized(inputs)
    distances = torch.cdist(rows, rows).square()
    typical = float(distances[~torch.eye(len(rows), dtype=torch.bool)].median())
    equal = _numbered(inputs)
    near = (distances < NEAR_DUPLICATE_DISTANCE * typical) & (equal.unsqueeze(1) != equal)
    task_pair = near & (of_task.unsqueeze(1) == of_task) & on_support.unsqueeze(1) & ~on_support
    split_pair = near.triu() & (of_split.unsqueeze(1) != of_split)
    found = []
    for where, pairs in (("support and query of a task", task_pair), ("different splits", split_pair)):
        places = pairs.nonzero().tolist()
        if places:
            listed = "; ".join(f"{names[a]} and {names[b]}" for a, b in places[:3])
            found.append(f"{len(places):,} pair(s) in {where} ({listed})")
    seen = f"{len(rows):,} examples of {tasks} tasks each of {', '.join(splits)}"
    if found:
        return Finding(
            check,
            "warning",
            f"Nearly equal examples among {seen}: {', and '.join(found)}. If they are copies, scores are too good.",
            "Remove them, or keep copies on one side ({group}).",
        )
    across = "support and query" + (" or across splits" if len(splits) > 1 else "")
    return Finding(check, "ok", f"No two of {seen} are nearly equal across {across}.")


def _collected(splits: dict[Split, TaskDistribution], tasks: int) -> tuple[list[str], Tensor, Tensor, Tensor, Tensor]:
    """Examples of the first tasks of each split: names, inputs `(n, d)`, split, task and side of each."""
    names: list[str] = []
    inputs: list[Tensor] = []
    of_split: list[int] = []
    of_task: list[int] = []
    on_support: list[bool] = []
    for place, (on, split) in enumerate(splits.items()):
        for index in range(tasks):
            task, manifest = split.task(index), split.manifest(index)
            room = PER_SPLIT // tasks
            for side, part, ids in (("support", task.support, manifest.support), ("query", task.query, manifest.query)):
                numbers = _places(len(part.inputs), room // 2 if side == "support" else room)
                room -= len(numbers)
                inputs.append(part.inputs[numbers].flatten(1).double())
                for number in numbers:
                    example = f"example {ids[number]}" if ids else f"{side} example {number}"
                    names.append(f"{example} of {on} task {index}")
                of_split += [place] * len(numbers)
                of_task += [PER_SPLIT * place + index] * len(numbers)
                on_support += [side == "support"] * len(numbers)
    return names, torch.cat(inputs), torch.tensor(of_split), torch.tensor(of_task), torch.tensor(on_support)


def _places(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly spaced, since a task's examples are in the order of their classes."""
    return sorted({number * count // most for number in range(most)})


def _bits(inputs: Tensor) -> Tensor:
    """Bits of each number of the examples `(n, d)`: `(d,)`; for two values, such as yes and no, their entropy."""
    at_top = inputs == inputs.amax(0)
    two_values = (at_top | (inputs == inputs.amin(0))).all(0)
    share = at_top.double().mean(0)
    entropy = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / math.log(2)
    return torch.where(two_values, entropy, BITS_OF_A_NUMBER)


def _numbered(inputs: Tensor) -> Tensor:
    """A number for each example `(n,)`, one for equal ones: a small set has each many times."""
    numbers: dict[bytes, int] = {}
    rows = inputs + 0.0  # without minus zeros, whose bytes are others
    return torch.tensor([numbers.setdefault(row.numpy().tobytes(), len(numbers)) for row in rows])


def _standardized(inputs: Tensor) -> Tensor:
    deviation = inputs.std(0)
    rows = (inputs - inputs.mean(0)) / torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf)
    return rows - rows.mean(1, keepdim=True)
