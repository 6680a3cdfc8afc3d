"""The same value gives the same tensor, whatever it comes in: a file, bytes, an image, a row, a mapping, a frame."""

import datetime
import io
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from handful.errors import DataError
from handful.pipelines.images import ImagePipeline
from handful.pipelines.pipeline import prepared
from handful.pipelines.rows import TablePipeline
from handful.readers.images import ImageFiles
from handful.workflows.encoding import encoded_inputs
from noted import noted
from tables import read_table

NOISE = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(NOISE), {"format": "JPEG", "exif": exif}


IMAGES = {
    "color": lambda: (Image.fromarray(NOISE), {"format": "PNG"}),
    "gray": lambda: (Image.fromarray(NOISE[..., 0]), {"format": "PNG"}),
    "palette": lambda: (Image.fromarray(NOISE).convert("P"), {"format": "PNG"}),
    "CMYK": lambda: (Image.fromarray(NOISE).convert("CMYK"), {"format": "TIFF"}),
    "transparent": lambda: (Image.fromarray(NOISE).convert("RGBA"), {"format": "PNG"}),
    "turned": turned,
    "large photo": lambda: (Image.fromarray(NOISE).resize((240, 400)), {"format": "JPEG"}),
}
DEEP = {
    "16 bits": lambda: (Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), {"format": "PNG"}),
    "12 bits in 16": lambda: (Image.fromarray(NOISE[..., 0].astype(np.uint16) * 16), {"format": "TIFF"}),
    "32 bits": lambda: (Image.fromarray(NOISE[..., 0].astype(np.int32) - 99), {"format": "TIFF"}),
    "floats": lambda: (Image.fromarray(NOISE[..., 0] / np.float32(7)), {"format": "TIFF"}),
}
PIPELINES = {
    "color": ImagePipeline(size=12, channels=3),
    "inverted": ImagePipeline(size=8, invert=True),
    "16 bits": ImagePipeline(size=8, levels=(0, 65535)),
    "levels, inverted": ImagePipeline(size=50, channels=3, invert=True, levels=(-99, 40000)),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in IMAGES | DEEP
        for name, pipeline in PIPELINES.items()
        if (kind in DEEP) == (pipeline.levels is not None)
    ],
)
def test_an_image_is_the_same_from_a_file_bytes_and_memory(kind, name, tmp_path):
    pipeline = PIPELINES[name]
    image, options = (IMAGES | DEEP)[kind]()
    written = io.BytesIO()
    image.save(written, **options)
    (tmp_path / "one").write_bytes(written.getvalue())
    expected = pipeline.encode(ImageFiles([tmp_path / "one"]))
    stored = pipeline.stored([written.getvalue()])
    assert stored.dtype == (torch.float32 if kind in DEEP else torch.uint8)
    assert torch.equal(pipeline.prepare(stored), expected)
    opened = Image.open(written)
    before = opened.size
    assert torch.equal(pipeline.encode([opened]), expected), "not yet decoded"
    opened.load()
    assert opened.size == before
    assert torch.equal(pipeline.encode([opened]), expected), "decoded"
    if kind in ("color", "gray", *(set(DEEP) - {"floats"})):
        assert torch.equal(pipeline.encode([np.asarray(image)]), expected)
        assert torch.equal(pipeline.encode(np.asarray(image)[None]), expected)


def test_images_that_are_none_are_told_by_their_place(tmp_path):
    pipeline = ImagePipeline(size=8)
    assert pipeline.encode([]).shape == (0, 1, 8, 8)
    for wrong in (b"", b"GIF", "a text", object()):
        with pytest.raises(DataError, match="Input 1 is"):
            pipeline.encode([NOISE, wrong])
    array = np.zeros((8, 8, 3), np.uint32)
    for wrong, said in (
        (str(tmp_path / "x.png"), "is not an image, but of type str"),
        (array, r"is not an image, but an array \(8, 8, 3\) of uint32"),
    ):
        with pytest.raises(DataError, match=rf"Input 1 {said}.*Give the content of an image file"):
            pipeline.encode([NOISE, wrong])
    with pytest.raises(DataError, match=r"got one of \(8, 8, 3\).*a list of images"):
        pipeline.encode(array.astype(np.uint8))
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.png is empty"):
        encoded_inputs(pipeline, tmp_path / "x.png")


def test_floats_are_as_learners_see_them():
    pipeline = ImagePipeline(size=8)
    floats = pipeline.encode(NOISE[None])
    for given in (floats, floats.numpy(), floats[:, 0], floats.flatten(1), floats.tolist()):
        assert torch.equal(pipeline.encode(given), floats)
    assert torch.equal(prepared((255 * floats).round().byte()), floats)


class Frame(dict):
    """As much of a data frame as is asked of one."""

    @property
    def columns(self):
        return list(self)


ROWS = [
    {"size": 1.25, "when": datetime.date(2020, 1, 2), "city": "caf\u00e9 A", "open": True, "code": 7},
    {"size": 3, "when": datetime.date(2020, 3, 1), "city": "B", "open": False, "code": 12},
    {"size": None, "when": datetime.date(2021, 1, 1), "city": None, "open": True, "code": 7},
]
CSV = """code,open,city,when,size
7,true,café A,2020-01-02,1.25
12,False, B,2020-03-01,3
7.0,TRUE,,2021-01-01,NA
"""
COLUMNS = [
    {"name": "size", "median": 2.0, "width": 3.2, "clipped": True, "gaps": True},
    {"name": "when", "median": 18300.0, "width": 450.0, "clipped": True, "unit": "a date"},
    {"name": "city", "categories": ["B", "caf\u00e9 A"]},
    {"name": "open", "categories": ["False", "True"]},
    {"name": "code", "categories": ["12", "7"]},
]


@pytest.fixture
def table():
    return TablePipeline(columns=COLUMNS)


def test_a_row_is_the_same_from_a_file_and_memory(table, tmp_path):
    (tmp_path / "t.csv").write_text(CSV, encoding="utf-8")
    with noted("cells of the column 'size' such as 'NA' count as empty"):
        expected = table.encode(read_table(tmp_path / "t.csv"))
    assert expected.shape == (3, 9)
    names = [column["name"] for column in COLUMNS]
    lists = [[row[name] for name in names] for row in ROWS]
    texts = [[None if cell is None else str(cell) for cell in row] for row in lists]
    columns = {name: [row[name] for row in ROWS] for name in names}
    objects = {name: np.array(cells, object) for name, cells in columns.items()}
    typed = columns | {
        "size": np.array([1.25, 3, np.nan]),
        "when": np.array(columns["when"], "M8[ns]"),
        "code": np.array([7, 12, 7], np.uint8),
        "city": [b"cafe\xcc\x81  A ", "B\u200b", float("nan")],
        "open": np.array([True, False, True]),
    }
    forms = {
        "mappings": ROWS,
        "mappings in another order": [dict(reversed(row.items())) | {"more": 1} for row in ROWS],
        "lists": lists,
        "tuples": [tuple(row) for row in lists],
        "texts": texts,
        "an array of objects": np.array(lists, object),
        "a frame": Frame(objects),
        "a frame with types": Frame(typed),
        "a table of Arrow": pa.table(columns),
        "other numbers": [row | {"code": Decimal(row["code"])} for row in ROWS],
        "without what is missing": [{k: v for k, v in row.items() if v is not None} for row in ROWS],
    }
    for name, form in forms.items():
        assert torch.equal(table.encode(form), expected), name
        if name not in ("a frame", "a frame with types", "a table of Arrow", "without what is missing"):
            assert torch.equal(torch.cat([table.encode(form[row : row + 1]) for row in range(3)]), expected), name
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert torch.equal(table.encode(read_table(tmp_path / "t.parquet")), expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"size": 1.0}], "no column 'when', 'city'"),
        ([[1.0, 2.0]], "rows of 5 values"),
        (np.zeros((2, 3)), r"rows of 5 values .* got \(2, 3\)"),
        (["a text"], "rows of 5 values"),
        ("abcde", "rows of 5 values .* got str"),
        ([[1.0, "soon", "B", True, 7]], "column 'when', row 1: 'soon' is not a date"),
    ],
)
def test_what_is_no_row_is_told(table, values, said):
    with pytest.raises(DataError, match=said):
        table.encode(values)
