"""The splits of the classes or tasks of the user's data, and whether the data have changed."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np

from handful.errors import ArtifactError, DataError, count_of
from handful.table import Table

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

FRACTIONS = (0.6, 0.2)
"""The shares of train and val; the rest is test."""
SET_ASIDE = 0.2
"""The share of examples that is set aside for a split where all classes or tasks are trained on."""
FEWEST = {"class": 2, "task": 1}
"""The fewest classes or tasks of a split; with fewer, all are trained on."""


def hashed(*parts: object, size: int = 6) -> str:
    """A hash of the parts as `2 * size` hexadecimal digits."""
    return hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=size).hexdigest()


def place(name: str, seed: int) -> float:
    """The position of a name in the order that is cut into splits: a number from 0 to 1 that depends only on the
    name."""
    return int(hashed("split", seed, name, size=8), 16) / 2**64


def split_names(
    names: Sequence[str],
    seed: int,
    earlier: Mapping[str, Split] | None = None,
    *,
    fractions: tuple[float, float] = FRACTIONS,
    noun: str = "class",
) -> dict[Split, list[int]]:
    """The places in `names` of the classes (or tasks) of each split: 60 % train, 20 % val, 20 % test.

    names: each once.
    earlier: the split of each name in a first run; these names keep it, and each new one is placed by its hash. Without
        it, names are ordered by their hash and cut exactly, with at least one in each split that has a share.

    Raises `DataError` for fewer names than splits.
    """
    if earlier is not None:
        where = [earlier.get(name) or _by_hash(place(name, seed), fractions) for name in names]
        return {on: [number for number, split in enumerate(where) if split == on] for on in SPLITS}
    least = 1 + (fractions[1] > 0) + (sum(fractions) < 1)
    if len(names) < least:
        plural = {"class": "classes", "value to split by": "values to split by"}.get(noun, f"{noun}s")
        only = " only" if len(names) == 1 else ""
        raise DataError(
            f"The data has {count_of(len(names), noun, plural)}{only}, but splitting into train, val and test needs at "
            f"least {least} {plural} (some 20 or more to learn from). Add {plural}.",
            code="too-few-examples",
        )
    order = sorted(range(len(names)), key=lambda number: (place(names[number], seed), names[number]))
    train = min(max(1, round(len(names) * fractions[0])), len(names) - least + 1)
    test = int(sum(fractions) < 1)
    val = min(max(1, round(len(names) * fractions[1])), len(names) - train - test) if fractions[1] else 0
    return {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}


def _by_hash(place: float, fractions: tuple[float, float]) -> Split:
    return "train" if place < fractions[0] else "val" if place < sum(fractions) else "test"


@dataclass(frozen=True)
class Contents:
    """The content of a source of tasks, which identifies it at any path.

    splits: of each split the names of its classes or tasks, each with the digests of its examples, in the order in
        which tasks are drawn from them; no digests for a registered source, which its name identifies.
    pipeline: the description of its input pipeline.
    """

    splits: dict[Split, dict[str, list[str]]]
    pipeline: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        splits = {on: {name: " ".join(digests) for name, digests in names.items()} for on, names in self.splits.items()}
        return {"pipeline": self.pipeline, "splits": splits}

    @classmethod
    def from_json(cls, facts: Any) -> Self:
        """From JSON; `ArtifactError` if it is none of `to_json`."""
        try:
            splits = {on: {name: rows.split() for name, rows in facts["splits"][on].items()} for on in SPLITS}
            return cls(splits, facts["pipeline"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"The record of the run's data is incomplete ({error!r}).") from error

    @property
    def own(self) -> bool:
        """Whether these are the user's own data, identified by their examples."""
        return any(digests for names in self.splits.values() for digests in names.values())

    def placed(self) -> dict[str, Split]:
        """The split of each name; of one that is in several the first."""
        return {name: on for on in reversed(SPLITS) for name in self.splits[on]}

    def digest(self, *splits: Split) -> str:
        """A short hash of the content of these splits (of everything, with the pipeline, if none is named)."""
        known: Any = [list(self.splits[on].items()) for on in splits] if splits else self.to_json()
        return hashed(json.dumps(known), size=8)

    def unsplit_digest(self) -> str:
        """A short hash of the examples of all names, whichever splits they are in."""
        found: dict[str, list[str]] = {}
        for names in self.splits.values():
            for name, rows in names.items():
                found.setdefault(name, []).extend(rows)
        return hashed(sorted((name, sorted(rows)) for name, rows in found.items()), size=8)

    def changed_since(self, earlier: "Contents") -> str:
        """The changes of earlier data, in words; empty if all of them still exist. New data do not count."""
        before, now = earlier.placed(), self.placed()
        gone = [name for name in before if name not in now]
        if gone:
            return f"{_counted(gone)} no longer there"
        moved = [name for name in before if now[name] != before[name]]
        if moved:
            return f"{_counted(moved)} in another split"
        for on in reversed(SPLITS):  # a change in the test split matters most
            found = self.splits[on]
            if other := [
                name for name, rows in earlier.splits[on].items() if Counter(rows) - Counter(found.get(name, ()))
            ]:
                return f"examples of {_counted(other)} of the {on} split have changed"
        return ""

    def new_since(self, earlier: "Contents") -> str:
        """The additions, in words; empty without any."""
        known, parts = earlier.placed(), []
        for on in SPLITS:
            names = [name for name in self.splits[on] if name not in known]
            count = sum(map(len, self.splits[on].values())) - sum(map(len, earlier.splits[on].values()))
            if names or count:
                parts.append(
                    count_of(count, "example") + (f" and {count_of(len(names), 'name')}" if names else "") + f" in {on}"
                )
        return ", ".join(parts)


def digests(rows: Iterable[object]) -> list[str]:
    """A digest of each example."""
    return [hashed(row) for row in rows]


def own_order(table: Table) -> np.ndarray:
    """The rows of a table `(rows,)` in an order independent of the file: that of their digests."""
    cells = (table.cells(name) for name in sorted(table.names))
    return np.argsort(digests(zip(*cells, strict=True)), kind="stable")


def set_aside(
    units: Sequence[int],
    keys: Sequence[Any],
    ons: Sequence[Split],
    seed: int,
    *,
    ordered: bool = False,
    earlier: Mapping[tuple[int, Any], Split] | None = None,
) -> list[Split]:
    """The split of each example `(n,)` if all classes (or tasks) are trained on: a fifth of each is set aside.

    units: the class or task of each.
    keys: of each; examples of a class with equal keys stay together.
    ons: the splits that are made of what is set aside; the rest trains.
    ordered: whether keys are moments: then the latest are set aside.
    earlier: the split of each (unit, key) in a first run, which is kept. A new key is placed by its hash alone; a
        moment with the last one before it.
    """
    own: dict[int, set[Any]] = {}
    for unit, key in zip(units, keys, strict=True):
        own.setdefault(unit, set()).add(key)
    where: dict[tuple[int, Any], Split] = {}
    for unit, found in own.items():
        in_turn = sorted(found, key=lambda key: (0.0 if ordered else place(str(key), seed), key))
        cut = _cut(len(in_turn), ons)
        for number, key in enumerate(in_turn):
            if earlier is None:
                where[unit, key] = cut[number]
            elif (unit, key) in earlier:
                where[unit, key] = earlier[unit, key]
            elif ordered:
                where[unit, key] = where[unit, in_turn[number - 1]] if number else "train"
            else:
                hundred = _cut(100, ons)
                where[unit, key] = hundred[int(100 * place(str(key), seed))]
    return [where[unit, key] for unit, key in zip(units, keys, strict=True)]


def _cut(count: int, ons: Sequence[Split]) -> list[Split]:
    """The split of each of so many in a row: a fifth for each of `ons`, and at least 2 or none, since a task needs
    2."""
    each = max(2, round(count * SET_ASIDE)) if count >= 2 * (1 + len(ons)) else 0
    train: list[Split] = ["train"] * (count - each * len(ons))
    return train + [on for on in ons for _ in range(each)]


def _counted(names: Sequence[str]) -> str:
    first = ", ".join(map(repr, names[:3]))
    return f"{len(names)} ({first}{', ...' if len(names) > 3 else ''})"
