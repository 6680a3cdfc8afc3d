"""The lines of the log: each one object of JSON, written without spaces."""

import json
import logging
from typing import Any

import msgspec

OURS = "handful.http", "handful.serving"
"""Logs of the server and of the service below it."""
OTHERS = "asyncio", "uvicorn.error"
"""Logs of what runs them, whose messages are plain text."""

_encoder = msgspec.json.Encoder()


def log_line(event: str, **facts: Any) -> str:
    """One of them.

    event: what it is about.
    facts: what is known of that, of which nothing is a label or an input.
    """
    return _encoder.encode({"event": event, **facts}).decode()


class LineFormatter(logging.Formatter):
    """Writes each record as one such line, with the traceback of an error in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line, ours = record.getMessage(), record.name in OURS
        if ours and not record.exc_info:
            return line
        facts = json.loads(line) if ours else {"event": "log", "log": record.name, "message": line}
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return json.dumps(facts, separators=(",", ":"))  # msgspec refuses what is no Unicode
