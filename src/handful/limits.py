"""Limits on the size of files when they are read: a small archive may contain a huge file."""

import sys
from dataclasses import dataclass

from handful.errors import DataError

SAFE = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Image formats with small and widely tested decoders."""
FORMATS = (*SAFE, "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
"""All formats of images that are read; not PostScript, for which Pillow would run a program."""


@dataclass(frozen=True)
class Limits:
    """Limits on reading one file.

    bytes: of its content, unpacked, and of the table or arrays that it makes.
    rows: of a table or of arrays, and lines of texts.
    pixels: of an image, by its header.
    images: of a folder, in all its class folders.
    formats: of images, by Pillow's names, regardless of the file's name.
    """

    bytes: int
    rows: int
    pixels: int
    images: int
    formats: tuple[str, ...] = SAFE

    def check(self, source: object, *, bytes: int = 0, rows: int = 0, pixels: int = 0, images: int = 0) -> None:
        """Raise `DataError` that names the source if it exceeds the limit."""
        for found, most, unit in (
            (bytes, self.bytes, "bytes"),
            (rows, self.rows, "rows"),
            (pixels, self.pixels, "pixels"),
            (images, self.images, "images"),
        ):
            if found > most:
                raise DataError(
                    f"{source} has {found:,} {unit} or more; at most {most:,} are read.",
                    code="input-too-large" if unit == "pixels" else "payload-too-large",
                    hint="Make it smaller, or if this size is intended, lift the limits with {limits}.",
                )


LOCAL = Limits(bytes=4 * 2**30, rows=10_000_000, pixels=100_000_000, images=1_000_000, formats=FORMATS)
"""Limits for the user's own files: beyond them, a mistake or an attack."""
SERVICE = Limits(bytes=256 * 2**20, rows=100_000, pixels=25_000_000, images=2_000)
"""Limits for files from clients."""
UNLIMITED = Limits(bytes=sys.maxsize, rows=sys.maxsize, pixels=sys.maxsize, images=sys.maxsize, formats=FORMATS)
