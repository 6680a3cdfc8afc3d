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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.evidence import record
from handful import LEARNERS, evaluate, meta_train
from handful.evaluation.intervals import Interval, interval
from handful.learners.learner import Learner
from handful.tasks.distribution import Split
from handful.tasks.encoders import DEFAULT, Encoder
from handful.tasks.pool import LabeledPool
from handful.tasks.tables import read_table

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
QUERIES, CHOOSING_TASKS = 15, 40
PROBES = {"frozen, prototypes": "centroid", "frozen, ridge": "ridge-probe", "frozen, logistic": "logistic-probe"}
TRAINED = {
    "protonet": ("protonet", {}),
    "protonet, neighbors": ("protonet", {"loss": "neighbors"}),
    "r2d2": ("r2d2", {}),
}
SLOW = {"frozen, logistic": 5}
"""It takes this many times fewer tasks."""
REFERENCE = "frozen, prototypes"

Scores = dict[tuple[str, int], list[torch.Tensor]]
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


def read(path: Path, encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor, list[str], list[str]]:
    """Embeddings of root mean square 1, class numbers, the classes, and the domain of each class."""
    table = read_table(path)
    intents = table.names_in("intent")
    known = torch.tensor([intent != "oos" for intent in intents])
    classes = sorted(set(intents) - {"oos"})
    domain_of = dict(zip(intents, table.names_in("domain") if "domain" in table.names else intents, strict=True))
    embeddings = encoder.embed(table.names_in("text"))[known]
    labels = torch.tensor([classes.index(intent) for intent in intents if intent != "oos"])
    return embeddings / embeddings.square().mean().sqrt(), labels, classes, [domain_of[name] for name in classes]


def chosen(key: str, validation: LabeledPool) -> Learner:
    """A probe with the options that are best on validation tasks."""
    ((name, values),) = LEARNERS[key].choices.items() or (("temperature", (2.0,)),)
    built = [LEARNERS[key].build(validation.spec, backbone="raw", **{name: value}) for value in values]
    if len(built) == 1:
        return built[0]
    return max(built, key=lambda probe: evaluate(probe, validation, tasks=CHOOSING_TASKS).score.mean)


def measure(name: str, folder: Path, encoder: Encoder, given: Any, say: Any) -> tuple[Scores, list[int]]:
    """Scores of all probes and learners on one data set, and the kept steps of training."""
    splits_of, way, train_way = DATA[name]
    inputs, labels, classes, domains = read(folder / name / f"{name}.jsonl.gz", encoder)
    scores: Scores = {(row, shot): [] for row in (*PROBES, *TRAINED) for shot in SHOTS}
    kept: list[int] = []
    for fold, splits in enumerate(splits_of(classes, domains)):
        pools = [LabeledPool(inputs, labels, classes, splits=splits, seed=seed) for seed in range(given.seeds)]
        tests = {shot: pools[0].split("test").sized(way, shot, QUERIES) for shot in SHOTS}
        for row, key in PROBES.items():
            for shot, test in tests.items():
                probe = chosen(key, pools[0].split("val").sized(way, shot, QUERIES))
                count = given.tasks // SLOW.get(row, 1)
                scores[row, shot].append(evaluate(probe, test, tasks=count).scores)
        for row, (key, options) in TRAINED.items():
            of_seeds: dict[int, list[torch.Tensor]] = {shot: [] for shot in SHOTS}
            for seed, pool in enumerate(pools):
                learner = LEARNERS[key].build(tests[1].spec, backbone="linear", seed=seed, **options)
                trained = meta_train(
                    learner,
                    pool.sized(train_way, (1, 5), 10),
                    validation=pools[0].split("val").sized(way, (1, 5), QUERIES),
                    steps=given.steps,
                    validation_tasks=100,
                    plan="vmap",
                    seed=seed,
                )
                kept.append(trained.best_step)
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


def points(found: dict[str, Any], *, signed: bool = False) -> str:
    """An interval in percent."""
    known = Interval(**found)
    return f"{100 * known.mean:{'+' if signed else ''}.2f} ± {100 * known.half_width:.2f}"


def main() -> None:
    """Measure, write the file, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default=DEFAULT, help="a name or a folder")
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--tasks", type=int, default=400, help="test tasks of each split and shot")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    console, encoder = Console(highlight=False), Encoder(given.encoder)
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
        table = Table(title=f"{name}, {DATA[name][1]}-way, {given.seeds} seeds, 5 splits; {minutes:.1f} min")
        for column in ("", "shot", "accuracy", "n", "over frozen prototypes", "seeds"):
            table.add_column(column)
        for found in rows:
            seeds = " ".join(f"{100 * value:.2f}" for value in found["seeds"]) if len(found["seeds"]) > 1 else ""
            gain = "" if found["name"] == REFERENCE else points(found["gain"], signed=True)
            count = str(found["score"]["tasks"])
            table.add_row(found["name"], str(found["shot"]), points(found["score"]), count, gain, seeds)
        console.print(table)
        record("text", name, facts)


if __name__ == "__main__":
    main()
