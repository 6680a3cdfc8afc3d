"""Files of images of all kinds: those that are read, and those that are refused with the status of the answer."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

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
