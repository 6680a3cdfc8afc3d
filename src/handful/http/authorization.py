"""Who asks: the key in the Authorization header, and never one in an address."""

from urllib.parse import parse_qsl

from starlette.datastructures import Headers

from handful.errors import UserError

KEY_NAMES = {"key", "api_key", "apikey", "api-key", "token", "access_token", "authorization", "bearer"}
"""Parameters of a query that people send keys in."""
PREFIX = "hf_"
"""Of a key, whatever the parameter is called."""


def token_of(headers: Headers) -> str:
    """The key of a request; `UserError` if it has none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UserError("Send your key in the header `Authorization: Bearer KEY`.", code="unauthenticated")
    return token.strip()


def check_query(query: bytes) -> None:
    """Raise `UserError` if a query string holds a key: addresses are kept in logs and histories."""
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in KEY_NAMES or value.startswith(PREFIX):
            raise UserError(
                "A key in the address is not accepted, since addresses are logged. Send it in the header "
                "`Authorization: Bearer KEY`, and replace this key.",
                code="unauthenticated",
            )
