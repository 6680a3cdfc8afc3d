"""The content of requests: JSON, or where that would be large, JSON with images in parts of their own."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

TASK = "task"
"""The part that is JSON."""
JSON_ALONE = 2 * 2**20
"""Bytes of JSON from which images are sent in parts: they need a third more in JSON, of which servers take less."""


class Part(NamedTuple):
    """A part of a request.

    media: its type.
    """

    name: str
    content: bytes
    media: str = "application/octet-stream"


def as_json(body: Any) -> bytes:
    """A body as JSON, in which the bytes of images are base64."""
    return msgspec.json.encode(body)


def as_parts(body: Any, most: int = JSON_ALONE) -> list[Part]:
    """A body in parts: JSON, and the images that it names; none where it is no larger than that, or has no images.

    most: bytes that it may have as JSON.
    """
    images: list[bytes] = []
    named = _named(body, images)
    if not images or sum(map(_size_of_image, images)) <= most:
        return []
    parts = [Part(_name(place), image) for place, image in enumerate(images)]
    return [Part(TASK, as_json(named), "application/json"), *parts]


def in_parts(inputs: Sequence[Any], rows: int, size: int) -> Iterator[Sequence[Any]]:
    """Written inputs in their order, in pieces of at most so many, and of so many bytes of JSON unless one alone has
    more."""
    piece: list[Any] = []
    held = 0
    for value in inputs:
        own = len(as_json(value))
        if piece and (len(piece) == rows or held + own > size):
            yield piece
            piece, held = [], 0
        piece.append(value)
        held += own + 1
    yield piece


def _named(value: Any, images: list[bytes]) -> Any:
    """A value with the names of parts in place of its images, which are added to a list."""
    if isinstance(value, dict):
        if value.keys() == {"image"} and isinstance(value["image"], bytes):
            images.append(value["image"])
            return {"image": _name(len(images) - 1)}
        return {name: _named(one, images) for name, one in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [_named(one, images) for one in value]
    return value


def _name(place: int) -> str:
    return f"image-{place}"


def _size_of_image(image: bytes) -> int:
    return len(image) * 4 // 3
