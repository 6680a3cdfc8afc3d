"""Letters drawn from the fonts of matplotlib: an image source in every installation."""

import functools
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor
from torch.nn import functional as F

from handful.pipelines.images import ImagePipeline
from handful.pipelines.pipeline import prepared
from handful.tasks.distribution import Split
from handful.tasks.labeled_pool import LabeledPool
from handful.types import Examples, Task

DEJAVU = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")
FACES = (
    *(f"{family}{style}" for family in DEJAVU[:2] for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"{DEJAVU[2]}{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
"""Named one by one: LastResort in the same folder claims every code point."""

TRAIN_SCRIPTS = ("LATIN", "CYRILLIC")
TEST_SCRIPTS = ("GEORGIAN", "ARMENIAN", "GREEK", "LAO")
FEWEST_FACES = 8
NEARLY_EQUAL = 0.97
"""Letters whose faces have a mean cosine similarity above this are one shape: A of Latin, Greek and Cyrillic."""
FONT_SIZE, CANVAS, SIZE = 44, 64, 28


class Glyphs(LabeledPool):
    """Letters of six scripts in 16 type faces, 28x28: train on Latin and Cyrillic, test on scripts never seen.

    A class is an unaccented letter shape with at least 8 faces; an instance is a face with a random affine jitter.
    Support and query of a task never share a face. Three quarters of the Cyrillic shapes train, the rest validates;
    Georgian, Armenian, Greek and Lao test. This is type design, not handwriting: letters of one typeface are alike.
    """

    key = "glyphs"
    pipeline = ImagePipeline(size=SIZE, channels=1, invert=True)

    def __init__(self, *, seed: int = 0) -> None:
        letters = _letters()
        cyrillic = [i for i, name in enumerate(letters.names) if name.startswith("CYRILLIC")]
        # Every fourth one validates: capital and small forms and relatives stand side by side in Unicode.
        held_out = set(cyrillic[::4])
        splits: dict[Split, Sequence[int]] = {
            "train": [i for i, n in enumerate(letters.names) if n.startswith(TRAIN_SCRIPTS) and i not in held_out],
            "val": sorted(held_out),
            "test": [i for i, name in enumerate(letters.names) if name.startswith(TEST_SCRIPTS)],
        }
        super().__init__(
            letters.images,
            letters.labels,
            letters.names,
            splits=splits,
            groups=letters.faces,
            repeats=True,
            seed=seed,
        )

    def prepare(self, raw: Tensor, generator: Generator) -> Tensor:
        """Faces `(n, 1, 32, 32)` as jittered letters `(n, 1, 28, 28)`, ink 1 on 0."""
        return warp(raw, jitter(len(raw), generator))

    def batch(self, indices: Sequence[int]) -> Task:
        """As `task(i)` for each, all letters drawn in one go."""
        tasks, ids, maps = [], [], []
        for index in indices:
            generator = self.generator_of(index)
            draw = self.draw(generator, self.sizes_of(index))
            tasks.append(draw)
            ids.append(torch.cat([draw.support, draw.query]))
            maps.append(jitter(len(ids[-1]), generator))
        inputs = warp(self.inputs[torch.cat(ids)], torch.cat(maps))
        inputs = inputs.view(len(tasks), -1, *inputs.shape[1:])
        count = len(tasks[0].support)
        one = self._task(tasks[0], inputs[0, :count], inputs[0, count:])
        return Task(
            Examples(inputs[:, :count], one.support.targets.expand(len(tasks), -1).clone()),
            Examples(inputs[:, count:], one.query.targets.expand(len(tasks), -1).clone()),
        )


class _Letters(NamedTuple):
    images: Tensor  # (n, 1, 32, 32) bytes
    labels: Tensor  # (n,)
    faces: Tensor  # (n,)
    names: list[str]


@functools.cache
def _letters() -> _Letters:
    """All letter shapes in all their faces: half a second of drawing, once per process."""
    drawn, has, names = _draw_all()
    keep = _distinct(drawn, has)
    labels, faces = np.nonzero(has[keep])
    return _Letters(
        torch.from_numpy(drawn[keep][labels, faces]).unsqueeze(1),
        torch.from_numpy(labels),
        torch.from_numpy(faces),
        [names[i] for i in keep],
    )


def _draw_all() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images `(letters, faces, 32, 32)`, which of them exist `(letters, faces)`, and Unicode names by script."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    covered = [set(FT2Font(str(folder / f"{face}.ttf")).get_charmap()) for face in FACES]
    scripts = TRAIN_SCRIPTS + TEST_SCRIPTS
    letters = [
        (scripts.index(script), code, name)
        for code in sorted(set().union(*covered))
        if (name := _letter_name(code)) and (script := name.split()[0]) in scripts
        if sum(code in codes for codes in covered) >= FEWEST_FACES
    ]
    letters.sort()
    has = np.array([[code in codes for codes in covered] for _, code, _ in letters])
    images = np.zeros((*has.shape, CANVAS // 2, CANVAS // 2), np.uint8)
    for face, name in enumerate(FACES):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), FONT_SIZE)
        for index in np.flatnonzero(has[:, face]):
            images[index, face] = _draw(chr(letters[index][1]), font)
    return images, has, [name for _, _, name in letters]


def _letter_name(code: int) -> str:
    """The Unicode name of an unaccented letter, else nothing."""
    character = chr(code)
    if unicodedata.category(character) not in ("Lu", "Ll", "Lo") or unicodedata.decomposition(character):
        return ""
    name = unicodedata.name(character, "")
    return "" if " WITH " in name else name


def _draw(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """One letter centered on its canvas, bright ink, at half size (smooth enough to be warped)."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(canvas)
    left, top, right, bottom = pen.textbbox((0, 0), character, font=font)
    middle = CANVAS / 2
    pen.text((middle - (left + right) / 2, middle - (top + bottom) / 2), character, fill=255, font=font)
    return np.asarray(canvas.reduce(2))


def _distinct(images: np.ndarray, has: np.ndarray) -> list[int]:
    """The first of each group of nearly equal shapes, in the order of scripts: a test letter equals no training one."""
    pixels = images.reshape(*images.shape[:2], -1).astype(np.float32)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=-1, keepdims=True), 1e-6)
    shared = has.astype(np.float32) @ has.T.astype(np.float32)
    similarity = np.einsum("afp,bfp->ab", pixels, pixels, optimize=True) / np.maximum(shared, 1)
    keep: list[int] = []
    for index in range(len(images)):
        if not keep or similarity[index, keep].max() < NEARLY_EQUAL:
            keep.append(index)
    return keep


def jitter(count: int, generator: Generator) -> Tensor:
    """Random maps `(count, 2, 3)` from output to input coordinates: rotation within 20 degrees, a scale of 0.75 to 1.2
    per axis, shear within 0.25, shift within 4 of 64 pixels."""
    uniform = torch.rand(6, count, generator=generator)
    low = torch.tensor([-math.radians(20), 0.75, 0.75, -0.25, -4 / 32, -4 / 32]).unsqueeze(1)
    high = torch.tensor([math.radians(20), 1.2, 1.2, 0.25, 4 / 32, 4 / 32]).unsqueeze(1)
    angle, wide, tall, shear, right, down = low + uniform * (high - low)
    cos, sin = angle.cos(), angle.sin()
    # The inverse of rotation @ shear @ scale, written out.
    linear = torch.stack(
        [
            torch.stack([(cos + shear * sin) / wide, (sin - shear * cos) / wide], dim=-1),
            torch.stack([-sin / tall, cos / tall], dim=-1),
        ],
        dim=1,
    )
    shift = torch.stack([right, down], dim=-1).unsqueeze(-1)
    return torch.cat([linear, -linear @ shift], dim=-1)


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Byte images `(n, 1, h, w)` under affine maps `(n, 2, 3)` as floats from 0 to 1, `(n, 1, 28, 28)`."""
    grid = F.affine_grid(maps, [len(images), 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(prepared(images), grid, align_corners=False)
