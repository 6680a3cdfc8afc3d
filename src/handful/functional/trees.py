"""Gradient-boosted regression trees as tensors: fitted by scikit-learn, evaluated here, stored without any pickle."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from handful import streams

ITERATIONS, NODES = 100, 61
"""Trees of each output, and nodes of a tree: scikit-learn's defaults (31 leaves), to which fewer ones are filled up."""
ROWS_AT_ONCE = 4096
"""Which bounds the memory of a walk."""


class Trees(NamedTuple):
    """Trees of several outputs: that of node k of tree t has the number t * NODES + k, and its root is node 0.

    A row goes to `left` where its feature is at most the threshold, or where it is missing (NaN) and `missing_left`;
    else to `right`. A leaf is its own left and right.

    feature, threshold, left, right, value, missing_left: `(outputs * ITERATIONS * NODES,)` each, thresholds and values
        in double precision.
    base: `(outputs,)`, what the values of a row's leaves are added to.
    depth: `()`, the number of steps that take any row to a leaf.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    missing_left: Tensor
    base: Tensor
    depth: Tensor


def constant(base: Tensor) -> Trees:
    """Trees that are leaves of the value zero: every row has the outputs `base` `(outputs,)`."""
    count = len(base) * ITERATIONS * NODES
    whole = torch.arange(count, device=base.device)
    zeros = torch.zeros(count, dtype=torch.float64, device=base.device)
    return Trees(
        feature=torch.zeros_like(whole),
        threshold=zeros,
        left=whole,
        right=whole.clone(),
        value=zeros.clone(),
        missing_left=torch.zeros(count, dtype=torch.bool, device=base.device),
        base=base.double(),
        depth=torch.zeros((), dtype=torch.int64, device=base.device),
    )


def fitted(inputs: Tensor, targets: Tensor, *, outputs: int, classification: bool) -> Trees:
    """Trees fitted by scikit-learn's histogram gradient boosting with its default options.

    *LightGBM: A Highly Efficient Gradient Boosting Decision Tree* (Ke et al., 2017). It runs on one thread, so that the
    same rows give the same bits.

    inputs: rows `(n, d)`; NaN where a value is missing.
    targets: values `(n, outputs)`, each of which has its own trees, or classes `(n,)`. With two outputs those of class
        0 are zero; the score of a class that no row has is that of half a row without features.
    """
    rows = inputs.detach().cpu().double().numpy()
    trees = constant(torch.zeros(outputs))
    if not classification:
        for output in range(outputs):
            wanted = targets[:, output].detach().cpu().double().numpy()
            _put(trees, _boosted("HistGradientBoostingRegressor", rows, wanted), [output])
        return trees
    wanted = targets.detach().cpu().numpy()
    present = np.unique(wanted)
    trees.base.fill_(float(np.log(0.5 / len(wanted))))
    trees.base[torch.from_numpy(present)] = 0.0
    if len(present) > 1:
        scored = present[1:] if len(present) == 2 else present
        _put(trees, _boosted("HistGradientBoostingClassifier", rows, wanted), scored.tolist())
    return trees


def scores(trees: Trees, inputs: Tensor) -> Tensor:
    """What trees give rows `(n, d)`: `(n, outputs)`, in the type of the inputs.

    Values for a regression, logits for classes; computed in double precision, as scikit-learn does it.
    """
    if inputs.device.type == "meta":
        return inputs.new_zeros(len(inputs), len(trees.base))
    return torch.cat([_scores(trees, rows) for rows in torch.split(inputs.detach(), ROWS_AT_ONCE)]).to(inputs)


def _scores(trees: Trees, rows: Tensor) -> Tensor:
    outputs = len(trees.base)
    at = torch.arange(0, len(trees.feature), NODES, device=rows.device).expand(len(rows), -1)  # (n, trees)
    for _ in range(int(trees.depth)):
        seen = rows.gather(1, trees.feature[at]).double()
        left = (seen <= trees.threshold[at]) | (seen.isnan() & trees.missing_left[at])
        at = torch.where(left, trees.left[at], trees.right[at])
    return trees.base + trees.value[at].reshape(len(rows), outputs, ITERATIONS).sum(-1)


def _boosted(kind: str, rows: np.ndarray, wanted: np.ndarray) -> Any:
    from sklearn import ensemble  # late: it takes a second, and few commands fit trees
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return getattr(ensemble, kind)(max_iter=ITERATIONS, random_state=streams.boosting()).fit(rows, wanted)


def _put(trees: Trees, boosted: Any, outputs: list[int]) -> None:
    """Write the trees of a fitted estimator in the places of these outputs, one for each of its scores."""
    first = boosted._baseline_prediction.reshape(-1)
    for place, output in enumerate(outputs):
        trees.base[output] = float(first[place])
        for iteration, grown in enumerate(boosted._predictors):
            nodes = grown[place].nodes
            start = (output * ITERATIONS + iteration) * NODES
            own = slice(start, start + len(nodes))
            inner = nodes["is_leaf"] == 0
            stay = np.arange(len(nodes))
            trees.feature[own] = torch.from_numpy(np.where(inner, nodes["feature_idx"], 0).astype(np.int64))
            trees.threshold[own] = torch.from_numpy(np.where(inner, nodes["num_threshold"], 0.0))
            trees.left[own] = torch.from_numpy(start + np.where(inner, nodes["left"], stay).astype(np.int64))
            trees.right[own] = torch.from_numpy(start + np.where(inner, nodes["right"], stay).astype(np.int64))
            trees.value[own] = torch.from_numpy(np.where(inner, 0.0, nodes["value"]))
            trees.missing_left[own] = torch.from_numpy(nodes["missing_go_to_left"] != 0)
            trees.depth.clamp_(min=int(nodes["depth"].max()))
