"""The expected time and progress of embedding many inputs, on a terminal."""

import sys
import time
from typing import TextIO

from handful.notes import note

EMBEDDING = "embedding"
"""The code of the note of it."""
LONG = 10.0
"""Seconds from which the expected time is announced."""
ENOUGH = 1.0
"""Seconds from which the rest is predicted, since the first inputs take longer than later ones."""


class EmbeddingProgress:
    """Notes the expected time after the first inputs, if it is long, and writes the finished share into one line.

    what: the inputs, in words.
    count: their number.
    least: with fewer nothing is written.
    stream: where to, if it is a terminal.
    """

    def __init__(self, what: str, count: int, least: int = 0, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.what, self.count = what, count
        self.seen = count >= least and self.stream.isatty()
        self.done, self.computed, self.seconds, self.since = 0, 0, 0.0, 0.0
        self.shown, self.told = "", False

    def start(self, done: int) -> None:
        """The next inputs are computed from now on; those before are done, whether computed or found."""
        self.done, self.since = done, time.monotonic()

    def advance(self, count: int) -> None:
        """So many more inputs are computed."""
        now = time.monotonic()
        self.done, self.computed = self.done + count, self.computed + count
        self.seconds, self.since = self.seconds + now - self.since, now
        left = (self.count - self.done) * self.seconds / self.computed
        if self.seconds >= ENOUGH and not self.told:
            self.told = True
            if left > LONG:
                note(EMBEDDING, f"Embedding {self.count:,} {self.what} takes about {_time(left)}, once.")
        if self.seen:
            self._show(left)

    def end(self) -> None:
        """Leave the line as it is."""
        if self.shown:
            self.stream.write("\n")
            self.stream.flush()

    def _show(self, left: float) -> None:
        line = f"Embedding {self.count:,} {self.what}: {self.done / self.count:.0%}, about {_time(left)} left"
        if line != self.shown:
            self.stream.write(f"\r{line.ljust(len(self.shown))}")
            self.stream.flush()
            self.shown = line


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
