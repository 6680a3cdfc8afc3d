"""Omniglot against published numbers: `python -m benchmarks.omniglot ROW --data FOLDER`.

FOLDER holds omniglot_28.npz, and for the row `lake` the official trials, lake_one_shot_all_runs.zip. A training is kept
under runs/, and goes on from there; its weights are kept in benchmarks/models/. `--score` scores those, and prints what
comes of it without recording it.
"""

import argparse
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import handful
from benchmarks.evidence import MODELS, Cells, Section, guarded, minutes, percent, record, spent
from benchmarks.tiny import sized
from handful.errors import UserError
from handful.evaluation.intervals import interval
from handful.events import Event, OnEvent, ValidationEvent
from handful.learners.learner import Learner
from handful.learners.prototypical import PrototypicalNetwork
from handful.readers.images import ImageFiles
from handful.registry import LEARNERS
from handful.tasks.augmentation import augmented
from handful.tasks.distribution import TaskDistribution
from handful.tasks.omniglot import Omniglot
from handful.training.run import Run

RESULTS = "omniglot"
TRIALS = "Lake's 400 trials (n: its runs of 20)"
LAKES = "lake_one_shot_all_runs.zip"
QUERY_SHOT = 5
PUBLISHED_WIDTHS, WIDE = (64, 64, 64, 64), (32, 64, 128, 128)


@dataclass(frozen=True)
class Row:
    """A training on Omniglot, and what it is scored on.

    sizes: way, shot and query_shot of training tasks. strength: of the augmentation of training images, 0 for none.
    validation: way of the one-shot validation tasks by which the weights are chosen. aims: by setting.
    """

    title: str
    learner: str
    options: dict[str, Any]
    widths: tuple[int, ...]
    sizes: tuple[int, int, int]
    settings: dict[str, Any]
    aims: dict[str, float]
    strength: float = 0.0
    validation: int = 20
    source: dict[str, Any] = field(default_factory=dict)
    views: int = 1


NEIGHBORS = {"loss": "neighbors"}
FLAGSHIP = Row(
    title="protonet, loss of neighbors, augmented, conv4 32-64-128-128",
    learner="protonet",
    options=NEIGHBORS,
    widths=WIDE,
    sizes=(128, 1, 1),
    strength=0.8,
    settings={"steps": 27_000, "meta_batch_size": 1, "outer_lr": 4e-3, "weight_decay": 1e-2, "warmup": 0.05},
    aims={"20-way 1-shot": 97.65, "5-way 1-shot": 99.47},
    views=8,
)
ROWS = {
    "flagship": FLAGSHIP,
    "lake": replace(
        FLAGSHIP,
        title="the same on the background alphabets",
        settings=FLAGSHIP.settings | {"steps": 9_000},
        aims={TRIALS: 92.0},
        source={"split": "lake"},
    ),
    "protonet": Row(
        title="protonet as published: 60-way, conv4-64",
        learner="protonet",
        options={},
        widths=PUBLISHED_WIDTHS,
        sizes=(60, 1, 5),
        settings={"steps": 3_000, "meta_batch_size": 1, "outer_lr": 2e-3},
        aims={"5-way 1-shot": 97.8, "20-way 1-shot": 95.0},
    ),
    "r2d2": Row(
        title="R2-D2, conv4-64, 20-way",
        learner="r2d2",
        options={},
        widths=PUBLISHED_WIDTHS,
        sizes=(20, 1, 5),
        settings={"steps": 3_000, "meta_batch_size": 2, "outer_lr": 2e-3},
        aims={"5-way 1-shot": 97.6},
        validation=5,
    ),
}


def main() -> None:
    """Train or load, score, record, and print all rows that are recorded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.omniglot", description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--data", type=Path, required=True, help="folder with omniglot_28.npz")
    parser.add_argument("--score", action="store_true", help="score the weights in benchmarks/models, and only print")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the test tasks")
    given = parser.parse_args()
    row, folder = ROWS[given.row], MODELS / f"omniglot-{given.row}"
    if given.row == "lake" and not (given.data / LAKES).exists():
        raise UserError(f"{given.data / LAKES} does not exist: Lake's trials are in no other file.")
    file = given.data / "omniglot_28.npz"
    if not given.score:
        train(row, file, Path("runs") / f"omniglot-{given.row}").save_pretrained(folder)
    model = handful.MetaModel.from_pretrained(folder)
    tasks = Omniglot(file, seed=given.seed, **row.source)
    scores = {}
    for views in dict.fromkeys((1, row.views)):
        learner = with_views(model.learner, views)
        found = {TRIALS: lake(learner, given.data)} if given.row == "lake" else standard(learner, tasks, given.tasks)
        scores |= {f"{name}, {views} view{'s' * (views > 1)}": score for name, score in found.items()}
    found = model.facts | {"title": row.title, "aims": row.aims, "scores": scores, "task seed": given.seed}
    if not given.score:
        record(RESULTS, given.row, found)
    Console().print(SECTION.table({given.row: found} if given.score else None))


def train(row: Row, file: Path, folder: Path) -> handful.MetaModel:
    """Meta-train, or go on with it."""
    plain = Omniglot(file, **row.source)
    tasks: TaskDistribution = augmented(plain, row.strength) if row.strength else plain
    cls: type[Learner] = LEARNERS[row.learner]
    learner = cls.build(
        tasks.with_sizes(row.validation, 1, 5).spec,
        backbone="conv4",
        backbone_options={"widths": sized(row.widths, (4, 4, 4, 4))},
        **row.options,
    )
    validation = Omniglot(file, **row.source, one_alphabet=True) if row.source else plain
    resumed, start = folder.exists(), time.process_time()
    steps = sized(row.settings["steps"], 2)
    trained = handful.meta_train(
        learner,
        tasks.with_sizes(*sized(row.sizes, (5, 1, 1))),
        validation=validation.split("val").with_sizes(row.validation, 1, 5),
        run=Run.open(folder, {"source": {"tasks": "omniglot"}, "row": row.title}, resume=resumed),
        validation_tasks=sized(400, 2),
        validate_every=max(1, steps // 20),
        on_event=progress(steps),
        **row.settings | {"steps": steps},
    )
    facts = {
        **spent(trained, None if resumed else start),
        "selection": trained.selection,
        "validation score": trained.best_score,
        "kept step": trained.best_step,
        "steps": steps,
        "league": "inductive",
    }
    return handful.MetaModel(learner, plain.pipeline, facts)


def progress(steps: int) -> OnEvent:
    """Prints a line where a validation was taken."""

    def heard(event: Event) -> None:
        if isinstance(event, ValidationEvent):
            print(f"step {event.step} of {steps}: validation {event.score:.4f}", flush=True)

    return heard


def with_views(learner: Learner, views: int) -> Learner:
    """The same weights, with test-time views."""
    if views == 1:
        return learner
    recipe = dict(learner.recipe)
    options = recipe.pop("options") | {"views": views}
    del recipe["learner"]
    other = PrototypicalNetwork.build(recipe.pop("spec"), **recipe, **options)
    other.load_state_dict(learner.state_dict(), strict=False)  # the maps of the views are its own
    return other.eval()


def standard(learner: Learner, tasks: TaskDistribution, count: int) -> dict[str, dict[str, Any]]:
    """Accuracy in percent on test tasks of the usual sizes."""
    scores = {}
    for way in (5, 20):
        score = handful.evaluate(learner, tasks.split("test").with_sizes(way, 1, QUERY_SHOT), tasks=count).score
        scores[f"{way}-way 1-shot"] = {"mean": 100 * score.mean, "half_width": 100 * score.half_width, "n": score.tasks}
    return scores


def lake(learner: Learner, data: Path) -> dict[str, Any]:
    """Accuracy in percent on Lake's trials: 20 runs of 20 queries, each answered by itself; interval over runs."""
    runs = []
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(data / LAKES) as trials:
        trials.extractall(folder)
        for run in sorted(Path(folder).glob("run*")):
            pairs = [line.split() for line in (run / "class_labels.txt").read_text().splitlines()]
            items, classes = (sorted({Path(pair[side]).name for pair in pairs}) for side in (0, 1))
            support = Omniglot.pipeline.encode(ImageFiles([run / "training" / name for name in classes]))
            query = Omniglot.pipeline.encode(ImageFiles([run / "test" / name for name in items]))
            answer = {Path(item).name: classes.index(Path(name).name) for item, name in pairs}
            spec = handful.TaskSpec("classification", (1, 28, 28), len(classes))
            with torch.no_grad():
                state = learner.adapt(handful.Examples(support, torch.arange(len(classes))), spec)
                answers = learner.predict(state, query).logits.argmax(-1)
            runs.append((answers == torch.tensor([answer[name] for name in items])).double().mean())
    score = interval(torch.stack(runs), torch.arange(len(runs)))
    return {"mean": 100 * score.mean, "half_width": 100 * score.half_width, "n": score.tasks}


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each setting of each row."""
    for key, row in rows.items():
        for setting, score in row["scores"].items():
            aim = row["aims"].get(setting.partition(",")[0])
            reached = "" if aim is None else f"{aim:g} ({'reached' if score['mean'] >= aim else 'not reached'})"
            value = percent(score["mean"], score["half_width"])
            yield f"{key}: {row['title']}", setting, value, str(score["n"]), reached, minutes(row)


SECTION = Section(
    RESULTS,
    "Omniglot",
    "python -m benchmarks.omniglot ROW --data FOLDER",
    ("row", "setting", "accuracy %", "n", "aim", "core minutes"),
    cells,
)


if __name__ == "__main__":
    guarded(main)
