"""Limits of `handful serve`, set by environment variables."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from handful.errors import UserError
from handful.http.limits import DEFAULTS, RequestLimits
from handful.serving.quotas import Quotas
from handful.serving.service import STATE_BYTES

PREFIX = "HANDFUL_MAX_"
FIRM = ("json_depth", "upload_files", "unpacked_bytes")
"""Limits that can only be lowered: the readers of contents have these maxima."""

Some = TypeVar("Some", RequestLimits, Quotas)


class ServerLimits(NamedTuple):
    """The limits of a server.

    state_bytes: for the states of one model in memory.
    """

    requests: RequestLimits
    quotas: Quotas
    state_bytes: int


def limits_of(environment: Mapping[str, str]) -> ServerLimits:
    """The limits from variables such as HANDFUL_MAX_JSON_BYTES, and defaults for the others.

    Raises `UserError` for a variable that is not a whole number above 0, exceeds its maximum, or names no limit.
    """
    given = {name.removeprefix(PREFIX).lower(): text for name, text in environment.items() if name.startswith(PREFIX)}
    known = [*_names(RequestLimits), *_names(Quotas), "state_bytes"]
    for name in given:
        if name not in known:
            raise UserError(
                f"{_variable(name)} is not a limit. The limits are {', '.join(map(_variable, known))}.",
                code="unknown-name",
            )
    numbers = {name: _number(name, text) for name, text in given.items()}
    return ServerLimits(_made(RequestLimits, numbers), _made(Quotas, numbers), numbers.get("state_bytes", STATE_BYTES))


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _made(kind: type[Some], numbers: Mapping[str, int]) -> Some:
    return kind(**{name: number for name, number in numbers.items() if name in _names(kind)})


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) <= 18 or not int(text):
        raise UserError(f"{_variable(name)} is {text!r:.40}. Give a whole number above 0.")
    if name in FIRM and int(text) > getattr(DEFAULTS, name):
        raise UserError(f"{_variable(name)} is {text}. It can be {getattr(DEFAULTS, name)} at most.")
    return int(text)


def _variable(name: str) -> str:
    return PREFIX + name.upper()
