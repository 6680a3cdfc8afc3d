"""The data as sources that `handful train` takes."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.encoders.data import write_drawings, written
from benchmarks.tiny import sized
from handful.errors import DataError
from handful.tasks.distribution import SPLITS, Split
from handful.tasks.splits import Contents
from handful.workflows.experiment import Source

Kind = Literal["images", "texts", "tables"]
Setting = tuple[int | None, int]
"""Way and shot."""

OF_IMAGES: tuple[Setting, ...] = sized(((5, 1), (5, 5), (20, 1)), ((5, 1), (5, 5)))
FIVE_WAY: tuple[Setting, ...] = ((5, 1), (5, 5))
TWENTY_WAY: tuple[Setting, ...] = ((20, 1), (20, 5))
ROWS: tuple[Setting, ...] = ((None, 10),)
"""Rows that each test task learns from; all its other rows are queries."""
HELD_OUT = 12
"""Classes of tiered_imagenet_64 that are validated on, of its 61 for training; its "val" classes are the test."""
SHARE = 0.2
"""Of the tables, that are validated on, and as many tested on; all of one R package are in the same split."""


class Data(NamedTuple):
    """A data set.

    place: its file in the folder of the option `--data`, the name of a registered source, or what writes it as files.
    settings: of its tests. columns: how it is read. queries, tasks: of each class, and how many, of tests; fewer where
    examples are drawn anew for each task, and so go through a network for each. across: data sets on which its model is
    tested too; those have no training of their own.
    """

    kind: Kind
    place: str | Callable[[Path, Path], str]
    settings: tuple[Setting, ...] = ROWS
    columns: dict[str, Any] = {}  # noqa: RUF012
    queries: int = 10
    tasks: int = sized(400, 4)
    across: tuple[str, ...] = ()


def _emoji(data: Path, folder: Path) -> str:
    write_drawings(data / "emoji_32" / "emoji.npz", folder)
    return str(folder)


def _tiered(data: Path, folder: Path) -> str:
    source = data / "tiered_imagenet_64"
    with np.load(_existing(source / "train.npz")) as file:
        held_out = np.random.default_rng(0).permutation(len(file["name"]))[:HELD_OUT].tolist()
    _write_photos(source / "train.npz", folder, lambda number: "val" if number in held_out else "train")
    _write_photos(source / "val.npz", folder, lambda number: "test")
    return str(folder)


def _clothing(data: Path, folder: Path) -> str:
    _write_photos(data / "clothing_64" / "clothing.npz", folder, lambda number: "")
    return str(folder)


def _write_photos(file: Path, folder: Path, split: Callable[[int], str]) -> None:
    """The JPEG files of an archive, in a folder for each class."""
    with np.load(_existing(file)) as data:
        jpeg, offsets, labels, names = (data[name] for name in ("jpeg", "offsets", "label", "name"))
    for number, (label, (start, end)) in enumerate(zip(labels.tolist(), pairwise(offsets.tolist()), strict=True)):
        place = folder / split(label) / f"{label:02} {names[label].split(',')[0]}" / f"{number:05}.jpg"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(jpeg[start:end].tobytes())


def _arm(data: Path, folder: Path) -> str:
    """The torque of the second joint from positions, velocities and accelerations of both."""
    with np.load(_existing(data / "delan_characters" / "delan_characters.npz")) as file:
        names, counts = file["label"], np.diff(file["offsets"])
        columns = {"character": [f"{number:02}" for number in np.arange(len(names)).repeat(counts).tolist()]}
        columns |= {f"{part}{joint}": file[part][:, joint] for part in ("qp", "qv", "qa") for joint in (0, 1)}
        columns["torque"] = file["tau"][:, 1]
    return _saved(pa.table(columns), folder)


CENSUS_REGIONS = ("California", "GreatLakes", "Midsouth", "Northeast", "Plains", "SouthCentral", "Southeast", "West")
"""Of avocado, each the sum of other regions; they are left out with the total."""


def _avocado(data: Path, folder: Path) -> str:
    """Demand in each region for each type. What was sold by size and in bags would tell it, and is left out."""
    table = pq.read_table(_existing(data / "avocado" / "avocado.parquet"))
    region, kind = (table[name].cast(pa.string()) for name in ("region", "a_type"))
    kept = table.select(["year"]).append_column("day", table["Date2"]).append_column("region", region)
    kept = kept.append_column("task", pc.binary_join_element_wise(region, kind, " "))
    kept = _logged(kept, price=table["AveragePrice"], volume=table["Total Volume"])
    return _saved(kept.filter(pc.invert(pc.is_in(region, pa.array([*CENSUS_REGIONS, "TotalUS"])))), folder)


def _cheese(data: Path, folder: Path) -> str:
    """Demand at each retailer."""
    table = pq.read_table(_existing(data / "bayesm_cheese" / "cheese.parquet"))
    return _saved(_logged(table.select(["RETAILER", "DISP"]), price=table["PRICE"], volume=table["VOLUME"]), folder)


def _hotels(data: Path, folder: Path) -> str:
    table = pq.read_table(_existing(data / "hotel_prices" / "hotel_prices.parquet"))
    return _saved(_logged(table.drop_columns(["agent", "hotel", "adr"]), price=table["adr"]), folder)


def _cars(data: Path, folder: Path) -> str:
    table = pq.read_table(_existing(data / "used_cars" / "used_cars.parquet"))
    return _saved(_logged(table.drop_columns(["make", "model", "price"]), price=table["price"]), folder)


def _sales(data: Path, folder: Path) -> str:
    table = pq.read_table(_existing(data / "weekly_sales" / "weekly_sales.parquet"))
    return _saved(_logged(table.drop_columns(["week", "sales"]), sales=pc.add(table["sales"], 1)), folder)


def _logged(table: pa.Table, **columns: pa.ChunkedArray) -> pa.Table:
    """With the logarithms of more columns: prices and volumes differ between tasks by factors."""
    for name, values in columns.items():
        table = table.append_column(f"log_{name}", pc.ln(values.cast(pa.float64())))
    return table


def _saved(table: pa.Table, folder: Path) -> str:
    path = folder.with_suffix(".parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return str(path)


def _tables(data: Path, folder: Path) -> str:
    """Tables with a number to predict, each a task."""
    with np.load(_existing(data / "tabular_rdatasets" / "tables.npz")) as file:
        for facts in json.loads(str(file["meta"])):
            if facts["task"] == "regression":
                number, place = facts["id"], folder / f"{facts['package']}-{facts['id']:04}.csv"
                rows = np.column_stack([file[f"X{number}"].astype(np.float32), file[f"y{number}"]])
                names = [f"x{column}" for column in range(rows.shape[1] - 1)] + ["target"]
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    np.savetxt(place, rows, "%.5g", ",", header=",".join(names), comments="")
    return str(folder)


SHOPS = ("avocado", "bayesm_cheese", "hotel_prices", "used_cars")
APART = ("weekly_sales", "borealtc_robot")
"""One seed is enough of these, and they are named on their own."""

SETS = {
    "glyphs": Data("images", "glyphs", OF_IMAGES, queries=5, tasks=sized(200, 4)),
    "omniglot": Data("images", lambda data, _: f"omniglot:{data / 'omniglot' / 'omniglot_28.npz'}", OF_IMAGES),
    "emoji_32": Data("images", _emoji, OF_IMAGES, queries=2),
    "tiered_imagenet_64": Data("images", _tiered, FIVE_WAY, across=("clothing_64",)),
    "clothing_64": Data("images", _clothing, FIVE_WAY),
    "banking77": Data("texts", "", FIVE_WAY, {"text": "text", "label": "intent"}),
    "clinc150": Data("texts", "", TWENTY_WAY, {"text": "text", "label": "intent"}, across=("snips",)),
    "snips": Data("texts", "snips/snips.jsonl.gz", FIVE_WAY, {"text": "text", "label": "intent"}),
    "schools": Data("tables", "schools/hsb82.parquet", columns={"task": "school", "target": "mAch"}),
    "avocado": Data("tables", _avocado, columns={"task": "task", "target": "log_volume", "split_by": "region"}),
    "bayesm_cheese": Data("tables", _cheese, columns={"task": "RETAILER", "target": "log_volume"}),
    "hotel_prices": Data("tables", _hotels, columns={"task": "task", "target": "log_price"}),
    "used_cars": Data("tables", _cars, columns={"task": "task", "target": "log_price"}),
    "delan_characters": Data("tables", _arm, columns={"task": "character", "target": "torque"}),
    "tabular_rdatasets": Data("tables", _tables, columns={"target": "target"}),
    "weekly_sales": Data("tables", _sales, columns={"task": "task", "target": "log_sales"}),
    "borealtc_robot": Data(
        "tables",
        "borealtc_robot/wheel_currents.parquet",
        columns={"task": "task", "target": "current_left", "drop": ["robot", "terrain", "time", "current_right"]},
    ),
}
TRAINED = tuple(name for name in SETS if not any(name in one.across for one in SETS.values()))


def source_of(name: str, data: Path, encoder: str, seed: int) -> tuple[Source, Contents | None]:
    """A data set as a source, and what is in each split where its files do not tell.

    data: the folder of the option `--data`. encoder: of texts. seed: of the split of tables, and which of their splits
    texts have; classes of images have one split.
    """
    one, folder = SETS[name], Path("runs") / "auto" / "data" / name
    columns = one.columns | ({"encoder": encoder} if one.kind == "texts" else {})
    if name in ("banking77", "clinc150"):
        path, contents = written(name, data, folder)
        return Source(str(path), **columns), contents[seed % len(contents)]
    if callable(one.place):
        place = one.place(data, folder)
    else:
        place = one.place if one.place == name else str(_existing(data / one.place))
    source = Source(place, seed=seed if one.kind == "tables" else 0, **columns)
    return source, by_package(Path(place), seed) if name == "tabular_rdatasets" else None


def by_package(folder: Path, seed: int) -> Contents:
    """The splits of tables by their packages, drawn by a seed."""
    tables = sorted(path.stem for path in folder.glob("*.csv"))
    counts = Counter(name.rpartition("-")[0] for name in tables)
    packages: Sequence[str] = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    split, sizes = dict[str, Split](), dict.fromkeys(SPLITS, 0)
    for package in packages:
        on: Split = next((on for on in ("test", "val") if sizes[on] < SHARE * len(tables)), "train")
        split[package] = on
        sizes[on] += counts[package]
    return Contents({on: {name: [] for name in tables if split[name.rpartition("-")[0]] == on} for on in SPLITS})


def _existing(file: Path) -> Path:
    if not file.exists():
        raise DataError(f"{file} does not exist.")
    return file
