"""What is shown of the measured cells."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.encoders.data import DATA, SHOTS
from benchmarks.encoders.rows import CONTRASTIVE, FROZEN, MAP, PER_TASK, PER_TASK_SIZES, PROBE, RESULTS, SCRATCH, TUNED
from benchmarks.evidence import Cells, Section, percent
from handful.evaluation.intervals import Interval, interval


def grouped(rows: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The cells of each data set and row."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.values():
        if row["row"] != PER_TASK:
            found.setdefault((row["data"], row["row"]), []).append(row)
    return found


def by_fold(cells: list[dict[str, Any]], shot: int) -> dict[int, Tensor]:
    """Of each fold the scores of its tasks `(tasks,)`, each the mean over the seeds."""
    folds = sorted({cell["fold"] for cell in cells})
    return {
        fold: torch.tensor([cell["scores"][str(shot)] for cell in cells if cell["fold"] == fold]).mean(0)
        for fold in folds
    }


def ahead(own: dict[int, Tensor], other: dict[int, Tensor]) -> str:
    """By how much, in points, on the tasks that both have; empty where they have none."""
    pairs = [(own[fold], other[fold]) for fold in own if fold in other]
    if not pairs:
        return ""
    differences = [one[: len(two)] - two[: len(one)] for one, two in pairs]
    return points(interval(torch.cat(differences)), sign=True)


def points(found: Interval, *, sign: bool = False) -> str:
    """Percent, with half the width of the interval."""
    shown = percent(100 * found.mean, None if found.low is None else 100 * found.half_width)
    return f"+{shown}" if sign and found.mean > 0 else shown


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each data set, shot and row."""
    groups = grouped(rows)
    for name in DATA:
        for shot, row in product(SHOTS, (FROZEN, PROBE, MAP, TUNED, SCRATCH)):
            if (name, row) not in groups:
                continue
            group = groups[name, row]
            own = by_fold(group, shot)
            frozen, mapped = (
                by_fold(groups[name, other], shot) if row != other and (name, other) in groups else {}
                for other in (FROZEN, MAP)
            )
            yield (
                f"{name}, {DATA[name].way}-way",
                str(shot),
                row,
                points(interval(torch.cat(list(own.values())))),
                ahead(own, frozen),
                ahead(own, mapped) if row in (TUNED, SCRATCH) else "",
                str(sum(map(len, own.values()))),
                minutes(group),
                largest(group, "model bytes", 1e6),
                largest(group, "peak bytes", 2**20),
            )


def minutes(group: list[dict[str, Any]]) -> str:
    """Of one core: of training, or of encoding all and of finding that in the cache."""
    spent = [cell["minutes of training"] for cell in group if "minutes of training" in cell]
    if spent:
        return f"{sum(spent) / len(spent):.1f}"
    first = next((cell for cell in group if "again" in cell), None)
    if first is None:
        return ""
    return f"{first['seconds of encoding'] / 60:.1f} to encode, {first['again'] / 60:.2f} again"


def largest(group: list[dict[str, Any]], name: str, unit: float) -> str:
    """Of the cells of a row."""
    known = [cell[name] for cell in group if cell.get(name)]
    return f"{max(known) / unit:.1f}" if known else ""


SECTION = Section(
    RESULTS,
    "Pretrained encoders, frozen and tuned (differences are paired)",
    "python -m benchmarks.encoders --data FOLDER",
    (
        "data",
        "shot",
        "row",
        "accuracy %",
        "over frozen",
        "over map",
        "n",
        "core minutes",
        "model MB",
        "peak MiB",
    ),
    cells,
)


def per_task_cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each data set and way."""
    way, shot = PER_TASK_SIZES
    for cell in rows.values():
        if cell["row"] != PER_TASK:
            continue
        scores = {row: {0: torch.tensor(found["scores"])} for row, found in cell["rows"].items()}
        for row, found in cell["rows"].items():
            yield (
                f"{cell['data']}, {way}-way {shot}-shot",
                row,
                points(interval(scores[row][0])),
                "" if row == FROZEN else ahead(scores[row], scores[FROZEN]),
                ahead(scores[row], scores[CONTRASTIVE]) if row == TUNED else "",
                str(len(scores[row][0])),
                f"{found['seconds to adapt']:.2g}",
            )


PER_TASK_SECTION = Section(
    RESULTS,
    "Tuned once, or fine-tuned for each task (differences are paired; what is frozen is encoded already)",
    "python -m benchmarks.encoders --data FOLDER",
    (
        "data",
        "row",
        "accuracy %",
        "over frozen",
        "over contrastive",
        "n",
        "seconds to adapt",
    ),
    per_task_cells,
)
