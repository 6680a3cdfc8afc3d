"""The bits of training on 1, 2 and 4 processes, and after one of two is killed. Prints a JSON line per run."""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.tiny import sized

STEPS, COUNTS = sized((400, (1, 2, 4)), (60, (1, 2)))
COMMAND = (
    *("train", "--tasks", "sine", "--learner", "maml", "--meta-batch-size", "16", "--steps", str(STEPS)),
    *("--plan", "chunks:4+threads:1", "--set", "training.checkpoint_every=20"),
)


def main() -> None:
    """Train in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        reference = None
        for workers in COUNTS:
            row = train(Path(folder, str(workers)), workers)
            reference = reference or row["model"]
            print(json.dumps(row | {"same bytes": row["model"] == reference}), flush=True)
        row = killed_and_resumed(Path(folder, "killed"))
        print(json.dumps(row | {"same bytes": row["model"] == reference}), flush=True)


def train(run: Path, workers: int, *more: str) -> dict[str, Any]:
    """A whole training."""
    subprocess.run(command(run, workers, *more), check=True, capture_output=True)
    speed = json.loads((run / "performance.json").read_text())
    return {"run": f"{workers} workers", "model": digest(run), "ms per step": 1000 * speed["seconds_per_step"]}


def killed_and_resumed(run: Path) -> dict[str, Any]:
    """A training on two workers of which one is killed when the first checkpoint is there."""
    process = subprocess.Popen(command(run, 2), stderr=subprocess.PIPE, text=True)
    while not list((run / "checkpoints").glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, said = process.communicate()
    row = train(run, 2, "--resume")
    return row | {"run": "2 workers, one killed, resumed", "exit": process.returncode, "said": said.strip()[-200:]}


def command(run: Path, workers: int, *more: str) -> list[str]:
    """As a user types it."""
    return child.command("handful", *COMMAND, "--workers", str(workers), "-o", str(run), *more)


def digest(run: Path) -> str:
    """Of the trained weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
