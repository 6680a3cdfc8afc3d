"""What every benchmark of accuracy records beside its numbers, and where."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from handful.storage import finite, write_json

RESULTS = Path("benchmarks/results")
MODELS = Path("benchmarks/models")


def circumstances() -> dict[str, Any]:
    """When, by which command (places on this machine left out) and on which machine."""
    words = ("FOLDER" if os.sep in word else word for word in sys.argv[1:])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python -m", module(), *words]),
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
    _write(name, recorded(name) | {key: facts | circumstances()})


def record_all(name: str, facts: dict[str, Any]) -> None:
    """Make `results/NAME.json` of a benchmark that is run as a whole."""
    _write(name, facts | circumstances())


def _write(name: str, facts: dict[str, Any]) -> None:
    write_json(RESULTS / f"{name}.json", finite(facts))
