"""Data equivalence: how many times more examples a new task needs without meta-learning, for the same accuracy.

python -m benchmarks.equivalence --data FOLDER, which holds omniglot/omniglot_28.npz, and clinc150 and banking77 as
`benchmarks.intents` wants them. The learners have one example of each class; the conventional way gets more and more:

- Omniglot, 5-way: the flagship's weights against training from scratch with augmentation, and probes of pixels. Its 20
  drawings of a character leave 15 for the support.
- intents: the meta-trained map (`protonet` with the loss of neighbors, trained for 200 steps;
  five class splits, tasks of all)
  against the best probe of the frozen encoder, and of counted words, where no encoder is at hand.

Options of the conventional way are chosen on validation classes, the best of its ways of each size on the scored tasks.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

import handful
from benchmarks.evidence import MODELS, Cells, Section, guarded, record
from benchmarks.intents import DATA, QUERIES, read
from benchmarks.omniglot import with_views
from benchmarks.tiny import sized
from handful.encoders.texts import DEFAULT, TextEncoder
from handful.evaluation.data_equivalence import Equivalence, equivalence
from handful.evaluation.intervals import interval
from handful.evaluation.ladder import Ladder
from handful.learners.learner import Learner
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.omniglot import Omniglot

RESULTS = "equivalence"
CHARACTERS, INTENTS = sized(((1, 2, 5, 10, 15), (1, 2, 5, 10, 20)), ((1, 2), (1, 2)))
VIEWS = 8
STEPS, VALIDATION_TASKS = sized((200, 100), (2, 1))
COSTLY = 50
"""So many tasks at most, where a network is trained from scratch for each."""

Ways = dict[str, Tensor]
"""Of each conventional way the scores `(tasks,)`."""


def main() -> None:
    """Measure, write the file, print the factors."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.equivalence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default=DEFAULT, help="a name or a folder")
    parser.add_argument("--only", nargs="+", choices=("omniglot", *DATA), default=["omniglot", *DATA])
    parser.add_argument("--tasks", type=int, default=100)
    given = parser.parse_args()
    for name in given.only:
        start = time.process_time()
        found = (
            {"from scratch or pixels": characters(given.data / "omniglot", min(given.tasks, COSTLY))}
            if name == "omniglot"
            else intents(name, given.data, TextEncoder(given.encoder), given.tasks)
        )
        for against, (curves, times) in found.items():
            facts = {"data": name, "against": against, "core minutes": round((time.process_time() - start) / 60, 1)}
            record(RESULTS, f"{name}, {against}", facts | written(curves, times))
    Console().print(SECTION.table())


def characters(folder: Path, count: int) -> tuple[dict[int, Ways], Equivalence]:
    """The flagship on Omniglot's test characters."""
    learner = with_views(handful.MetaModel.from_pretrained(MODELS / "omniglot-flagship").learner, VIEWS)
    tasks = Omniglot(folder / "omniglot_28.npz").with_sizes(5, 1, 5)
    own = handful.evaluate(learner, tasks.split("test"), tasks=count).scores
    curves = {size: conventional(learner, tasks, size, count, costly=True) for size in CHARACTERS}
    return curves, factor(own, curves)


def intents(
    name: str, folder: Path, encoder: TextEncoder, count: int
) -> dict[str, tuple[dict[int, Ways], Equivalence]]:
    """The meta-trained map, on tasks of all class splits, against probes of the encoder and of words."""
    _, way, train_way = DATA[name]
    data = read(name, folder)
    embeddings = encoder.embed(data.texts)
    words = TfidfVectorizer(use_idf=False, sublinear_tf=True).fit_transform(data.texts)  # no task's words weigh less
    embeddings = embeddings / embeddings.square().mean().sqrt()
    inputs = {"the frozen encoder": embeddings, "counted words": torch.from_numpy(words.toarray().astype(np.float32))}
    own: list[Tensor] = []
    scores: dict[str, dict[int, list[Ways]]] = {against: {size: [] for size in INTENTS} for against in inputs}
    each = count // len(data.splits)
    for splits in data.splits:
        pool = LabeledPool(embeddings, data.labels, data.classes, splits=splits).with_sizes(way, 1, QUERIES)
        learner = meta_trained_map(pool, train_way)
        own.append(handful.evaluate(learner, pool.split("test"), tasks=each).scores)
        for against, seen in inputs.items():
            same = LabeledPool(seen, data.labels, data.classes, splits=splits, copy=False)
            same = same.with_sizes(way, 1, QUERIES)
            raw = LEARNERS["protonet"].build(same.spec, backbone="raw")
            for size in INTENTS:
                scores[against][size].append(conventional(raw, same, size, each))
    found = {}
    for against, by_size in scores.items():
        curves = {size: {way: torch.cat([fold[way] for fold in of]) for way in of[0]} for size, of in by_size.items()}
        found[against] = curves, factor(torch.cat(own), curves)
    return found


def meta_trained_map(pool: LabeledPool, way: int) -> Learner:
    """A linear map of embeddings, on tasks of this way."""
    validation = pool.split("val").with_sizes(shot=(1, 5))
    learner = LEARNERS["protonet"].build(validation.spec, backbone="linear", loss="neighbors")
    handful.meta_train(
        learner,
        pool.with_sizes(way, (1, 5), 10),
        validation=validation,
        steps=STEPS,
        validation_tasks=VALIDATION_TASKS,
        plan="vmap",
    )
    return learner


def conventional(learner: Learner, tasks: TaskDistribution, size: int, count: int, *, costly: bool = False) -> Ways:
    """What the rungs beside a learner that know no other tasks score with `size` examples of each class."""
    ladder = Ladder(learner, None, examples=0, minutes=1.0 if costly else 0.0)
    at = tasks.with_sizes(shot=size)
    found = ladder.conventional(at.split("test"), at.split("val"), tasks=count)
    return {key: evaluation.scores for key, evaluation in found.items()}


def factor(own: Tensor, curves: dict[int, Ways]) -> Equivalence:
    """Of one example of each class, against the best way of each size."""
    sizes: Sequence[int] = list(curves)
    return equivalence(own, 1, [torch.stack(list(curves[size].values())) for size in sizes], sizes)


def written(curves: dict[int, Ways], found: Equivalence) -> dict[str, Any]:
    """For the file: the factor, and the curve of each way in percent."""
    return {
        "factor": found.factor,
        "low": found.low,
        "high": found.high,
        "text": str(found),
        "tasks": found.tasks,
        "score": 100 * found.score,
        "curves": {
            way: {str(size): points(ways[way]) for size, ways in curves.items()} for way in next(iter(curves.values()))
        },
    }


def points(scores: Tensor) -> list[float]:
    """The mean and half the width of its 95 % interval over tasks, in percent."""
    found = interval(scores)
    return [round(100 * found.mean, 2), round(100 * found.half_width, 2)]


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each comparison: the factor, and the best of the conventional ways for each number of examples."""
    for row in rows.values():
        best: dict[str, float] = {}
        for curve in row["curves"].values():
            best |= {size: max(mean, best.get(size, 0.0)) for size, (mean, _) in curve.items()}
        curve = ", ".join(f"{size}: {mean:.1f}" for size, mean in best.items())
        score, times = f"{row['score']:.1f}", row["text"]
        yield row["data"], row["against"], score, times, str(row["tasks"]), curve, f"{row['core minutes']:g}"


SECTION = Section(
    RESULTS,
    "Data equivalence: how many times more examples a new task needs without meta-learning",
    "python -m benchmarks.equivalence --data FOLDER",
    (
        "data",
        "against",
        "meta-learned, 1 example, accuracy %",
        "times as many examples",
        "n",
        "without meta-learning, by examples of each class",
        "core minutes",
    ),
    cells,
)


if __name__ == "__main__":
    guarded(main)
