"""The lines of the log: each one object of JSON, written without spaces."""

from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()


def log_line(event: str, **facts: Any) -> str:
    """One of them. event: what it is about. facts: what is known of that, of which nothing is a label or an input."""
    return _encoder.encode({"event": event, **facts}).decode()
