"""Images of requests: the bytes of their files. What they hold is looked at by the pipeline that decodes them."""

import binascii
from typing import Any

from handful.errors import DataError
from handful.http.limits import DEFAULTS, RequestLimits


def image_of(value: Any, limits: RequestLimits = DEFAULTS) -> bytes:
    """The content of the file of an image.

    value: its base64 form (RFC 4648, section 4), with padding and without line breaks.

    Raises `DataError` for anything else, and for more bytes than the limits.
    """
    try:
        if type(value) is not str:
            raise TypeError("no text")
        content = binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except (TypeError, ValueError):
        raise DataError(
            "An image must be the base64 form of its file, without line breaks and without a prefix."
        ) from None
    return checked_image(content, limits)


def checked_image(content: bytes, limits: RequestLimits = DEFAULTS) -> bytes:
    """The content of the file of an image; `DataError` if it is larger than the limits."""
    if len(content) > limits.image_bytes:
        raise DataError(f"The image has more than {limits.image_bytes:,} bytes.", code="input-too-large")
    return content
