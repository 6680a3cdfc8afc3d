"""The command: which rows, for how long, where to."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import child
from benchmarks.engine import page, table
from benchmarks.engine.measure import TOLERANCE, Effort, Gradients, Result, compare, environment, record, weigh
from benchmarks.engine.rows import MEMORY_ROWS, ROWS, MemoryRow, Row
from benchmarks.evidence import processor
from benchmarks.tiny import TINY, sized

OWN = ("many", "workers")
"""Groups without peers: modules of this package that print a JSON line per row."""
QUICK = Effort(rounds=sized(3, 1), turn_seconds=sized(0.5, 0.01), quick=True)
ALLOCATION = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_")


def main() -> int:
    """Measure, write the file, print the tables; 1 where something failed."""
    groups = [*dict.fromkeys(row.group for row in (*ROWS, *MEMORY_ROWS)), *OWN]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, help="leave out the other groups")
    parser.add_argument("--quick", action="store_true", help="less than ten minutes: fewer and shorter rounds")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/engine.json"))
    given = parser.parse_args()
    effort = QUICK if given.quick or TINY else Effort()
    console = Console(width=None if sys.stdout.isatty() else 150)

    gradients = Gradients()
    times: list[tuple[Row, dict[str, Result]]] = []
    memory: list[tuple[MemoryRow, dict[str, Result]]] = []
    start = time.perf_counter()
    for row in (*ROWS, *MEMORY_ROWS):
        if row.group not in given.only or (effort.quick and not row.quick):
            continue
        console.print(f"{time.perf_counter() - start:5.0f} s  {row.title} ...", style="dim", highlight=False)
        if isinstance(row, Row):
            times.append((row, compare(row, effort, gradients)))
        else:
            memory.append((row, weigh(row, gradients)))

    own: dict[str, list[dict[str, Any]]] = {}
    for group in OWN:
        if group in given.only:
            console.print(f"{time.perf_counter() - start:5.0f} s  {group} ...", style="dim", highlight=False)
            own[group] = alone(group)

    measured: list[tuple[Row | MemoryRow, dict[str, Result]]] = [*times, *memory]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    found = report(measured, effort) | own
    if given.only != groups and given.output.exists():  # the other groups stay as they were
        found = merged(json.loads(given.output.read_text()), found, given.only, groups)
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    if times:
        console.print(table.times(times))
    if memory:
        console.print(table.memory(memory))
    if "many" in own:
        console.print(table.many(own["many"]))
    if "workers" in own:
        console.print(table.workers(own["workers"]))
    stopped = [(row, name, result) for row, rs in measured for name, result in rs.items() if not result.running]
    for row, name, result in stopped:
        style = "red" if result.status == "failed" else "yellow"
        console.print(f"{row.title}, {name}: {result.status}, {result.reason}", style=style, markup=False)
    console.print(f"Written to {given.output} and {page.write(given.output)}.")
    differs = any(not row["same bytes"] for row in own.get("workers", []))
    return 1 if differs or any(result.status == "failed" for _, _, result in stopped) else 0


def merged(old: dict[str, Any], new: dict[str, Any], only: list[str], groups: list[str]) -> dict[str, Any]:
    """The old file with the groups of `only` measured anew."""
    kept = [row for row in old["rows"] if row["group"] not in only]
    rows = sorted([*kept, *new["rows"]], key=lambda row: groups.index(row["group"]))
    commands = f"{old['command']}; {new['command']}"
    versions = old["versions"] | new["versions"]
    return old | new | {"rows": rows, "command": commands, "versions": versions, "effort": old["effort"]}


def alone(group: str) -> list[dict[str, Any]]:
    """What a module of handful's own prints."""
    command = child.command(f"benchmarks.engine.{group}")
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


def report(measured: list[tuple[Row | MemoryRow, dict[str, Result]]], effort: Effort) -> dict[str, Any]:
    """All that the file holds."""
    versions = {"python": platform.python_version()}
    for _, results in measured:
        for result in results.values():
            versions |= result.versions
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.engine", *sys.argv[1:]]),
        "machine": {"cpu": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "versions": versions,
        "effort": asdict(effort),
        "environment": {name: value for name, value in environment(1).items() if name.startswith(ALLOCATION)},
        "gradient_tolerance": TOLERANCE,
        "rows": [record(row, results) for row, results in measured],
    }


if __name__ == "__main__":
    sys.exit(main())
