"""Small data of every kind that a user may bring, with something to learn in it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from PIL import Image

TASKS, ROWS = 15, 14


def photos(folder: Path, classes: int = 12, count: int = 6) -> Path:
    """A folder of images per class: a coarse pattern each, with noise."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"class{number:02}").mkdir(parents=True)
        pattern = np.kron(generator.integers(0, 256, (4, 4)), np.ones((4, 4)))
        for index in range(count):
            pixels = (pattern + generator.normal(0, 25, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number:02}" / f"{index}.png")
    return folder


def columns() -> dict[str, np.ndarray]:
    """Shops that sell by a line of their own; whether a row sold more than 10 depends on the shop."""
    generator = np.random.default_rng(1)
    shop = np.arange(TASKS).repeat(ROWS)
    price, week = generator.normal(size=(2, len(shop)))
    slope = generator.normal(size=TASKS)[shop]
    sold = 10 + 3 * slope * price
    return {
        "shop": np.array([f"s{number:02}" for number in shop]),
        "price": price,
        "week": week,
        "sold": sold,
        "good": np.where(sold > 10, "yes", "no"),
    }


def write_csv(path: Path, table: dict[str, np.ndarray]) -> Path:
    pa.csv.write_csv(pa.table(table), path)
    return path


def species(path: Path) -> Path:
    """A table with a label column of 12 classes."""
    generator = np.random.default_rng(2)
    label = np.arange(12).repeat(10)
    means = generator.normal(0, 3, (12, 3))[label]
    values = means + generator.normal(size=means.shape)
    return write_csv(path, {"kind": np.array([f"k{n:02}" for n in label])} | {f"x{i}": values[:, i] for i in range(3)})


def shops(path: Path) -> Path:
    """A table with a task column, for `--target sold` or `--label good`."""
    return write_csv(path, columns())


def arrays(path: Path) -> Path:
    """An npz file with targets and tasks."""
    table = columns()
    inputs = np.stack([table["price"], table["week"]], axis=1)
    np.savez(path, inputs=inputs, targets=table["sold"], task=table["shop"])
    return path
