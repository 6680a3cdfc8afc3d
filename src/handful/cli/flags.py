"""How the command line spells the parameters that the library's hints name."""

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
"""Where an option has another name than the parameter."""


def flag(parameter: str) -> str:
    """The option for a parameter: "query_shot" is --query-shot."""
    return OTHER_NAMES.get(parameter, f"--{parameter.replace('_', '-')}")
