"""How much a file may become when it is read: a small one may hold a huge one."""

import sys
from dataclasses import dataclass

from handful.errors import DataError

SAFE = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Formats of images whose decoders are as small and as widely tried as such get."""
FORMATS = (*SAFE, "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
"""All formats of images that are read; not PostScript, for which Pillow would run a program."""


@dataclass(frozen=True)
class Limits:
    """The most that is read of one file.

    bytes: of its content, unpacked, and of the table or arrays that it makes. rows: of a table or of arrays, and lines
    of texts. pixels: of an image, by its header. images: of a folder, in all its class folders. formats: how an image
    may be stored, as Pillow calls it, whatever the file is called.
    """

    bytes: int
    rows: int
    pixels: int
    images: int
    formats: tuple[str, ...] = SAFE

    def check(self, source: object, *, bytes: int = 0, rows: int = 0, pixels: int = 0, images: int = 0) -> None:
        """Raise a `DataError` that names the source where it has more than that."""
        for found, most, unit in (
            (bytes, self.bytes, "bytes"),
            (rows, self.rows, "rows"),
            (pixels, self.pixels, "pixels"),
            (images, self.images, "images"),
        ):
            if found > most:
                raise DataError(
                    f"{source} holds {found:,} {unit} or more; at most {most:,} are read.",
                    code="input-too-large" if unit == "pixels" else "payload-too-large",
                    hint="Make it smaller, or if it is meant to be so large, lift the limits with {limits}.",
                )


LOCAL = Limits(bytes=4 * 2**30, rows=10_000_000, pixels=100_000_000, images=1_000_000, formats=FORMATS)
"""Of one's own files: what surely is a mistake or an attack."""
SERVICE = Limits(bytes=256 * 2**20, rows=100_000, pixels=25_000_000, images=2_000)
"""Of files that strangers send."""
UNLIMITED = Limits(bytes=sys.maxsize, rows=sys.maxsize, pixels=sys.maxsize, images=sys.maxsize, formats=FORMATS)
