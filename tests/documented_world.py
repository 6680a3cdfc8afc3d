"""The files and folders that the commands in README, docs and benchmarks/README.md name, small."""

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

import own_data
import small_encoders
from small_encoders import WORDS

BANKING77_CLASSES, CLINC150_DOMAINS = 77, 10


def for_commands(folder: Path) -> None:
    """What `handful ...` takes in the docs."""
    generator = np.random.default_rng(0)
    own_data.photos(folder / "photos", 110, 20)
    own_data.photos(folder / "other-photos", 24, 20)
    own_data.photos(folder / "more-photos", 24, 20)
    own_data.photos(folder / "new-customer", 3, 3)
    own_data.photos(folder / "more", 2, 3)
    shutil.copytree(folder / "new-customer" / "class00", folder / "inbox")
    shutil.copy(folder / "inbox" / "0.png", folder / "photo.png")

    table = own_data.columns()
    count = len(table["shop"])
    left = np.where(table["good"] == "yes", "left", "stayed")
    sales = {"shop": table["shop"], "price": table["price"], "week": table["week"], "comment": np.repeat("none", count)}
    own_data.write_csv(folder / "sales.csv", sales | {"volume": table["sold"]})
    churn = {"customer": table["shop"], "visits": table["price"], "spent": table["week"], "left": left}
    pa.parquet.write_table(pa.table(churn), folder / "churn.parquet")
    label = np.arange(40).repeat(20)
    petals = generator.normal(0, 3, (40, 3))[label] + generator.normal(size=(800, 3))
    plants = {f"petal{i}": petals[:, i] for i in range(3)} | {"species": np.array([f"s{n:02}" for n in label])}
    own_data.write_csv(folder / "plants.csv", plants)
    np.savez(folder / "signals.npz", inputs=petals, labels=label)

    (folder / "tables").mkdir()
    for number in range(15):
        inputs = generator.normal(size=(40, 3))
        columns = {f"column{i}": inputs[:, i] for i in range(3)} | {"price": inputs @ generator.normal(size=3)}
        own_data.write_csv(folder / "tables" / f"table{number:02}.csv", columns)
    own_data.write_csv(folder / "new.csv", {name: values[:12] for name, values in columns.items()})
    own_data.write_csv(folder / "rows.csv", {name: values[12:] for name, values in columns.items() if name != "price"})

    texts = sentences(25, 22)
    names, intents = np.array([text for _, text in texts]), np.array([f"intent{number:02}" for number, _ in texts])
    own_data.write_csv(folder / "questions.csv", {"question": names, "intent": intents})
    own_data.write_csv(folder / "new-customer.csv", {"question": names[:66:11], "intent": intents[:66:11]})
    (folder / "questions.txt").write_text("\n".join(names[:5]))
    product = np.arange(len(names)) % 15
    reviews = {
        "review": names,
        "product": np.array([f"p{number:02}" for number in product]),
        "sentiment": np.where(np.char.str_len(names) > np.median(np.char.str_len(names)), "good", "bad"),
    }
    pa.parquet.write_table(pa.table(reviews), folder / "reviews.parquet")
    write_clinc150(folder / "clinc150.jsonl.gz")
    omniglot(folder / "path" / "to" / "omniglot")
    encoder(folder)
    small_encoders.tiny_dinov2(folder / "image-encoder")


def for_benchmarks(folder: Path) -> None:
    """What the benchmarks take as FOLDER, of all of them in one."""
    omniglot(folder)
    omniglot(folder / "omniglot")
    lakes_trials(folder / "lake_one_shot_all_runs.zip")
    (folder / "banking77").mkdir()
    (folder / "clinc150").mkdir()
    write_lines(
        folder / "banking77" / "banking77.jsonl.gz",
        [{"text": text, "intent": f"intent{number:02}"} for number, text in sentences(BANKING77_CLASSES, 25)],
    )
    write_clinc150(folder / "clinc150" / "clinc150.jsonl.gz")
    drawings(folder / "emoji_32" / "emoji.npz")
    generator = np.random.default_rng(0)
    sales = {name: generator.normal(size=40 * 24) for name in ("week", "sales")}
    (folder / "weekly_sales").mkdir()
    table = pa.table({"task": [f"item{number // 24}" for number in range(40 * 24)]} | sales)
    pa.parquet.write_table(table, folder / "weekly_sales" / "weekly_sales.parquet")
    (folder / "bayesm_cheese").mkdir()
    shops = pa.table({"RETAILER": [f"shop{number // 24}" for number in range(20 * 24)]})
    for column in ("VOLUME", "DISP", "PRICE"):
        shops = shops.append_column(column, [generator.lognormal(size=len(shops))])
    pa.parquet.write_table(shops, folder / "bayesm_cheese" / "cheese.parquet")
    encoder(folder)


def encoder(folder: Path) -> None:
    """The folder of a small sentence encoder."""
    small_encoders.tiny_encoder(folder / "parts").rename(folder / "encoder")


def sentences(classes: int, each: int) -> list[tuple[int, str]]:
    """Class numbers and texts, whose first words tell the class."""
    random = np.random.default_rng(0)
    return [
        (number, f"{WORDS[number % 12]} {WORDS[number // 12]} {' '.join(random.choice(WORDS, 2))} {index}")
        for number in range(classes)
        for index in range(each)
    ]


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_clinc150(path: Path) -> None:
    """150 intents of 10 domains."""
    rows = sentences(10 * 12, 25)
    write_lines(
        path,
        [{"text": text, "intent": f"intent{number:03}", "domain": f"domain{number // 12}"} for number, text in rows],
    )


def drawings(path: Path) -> None:
    """Classes of small pictures in eight styles."""
    split = np.array(["train"] * 34 + ["val"] * 6 + ["test"] * 6)
    path.parent.mkdir()
    np.savez(
        path,
        images=np.random.default_rng(0).integers(0, 255, (len(split), 8, 32, 32, 3), dtype=np.uint8),
        present=np.ones((len(split), 8), dtype=bool),
        code=[f"code{number:02}" for number in range(len(split))],
        style=[f"style{number}" for number in range(8)],
        split=split,
    )


def omniglot(folder: Path) -> None:
    """Characters of seven alphabets, of which the last two are of the evaluation's."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabets, each = 7, 20  # of one alphabet, validation draws 20
    images = np.random.default_rng(0).integers(0, 255, (alphabets * each, 20, 28, 28), dtype=np.uint8)
    alphabet = np.arange(alphabets).repeat(each)
    split = np.array(["train"] * 4 + ["val"] + ["test"] * 2)
    part = np.array(["images_background"] * 5 + ["images_evaluation"] * 2)
    np.savez(
        folder / "omniglot_28.npz",
        images=images,
        alphabet=[f"alphabet{number}" for number in alphabet],
        character=[f"character{number:03}" for number in range(len(alphabet))],
        vinyals_split=split[alphabet],
        part=part[alphabet],
    )


def lakes_trials(path: Path) -> None:
    """Two runs of three classes."""
    with zipfile.ZipFile(path, "w") as trials:
        for run in ("run01", "run02"):
            pairs = []
            for number in range(3):
                for kind in ("training", "test"):
                    with trials.open(f"{run}/{kind}/class{number:02}.png", "w") as file:
                        image = Image.new("1", (105, 105), 1)
                        image.paste(0, (20 * number, 40, 20 * number + 30, 60))
                        image.save(file, "png")
                pairs.append(f"{run}/test/class{number:02}.png {run}/training/class{number:02}.png")
            trials.writestr(f"{run}/class_labels.txt", "\n".join(pairs))
