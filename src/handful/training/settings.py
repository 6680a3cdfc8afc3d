"""The settings of meta-training, and their allowed values."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from handful.engine.devices import device_named
from handful.engine.plan import Plan
from handful.engine.precision import PRECISIONS, Precision
from handful.errors import UserError, named
from handful.metrics import Metric
from handful.streams import checked_seed
from handful.tasks.distribution import BLOCK

FEWEST_STEPS = 10
"""The fewest steps between validations by default, which would otherwise take most of a short training's time."""
DEFAULT_STEPS = 1000
NUMBERS: dict[Any, tuple[str, Any]] = {int: ("a whole number", Integral), float: ("a finite number", Real)}
NUMBERS |= {kind | None: described for kind, described in NUMBERS.items()}
"""The types of numeric settings, in words, with the accepted Python types; booleans are not numbers."""
LEAST = {
    **dict.fromkeys(("steps", "meta_batch_size", "validation_tasks"), 1),
    **dict.fromkeys(
        ("pretrain_examples", "weight_decay", "warmup", "validate_every", "patience", "checkpoint_every"), 0
    ),
}
"""The minimum of settings."""
ABOVE_ZERO = "minutes", "outer_lr", "clip"


@dataclass(frozen=True)
class Settings:
    """How to meta-train.

    steps: meta-steps, 1000 if neither these nor minutes are given.
    minutes: as many meta-steps as fit into this wall-clock time, from the call of `meta_train` to the last validation.
    meta_batch_size: tasks per step.
    outer_lr: peak rate of AdamW, reached after `warmup` and then lowered to zero along a cosine.
    weight_decay: of AdamW.
    warmup: a fraction of all steps.
    clip: largest norm of the meta-gradient.
    validate_every: in steps; 0: a tenth of all, but 10 or more.
    validation_tasks: per validation; the weights of the best validation are kept.
    validate_start: whether the weights before the first step are validated, too, so that no worse ones are kept; useful
        with a pretrained network.
    patience: validations without improvement after which training ends; 0: it continues to its last step. One process.
    metric: the metric of validation; None: the default of the kind of tasks.
    checkpoint_every: in steps; 0: a fiftieth of all.
    pretrain_examples: how many examples the backbone is pre-trained on before the first step, ignoring tasks.
    plan: how tasks are run; None: chosen.
    device: "cpu", "cuda", "mps" or "auto", on which the learner is trained and stays; None: its present device.
    precision: "bf16" lets the network of a meta-step compute in bfloat16, on CUDA only; everything else stays "fp32".
    seed: of pre-training and of the meta-loss's noise.

    Raises `UserError` for a value outside its range, and for both steps and minutes.

    Example:
        >>> Settings(minutes=5, outer_lr=3e-4).steps is None  # as many as fit into five minutes
        True
    """

    steps: int | None = None
    minutes: float | None = None
    meta_batch_size: int = 4
    outer_lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip: float = 10.0
    validate_every: int = 0
    validation_tasks: int = 100
    validate_start: bool = False
    patience: int = 0
    metric: Metric | str | None = None
    checkpoint_every: int = 0
    pretrain_examples: int = 0
    plan: Plan | str | None = None
    device: str | None = None
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type not in NUMBERS or (value is None and setting.default is None):
                continue
            words, kinds = NUMBERS[setting.type]
            if (
                isinstance(value, bool)
                or not isinstance(value, kinds)
                or value in (math.inf, -math.inf)
                or value != value
            ):
                raise _refused(setting.name, f"is {words}, not {value!r}.")
        object.__setattr__(self, "seed", checked_seed(self.seed))
        for name, least in LEAST.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise _refused(name, f"is at least {least}, got {getattr(self, name)}.")
        for name in ABOVE_ZERO:
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise _refused(name, f"is a number above 0, got {getattr(self, name)}.")
        if self.minutes is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS if self.steps is None else self.steps)
        elif self.steps is not None:
            raise UserError(
                f"Steps ({self.steps}) and minutes ({self.minutes:g}) exclude each other.",
                hint="Give {steps} or {minutes}.",
            )
        if isinstance(self.plan, str):
            object.__setattr__(self, "plan", Plan.parse(self.plan))
        elif not (self.plan is None or isinstance(self.plan, Plan)):
            raise _refused("plan", f"is a Plan or its text, as loop+threads:2, not {self.plan!r}.")
        if self.precision not in PRECISIONS:
            raise _refused("precision", f"is {' or '.join(PRECISIONS)}, not {self.precision!r}.")
        if self.device is not None:
            object.__setattr__(self, "device", device_named(self.device).type)
        if self.warmup > 1:
            raise _refused("warmup", f"is a fraction of all steps, at most 1, got {self.warmup}.")
        of_block = [size for size in range(1, BLOCK + 1) if BLOCK % size == 0]
        if self.meta_batch_size not in of_block:
            raise _refused(
                "meta_batch_size",
                f"is {', '.join(map(str, of_block[:-1]))} or {of_block[-1]}, since tasks change their sizes from block "
                f"to block of {BLOCK}; got {self.meta_batch_size}.",
            )

    def rate(self, step: float, steps: int) -> float:
        """The outer learning rate at a step, counted from 0, out of so many."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return self.outer_lr * (step + 1) / warm
        return self.outer_lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _refused(name: str, why: str) -> UserError:
    return UserError(f"The setting {name} {why}", field=("settings", name), hint=f"Change {named(name)}.")
