"""The one shape of everything that goes wrong: problems of RFC 9457, of a closed list of kinds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handful.errors import CODES, Field, HandfulError, OverloadedError, spelled
from handful.http.kinds import KINDS

MEDIA = "application/problem+json"

STATUSES = {
    "client-left": 499,
    "invalid-json": 400,
    "invalid-multipart": 400,
    "input-too-large": 422,
    "other-model": 409,
    "task-too-large": 422,
}
"""Of codes that have another one than their kind."""

FRAMEWORK = {400: "invalid-request", 404: "not-found", 405: "invalid-request", 413: "payload-too-large"}
"""Kinds of problems that the framework finds, by its status."""

SHOWN, LONGEST = 20, 128
"""How many errors one problem lists, and how many characters of a field's name it shows."""

DETAILS = {404: "This path does not exist.", 405: "This path does not support the method."}


@dataclass(frozen=True)
class Problem:
    """What a response says of something that went wrong.

    slug: of `KINDS`.
    detail: for people.
    errors: what is wrong in which part of the content, see `fault`.
    status: the kind's by default.
    headers: further ones of the response.
    """

    slug: str
    detail: str
    errors: tuple[Mapping[str, str], ...] = ()
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> Response:
        """The response to a request of this id."""
        kind = KINDS[self.slug]
        status = self.status or kind.status
        content = {
            "type": f"/problems/{self.slug}",
            "title": kind.title,
            "status": status,
            "detail": self.detail,
            "instance": request_id,
            "errors": list(self.errors),
        }
        headers = {"cache-control": "no-store", **self.headers}
        return Response(json.dumps(content).encode(), status, headers, MEDIA)


UNEXPECTED = Problem(
    "outcome-unknown", "The server failed. The reason is in its log, under this request id.", status=500
)
"""The problem of an unexpected error, whose details are not shown."""


def of_error(error: HandfulError) -> Problem:
    """The problem that an error of the library is; it quotes no input."""
    detail = f"{error.unquoted or error.message} {spelled(error.hint, '/{}'.format)}".rstrip()
    errors, slug = (fault(error.field, error.code, detail),), CODES[error.code]
    seconds = error.retry_after if isinstance(error, OverloadedError) else 1
    return Problem(slug, detail, errors, STATUSES.get(error.code, 0), of_slug(slug, seconds))


def of_slug(slug: str, seconds: int = 1) -> dict[str, str]:
    """Headers that all problems of a kind have.

    seconds: after which a request may be sent again.
    """
    if slug == "unauthenticated":
        return {"www-authenticate": "Bearer"}
    waits = KINDS[slug].status in (429, 503) and slug != "quota-exceeded"  # of which there is more after an erasure
    return {"retry-after": str(seconds), "ratelimit": f'"{slug}";r=0;t={seconds}'} if waits else {}


def of_framework(error: HTTPException) -> Problem:
    """The problem that an error of the framework is, such as an unknown path."""
    slug = FRAMEWORK.get(error.status_code, "invalid-request")
    detail = DETAILS.get(error.status_code, KINDS[slug].title)
    return Problem(slug, detail, status=error.status_code, headers=error.headers or {})


def of_validation(error: RequestValidationError) -> Problem:
    """The problem of a request whose path, query, headers or content are not as the schema says; it shows no value."""
    found = error.errors()
    errors = tuple(fault(_place(one["loc"]), _code(one["type"]), _sentence(one["msg"])) for one in found[:SHOWN])
    first = errors[0]
    detail = f"{first['pointer']}: {first['detail']}" if first["pointer"] else first["detail"]
    more = f" And {len(found) - 1} more." if len(found) > 1 else ""
    return Problem("invalid-request", detail + more, errors)


def fault(place: Field, code: str, detail: str) -> dict[str, str]:
    """What is wrong in one part of a request's content, which a JSON pointer (RFC 6901) names."""
    return {"pointer": pointer(place), "code": code, "detail": detail}


def pointer(place: Field) -> str:
    """A place in JSON, from the outside in; "" is the whole."""
    return "".join("/" + str(step)[:LONGEST].replace("~", "~0").replace("/", "~1") for step in place)


OUTSIDE = ("body", "query", "path", "header")
"""What the framework puts before a place."""


def _place(location: tuple[str | int, ...]) -> Field:
    return location[1:] if location and location[0] in OUTSIDE else location


def _code(kind: str) -> str:
    return kind.replace("_", "-")


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".") + "."
