"""Output to the terminal: messages, progress, notes, JSON and CSV. Imports little, to keep `--help` fast."""

import codecs
import contextlib
import csv
import functools
import io
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from handful.cli.flags import flag
from handful.events import (
    CONTINUED,
    LADDER_PRETRAINING,
    META_TRAINING,
    PRETRAINING,
    Event,
    NoteEvent,
    StepEvent,
    ValidationEvent,
)
from handful.notes import Note, collecting

# Texts are shown as they are: a class may be named [b] or :cat:, which Rich takes for a style and a picture.
_literal = functools.partial(Console, highlight=False, markup=False, emoji=False)
# A terminal gets lines broken between words; a file or a pipe gets each message as one line.
BREAK = re.compile(r"(?<=\S)\n(?=[^\s|])(?![-*] |\d+[.)] )")
"""A line break within a paragraph or a list entry; the next line is no entry, table or indented line."""


def open_closed_streams() -> None:
    """Discard the output to a standard stream that the caller closed (`2>&-`).

    Otherwise the first file that is opened would become that stream and receive the warnings of libraries.
    """
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is that of the stream
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


class Messages(Console):
    """The console for messages. On a full disk they are discarded, and the work continues."""

    def print(self, *objects: Any, **how: Any) -> None:
        """See `rich.console.Console.print`."""
        try:
            super().print(*objects, **how)
        except BrokenPipeError:
            raise
        except OSError:
            go_nowhere(sys.stderr)


def go_nowhere(stream: TextIO) -> None:
    """Discard what a stream has buffered and gets later, so that it cannot fail again when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def write_any_sign() -> None:
    """Write characters that the encoding of a console or pipe lacks in ASCII, and escape invalid bytes."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


PLAIN = {"±": "+-"}
"""ASCII forms of characters that handful itself prints."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs), error.end


open_closed_streams()
out = _literal(soft_wrap=True)
err = Messages(highlight=False, markup=False, emoji=False, stderr=True, soft_wrap=not sys.stderr.isatty())


LONG, SOON = 10, 1
"""Without a terminal: seconds from which work is announced, and below which only its end is printed."""


class ProgressBars:
    """Progress bars on a terminal; otherwise a line for each tenth of the work."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        times = TextColumn("left"), TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))
        last = TextColumn("{task.fields[note]}", table_column=Column())  # which alone is broken where all is too wide
        work = TextColumn("{task.description}"), BarColumn(10, table_column=Column(no_wrap=True))
        self.bars = Progress(*work, MofNCompleteColumn(table_column=Column(no_wrap=True)), *times, last, console=err)
        self.known: dict[str, Any] = {}
        self.began: tuple[StepEvent, float] | None = None
        self.tenths = -1
        self.score = ""

    def __enter__(self) -> "ProgressBars":
        if err.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if err.is_terminal:
            self.bars.stop()

    def hear(self, event: Event) -> None:
        """Show an event of the library."""
        if isinstance(event, NoteEvent):
            err.print(event.message)
        elif isinstance(event, ValidationEvent):
            self.score = f"val {score_text(event.score, event.metric, event.diverged, event.undefined)}"
        elif isinstance(event, StepEvent):
            note = "" if event.loss is None else f"loss {event.loss:.2f} {self.score}".rstrip()
            if err.is_terminal:
                self._advance(event.work, event.done, event.total, note or event.why)
            else:
                self._log(event, note)

    def _log(self, event: StepEvent, note: str) -> None:
        """Print a line once the remaining time is known, if it is long, and for each tenth of the work."""
        if not event.total:
            return
        now = time.monotonic()
        if self.began is None or self.began[0].work != event.work or event.done <= self.began[0].done:
            self.began, self.tenths = (event, now), -1
        first, start = self.began
        here = event.done - first.done
        left = (now - start) / here * (event.total - event.done) if here else event.seconds or 0.0
        tenths = 10 * event.done // event.total
        ended, soon = event.done == event.total, now - start + left < SOON and event.work not in CONTINUED
        if tenths <= self.tenths or not (here or left >= LONG or ended) or (soon and not ended):
            return
        self.tenths = tenths
        facts = [f"{event.done:,} of {event.total:,} {event.unit}", f"{100 * event.done // event.total} %"]
        if event.done < event.total:
            facts.append(f"about {_rounded(left)} left")
        elif here:
            facts.append(f"took {_rounded(now - start)}")
        what = f"{event.work} ({event.why})" if event.why else event.work
        err.print(f"{what}: {', '.join([*facts, *filter(None, [note])])}")

    def _advance(self, what: str, done: int, total: int, note: str) -> None:
        if what not in self.known or self.bars.tasks[self.known[what]].completed > done:
            for name in [name for name in self.known if name != what]:  # only the present one and what took long stay
                bar = self.bars.tasks[self.known[name]]
                bar.visible = name in (META_TRAINING, PRETRAINING, LADDER_PRETRAINING)
            if what not in self.known:
                self.known[what] = self.bars.add_task(what, total=total, note=note)
        self.bars.update(self.known[what], completed=done, total=total, note=note, visible=True)


def _rounded(seconds: float) -> str:
    """Estimated seconds, rounded."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def score_text(score: float, metric: str, diverged: int = 0, undefined: int = 0) -> str:
    """A score with its metric, and on how many draws predictions or scores were not finite."""
    from handful.evaluation.formatting import lost, one_score
    from handful.evaluation.intervals import Interval
    from handful.metrics import recorded_metric

    left_out = lost(Interval(score, score, score, 1, diverged=diverged, undefined=undefined))
    return one_score(score, recorded_metric(metric)) + left_out


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that stdout can encode; null for NaN and infinity."""
    from handful.storage import as_json, finite

    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return as_json(finite(value), indent) if unicode else json.dumps(finite(value), indent=indent)


def print_json(value: Any) -> None:
    """JSON on stdout."""
    sys.stdout.write(json_text(value, indent=2) + "\n")


def print_json_lines(batches: Iterable[list[dict[str, Any]]]) -> None:
    """Print predictions as they arrive, a line of JSON each."""
    for rows in batches:
        sys.stdout.writelines(json_text(row) + "\n" for row in rows)
        sys.stdout.flush()


def print_json_list(batches: Iterable[list[dict[str, Any]]]) -> None:
    """Print predictions as they arrive, as one JSON list with a line each."""
    before = "["
    for rows in batches:
        for row in rows:
            sys.stdout.write(f"{before}\n{json_text(row)}")
            before = ","
        sys.stdout.flush()
    sys.stdout.write("\n]\n" if before == "," else "[]\n")


def print_csv(batches: Iterable[list[dict[str, Any]]]) -> None:
    """Print predictions as they arrive, as comma-separated values; see `flat_row` for the columns."""
    writer = None
    for rows in batches:
        for row in map(flat_row, rows):
            if writer is None:
                writer = csv.DictWriter(sys.stdout, fieldnames=list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
        sys.stdout.flush()


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A prediction in columns: `p(name)` for the probability of a class, `value(name)` for one of several values."""
    flat: dict[str, Any] = {}
    for field, value in row.items():
        short = "p" if field == "probabilities" else field
        flat |= {f"{short}({name})": one for name, one in value.items()} if isinstance(value, dict) else {field: value}
    return flat


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """Print the library's notes and the warnings of other packages to stderr, each once."""

    def show(note: Note) -> None:
        times = f" ({note.count} times)" if note.count > 1 else ""
        err.print(Text("Note:", "yellow"), note.spelled(flag) + times)

    with collecting(show) as collected, warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: collected.add(Note("warning", str(message)))
        yield


def flowing(text: str) -> str:
    """The text with each paragraph joined into one line; lists, tables and examples keep their lines."""
    blocks = text.split("\n\n")
    return "\n\n".join(block if is_code(block) else BREAK.sub(" ", block) for block in blocks)


def is_code(block: str) -> bool:
    """Whether a block of a docstring is an example in Python."""
    return block.startswith(">>> ")
