"""Two data sets of intents, and their splits by class: tests are on classes never trained on.

FOLDER/clinc150/clinc150.jsonl.gz (columns text, intent, domain) and FOLDER/banking77/banking77.jsonl.gz (text, intent):

- BANKING77, 5-way: the five class splits (25 train, 25 val, 27 test) that ProtAugment published and ContrastNet uses
  (Chen et al., 2022, https://arxiv.org/abs/2305.09269); 15 queries a class here, one or five there.
- CLINC150, 20-way: five splits in which each of the 10 domains is tested once (6 train, 2 val, 2 test).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.tiny import sized
from handful.readers import reader
from handful.tasks.distribution import Split

BANKING77 = (
    "evaeaaeaevaaeveeaeaavavavaeeeaavevvvaeeaavvveveveeaevvvvvevaeaeeavaaevveevaae",
    "aeeaevaevaeevavvaeaaeeveeaveveaaeeavvavevavavaeevveavvveeeaavavvaaeeaeevaveva",
    "eevavavaeevaavevevavavaveeavveeavevavvvaeaeaavaevvaaavaeaaaeeeveeeaeeeveeavev",
    "veeaaveeevveveaveeveavvvvaaaeveavaavaeeavevvavevaeeeeeaaaeaaveevaaaeaaevavevv",
    "eaaeeaeavveeveeeaevaeaaaeaeavaveeavveaavvvvvaeeeeeavvavvaaveeaaeevveavaevavvv",
)
"""For each split and class in the order of their names: a (train), v (val), e (test)."""
LETTERS: dict[str, Split] = {"a": "train", "v": "val", "e": "test"}
QUERIES = sized(15, 5)
UNKNOWN = "oos"
"""The intent of CLINC150's texts that have none."""


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
    """A data set. labels: `(n,)`. domains: of each class. splits: of each fold the classes of each split."""

    texts: list[str]
    labels: Tensor
    classes: list[str]
    domains: list[str]
    splits: list[dict[Split, list[int]]]


def read(name: str, folder: Path) -> Intents:
    """All texts whose intent is known."""
    table = reader.read(folder / name / f"{name}.jsonl.gz").inputs
    intents = table.names_in("intent")
    domain_of = dict(zip(intents, table.names_in("domain") if "domain" in table.names else intents, strict=True))
    classes = sorted(set(intents) - {UNKNOWN})
    domains = [domain_of[intent] for intent in classes]
    splits_of, *_ = DATA[name]
    return Intents(
        [text for text, intent in zip(table.names_in("text"), intents, strict=True) if intent != UNKNOWN],
        torch.tensor([classes.index(intent) for intent in intents if intent != UNKNOWN]),
        classes,
        domains,
        list(splits_of(classes, domains)),
    )
