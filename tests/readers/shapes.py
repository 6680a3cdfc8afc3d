"""Each shape of data that docs/reference/data.md promises, with ten classes, shops or tables."""

import csv
import gzip
import io
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

CLASSES = [f"class{number}" for number in range(10)]
EXAMPLES = 4
PARTS = [("train", CLASSES[:6]), ("val", CLASSES[6:8]), ("test", CLASSES[8:])]
SHAPES = {}
"""By its name in the docs what writes a shape into a folder, and gives what is named in place of the folder; with the
options that it needs."""
TEXTS = {"text": "text", "label": "label"}
COLUMNS = {"task": "shop", "target": "price"}


def shape(**options):
    def register(write):
        SHAPES[write.__name__.replace("_", " ").strip()] = write, options
        return write

    return register


# Images


def image(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def images(folder, classes=CLASSES, count=EXAMPLES):
    for name in classes:
        for index in range(count):
            image(folder / name / f"{index}.png")


@shape()
def class_folders(folder):
    images(folder)


@shape()
def deeper(folder):
    for name in CLASSES:
        images(folder / name, ["monday", "tuesday"], EXAMPLES // 2)


@shape()
def one_folder_too_many(folder):
    images(folder / "animals")


@shape()
def parts(folder):
    images(folder / "Training", CLASSES[:8])
    images(folder / "Testing", CLASSES[8:])


@shape()
def train_and_val(folder):
    images(folder / "train", CLASSES[:8])
    images(folder / "val", CLASSES[8:])


@shape()
def same_classes_in_all_parts(folder):
    for part, count in (("train", 2), ("valid", 1), ("test", 1)):
        images(folder / part, count=count)


def listed(folder, classes=CLASSES):
    return [(image(folder / f"{name}-{index}.png"), name) for name in classes for index in range(EXAMPLES)]


@shape()
def metadata_csv(folder):
    for part, classes in PARTS:
        rows = [f"{file},{label}\n" for file, label in listed(folder / part, classes)]
        (folder / part / "metadata.csv").write_text("file_name,label\n" + "".join(rows))


@shape()
def csv_beside_images(folder):
    rows = [f"{Path(file).stem},{label},7\n" for file, label in listed(folder / "images")]
    (folder / "train.csv").write_text("image,label,size\n" + "".join(rows))


@shape()
def csv_of_paths(folder):
    rows = [f"images/{file};{label}\n" for file, label in listed(folder / "images")]
    (folder / "list.csv").write_text("image;label\n" + "".join(rows))
    return folder / "list.csv"


@shape()
def one_hot(folder):
    for part, classes in PARTS:
        rows = []
        for file, label in listed(folder / part, classes):
            rows.append(",".join([file, *(str(int(label == name)) for name in classes)]))
        (folder / part / "_classes.csv").write_text("\n".join([", ".join(["filename", *classes]), *rows]))


@shape()
def easyfsl(folder):
    images(folder / "data")
    for part, classes in PARTS:
        roots = {"class_names": classes, "class_roots": [f"data/{name}" for name in classes]}
        (folder / f"{part}.json").write_text(json.dumps(roots))


@shape()
def one_json_of_easyfsl(folder):
    images(folder / "data")
    roots = {"class_names": CLASSES, "class_roots": [f"data/{name}" for name in CLASSES]}
    (folder / "all.json").write_text(json.dumps(roots))
    return folder / "all.json"


@shape()
def archive(folder):
    images(folder / "animals")
    return Path(shutil.make_archive(folder, "zip", folder))


@shape()
def archive_per_class(folder):
    for name in CLASSES:
        images(folder, [name])
        shutil.make_archive(folder / f"{name}-samples", "zip", folder / name)
        shutil.rmtree(folder / name)


# Texts


def sentences():
    return [(f"text {index} of {name}", name) for name in CLASSES for index in range(EXAMPLES)]


def lines(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@shape(**TEXTS)
def text_files(folder):
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for index in range(EXAMPLES):
            (folder / name / f"{index}.txt").write_text(f"text {index} of {name}")


@shape(**TEXTS)
def fasttext(folder):
    lines(folder / "train.txt", [f"__label__{label} {text}" for text, label in sentences()])


@shape(**TEXTS)
def doccano(folder):
    return lines(folder / "all.jsonl", [{"id": 1, "text": text, "label": [label]} for text, label in sentences()])


@shape(**TEXTS)
def label_studio(folder):
    tasks = []
    for text, label in sentences():
        result = [{"value": {"choices": [label]}, "from_name": "label", "type": "choices"}]
        tasks.append({"data": {"text": text}, "annotations": [{"result": result, "was_cancelled": False}]})
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


@shape(**TEXTS)
def prodigy(folder):
    rows = [{"text": text, "accept": [label], "answer": "accept"} for text, label in sentences()]
    return lines(folder / "p.jsonl", [*rows, {"text": "neither", "accept": [], "answer": "reject"}])


@shape(**TEXTS)
def intents(folder):
    (folder / "data.json").write_text(json.dumps({"train": sentences()[:20], "test": sentences()[20:]}))
    return folder / "data.json"


# Tables


def shops(decimal=".", unit=""):
    """Rows of a header, and of texts as people write them."""
    rows = [["shop", "area", "kind", "price"]]
    for place, name in enumerate(CLASSES):
        for index in range(EXAMPLES):
            area, price = f"{1000 * place + 250 * index}{unit}", f"{index + place / 4:.2f}"
            rows.append([name, area, "new" if index % 2 else "öld", price.replace(".", decimal)])
    return rows


def written(path, rows, delimiter=",", encoding="utf-8", above=""):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes((above + text.getvalue()).encode(encoding))
    return path


def typed():
    """The columns of a table with types."""
    names, *rows = shops()
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return {
        name: list(map(float, cells)) if name in ("area", "price") else list(cells) for name, cells in columns.items()
    }


def records():
    return [dict(zip(typed(), row, strict=True)) for row in zip(*typed().values(), strict=True)]


@shape(**COLUMNS)
def csv_or_tsv(folder):
    return written(folder / "t.csv", shops())


@shape(**COLUMNS, encoding="cp1252")
def another_encoding(folder):
    return written(folder / "t.csv", shops(","), ";", "cp1252")


@shape(**COLUMNS)
def sep_line(folder):
    return written(folder / "t.csv", shops(","), ";", "utf-8-sig", "sep=;\r\n")


@shape(**COLUMNS)
def unicode_text(folder):
    return written(folder / "t.txt", shops(","), "\t", "utf-16")


@shape(**COLUMNS)
def titles_and_row_numbers(folder):
    rows = [["" if place == 0 else str(place), *row] for place, row in enumerate(shops())]
    return written(folder / "t.csv", rows, above="Report of the year,,,,\r\n,,,,\r\n")


@shape(**COLUMNS)
def units(folder):
    return written(
        folder / "t.csv", [[*row[:3], row[3] if row[3] == "price" else f"€ {row[3]}"] for row in shops(unit=" mi")]
    )


@shape(**COLUMNS)
def excel(folder):
    book = openpyxl.Workbook()
    book.active.append(list(typed()))
    for row in records():
        book.active.append(list(row.values()))
    book.save(folder / "t.xlsx")
    return folder / "t.xlsx"


@shape(**COLUMNS)
def arff(folder):
    names, *rows = shops()
    head = ["@relation shops", *(f"@attribute {name} string" for name in names), "@data"]
    return lines(folder / "t.arff", [*head, *map(",".join, rows)])


@shape(**COLUMNS)
def parquet_file(folder):
    parquet.write_table(pa.table(typed()), folder / "t.parquet")
    return folder / "t.parquet"


@shape(**COLUMNS)
def json_lines(folder):
    return lines(folder / "t.jsonl", records())


@shape(**COLUMNS)
def json_list(folder):
    (folder / "t.json").write_text(json.dumps(records()))
    return folder / "t.json"


@shape(**COLUMNS)
def packed(folder):
    (folder / "t.csv.gz").write_bytes(gzip.compress(written(folder / "t.csv", shops()).read_bytes()))
    return folder / "t.csv.gz"


@shape(label="label")
def pixels(folder):
    random = np.random.default_rng(0)
    rows = [[name, *random.integers(0, 255, 16)] for name in CLASSES for _ in range(EXAMPLES)]
    return written(folder / "t.csv", [["label", *(f"pixel{place}" for place in range(16))], *rows])


@shape(target="last")
def folder_of_tables(folder):
    for place, name in enumerate(CLASSES):
        written(folder / f"{name}.csv", [[f"x{place}", "y"], *([n, place + n * n] for n in range(6))])


# Arrays


@shape()
def npz(folder):
    inputs = np.random.default_rng(0).normal(size=(len(CLASSES), EXAMPLES, 3)).reshape(-1, 3)
    np.savez(folder / "t.npz", inputs=inputs, labels=np.repeat(CLASSES, EXAMPLES))
    return folder / "t.npz"
