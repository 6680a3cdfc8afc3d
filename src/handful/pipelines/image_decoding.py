"""Images as Pillow decodes them: from files, from memory, within limits."""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from handful.errors import DataError
from handful.limits import FORMATS, LOCAL, Limits
from handful.notes import note

HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""The brands of phone images (HEIC), which Pillow reads with a plugin of another package."""

_check: ContextVar[Callable[[tuple[int, int]], None] | None] = ContextVar("pixels", default=None)
"""The limit on the size of an image in this context."""
_check_of_pillow: Callable[..., None] = Image._decompression_bomb_check


def _check_pixels(size: tuple[int, int], **options: Any) -> None:
    """The check before Pillow allocates an image: its own bound is global to the process, and not ours to set."""
    check = _check.get()
    if check is None:
        _check_of_pillow(size, **options)
    else:
        check(size)


Image._decompression_bomb_check = _check_pixels


def decoded(value: Any, source: str, limits: Limits = LOCAL) -> Image.Image:
    """One image in a mode of 8 bits without transparency; or gray in more: "I;16", "I" of 32 bits, or "F" of floats.

    A camera's orientation flag is applied, and transparency composed on white.

    value: the content of an image file, an image of Pillow, or an array `(h, w)`, `(h, w, 1)` or `(h, w, 3)`.
    source: its name in messages.

    Raises `DataError`: of the code "unsupported-media" for another format than the limits have, "input-too-large" for
    too many pixels, and "invalid-data" for damaged data.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about metadata
            token = _check.set(lambda size: limits.check(source, pixels=size[0] * size[1]))
            try:
                image = _opened(value, limits)
                _check_pixels(image.size)
                _note_lost_bits(image)
                return _flat(image)
            finally:
                _check.reset(token)
    except DataError:
        raise
    except Exception as error:  # decoders raise what comes, on files that are made to harm them
        fault, code = _unread(value, limits)
        raise DataError(f"{source} {fault}", code=code) from error


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _opened(value: Any, limits: Limits) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        known = _known()
        return Image.open(io.BytesIO(value), formats=[name for name in limits.formats if name in known])
    array = np.asarray(value)
    if array.shape[2:] == (3,) and array.dtype == np.uint16:
        _note_bits_lost()
        array = (array >> 8).astype(np.uint8)
    return Image.fromarray(array.squeeze(-1) if array.shape[2:] == (1,) else array)


def _known() -> dict[str, Any]:
    """All formats that Pillow can open."""
    Image.init()
    if "HEIF" not in Image.OPEN:
        _register_plugin()
    return Image.OPEN


@functools.cache  # to look for a package that is not there takes longer than to decode a small image
def _register_plugin() -> None:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _unread(value: Any, limits: Limits) -> tuple[str, str]:
    """The fault of a value that was not decoded, with the way out, and the code of the error."""
    if not isinstance(value, bytes | bytearray | memoryview | Image.Image):
        of_type = f"of type {type(value).__name__}"
        what = f"an array {value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else of_type
        way = "Give the content of an image file, an image of Pillow, or an array (height, width[, 3]) of uint8"
        return f"is not an image, but {what}. {way}.", "wrong-shape"
    head = b"" if isinstance(value, Image.Image) else bytes(value[:16])
    if head[4:8] == b"ftyp" and head[8:12] in HEIF and "HEIF" not in Image.OPEN:
        why = "is in HEIC, which needs the package pillow-heif. Install it, or save the image as JPEG."
        return why, "unsupported-media"
    known = False
    for name in FORMATS:
        accepts = Image.OPEN[name][1] if name in Image.OPEN else None
        answer = accepts(head) if accepts and head else False
        known |= answer is True
        if answer and (name not in limits.formats or isinstance(answer, str)):
            why = f"this Pillow cannot read: {answer}" if isinstance(answer, str) else "is not supported"
            others = [other for other in limits.formats if other != name]
            return f"is in {name}, which {why}. Save it as {' or '.join(others[:2])}.", "unsupported-media"
    empty = not isinstance(value, Image.Image) and not head
    what = "is empty (0 bytes)" if empty else "is not an image that can be read"
    code = "unsupported-media" if head and not known else "invalid-data"
    return f"{what}. Remove it, or replace it with an intact image.", code


def _note_lost_bits(image: Image.Image) -> None:
    if not is_deep(image) and any(";16" in str(tile) for tile in getattr(image, "tile", [])):
        _note_bits_lost()


def _note_bits_lost() -> None:
    note("bits-lost", "Color or transparent images with 16 bits are read with the upper 8 bits.")


def _flat(image: Image.Image) -> Image.Image:
    """An image rotated by its orientation flag, with transparency composed on white."""
    if image.mode == "I" and image.format == "PPM":  # Pillow scales it to 16 bits, whatever it has
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    image = ImageOps.exif_transpose(image)
    if not is_deep(image) and image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
