"""The scores of cross-validation: those of all folds, each by a learner trained on the other folds, combined."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from handful.evaluation.comparison import Comparison
from handful.evaluation.scoring import Evaluation

PER_DRAW = (
    "scores",
    "units",
    "diverged",
    "log_likelihoods",
    "coverages",
    "oracle_scores",
    "oracle_log_likelihoods",
    "target_scores",
)
"""The tensors of an evaluation with one entry per draw; the others have one per query."""
VARIED = "differs by fold"
RACED = "auto"
"""The learner's name if the races of the folds had different winners."""


def joined(folds: Sequence[Comparison]) -> Comparison:
    """The comparisons of all folds on one setting as one: of the baselines that all of them have, on all draws.

    If a baseline was scored on more draws in some folds, the common number counts. The baseline that represents each
    task alone is the one that does so in most folds. Learners that differ by fold are called `RACED`.
    """
    own = _joined([fold.learner.evaluation for fold in folds])
    if {fold.learner.evaluation.learner for fold in folds} != {own.learner}:
        own = replace(own, learner=RACED)
    rungs = []
    for row in folds[0].rows[1:]:
        rows = [other for fold in folds for other in fold.rows[1:] if other.evaluation.name == row.evaluation.name]
        if len(rows) == len(folds):
            rungs.append((_joined([row.evaluation for row in rows]), _same([row.chosen for row in rows])))
    alone = Counter(fold.alone for fold in folds).most_common(1)[0][0]
    return Comparison.of(own, rungs, alone=alone)


def _joined(folds: Sequence[Evaluation]) -> Evaluation:
    """The draws of all folds: the first of each, then the second of each, so that fewer are a part of more."""
    count = min(len(fold.scores) for fold in folds)

    def in_turn(values: Sequence[Tensor]) -> Tensor:
        if not all(map(len, values)):  # what not all of them have
            return values[0][:0]
        return torch.stack([own[:count] for own in values], dim=1).flatten(0, 1)

    most = 1 + max(int(fold.units.max()) for fold in folds)
    apart = [replace(fold, units=fold.units + place * most) for place, fold in enumerate(folds)]
    of_draws: dict[str, Any] = {name: in_turn([getattr(fold, name) for fold in apart]) for name in PER_DRAW}
    return replace(
        folds[0],
        **of_draws,
        uses_other_tasks=any(fold.uses_other_tasks for fold in folds),
        transductive=any(fold.transductive for fold in folds),
        confidences=torch.cat([fold.confidences for fold in folds]),
        correct=torch.cat([fold.correct for fold in folds]),
        adapt_seconds=statistics.median(fold.adapt_seconds for fold in folds),
        state_bytes=max(fold.state_bytes for fold in folds),
        classes=tuple(classes for drawn in zip(*(fold.classes for fold in folds), strict=False) for classes in drawn),
    )


def _same(chosen: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The options that were chosen in all folds."""
    return {
        name: value if all(other.get(name) == value for other in chosen) else VARIED
        for name, value in chosen[0].items()
    }
