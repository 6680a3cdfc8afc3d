"""The data as files that `handful train` takes, and their splits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.intents import DATA as INTENTS
from benchmarks.intents import QUERIES, read
from handful.errors import DataError
from handful.tasks.distribution import SPLITS
from handful.tasks.splits import Contents

SHOTS = (1, 5)
DRAWINGS = "emoji"


@dataclass(frozen=True)
class Data:
    """A data set.

    way, train_way: of test and of training tasks. least: examples of each class, of which queries are what the support
    leaves. options: how it is read.
    """

    way: int
    train_way: int
    least: int
    options: dict[str, Any] = field(default_factory=dict)

    def queries(self, shot: int) -> int:
        """How many of each class."""
        return min(QUERIES, self.least - shot)


DATA = {
    name: Data(way, train_way, 20, {"text": "text", "label": "intent"}) for name, (_, way, train_way) in INTENTS.items()
}
DATA |= {DRAWINGS: Data(5, 32, 7)}


def written(name: str, given: Path, folder: Path) -> tuple[Path, Sequence[Contents | None]]:
    """The place of a data set, and of each fold what is in each split, where the files do not tell.

    given: the folder of the option `--data`. folder: where it is put.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name == DRAWINGS:
        write_drawings(given / "emoji_32" / "emoji.npz", folder / name)
        return folder / name, [None]
    data, path = read(name, given), folder / f"{name}.jsonl"
    intents = [data.classes[label] for label in data.labels.tolist()]
    rows = zip(data.texts, intents, strict=True)
    path.write_text("".join(json.dumps({"text": text, "intent": intent}) + "\n" for text, intent in rows))
    return path, [
        Contents({on: {data.classes[number]: [] for number in splits[on]} for on in SPLITS}) for splits in data.splits
    ]


def write_drawings(file: Path, folder: Path) -> None:
    """The drawings as a folder of images for each class, in folders for the splits."""
    if not file.exists():
        raise DataError(f"{file} does not exist.")
    if folder.exists():
        return
    with np.load(file) as data:
        arrays = {name: data[name] for name in ("images", "present", "code", "style", "split")}
    partial = folder.with_suffix(".part")
    for number, drawings in enumerate(arrays["images"]):
        of_class = partial / str(arrays["split"][number]) / str(arrays["code"][number])
        of_class.mkdir(parents=True, exist_ok=True)
        for style, drawing in enumerate(drawings):
            if arrays["present"][number, style]:
                Image.fromarray(drawing).save(of_class / f"{arrays['style'][style]}.png")
    partial.rename(folder)
