"""The content of requests: counted while it comes, and read as JSON that means the same to everyone."""

import json
import math
from collections.abc import AsyncIterable, Collection
from typing import Any

import msgspec
import numpy as np

from handful.errors import DataError, Field
from handful.http.limits import DEFAULTS, RequestLimits

AT_ONCE = 64 * 2**10
"""Bytes of content that are read on the event loop; what has as many or more belongs into a thread."""

_STEPS = bytes(1 if sign in b"[{" else 255 if sign in b"]}" else 0 for sign in range(256))
"""What each byte does to the depth, as a byte with a sign."""
_FLAT = bytes(sign for sign in range(256) if sign not in b"[]{}")
_decoder = msgspec.json.Decoder()


async def collected(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """The bytes of some content as they come; `DataError` as soon as they exceed `most`."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > most:
            raise too_much("The content", most)
    return bytes(content)


def read_json(content: bytes, limits: RequestLimits = DEFAULTS) -> Any:
    """The value that some content stands for, in dicts, lists, texts, ints and finite floats.

    Content of `AT_ONCE` bytes or more takes up to a second: read it in a thread.

    Raises `DataError`, in which nothing of the content is shown: of the code "payload-too-large"; "invalid-json" for
    what is no JSON in UTF-8, is too deep, has half a character (a lone surrogate) or one field twice in an object;
    or "non-finite" for a number that no float is, with its place.
    """
    if len(content) > limits.json_bytes:
        raise too_much("The content", limits.json_bytes)
    if _is_deeper(content, limits.json_depth):  # looked at before: decoders call themselves for each level
        raise DataError(
            f"The content has lists or objects nested more than {limits.json_depth} deep.",
            code="invalid-json",
        )
    try:
        value = _decoder.decode(content)
    except msgspec.ValidationError:
        raise DataError(
            "A number is too large for a 64-bit float.", code="non-finite", field=_place_of_infinity(content)
        ) from None
    except msgspec.DecodeError as error:
        raise DataError(f"The content is not JSON in UTF-8 ({error}).", code="invalid-json") from None
    if _repeats(content, value):
        raise DataError("An object has a field twice. Give each field once.", code="invalid-json")
    return value


def too_much(what: str, most: int, unit: str = "bytes", field: Field = ()) -> DataError:
    """The error about content that exceeds `most`."""
    return DataError(f"{what} has more than {most:,} {unit}. Send less at once.", code="payload-too-large", field=field)


def _is_deeper(content: bytes, most: int) -> bool:
    """Whether lists and objects are more than that deep in one another."""
    if _count(content, b"[") + _count(content, b"{") <= most:
        return False
    steps = np.frombuffer(_without_strings(content).translate(_STEPS, _FLAT), np.int8)
    return len(steps) > most and int(steps.cumsum(dtype=np.int64).max()) > most


def _repeats(content: bytes, value: Any) -> bool:
    """Whether an object of some JSON has a field twice: then it has more colons than fields."""
    fields = _fields(value, _count(content, b"{"))
    return fields != _count(content, b":") and fields != _count(_without_strings(content), b":")


def _count(content: bytes, sign: bytes) -> int:
    """How often a byte is in some content, in half the time that `bytes.count` takes."""
    return int(np.count_nonzero(np.frombuffer(content, np.uint8) == ord(sign)))


def _without_strings(content: bytes) -> bytes:
    """JSON without its strings; a string that never ends reaches to the end."""
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(content.split(b'"')[::2])


def _fields(value: Any, objects: int) -> int:
    """How many fields the objects in a value have together.

    objects: the most of these.
    """
    found, waiting, lists = 0, list[dict[str, Any]](), [[value]]
    while waiting or (lists and objects):  # lists of numbers, which are long, come last, and mostly not at all
        inner: Collection[Any]
        if waiting:
            one = waiting.pop()
            found, objects, inner = found + len(one), objects - 1, one.values()
        else:
            inner = lists.pop()
        kinds = set(map(type, inner))
        if dict in kinds:
            waiting += [each for each in inner if type(each) is dict]
        if list in kinds:
            lists += [each for each in inner if type(each) is list]
    return found


def _place_of_infinity(content: bytes) -> Field:
    """Where the first number is that is none as a float; content: such that a decoder found one."""

    try:
        value = json.loads(content.decode(), parse_int=float)
    except ValueError:  # what follows that number is no JSON
        return ()
    return _path_to(value) or ()


def _path_to(value: Any) -> Field | None:
    """The way to the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ()
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        if (inner := _path_to(part)) is not None:
            return (name, *inner)
    return None
