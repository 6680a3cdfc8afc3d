"""What the service holds: one row for each promise, measured on this machine, written to results/service.md.

    python -m benchmarks.service            all rows, on a machine that does nothing else
    python -m benchmarks.service --quick    less than five minutes
    python -m benchmarks.service --only create "warm predict"

Each row starts servers of its own on loopback, in a temporary folder, and ends them.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.evidence import RESULTS, guarded, record, recorded
from benchmarks.service.rows import ROWS, described
from benchmarks.tiny import sized
from handful.storage import write_text

NAME = "service"

HEAD = """# The service

Written by `python -m benchmarks.service`; the load comes from the same machine. Ratios and counts are the claim, times
depend on the machine.

| | aim | found | reached | |
|---|---|---|---|---|
"""

LIMITS = """
## What limits the rows that are not reached

By profiles of the server (`py-spy`, and processor time of its threads) on the same machine:
"""


def main() -> None:
    """Measure rows, record them, and write the page."""
    parser = argparse.ArgumentParser(description="What the service holds.")
    parser.add_argument("--quick", action="store_true", help="shorter loads, less than five minutes in all")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    given = parser.parse_args()
    console = Console()
    for name in given.only or ROWS:
        with tempfile.TemporaryDirectory(prefix="handful-service-") as folder:
            found = ROWS[name].measure(Path(folder), given.quick)
        console.print(
            f"{name}: {described(found.figures)}{'' if found.reached else '  (not reached)'}", highlight=False
        )
        record(NAME, name, {"figures": found.figures, "reached": found.reached, "quick": given.quick})
        write_text(RESULTS / "service.md", page())
    rows = recorded(NAME)
    sys.exit(sized(not all(rows[name]["reached"] for name in given.only or ROWS), False))


def page() -> str:
    """All that is recorded."""
    rows = recorded(NAME)
    lines = [
        f"| {name} | {row.aim} | {described(rows[name]['figures'])} | {'yes' if rows[name]['reached'] else '**no**'} | "
        f"{rows[name]['date']}, {rows[name]['machine']}{', quick' if rows[name]['quick'] else ''} |"
        for name, row in ROWS.items()
        if name in rows
    ]
    missed = [f"- **{name}**: {row.limit}." for name, row in ROWS.items() if name in rows and not rows[name]["reached"]]
    return "\n".join([HEAD + "\n".join(lines), *([LIMITS, *missed] if missed else [])]) + "\n"


if __name__ == "__main__":
    guarded(main)
