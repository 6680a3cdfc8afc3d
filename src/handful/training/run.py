"""A run on disk: its configuration, metrics and checkpoints."""

import json
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from handful.errors import ArtifactError, UserError
from handful.events import Stop
from handful.learners.pretraining import Pretraining
from handful.notes import note
from handful.storage import (
    RUN_FORMAT,
    check_folder,
    check_writable,
    is_run,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from handful.tasks.splits import SPLITS, Contents
from handful.training.budget import StepCount
from handful.training.checkpoint import PretrainingCheckpoints
from handful.training.lock import emptied

SCHEMA = 1
STEPS, RACE = "steps.json", "race.json"
KEPT_CHECKPOINTS = 2
FILES_BEFORE_THE_RUN = ("env.json", "data.json", "tuning.json")
"""Files that a folder may contain before it is a run."""
NO_CONTENTS = Contents({on: {} for on in SPLITS})


class Restorable(Protocol):
    """An object that a checkpoint can store."""

    step: int
    history: list[dict[str, Any]]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts."""

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """The other way."""


class Run:
    """A folder with `config.json`, `env.json`, `data.json`, `metrics.jsonl`, `checkpoints/`; later `model/`, report.

    id: unique to each started run, and named by its checkpoints; None if unknown.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id: str | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        data: Contents = NO_CONTENTS,
        resume: bool = False,
        force: bool = False,
    ) -> Self:
        """Start a run here, or continue one (`resume`), or start over (`force`).

        data: the source's present content. To resume, all data that the run was started with must exist, at any path;
            new data are noted.

        Raises `UserError` if a run exists and neither is requested, or if the configuration or data to resume with
        differ from the saved ones (the message names the differences).
        """
        run = cls(path)
        try:  # as it will be read back: tuples become lists
            config = json.loads(json.dumps({"format": RUN_FORMAT, "schema": SCHEMA} | config, allow_nan=False))
        except ValueError as error:
            raise UserError(f"A setting is not a finite number ({error}). Correct it.") from error
        exists = is_run(path)
        if not exists:
            check_free(path)
        if exists and not (resume or force):
            raise UserError(
                f"{path} already holds a run.",
                hint="Continue it with {resume}, start over with {force}, or choose another place with {path}.",
            )
        if exists and resume:
            run._go_on_with(config, data)
            run.id = run._environment().get("run")
            return run
        if resume:
            note("run-started", f"{path} contains no run yet: starting one.")
        if exists:
            emptied(path)
        run.id = secrets.token_hex(8)
        write_json(path / "env.json", environment() | {"run": run.id})
        run.keep_contents(data)
        write_json(path / "config.json", config)  # last: from here on it is a run
        return run

    @classmethod
    def existing(cls, path: Path) -> Self:
        """The run in this folder, or the one whose `model` folder this is; `ArtifactError` if it is neither."""
        run = cls.find(path)
        if run is not None:
            return run
        check_folder(path)
        raise ArtifactError(
            f"{path} is not a run: its config.json, with tasks and settings, is missing or damaged. Use a folder made "
            f"by `handful train`.",
            code="missing-artifact",
        )

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """As `existing`, but None without a run."""
        folders = [path, path.parent] if path.name == "model" else [path]
        return next((cls(folder) for folder in folders if is_run(folder)), None)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Within this context, torch uses as many threads as when the run was started, since its last bits may depend
        on them. Makes a note if their number is unknown or cannot be set.
        """
        before = torch.get_num_threads()
        saved: Any = self._environment().get("threads")
        known = isinstance(saved, int) and saved > 0
        try:
            if known:
                torch.set_num_threads(saved)
            if torch.get_num_threads() != saved:
                note(
                    "threads-differ",
                    f"The run in {self.path} was started with {saved if known else 'an unknown number of'} threads and "
                    f"continues with {torch.get_num_threads()}: its last bits may differ from those of an "
                    f"uninterrupted run.",
                )
            yield
        finally:
            torch.set_num_threads(before)

    def _environment(self) -> dict[str, Any]:
        """The content of `env.json`; empty if it is missing or damaged."""
        try:
            saved = read_json(self.path / "env.json")
        except ArtifactError:
            return {}
        return saved if isinstance(saved, dict) else {}

    def config(self) -> dict[str, Any]:
        """The saved configuration; `ArtifactError` if another version of handful wrote it in another way."""
        config: dict[str, Any] = read_json(self.path / "config.json")
        if config.get("schema") != SCHEMA:
            raise ArtifactError(
                f"The run in {self.path} has schema {config.get('schema')}, but this version of handful reads schema "
                f"{SCHEMA}. Install the version that wrote it, which env.json names.",
                code="other-version",
            )
        return config

    def contents(self) -> Contents:
        """The content of the data when the run, or the search before it, was started or last resumed."""
        return Contents.from_json(read_json(self.path / "data.json"))

    def keep_contents(self, data: Contents) -> None:
        """Save the content of the data."""
        write_json(self.path / "data.json", data.to_json())

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`: step, loss, and the validation score where one was taken."""
        path = self.path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def fixed(self) -> dict[str, Any]:
        """What a training has fixed by the clock: see `fix`."""
        path = self.path / STEPS
        return read_json(path) if path.exists() else {}

    def fix(self, **facts: Any) -> None:
        """Keep what was found out by the clock, for a continuation with the same bits.

        facts: "steps", and "corrected" once they are; the "plan"; "kept_splits", whose examples some layers see once.
        """
        write_json(self.path / STEPS, self.fixed() | facts)

    def step_count(self) -> StepCount | None:
        """The steps as determined by a time budget; None if they were not, or not yet."""
        fixed = self.fixed()
        return StepCount.from_json(fixed) if "steps" in fixed else None

    def race(self) -> dict[str, Any] | None:
        """The result of the run's race of learners: its winner and candidates; None if it was not a race."""
        path = self.path / RACE
        return read_json(path)["summary"] if path.exists() else None

    def performance(self) -> dict[str, float]:
        """The content of `performance.json`, the training's speed; empty without that file."""
        path = self.path / "performance.json"
        return read_json(path) if path.exists() else {}

    def save(self, training: Restorable) -> None:
        """Write a checkpoint and the metrics, then drop all but the newest checkpoints."""
        tensors, facts = training.state()
        newest = self._checkpoint(training.step)
        write_tensors(newest, tensors, facts | {"run": self.id})
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in training.history))
        own = [path for path in self._checkpoints() if path.name <= newest.name]  # others are of another run, or broken
        for old in own[KEPT_CHECKPOINTS:]:
            old.unlink()

    def restore(self, training: Restorable) -> bool:
        """Restore the newest intact checkpoint; returns whether one was found."""
        for path in self._checkpoints():
            try:
                tensors, facts, _ = read_tensors(path)
            except ArtifactError as error:
                note("left-out", f"{error} It is left out.")
                continue
            if self.id is not None and facts.get("run") != self.id:
                note("left-out", f"{path} is a checkpoint of another run. It is left out.")
                continue
            training.restore(tensors, facts)
            return True
        if self._checkpoints():
            note("started-over", f"{self.path} has no intact checkpoint: starting over.")
        return False

    def keep_network(self, weights: dict[str, Tensor]) -> None:
        """Save the learner's network after its pre-training, for baselines that start from a pre-trained one."""
        write_tensors(self._network, weights, {})

    def pretrained_network(self) -> dict[str, Tensor] | None:
        """The weights of that network; None without a pre-training, or if they cannot be read."""
        if not self._network.exists():
            return None
        try:
            return read_tensors(self._network)[0]
        except ArtifactError as error:
            note("left-out", f"{error} It is left out.")
            return None

    @property
    def _network(self) -> Path:
        return self.path / "checkpoints" / "pretrained.safetensors"

    @property
    def ladder(self) -> Path:
        """The path of the ladder's pre-training, finished or not, for the next evaluation."""
        return self.path / "checkpoints" / "ladder.safetensors"

    def ladder_checkpoints(self, stop: Stop | None = None) -> "PretrainingCheckpoints | None":
        """Saves the pre-training of the ladder, and ends it at `stop`; None if nothing can be written.

        Only the same version of handful continues it.
        """
        path = self.ladder
        version = {name: environment()[name] for name in ("handful", "torch")}
        try:
            check_writable(path.parent)
        except UserError as error:
            note("not-kept", f"{error.message} An interruption will lose the pre-training of the ladder.")
            return None
        saved = None
        if path.exists():
            try:
                tensors, facts, _ = read_tensors(path)
                saved = (tensors, facts["pretraining"]) if facts["version"] == version else None
            except ArtifactError as error:
                note("left-out", f"{error} It is left out.")

        def save(pretraining: Pretraining) -> None:
            tensors, facts = pretraining.state()
            write_tensors(path, tensors, {"version": version, "pretraining": facts})

        return PretrainingCheckpoints(save, saved, stop)

    def abandon(self) -> None:
        """Remove a run that has nothing to resume, so that another attempt may start here."""
        if not self._checkpoints():
            (self.path / "config.json").unlink(missing_ok=True)
            for left in (
                "checkpoints",
                "metrics.jsonl",
                STEPS,
                RACE,
            ):  # of a first checkpoint that could not be written
                path = self.path / left
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"), reverse=True)

    def _go_on_with(self, config: dict[str, Any], data: Contents) -> None:
        saved, before = self.config(), self.contents()
        check_same(f"the run in {self.path}", (saved, before), (config, data))
        if config != saved or data != before:
            self.keep_contents(data)
            write_json(self.path / "config.json", config)


def check_same(what: str, earlier: tuple[dict[str, Any], Contents], now: tuple[dict[str, Any], Contents]) -> None:
    """Raise `UserError` if a run or search cannot be resumed, because its configuration or data differ.

    Data that have grown are noted.

    what: what messages call it.
    earlier, now: the configuration, as JSON, and the content of the data.
    """
    (saved, before), (config, data) = earlier, now
    changes = _changes(saved, config)
    if data.own and before.own:
        changes.pop("tasks", None)  # the place of the user's data, which are known by what they hold
    if not changes and (changed := data.changed_since(before)):
        raise UserError(
            f"The data have changed since {what} was started: {changed}. Restore them.",
            hint="Or start over with {force}.",
        )
    if changes:
        lasting = (
            " The number of steps cannot change: the learning rate falls to zero at the last one."
            if "steps" in changes
            else ""
        )
        listed = "; ".join(f"{name}: {change}" for name, change in changes.items())
        raise UserError(
            f"{what[0].upper()}{what[1:]} was started with other settings ({listed}).{lasting} Resume it with the same "
            f"settings.",
            hint="Or start over with {force}.",
        )
    if new := data.new_since(before):
        note(
            "grown-data",
            f"The data have grown since {what} was started ({new}): training continues with them, so the result "
            f"differs from that of an uninterrupted run.",
        )


def _changes(saved: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """The differences between two configurations, by the name of the setting without that of its section."""
    changes: dict[str, str] = {}
    for name in saved | config:
        before, now = saved.get(name), config.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            changes |= _changes(before, now)
        elif before != now:
            changes[name] = f"was {_said(before)}, now {_said(now)}"
    return changes


def _said(value: Any) -> str:
    return "not given" if value is None else str(value)


def check_free(path: Path) -> None:
    """Raise `UserError` if a new run cannot be placed here, because the folder contains other files."""
    entries = path.iterdir() if path.is_dir() else [path] if path.exists() else []
    if not all(entry.name in FILES_BEFORE_THE_RUN or entry.name.startswith(".") for entry in entries):
        raise UserError(f"{path} exists, is not empty and is not a run.", hint="Choose another place with {path}.")


def environment() -> dict[str, Any]:
    """The versions and hardware that the numbers of a run may depend on."""
    import handful

    return {
        "handful": handful.__version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
