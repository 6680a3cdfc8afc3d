"""The content of a checkpoint, and when one of a pre-training is written."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from handful.engine.plan import Plan
from handful.events import Stop, StoppedError
from handful.learners.learner import Learner
from handful.learners.pretraining import Pretraining, below, moments, put_moments
from handful.tasks.distribution import TaskDistribution
from handful.training.budget import StepCount
from handful.training.settings import Settings
from handful.training.workers import Workers

SAVE_AFTER = 20.0
"""Seconds of pre-training after which it is saved again."""


@dataclass
class TrainingState:
    """The state in a checkpoint: learner, optimizer, step, the best weights so far and the history.

    best_rank: compares weights; higher is better.
    pretraining: one in progress, to be saved.
    unfinished: a saved one, to be continued.
    """

    learner: Learner
    distribution: TaskDistribution
    validation: TaskDistribution
    settings: Settings
    step: int = 0
    best_score: float | None = None
    best_diverged: int = 0
    best_rank: tuple[int, float] = (0, 0.0)
    best_step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    workers: Workers = field(default_factory=Workers.present)

    def __post_init__(self) -> None:
        self.plan = cast(Plan | None, self.settings.plan)
        self.step_count = None if self.settings.steps is None else StepCount(self.settings.steps)
        self.began = time.monotonic()
        self.validation_seconds = 0.0
        self.predicted_bytes: int | None = None
        self.kept_splits: list[str] | None = None
        self.pretraining: Pretraining | None = None
        self.unfinished: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.best: dict[str, Tensor] = {}
        self.parameters = [p for p in self.learner.parameters() if p.requires_grad]
        # To pull a bias, a temperature, a rate towards zero is no regularization.
        free = {id(p) for name in self.learner.no_weight_decay for p in getattr(self.learner, name).parameters()}
        # What is pretrained knows much already, and is trained at a fraction of the rate.
        rates = {
            id(p): float(module.relative_rate)  # type: ignore[arg-type]
            for module in self.learner.modules()
            if hasattr(module, "relative_rate")
            for p in module.parameters()
        }
        groups = []
        for rate in dict.fromkeys([1.0, *rates.values()]):
            own = [p for p in self.parameters if rates.get(id(p), 1.0) == rate]
            decayed = [p for p in own if p.ndim > 1 and id(p) not in free]
            others = [p for p in own if p.ndim <= 1 or id(p) in free]
            groups += [
                {"params": decayed, "weight_decay": self.settings.weight_decay, "rate": rate},
                {"params": others, "weight_decay": 0.0, "rate": rate},
            ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.outer_lr, fused=True)

    @property
    def spent(self) -> float:
        """Seconds of this training, including those before an interruption."""
        return time.monotonic() - self.began

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it as named tensors and JSON facts."""
        tensors = {f"learner/{name}": tensor for name, tensor in self.learner.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in moments(self.optimizer).items()}
        unfinished, pretraining = self.pretraining.state() if self.pretraining else ({}, None)
        tensors |= {f"pretraining/{name}": tensor for name, tensor in unfinished.items()}
        facts = {
            "pretraining": pretraining,
            "step": self.step,
            "best_score": self.best_score,
            "best_diverged": self.best_diverged,
            "best_rank": self.best_rank,
            "best_step": self.best_step,
            "seconds": self.seconds,
            "spent": self.spent,
            "validation_seconds": self.validation_seconds,
            "steps": None if self.step_count is None else self.step_count.to_json(),
            "plan": None if self.plan is None else asdict(self.plan),
            "predicted_bytes": self.predicted_bytes,
            "kept_splits": self.kept_splits,
            "history": self.history,
        }
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Restore the result of `state`."""
        self.learner.load_state_dict(below("learner", tensors))
        self.best = below("best", tensors)
        put_moments(self.optimizer, below("optimizer", tensors))
        pretraining = facts.get("pretraining")
        self.unfinished = (below("pretraining", tensors), pretraining) if pretraining else None
        self.step, self.best_step = facts["step"], facts["best_step"]
        self.best_score, self.best_diverged = facts["best_score"], facts["best_diverged"]
        self.best_rank = (*facts["best_rank"],)
        self.seconds, self.history = facts["seconds"], facts["history"]
        self.plan = None if facts["plan"] is None else Plan(**facts["plan"])
        self.predicted_bytes = facts.get("predicted_bytes")
        self.kept_splits = facts.get("kept_splits")
        self.began = time.monotonic() - facts.get("spent", 0.0)
        self.validation_seconds = facts.get("validation_seconds", 0.0)
        if facts.get("steps"):
            self.step_count = StepCount.from_json(facts["steps"])


class PretrainingCheckpoints:
    """Saves a pre-training regularly, at its end, and when it is stopped.

    save: writes it.
    saved: tensors and facts of an earlier one, which is continued if it is the same.
    """

    def __init__(
        self,
        save: Callable[[Pretraining], None],
        saved: tuple[dict[str, Tensor], dict[str, Any]] | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.save, self.saved, self.stop = save, saved, stop
        self.steps: int | None = saved[1]["identity"]["steps"] if saved else None
        self.last = time.monotonic()

    def begin(self, pretraining: Pretraining) -> None:
        """See `pretraining.Keeper`."""
        if self.saved and pretraining.continues(self.saved[1]):
            pretraining.restore(*self.saved)
        self.saved = None

    def after_step(self, pretraining: Pretraining) -> None:
        """See `pretraining.Keeper`; raises `StoppedError` when it is to stop."""
        asked, finished = self.stop is not None and self.stop.is_set(), pretraining.step == pretraining.steps
        if asked or finished or time.monotonic() > self.last + SAVE_AFTER:
            self.save(pretraining)
            self.last = time.monotonic()
        if asked:
            raise StoppedError("The pre-training was stopped on request.")
