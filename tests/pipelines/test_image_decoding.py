"""Which formats of images are read, and what is said of the others."""

import io
import struct
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from handful.errors import DataError
from handful.limits import FORMATS, LOCAL, SERVICE
from handful.pipelines import image_decoding
from handful.pipelines.image_decoding import decoded
from handful.pipelines.images import ImagePipeline
from handful.readers.images import IMAGES
from noted import noted

GRAY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
DEEP_COLOR = (np.arange(48).reshape(4, 4, 3) * 1000).astype(np.uint16)


def saved(kind, image=GRAY):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def deep_color_png():
    """A PNG in color with 16 bits a channel, which Pillow does not write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in DEEP_COLOR.astype(">u2")))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "HEIF"])
def test_every_format_is_read_where_it_is_allowed(kind):
    content = saved(kind)
    assert decoded(content, "x").size == (8, 8)
    others = replace(LOCAL, formats=tuple(name for name in FORMATS if name != kind))
    with pytest.raises(DataError, match=rf"^x is in {kind}, which is not supported\. Save it as") as caught:
        decoded(content, "x", others)
    assert kind not in str(caught.value).partition("Save it as")[2].split(), "the way out"


def test_a_service_reads_fewer_formats():
    assert decoded(saved("WEBP"), "x", SERVICE).size == (8, 8)
    for kind in ("TIFF", "AVIF", "JPEG2000", "PPM"):
        with pytest.raises(DataError, match=f"is in {kind}, .* Save it as PNG or JPEG"):
            decoded(saved(kind), "x", SERVICE)


def test_no_limits_allow_a_format_that_runs_programs():
    content = saved("EPS")
    with pytest.raises(DataError, match="is not an image that can be read"):
        decoded(content, "x")
    assert "EPS" not in FORMATS


@pytest.fixture
def _no_plugin(monkeypatch):
    """Nobody has looked for the plugin yet."""
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    image_decoding._register_plugin.cache_clear()
    yield
    image_decoding._register_plugin.cache_clear()


@pytest.mark.usefixtures("_no_plugin")
def test_heic_is_named_with_the_package_that_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"is in HEIC, .*pillow-heif.*or save the image as JPEG"):
        ImagePipeline(size=8).encode([HEIC])


@pytest.mark.usefixtures("_no_plugin")
def test_a_plugin_that_is_not_there_is_looked_for_once(monkeypatch):
    looked = []

    class Finder:
        @staticmethod
        def find_spec(name, path, target=None):
            if name == "pillow_heif":
                looked.append(name)
                raise ImportError("no such package")

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "pillow_heif", raising=False)
    for _ in range(3):
        decoded(saved("PNG"), "x")
    assert len(looked) == 1


@pytest.mark.usefixtures("_no_plugin")
def test_heic_is_read_where_its_plugin_is_there(monkeypatch):
    """The plugin stands in for the package, which is none of ours."""

    class Plugin:
        @staticmethod
        def register_heif_opener():
            opened = Image.OPEN["PNG"][0]
            Image.register_open(
                "HEIF", lambda file, name: opened(io.BytesIO(saved("PNG"))), lambda head: b"ftyp" in head
            )

    monkeypatch.setitem(sys.modules, "pillow_heif", Plugin)
    try:
        assert decoded(HEIC, "x").size == (8, 8)
        with pytest.raises(DataError, match="is in HEIF, which is not supported"):
            decoded(HEIC, "x", SERVICE)
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")


def test_files_of_all_formats_are_found_by_their_names():
    assert {".heic", ".heif", ".jfif", ".avif", ".jp2"} <= IMAGES


def test_bits_that_pillow_does_not_read_are_noted():
    with noted("with 16 bits are read with the upper 8 bits"):
        expected = ImagePipeline(size=4, channels=3).encode([deep_color_png()])
    for values in ([DEEP_COLOR], DEEP_COLOR[None]):
        with noted("with 16 bits are read with the upper 8 bits"):
            assert torch.equal(ImagePipeline(size=4, channels=3).encode(values), expected)


def test_an_error_says_whether_the_format_or_the_file_is_wrong():
    """Of a service, the first is 415 and the second 422."""
    for content in (saved("PNG")[:40], b"\xff\xd8\xff", b""):
        with pytest.raises(DataError) as error:
            ImagePipeline(size=8).stored([saved("GIF"), content], SERVICE)
        assert (error.value.code, error.value.field) == ("invalid-data", ("inputs", 1))
    for content in (saved("TIFF"), saved("EPS"), b"text"):
        with pytest.raises(DataError) as error:
            ImagePipeline(size=8).stored([content], SERVICE)
        assert error.value.code == "unsupported-media"
