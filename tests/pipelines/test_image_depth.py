"""Images of more than 8 bits: black and white are those of the training images, and one dark picture stays dark."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from handful.errors import DataError
from handful.notes import collecting
from handful.pipelines.images import ImagePipeline
from handful.pipelines.pipeline import InputPipeline
from handful.tasks.opening import open_tasks
from noted import noted, nothing_noted

RAMP = np.tile(np.arange(0, 256, 8), (32, 1))
RAMP[:9] = 0
"""32 levels of gray, from black to almost white."""
DEPTHS = {  # what a ramp is saved as, and where black and white then are
    "16 bits": (RAMP * 257, np.uint16, "png", (0, 65535)),
    "14 bits in 16": (RAMP * 64, np.uint16, "png", (0, 16383)),
    "12 bits in 16": (RAMP * 16, np.uint16, "tif", (0, 4095)),
    "10 bits in 16": (RAMP * 4, np.uint16, "jp2", (0, 1023)),
    "8 bits in 16": (RAMP, np.uint16, "png", (0, 255)),
    "8 bits in 32": (RAMP, np.int32, "tif", (0, 255)),
    "24 bits in 32": (RAMP * 65536, np.int32, "tif", (0, 2**24 - 1)),
    "16 bits of a PGM": (RAMP * 257, np.uint16, "pgm", (0, 65535)),
    "signed": (RAMP - 128, np.int32, "tif", (-128, 120)),
    "floats": (RAMP / 255, np.float32, "tif", (0, 1)),
    "floats of a unit": (RAMP * 10.0 - 400, np.float32, "tif", (-400, 2080)),
}


def written(values, suffix="tif"):
    content = io.BytesIO()
    kind = {"tif": "TIFF", "png": "PNG", "pgm": "PPM", "jp2": "JPEG2000"}[suffix]
    Image.fromarray(values).save(content, kind, **({"irreversible": False} if suffix == "jp2" else {}))
    return content.getvalue()


def pipeline_of(*images, **options):
    with collecting():
        return ImagePipeline.fit(images, np.arange(len(images)), **options)


def of_12_bits():
    return pipeline_of(written((RAMP * 16).astype(np.uint16)), size=32)


@pytest.mark.parametrize("depth", DEPTHS)
def test_all_levels_of_training_images_are_left(depth, tmp_path):
    values, dtype, suffix, levels = DEPTHS[depth]
    for number in range(10):
        (tmp_path / f"c{number}").mkdir()
        for place in range(2):
            (tmp_path / f"c{number}" / f"{place}.{suffix}").write_bytes(written(values.astype(dtype), suffix))
    with noted("have more than 8 bits. The training images have"):
        tasks = open_tasks(tmp_path, image_size=32)
    assert tasks.pipeline.config() == {
        "kind": "images", "size": 32, "channels": 1, "invert": False, "levels": list(levels)
    }  # fmt: skip
    assert tasks.inputs.dtype == torch.float32
    assert torch.equal(tasks.inputs[0, 0], torch.from_numpy(values.astype(dtype)).float())
    seen = tasks.with_sizes(way=2, shot=1, query_shot=1).task(0).support.inputs[0, 0]
    shares = (values - levels[0]) / (levels[1] - levels[0])
    np.testing.assert_allclose(seen.numpy(), shares, atol=1e-6)
    again = InputPipeline.from_config(json.loads(json.dumps(tasks.pipeline.config())))
    assert torch.equal(again.encode([written(values.astype(dtype), suffix)])[0, 0], seen)


def test_one_dark_picture_stays_dark():
    bright, dark = ((RAMP * factor).astype(np.uint16) for factor in (16, 1))
    pipeline = pipeline_of(written(bright), written(dark), size=32)
    lit, unlit = pipeline.encode([written(bright), written(dark)])
    torch.testing.assert_close(unlit, lit / 16)
    assert pipeline.described() == "gray images of 32 x 32 pixels, 12 bits from 0 to 4,095"
    floats = written((RAMP * 10.0 - 400).astype(np.float32))
    assert pipeline_of(floats, size=32).described().endswith("pixels, values from -400 to 2,080")


def test_levels_are_those_of_the_training_images_alone(tmp_path):
    images = [written(np.full((8, 8), value, np.uint16)) for value in [*range(0, 4000, 40), 60_000]]
    for count, white, said in (
        (20, 1023, "10 bits from 0 to 1,023"),
        (100, 4095, "12 bits from 0 to 4,095"),
        (101, 65535, "16 bits"),
    ):
        with noted(f"The training images have {said}"):
            assert ImagePipeline.fit(images, np.arange(count)).levels == (0, white), "of all of them, not of a sample"


def test_8_bits_stay_bytes():
    pipeline = pipeline_of(RAMP.astype(np.uint8), size=32)
    assert pipeline.config() == {"kind": "images", "size": 32, "channels": 1, "invert": False}
    stored = pipeline.stored([RAMP.astype(np.uint8)])
    assert stored.dtype == torch.uint8
    assert torch.equal(pipeline.prepare(stored), stored.float() / 255)


def test_deep_images_are_framed_and_inverted_as_those_of_8_bits():
    """To a level of 8 bits, in which the latter are rounded; edges are no steeper than that both overshoot alike."""
    noise = np.kron(np.random.default_rng(0).integers(150, 200, (5, 9)), np.ones((7, 7))).astype(np.uint8)
    noise[10:20, 10:30] = 90
    shallow, deep = pipeline_of(noise, size=20), pipeline_of(noise.astype(np.uint16) * 257, size=20)
    assert shallow.invert
    assert deep.invert
    expected = shallow.encode([noise])
    torch.testing.assert_close(deep.encode([noise.astype(np.uint16) * 257]), expected, atol=1.5 / 255, rtol=0)


def test_images_of_another_depth_count_by_their_own_full_range():
    deep, shallow = of_12_bits(), ImagePipeline(size=32)
    with noted("of 8 bits are read with black and white mapped to those of the training images"):
        given = deep.encode([RAMP.astype(np.uint8)])
    torch.testing.assert_close(given[0, 0].double(), torch.from_numpy(RAMP / 255), atol=1e-6, rtol=0)
    with noted("of 16 bits are read with white as 65,535"):
        assert torch.equal(shallow.stored([written((RAMP * 257).astype(np.uint16))])[0, 0], torch.from_numpy(RAMP))
    with pytest.raises(DataError, match="Input 0 has values from 0 to 248 in 32 bits, without a defined white"):
        shallow.encode([written(RAMP.astype(np.int32))])
    with pytest.raises(DataError, match=r"Input 0 has values from 0 to 24\.8 in 32 bits"):
        shallow.encode([written((RAMP / 10).astype(np.float32))])
    with nothing_noted():
        assert torch.equal(shallow.stored([written((RAMP / 255).astype(np.float32))])[0, 0], torch.from_numpy(RAMP))


def test_a_set_of_both_depths_is_noted_in_training(tmp_path):
    color = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pipeline = pipeline_of(color, (RAMP * 16).astype(np.uint16))
    assert (pipeline.channels, pipeline.levels) == (3, (0, 4095))
    with noted("of 8 bits are read with"):
        both = pipeline.encode([color, (RAMP * 16).astype(np.uint16)])
    torch.testing.assert_close(both[0], torch.from_numpy(color).permute(2, 0, 1) / 255)
    assert torch.equal(both[1, 0], both[1, 2])


def test_what_is_far_beyond_the_training_images_is_cut_off_with_a_note():
    pipeline = of_12_bits()
    values = np.full((32, 32), 4095, np.uint16)
    with nothing_noted():
        values[0] = 8000
        assert pipeline.encode([values]).max() == pytest.approx(8000 / 4095)
    values[0] = 65535
    with noted(r"far outside the range of the training images \(12 bits from 0 to 4,095\)") as notes:
        assert pipeline.encode([values, values]).max() == 2
    assert [note.count for note in notes] == [2]


@pytest.mark.parametrize("fill", [np.nan, np.inf, -3.4e38])
def test_what_stands_for_a_missing_value_is_an_error(fill):
    values = RAMP.astype(np.float32)
    values[3, 5] = fill
    for read in (lambda: pipeline_of(written(values)), lambda: of_12_bits().encode([written(values)])):
        with pytest.raises(DataError, match=rf"Input 0: the pixel in row 3, column 5 is {re.escape(f'{fill:g}')}"):
            read()


def test_whole_numbers_of_any_type_are_pixels_and_floats_are_as_learners_see_them():
    shallow, deep = ImagePipeline(size=32), of_12_bits()
    for dtype in (np.int64, np.int32, np.uint32, np.uint8):
        assert torch.equal(shallow.stored(RAMP[None].astype(dtype))[0, 0], torch.from_numpy(RAMP))
    assert torch.equal(shallow.stored([RAMP.tolist()])[0, 0], torch.from_numpy(RAMP))
    with pytest.raises(DataError, match=r"integer values from 0 to 3,968, .* of 8 bits: 0 to 255"):
        shallow.encode(RAMP[None] * 16)
    for dtype in (np.int64, np.int32, np.uint32, np.uint16):
        assert torch.equal(deep.stored((RAMP[None] * 16).astype(dtype))[0, 0], torch.from_numpy(RAMP * 16).float())
    for pipeline in (deep, pipeline_of(written((RAMP * 10.0 - 400).astype(np.float32)), size=32)):
        floats = torch.rand(2, 1, 32, 32)
        assert torch.equal(pipeline.encode(floats), floats)
        assert torch.equal(pipeline.encode(floats.flatten(1)), floats)
    with pytest.raises(DataError, match="different shapes"):
        shallow.encode([np.zeros((2, 2)), np.zeros((3, 3))])
