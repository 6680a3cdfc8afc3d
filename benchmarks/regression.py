"""Regression against published numbers: `python -m benchmarks.regression [ROW ...]`.

Sine waves (mean squared error after some inner steps) and Gaussian processes (log-likelihood, beside that of the exact
posterior). A training is kept under runs/ and goes on from there; its weights are kept in benchmarks/models/.
`--score` scores those, and prints what comes of it without recording it.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

import handful
from benchmarks.evidence import MODELS, Cells, Section, guarded, minutes, percent, record, spent
from benchmarks.tiny import sized
from handful.evaluation.intervals import Interval
from handful.learners.learner import Learner
from handful.registry import LEARNERS
from handful.tasks.opening import open_tasks
from handful.training.run import Run

RESULTS = "regression"


@dataclass(frozen=True)
class Row:
    """A training, and the settings that it is scored in.

    steps: numbers of inner steps that are scored, each with its aim. sources: scored beside `source`, unseen in
    training, each with the published log-likelihood.
    """

    learner: str
    source: str
    options: dict[str, Any]
    backbone: dict[str, Any]
    settings: dict[str, Any]
    sizes: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, float] = field(default_factory=dict)
    sources: dict[str, float] = field(default_factory=dict)
    aim: float | None = None


SINE = {"shot": 5, "query_shot": 10}
SMALL = {"hidden": (40, 40)}
WIDE = {"hidden": (128, 128)}
PAPER_STEPS = {1: 0.67, 5: 0.38, 10: 0.35}
"""MAML's own, after 70,000 meta-steps."""


def neural_process(learner: str, steps: int, published: tuple[float, float, float], **options: Any) -> Row:
    """Trained on functions of the RBF kernel alone, as published."""
    sources = dict(zip(("gp:rbf", "gp:matern", "gp:periodic"), published, strict=True))
    settings = {"steps": steps, "meta_batch_size": 16, "outer_lr": 5e-4, "warmup": 0.05, "plan": "vmap"}
    return Row(learner, "gp:rbf", options, WIDE, settings, sources=sources)


ROWS = {
    "sine, maml": Row(
        "maml",
        "sine",
        {"inner_lr": 0.01, "inner_steps": 1},
        SMALL,
        {"steps": 70_000, "meta_batch_size": 32, "plan": "vmap"},
        SINE,
        steps=PAPER_STEPS,
    ),
    "sine, bayesian-last-layer": Row(
        "bayesian-last-layer",
        "sine",
        {},
        WIDE,
        {"steps": 5_000, "meta_batch_size": 16, "outer_lr": 3e-3, "plan": "vmap"},
        SINE,
        aim=0.05,
    ),
    "gp, cnp": neural_process("cnp", 40_000, (0.26, 0.04, -1.40)),
    "gp, anp": neural_process("anp", 25_000, (0.81, 0.63, -5.02)),
    "gp, in-context": neural_process("in-context", 25_000, (1.39, 0.95, -3.53), layers=4),
}


def main() -> None:
    """Train, score, record, and print all rows that are recorded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {'; '.join(ROWS)}")
    parser.add_argument("--score", action="store_true", help="score the weights in benchmarks/models, and only print")
    parser.add_argument("--tasks", type=int, default=2000)
    given = parser.parse_args()
    unknown = set(given.rows) - set(ROWS)
    if unknown:
        parser.error(f"there is no row {unknown.pop()!r}")
    found = {}
    for key in given.rows or ROWS:
        name, row = key.replace(", ", "-").replace(" ", "-"), ROWS[key]
        if not given.score:
            train(key, row, Path("runs") / name).save_pretrained(MODELS / name)
        model = handful.MetaModel.from_pretrained(MODELS / name)
        found[key] = model.facts | {"scores": scored(model.learner, row, given.tasks)}
        if not given.score:
            record(RESULTS, key, found[key])
    Console().print(SECTION.table(found if given.score else None))


def train(key: str, row: Row, folder: Path) -> handful.MetaModel:
    """Meta-train one row, or go on with it."""
    tasks = open_tasks(row.source).with_sizes(**row.sizes)
    cls: type[Learner] = LEARNERS[row.learner]
    learner = cls.build(tasks.spec, backbone="mlp", backbone_options=row.backbone, **row.options)
    resumed, start = folder.exists(), time.process_time()
    steps = sized(row.settings["steps"], 2)
    trained = handful.meta_train(
        learner,
        tasks,
        validation_tasks=sized(256, 2),
        run=Run.open(folder, {"source": {"tasks": row.source}, "row": key}, resume=resumed),
        **row.settings | {"steps": steps},
    )
    facts = {
        "learner": row.learner,
        "options": row.options,
        "hidden": row.backbone["hidden"],
        "steps": steps,
        "selection": trained.selection,
        **spent(trained, None if resumed else start),
    }
    return handful.MetaModel(learner, tasks.pipeline, facts)


def scored(learner: Learner, row: Row, count: int) -> dict[str, Any]:
    """The row's scores on test tasks."""
    tasks = open_tasks(row.source).with_sizes(**row.sizes)
    scores: dict[str, Any] = {}
    for steps, aim in row.steps.items():
        other = type(learner).build(
            tasks.spec, backbone="mlp", backbone_options=row.backbone, **row.options | {"inner_steps": steps}
        )
        other.load_state_dict(learner.state_dict())
        score = handful.evaluate(other, tasks.split("test"), tasks=count).score
        scores[f"MSE after {steps} steps"] = figures(score) | {"aim": aim}
    if row.aim is not None:
        score = handful.evaluate(learner, tasks.split("test"), tasks=count).score
        scores["MSE"] = figures(score) | {"aim": row.aim}
    for source, published in row.sources.items():
        found = handful.evaluate(learner, open_tasks(source).split("test"), tasks=count)
        entry = figures(found.log_likelihood) | {"published": published, "mse": found.score.mean}
        if found.likelihood_gap is not None:
            entry["gap to the exact posterior"] = figures(found.likelihood_gap)
        scores[f"log-likelihood, {source}"] = entry
    return scores


def figures(score: Interval) -> dict[str, Any]:
    """Mean, half-width and number of tasks."""
    return {"mean": score.mean, "half_width": score.half_width, "n": score.tasks}


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each score of each row."""
    for key, row in rows.items():
        for name, score in row["scores"].items():
            gap = score.get("gap to the exact posterior")
            yield (
                key,
                name,
                f"{score['mean']:.3g} ± {score['half_width']:.2g}",
                str(score["n"]),
                str(score.get("aim", score.get("published"))),
                percent(gap["mean"], gap["half_width"]) if gap else "",
                minutes(row),
            )


SECTION = Section(
    RESULTS,
    "Regression",
    "python -m benchmarks.regression",
    ("row", "score", "value", "n", "aim or published", "gap to the exact posterior", "core minutes"),
    cells,
)


if __name__ == "__main__":
    guarded(main)
