"""What every benchmark of accuracy records beside its numbers, and where."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path("benchmarks/results")
MODELS = Path("benchmarks/models")


def circumstances() -> dict[str, Any]:
    """When, by which command and on which machine."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python -m", module(), *sys.argv[1:]]),
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
    rows = recorded(name) | {key: facts | circumstances()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
