"""Few-shot intents: what a meta-trained linear map adds to a frozen sentence encoder.

python -m benchmarks.text --data DIR, with DIR/clinc150/clinc150.jsonl.gz (columns text, intent, domain) and
DIR/banking77/banking77.jsonl.gz (text, intent). Tests are on classes never trained on:

- BANKING77, 5-way: the five class splits (25 train, 25 val, 27 test) that ProtAugment published and ContrastNet uses
  (Chen et al., 2022, https://arxiv.org/abs/2305.09269); 15 queries a class here, one or five there.
- CLINC150, 20-way: five splits in which each of the 10 domains is tested once (6 train, 2 val, 2 test).

One learner per split and seed is trained on tasks of 1 to 5 shots, and answers both settings. Regularization of probes
and the kept step of training are chosen on validation classes. All are scored on the same test tasks.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.evidence import Cells, Section, guarded, percent, record
from benchmarks.tiny import sized
from handful import LEARNERS, evaluate, meta_train
from handful.encoders.texts import DEFAULT, TextEncoder
from handful.evaluation.intervals import Interval, interval
from handful.learners.learner import Learner
from handful.readers import reader
from handful.tasks.distribution import Split
from handful.tasks.labeled_pool import LabeledPool

BANKING77 = (
    "evaeaaeaevaaeveeaeaavavavaeeeaavevvvaeeaavvveveveeaevvvvvevaeaeeavaaevveevaae",
    "aeeaevaevaeevavvaeaaeeveeaveveaaeeavvavevavavaeevveavvveeeaavavvaaeeaeevaveva",
    "eevavavaeevaavevevavavaveeavveeavevavvvaeaeaavaevvaaavaeaaaeeeveeeaeeeveeavev",
    "veeaaveeevveveaveeveavvvvaaaeveavaavaeeavevvavevaeeeeeaaaeaaveevaaaeaaevavevv",
    "eaaeeaeavveeveeeaevaeaaaeaeavaveeavveaavvvvvaeeeeeavvavvaaveeaaeevveavaevavvv",
)
"""For each split and class in the order of their names: a (train), v (val), e (test)."""
LETTERS: dict[str, Split] = {"a": "train", "v": "val", "e": "test"}
SHOTS = (1, 5)
RESULTS = "text"
QUERIES, CHOOSING_TASKS, VALIDATION_TASKS, STEPS = sized((15, 40, 100, 200), (5, 1, 1, 2))
PROBES = {"frozen, prototypes": "centroid", "frozen, ridge": "ridge-probe", "frozen, logistic": "logistic-probe"}
TRAINED = {
    "protonet": ("protonet", {}),
    "protonet, neighbors": ("protonet", {"loss": "neighbors"}),
    "r2d2": ("r2d2", {}),
}
SLOW = {"frozen, logistic": 5}
"""It takes this many times fewer tasks."""
REFERENCE = "frozen, prototypes"

Scores = dict[tuple[str, int], list[Tensor]]
"""By name and shot: of each split the scores of the tasks, `(tasks,)` or `(seeds, tasks)`."""


def banking77(classes: list[str], domains: list[str]) -> Iterator[dict[Split, list[int]]]:
    """The published splits."""
    for letters in BANKING77:
        assert len(letters) == len(classes)
        yield {on: [i for i, found in enumerate(letters) if found == letter] for letter, on in LETTERS.items()}


def clinc150(classes: list[str], domains: list[str]) -> Iterator[dict[Split, list[int]]]:
    """Domains two by two: one pair is tested, the next one validates, the others train."""
    pairs = np.random.default_rng(0).permutation(sorted(set(domains))).reshape(5, 2)
    for fold in range(5):
        part = {name: on for on, pair in (("test", fold), ("val", (fold + 1) % 5)) for name in pairs[pair]}
        yield {on: [i for i, name in enumerate(domains) if part.get(name, "train") == on] for on in LETTERS.values()}


DATA = {"banking77": (banking77, 5, 15), "clinc150": (clinc150, 20, 40)}
"""By name: its splits, the way of tests, and of training."""


class Intents(NamedTuple):
    """A data set. inputs: embeddings `(n, d)` of root mean square 1. labels: `(n,)`. domains: of each class."""

    texts: list[str]
    inputs: Tensor
    labels: Tensor
    classes: list[str]
    domains: list[str]


def read(name: str, folder: Path, encoder: TextEncoder) -> Intents:
    """All texts whose intent is known."""
    table = reader.read(folder / name / f"{name}.jsonl.gz").inputs
    intents = table.names_in("intent")
    known = torch.tensor([intent != "oos" for intent in intents])
    classes = sorted(set(intents) - {"oos"})
    domain_of = dict(zip(intents, table.names_in("domain") if "domain" in table.names else intents, strict=True))
    texts = table.names_in("text")
    embeddings = encoder.embed(texts)[known]
    return Intents(
        [text for text, intent in zip(texts, intents, strict=True) if intent != "oos"],
        embeddings / embeddings.square().mean().sqrt(),
        torch.tensor([classes.index(intent) for intent in intents if intent != "oos"]),
        classes,
        [domain_of[name] for name in classes],
    )


def trained(
    row: str, pool: LabeledPool, validation: LabeledPool, *, train_way: int, steps: int, seed: int
) -> tuple[Learner, int]:
    """A learner trained on a pool, and the step of which its weights are. validation: sized as in the test."""
    key, options = TRAINED[row]
    learner = LEARNERS[key].build(validation.spec, backbone="linear", seed=seed, **options)
    found = meta_train(
        learner,
        pool.with_sizes(train_way, (1, 5), 10),
        validation=validation.with_sizes(shot=(1, 5)),
        steps=steps,
        validation_tasks=VALIDATION_TASKS,
        plan="vmap",
        seed=seed,
    )
    return learner, found.best_step


def chosen(key: str, validation: LabeledPool) -> Learner:
    """A probe with the options that are best on validation tasks."""
    choices = LEARNERS[key].search_space
    built = [
        LEARNERS[key].build(validation.spec, backbone="raw", **dict(zip(choices, values, strict=True)))
        for values in product(*choices.values())
    ]
    if len(built) == 1:
        return built[0]
    return max(built, key=lambda probe: evaluate(probe, validation, tasks=CHOOSING_TASKS).score.mean)


def measure(name: str, folder: Path, encoder: TextEncoder, given: Any, say: Any) -> tuple[Scores, list[int]]:
    """Scores of all probes and learners on one data set, and the kept steps of training."""
    splits_of, way, train_way = DATA[name]
    data = read(name, folder, encoder)
    scores: Scores = {(row, shot): [] for row in (*PROBES, *TRAINED) for shot in SHOTS}
    kept: list[int] = []
    for fold, splits in enumerate(splits_of(data.classes, data.domains)):
        pools = [
            LabeledPool(data.inputs, data.labels, data.classes, splits=splits, seed=seed) for seed in range(given.seeds)
        ]
        tests = {shot: pools[0].split("test").with_sizes(way, shot, QUERIES) for shot in SHOTS}
        for row, key in PROBES.items():
            for shot, test in tests.items():
                probe = chosen(key, pools[0].split("val").with_sizes(way, shot, QUERIES))
                count = given.tasks // SLOW.get(row, 1)
                scores[row, shot].append(evaluate(probe, test, tasks=count).scores)
        validation = pools[0].split("val").with_sizes(way, 1, QUERIES)
        for row in TRAINED:
            of_seeds: dict[int, list[Tensor]] = {shot: [] for shot in SHOTS}
            for seed, pool in enumerate(pools):
                learner, step = trained(row, pool, validation, train_way=train_way, steps=given.steps, seed=seed)
                kept.append(step)
                for shot, test in tests.items():
                    of_seeds[shot].append(evaluate(learner, test, tasks=given.tasks).scores)
            for shot, found in of_seeds.items():
                scores[row, shot].append(torch.stack(found))
        say(f"{name}: split {fold + 1} of 5")
    return scores, kept


def row(name: str, shot: int, scores: Scores) -> dict[str, Any]:
    """Mean, interval over tasks (seeds averaged), gain over frozen prototypes on the same tasks, and spreads."""
    mine = [part if part.ndim > 1 else part[None] for part in scores[name, shot]]
    tasks = [part.mean(0) for part in mine]
    gains = [own - theirs[: len(own)] for own, theirs in zip(tasks, scores[REFERENCE, shot], strict=True)]
    return {
        "name": name,
        "shot": shot,
        "score": asdict(interval(torch.cat(tasks))),
        "gain": asdict(interval(torch.cat(gains))),
        "splits": [float(part.mean()) for part in tasks],
        "gain of splits": [float(part.mean()) for part in gains],
        "seeds": [float(torch.stack([part[seed].mean() for part in mine]).mean()) for seed in range(len(mine[0]))],
    }


def main() -> None:
    """Measure, write the file, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default=DEFAULT, help="a name or a folder")
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--tasks", type=int, default=400, help="test tasks of each split and shot")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    console, encoder = Console(highlight=False), TextEncoder(given.encoder)
    for name in given.only:
        start = time.perf_counter()
        scores, kept = measure(name, given.data, encoder, given, console.print)
        rows = [row(of, shot, scores) for of, shot in scores]
        minutes = (time.perf_counter() - start) / 60
        facts = {
            "way": DATA[name][1],
            "encoder": Path(given.encoder).name,
            "revision": encoder.revision,
            "seeds": given.seeds,
            "steps": given.steps,
            "kept steps": kept,
            "minutes": round(minutes, 1),
            "rows": rows,
        }
        record(RESULTS, name, facts)
    console.print(SECTION.table())


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each learner and shot."""
    for name, data in rows.items():
        for row in data["rows"]:
            score, gain = (_points(row[part]) for part in ("score", "gain"))
            way, shown = f"{name}, {data['way']}-way", "" if row["name"] == REFERENCE else gain
            yield way, str(row["shot"]), row["name"], score, shown, str(row["score"]["tasks"])


def _points(found: dict[str, Any]) -> str:
    known = Interval(**found)
    return percent(100 * known.mean, None if found["low"] is None else 100 * known.half_width)


SECTION = Section(
    RESULTS,
    "Intents, on frozen sentence embeddings",
    "python -m benchmarks.text --data FOLDER",
    ("data", "shot", "learner", "accuracy %", "over frozen prototypes, paired", "n"),
    cells,
)


if __name__ == "__main__":
    guarded(main)
