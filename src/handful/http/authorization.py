"""Who asks: the key in the Authorization header, and what it allows."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.datastructures import Headers

from handful.errors import UserError

SCOPES = ("predict", "write", "admin")
"""Each allows what those before it allow."""

KEY_NAMES = {"key", "api_key", "apikey", "api-key", "token", "access_token", "authorization", "bearer"}
"""Parameters of a query that people send keys in."""


@dataclass(frozen=True)
class Identity:
    """Whose request it is. key: the public id of the key, which versions and the audit name. scope: of `SCOPES`."""

    tenant: str
    key: str
    scope: str


class Keys(Protocol):
    """What knows the keys."""

    def check(self, token: str) -> Identity:
        """Whose key it is; `UserError` where it is none, or no longer."""
        ...


class OneKey:
    """A server with one key, which allows everything.

    token: the key, of which only a hash is kept.
    """

    def __init__(self, token: str) -> None:
        self._hash = hashlib.sha256(token.encode()).digest()

    def check(self, token: str) -> Identity:
        """The only identity; `UserError` for another key."""
        if not secrets.compare_digest(hashlib.sha256(token.encode()).digest(), self._hash):
            raise UserError("The key is not valid. Check it, or ask for a new one.", code="unauthenticated")
        return Identity("default", "admin", "admin")


def token_of(headers: Headers) -> str:
    """The key of a request; `UserError` where it has none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UserError("Send your key in the header `Authorization: Bearer KEY`.", code="unauthenticated")
    return token.strip()


def check_scope(identity: Identity, scope: str) -> None:
    """Raise a `UserError` where a key does not allow what needs this scope."""
    if SCOPES.index(identity.scope) < SCOPES.index(scope):
        raise UserError(f"This needs a key of the scope {scope!r}, and yours has {identity.scope!r}.", code="forbidden")


def check_query(query: bytes) -> None:
    """Raise a `UserError` where a query string holds a key: addresses are kept in logs and histories."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in KEY_NAMES:
            raise UserError(
                "A key in the address is not taken, since addresses are kept in logs. Send it in the header "
                "`Authorization: Bearer KEY`, and make a new key in place of this one.",
                code="unauthenticated",
            )
