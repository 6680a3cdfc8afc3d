"""What every benchmark of accuracy records beside its numbers, where, and how it is shown."""

import fcntl
import json
import os
import platform
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from rich import box
from rich.console import Group
from rich.table import Table

from benchmarks.tiny import sized
from handful.errors import HandfulError
from handful.storage import finite, write_text
from handful.training.loop import Trained

HOME = sized(Path(__file__).parent, Path.cwd() / "benchmarks")
RESULTS, MODELS = HOME / "results", HOME / "models"

NUMBERS = re.compile(r"\[\n[-+.,\deE\s]*\]")
"""A list of numbers in indented JSON; within a string there is no line break."""

Cells: TypeAlias = tuple[str, ...]


class Section(NamedTuple):
    """How what one benchmark recorded is shown. cells: the rows of the table, from what is in `results/NAME.json`."""

    name: str
    title: str
    command: str
    heads: Cells
    cells: Callable[[dict[str, Any]], Iterator[Cells]]

    def table(self, rows: dict[str, Any] | None = None) -> Group:
        """For the terminal, of these rows, by default of all that is recorded."""
        cells, parts = self._parts(recorded(self.name) if rows is None else rows)
        if not parts:
            return Group(_table(self.title, self.heads, cells))
        return Group(self.title, *(_table(start, self.heads[1:], some) for start, some in parts))

    def markdown(self) -> str:
        """For the page, of all that is recorded."""
        cells, parts = self._parts(recorded(self.name))
        tables = [line for start, some in parts for line in (f"**{start}**", "", *_lines(self.heads[1:], some))]
        return "\n".join([f"## {self.title}", "", f"`{self.command}`", "", *(tables or _lines(self.heads, cells))])

    def _parts(self, rows: dict[str, Any]) -> tuple[list[Cells], list[tuple[str, list[Cells]]]]:
        """The cells; and where rows begin alike, a table of each beginning, so that 80 columns or a telephone do."""
        cells = list(self.cells(rows))
        parts = [(start, [row[1:] for row in some]) for start, some in groupby(cells, key=itemgetter(0))]
        return cells, parts if len(parts) < len(cells) else []


def _lines(heads: Cells, rows: Sequence[Cells]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *rows)] + [""]


def _table(title: str, heads: Cells, rows: Sequence[Cells]) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for head, *column in zip(heads, *rows, strict=True):
        # Lines break between words, and a head needs no more room than what is below it.
        word = max(len(word) for cell in (head, *column) for word in cell.split())
        shown.add_column(textwrap.fill(head, max([word, *map(len, column)])), min_width=word)
    for cells in rows:
        shown.add_row(*cells)
    return shown


def guarded(main: Callable[[], None]) -> None:
    """Run a benchmark; what it cannot work with is told in one sentence."""
    try:
        main()
    except HandfulError as error:
        sys.exit(f"Error: {error}")


def percent(mean: float, half_width: float | None) -> str:
    """A mean and half the width of its interval, both in percent; None: there is none, as for equal scores."""
    return f"{mean:.2f}" if half_width is None else f"{mean:.2f} ± {half_width:.2f}"


def spent(trained: Trained, start: float | None) -> dict[str, Any]:
    """Minutes of a training, and of processor time since `start` unless it went on with an earlier process's (None)."""
    cores = None if start is None else round((time.process_time() - start) / 60, 1)
    return {"minutes of training": round(trained.seconds / 60, 1), "core minutes": cores}


def minutes(row: dict[str, Any]) -> str:
    """Core minutes, or where they are not known those of the clock."""
    return f"{row['minutes of training']:g} by the clock" if row["core minutes"] is None else f"{row['core minutes']:g}"


def circumstances() -> dict[str, Any]:
    """When, by which command (places on this machine left out) and on which machine."""
    words = ("FOLDER" if os.sep in word else word for word in sys.argv[1:])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m {module()} {shlex.join(words)}".strip(),
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}",
    }


def module() -> str:
    """The name of the module that runs as the program."""
    spec = sys.modules["__main__"].__spec__
    return "benchmarks" if spec is None else spec.name.removesuffix(".__main__")


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def recorded(name: str) -> dict[str, Any]:
    """The rows of `results/NAME.json` by key; none yet is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def record(name: str, key: str, facts: dict[str, Any]) -> None:
    """Put one row into `results/NAME.json`, in place of an older one of the same key."""
    with _alone():
        _write(name, recorded(name) | {key: facts | circumstances()})


def record_all(name: str, facts: dict[str, Any]) -> None:
    """Make `results/NAME.json` of a benchmark that is run as a whole."""
    _write(name, facts | circumstances())


def _write(name: str, facts: dict[str, Any]) -> None:
    text = json.dumps(finite(facts), indent=2, ensure_ascii=False, allow_nan=False)
    # The scores of hundreds of tasks are one line, not hundreds.
    write_text(RESULTS / f"{name}.json", NUMBERS.sub(lambda found: json.dumps(json.loads(found[0])), text) + "\n")


@contextmanager
def _alone() -> Iterator[None]:
    """Other threads and processes that record wait: a file is read and written as a whole."""
    folder = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
