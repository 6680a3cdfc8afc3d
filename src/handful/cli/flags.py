"""Command-line spellings of the parameters in the library's hints."""

OTHER_NAMES = {
    **{name: f"--set training.{name}=" for name in ("checkpoint_every", "clip", "validate_every", "validation_tasks")},
    **{name: f"--set training.{name}=" for name in ("warmup", "weight_decay")},
    "backbone_options": "--set backbone.NAME=",
    "first_order": "--set first_order=",
    "folder": "-o",
    "inner_lr": "--set inner_lr=",
    "limits": "--no-limits",
    "path": "-o",
    "pretrain_examples": "--pretrain",
    "trials": "--tune",
    "warm_start": "--from",
}
"""Options whose names differ from the parameters."""


def flag(parameter: str) -> str:
    """The option for a parameter: "query_shot" is --query-shot."""
    return OTHER_NAMES.get(parameter, f"--{parameter.replace('_', '-')}")
