"""The longest proofs of the service: kills, hostile requests and overload, recorded and shown on a page.

    python -m tests.serving.proofs --seed 0
    python -m tests.serving.proofs --only kills --kills 300

It ends with an error at the first violation, and records what held.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.evidence import RESULTS, guarded, record, recorded
from benchmarks.service.rows import ROWS, described
from tests.http import hostile
from tests.serving import kills

from handful.storage import write_text

NAME, PAGE = "service_faults", RESULTS / "service_faults.md"

HEAD = """# Faults of the service

Written by `python -m tests.serving.proofs`, which `make proofs` runs; each row is of its last run, and a violation ends
it with an error. The store is SQLite on a local disk; a kill is `SIGKILL` at a random moment under three clients. That
each failpoint holds with an error, a full disk and a kill is a test, `tests/serving/test_failpoints.py`.

| proof | found | |
|---|---|---|
"""

ROUTES = """
| route | own strategies | from the OpenAPI document |
|---|---|---|
"""


class Proof(NamedTuple):
    """What is run in an empty folder, and how what it found is shown."""

    run: Callable[[Path, argparse.Namespace], dict[str, Any]]
    shown: Callable[[dict[str, Any]], str]


def _killed(folder, given):
    return kills.run(folder, given.kills, given.seed) | {"kills": given.kills, "seed": given.seed}


def _of_kills(row):
    return (
        f"{row['kills']:,} kills, seed {row['seed']}: {row['acknowledged']:,} changes acknowledged, "
        f"{row['lost']:,} lost; {row['sent again']:,} requests sent again and answered as before; "
        f"{row['versions']:,} versions checked"
    )


def _attacked(folder, given):
    return hostile.run(folder, given.requests, given.seed) | {"seed": given.seed}


def _of_hostile(row):
    statuses = ", ".join(f"{status}: {count:,}" for status, count in row["statuses"].items())
    count = sum(row["statuses"].values())
    return f"{count:,} requests, seed {row['seed']}: no wrong answer; by status {statuses}; by route below"


def _overloaded(folder, given):
    found = ROWS["overload"].measure(folder, False)
    return {"figures": found.figures, "reached": found.reached}


def _of_overload(row):
    reached = "" if row["reached"] else "**not reached**: "
    return (
        f"{ROWS['overload'].aim}, for a minute each with and without time to wait: {reached}{described(row['figures'])}"
    )


PROOFS = {
    "kills": Proof(_killed, _of_kills),
    "hostile": Proof(_attacked, _of_hostile),
    "overload": Proof(_overloaded, _of_overload),
}


def page():
    """All that is recorded."""
    rows = recorded(NAME)
    lines = [
        f"| {name} | {proof.shown(rows[name])} | {rows[name]['date']}, {rows[name]['machine']} |\n"
        for name, proof in PROOFS.items()
        if name in rows
    ]
    if "hostile" in rows:
        routes = rows["hostile"]["routes"].items()
        lines += [ROUTES, *(f"| `{route}` | {own} | {document} |\n" for route, (own, document) in routes)]
    return HEAD + "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PROOFS))
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.only or PROOFS:
        with tempfile.TemporaryDirectory() as folder:
            record(NAME, name, PROOFS[name].run(Path(folder), given))
        sys.stdout.write(f"{name}: {PROOFS[name].shown(recorded(NAME)[name])}\n")
        write_text(PAGE, page())


if __name__ == "__main__":
    guarded(main)
