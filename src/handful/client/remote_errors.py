"""What a server refuses or fails at, as the library's errors."""

from collections.abc import Mapping
from typing import Any

import msgspec

from handful.errors import DataError, Field, HandfulError, UserError

OF_DATA = {413, 415, 422}
"""Statuses that say that what was sent cannot be used."""
NOT_PASSED_ON = "A proxy before the server got no response from it. Check that the server is running."
TOO_LARGE = "A proxy before the server refuses content of this size. Send less at once, or raise the proxy's limit."
OF_A_PROXY = {
    413: ("payload-too-large", TOO_LARGE),
    502: ("failed", NOT_PASSED_ON),
    503: ("unavailable", NOT_PASSED_ON),
    504: ("deadline-exceeded", "A proxy before the server got no response from it in time."),
}
"""The code and the message of what a proxy responds by itself, by status."""


class RemoteError(HandfulError):
    """The server, or a proxy before it, failed or cannot be reached.

    slug: the kind of problem, as `handful.errors.CODES` has them; "" if the response is not a problem of the service.
    status: of the response; None without one.
    request_id: the id of the request in the server's log.
    errors: all errors, if several: pointer, code and detail of each.
    """

    slug = ""
    status: int | None = None
    request_id = ""
    errors: tuple[Mapping[str, str], ...] = ()


class RemoteUserError(RemoteError, UserError):
    """A request that the server refuses: a key, a name, a version."""


class RemoteDataError(RemoteUserError, DataError):
    """Inputs, labels or files that the server refuses."""


def problem_of(status: int, headers: Mapping[str, str], content: bytes) -> RemoteError:
    """The error that a response is which is no success.

    headers: with small letters.
    """
    found = _content(content)
    slug = str(found.get("type", "")).rpartition("/")[2]
    errors = tuple(one for one in found.get("errors") or () if isinstance(one, dict))
    first = errors[0] if errors else {}
    refused: type[RemoteError] = RemoteDataError if status in OF_DATA else RemoteUserError
    kind = refused if 400 <= status < 500 else RemoteError
    code, message = ("", "") if slug else OF_A_PROXY.get(status, ("", ""))
    detail = str(found.get("detail") or "") or message or _without_detail(status, headers)
    if slug == "not-found" and not errors:
        detail += " Check the server's address: it has no path, unless a proxy serves it under one."
    error = kind(
        detail,
        code=str(first.get("code") or slug or code),
        field=place_of(str(first.get("pointer") or "")),
    )
    error.slug, error.status, error.errors = slug, status, errors
    error.request_id = headers.get("x-request-id") or str(found.get("instance") or "")
    return error


def place_of(pointer: str) -> Field:
    """A JSON pointer (RFC 6901) as a place: "/examples/3/input" is ("examples", 3, "input")."""
    steps = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
    return tuple(int(step) if step.isascii() and step.isdecimal() else step for step in steps)


def _content(content: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _without_detail(status: int, headers: Mapping[str, str]) -> str:
    if 300 <= status < 400:
        return f"The server redirects to {headers.get('location', 'another address')}. Use that address."
    return (
        f"The server's response has the status {status} without a reason. Check that the address is that of a handful "
        f"server."
    )
