"""Images of requests are read as the library reads the same bytes, or refused with the same code."""

import base64
import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from handful import Service
from handful.errors import DataError
from handful.http.json_inputs import inputs_of
from handful.http.problems import of_error
from handful.learners.prototypical import PrototypicalNetwork
from handful.limits import SERVICE
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.images import ImagePipeline
from handful.types import TaskSpec

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
COLOR = Image.fromarray(PIXELS)
DEEP = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
WIDE = Image.new("L", (5001, 5000))


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(COLOR, "JPEG", exif=exif)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb():
    """A GIF whose header is of one pixel, and whose frame is of 60,000 by 60,000."""
    content = bytearray(saved(COLOR.convert("P"), "GIF"))
    frame = content.index(b",")
    content[6:10] = struct.pack("<HH", 1, 1)
    content[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    return bytes(content)


READ = {
    "gray": saved(COLOR.convert("L")),
    "color": saved(COLOR),
    "16 bits": saved(DEEP),
    "palette": saved(COLOR.quantize(7)),
    "palette with a transparent color": saved(COLOR.quantize(7), transparency=0),
    "transparent": saved(Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))),
    "one bit": saved(COLOR.convert("1")),
    "jpeg": saved(COLOR, "JPEG"),
    "cmyk": saved(COLOR.convert("CMYK"), "JPEG"),
    "rotated": rotated(),
    "webp": saved(COLOR, "WEBP", lossless=True),
    "bmp": saved(COLOR, "BMP"),
    "gif": saved(COLOR.quantize(9), "GIF", save_all=True, append_images=[COLOR.quantize(3)]),
}
REFUSED = {
    "tiff": (saved(COLOR, "TIFF"), 415),
    "avif": (saved(COLOR, "AVIF"), 415),
    "postscript": (saved(COLOR, "EPS"), 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "empty": (b"", 422),
    "cut": (READ["color"][:150], 422),
    "only a signature": (READ["color"][:8], 422),
    "no data": (READ["color"][:33] + chunk(b"IEND", b""), 422),
    "too many pixels": (saved(WIDE), 422),
    "a frame larger than its header": (bomb(), 422),
}


def model(channels):
    pipeline = ImagePipeline(size=8, channels=channels)
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)


@pytest.fixture(scope="module", params=[1, 3], ids=["gray model", "color model"])
def world(request, tmp_path_factory):
    """A model, a service, and a task of both."""
    meta = model(request.param)
    support, labels = [READ["jpeg"], READ["webp"], READ["bmp"]], ["a", "b", "b"]
    library = meta.adapt(meta.pipeline.encode(support), labels)
    with Service(meta, tmp_path_factory.mktemp("images") / "store") as service:
        yield meta, library, service, service.create("shelf", support, labels).id


def sent(content):
    return inputs_of([{"image": base64.b64encode(content).decode()}])


def outcome(work):
    """What some work gives with its notes, or the code and the field of its error."""
    with collecting() as notes:
        try:
            return work(), [note.code for note in notes]
        except DataError as error:
            return error.code, error.field


@pytest.mark.parametrize("kind", READ)
def test_an_image_gives_the_digits_of_the_library(world, kind):
    meta, library, service, task = world
    wanted, said = outcome(lambda: meta.predict(library, meta.pipeline.encode([READ[kind]])).logits.softmax(-1)[0])
    made, also_said = outcome(lambda: service.predict(task, sent(READ[kind])))
    if isinstance(wanted, str):
        assert (made, also_said) == (wanted, said)
    else:
        assert list(made.predictions[0].probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-6)
        assert [note.code for note in made.notes] == said


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_has_the_code_of_the_library_and_its_place(world, kind):
    meta, _, service, task = world
    content, status = REFUSED[kind]
    with pytest.raises(DataError) as error:
        service.predict(task, [*sent(READ["color"]), *sent(content)])
    assert error.value.field == ("inputs", 1)
    assert of_error(error.value).response("id").status_code == status
    with pytest.raises(DataError) as same:
        meta.pipeline.stored([content], SERVICE)
    assert (same.value.code, same.value.field) == (error.value.code, ("inputs", 0))


@pytest.mark.parametrize("kind", ["color", "jpeg", "webp", "bmp", "gif", "palette"])
def test_a_damaged_image_is_never_more_than_refused(kind):
    pipeline, generator = ImagePipeline(size=8, channels=3), np.random.default_rng(1)
    for _ in range(25):
        content = bytearray(READ[kind])
        for place in generator.integers(0, len(content), 3):
            content[place] = generator.integers(256)
        found, field = outcome(partial(pipeline.stored, [bytes(content)]))
        assert field == ("inputs", 0) if isinstance(found, str) else found.shape == (1, 3, 8, 8)
