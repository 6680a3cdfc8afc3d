"""`race.json`: the record of a race of learners: its time-dependent decisions, and its results."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from handful.errors import UserError
from handful.storage import read_json, write_json
from handful.training.run import RACE

FORMAT, SCHEMA = "handful race", 1


class Budget(NamedTuple):
    """The time-dependent decisions of a finished race."""

    minutes: float
    decided: dict[str, Any]


def budget_of(run: Path) -> Budget:
    """The budget of the race in a run; `UserError` without a finished race."""
    path = run / RACE
    saved = read_json(path) if path.exists() else {}
    if not saved.get("summary") or saved["minutes"] is None:
        raise UserError(
            f"{run} has no finished race, so it has no budget to reproduce.",
            hint="Finish it with {resume}, or remove {budget_from}.",
        )
    return Budget(saved["minutes"], saved["decided"])


class RaceRecord:
    """The record of a race in its run's folder.

    Everything that depends on the clock (plans, numbers of steps, costs) goes through `decide`, and is written before
    it takes effect: an interrupted race resumes with the same decisions, and another race with these decisions ends
    with the same bits. Results go through `found`, so that they are not computed again.

    path: of the file.
    minutes: the budget; None if steps are given.
    decided: the decisions so far, by name.
    results: the results so far, by name.
    given: whether all decisions are those of an earlier race, so that the clock is not used.
    """

    def __init__(
        self,
        path: Path,
        minutes: float | None,
        *,
        decided: dict[str, Any] | None = None,
        results: dict[str, Any] | None = None,
        given: bool = False,
        spent: float = 0.0,
        summary: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.minutes, self.given = path, minutes, given
        self.decided, self.results = decided or {}, results or {}
        self.summary = summary
        self.began = time.monotonic() - spent

    @classmethod
    def open(cls, folder: Path, minutes: float | None, budget: "Budget | None" = None, *, spent: float = 0.0) -> Self:
        """The record of the run in this folder, or a new one, with the decisions of `budget`, if given.

        spent: seconds of a new race's time before it has a record.
        """
        path = folder / RACE
        if path.exists():
            saved = read_json(path)
            facts = {name: saved[name] for name in ("decided", "results", "given", "spent", "summary")}
            return cls(path, saved["minutes"], **facts)
        if budget is None:
            return cls(path, minutes, spent=spent)
        return cls(path, budget.minutes, decided=dict(budget.decided), given=True)

    @property
    def spent(self) -> float:
        """Seconds that the race has taken, including those before an interruption."""
        return time.monotonic() - self.began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the data are read, which is no part of the time."""
        start = time.monotonic()
        yield
        self.began += time.monotonic() - start

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.seconds - self.spent

    @property
    def seconds(self) -> float:
        """Of the budget."""
        return math.inf if self.minutes is None else 60 * self.minutes

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        """The decision of this name: as recorded, or as `make` makes it now, after a round trip through JSON."""
        if name not in self.decided:
            if self.given:
                raise UserError(
                    f"The given budget has no entry {name!r}: it belongs to a race with other data, options or "
                    f"learners.",
                    hint="Remove {budget_from}.",
                )
            self.decided[name] = _as_read(make())
            self.write()
        elif not self.path.exists():  # by a given budget, too, the race has begun
            self.write()
        return self.decided[name]

    def found(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of this name: as recorded, or as `make` computes it now, after a round trip through JSON."""
        if name not in self.results:
            self.results[name] = _as_read(make())
            self.write()
        return self.results[name]

    def end(self, summary: dict[str, Any]) -> None:
        """Record the summary of the race."""
        self.summary = summary
        self.write()

    def write(self) -> None:
        """Write the file."""
        facts = {
            "format": FORMAT,
            "schema": SCHEMA,
            "minutes": self.minutes,
            "spent": round(self.spent, 3),
            "given": self.given,
            "summary": self.summary,
            "decided": self.decided,
            "results": self.results,
        }
        write_json(self.path, facts)


def _as_read(value: Any) -> Any:
    """A value after a round trip through JSON: tuples become lists."""
    return json.loads(json.dumps(value))
