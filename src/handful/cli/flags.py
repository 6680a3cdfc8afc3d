"""How the command line spells the parameters that the library's hints name."""

OTHER_NAMES = {
    "inner_lr": "--set inner_lr=",
    "limits": "--no-limits",
    "path": "-o",
    "pretrain_examples": "--pretrain",
    "trials": "--tune",
    "warm_start": "--from",
    "weight_decay": "--set training.weight_decay=",
}
"""Where an option has another name than the parameter."""


def flag(parameter: str) -> str:
    """The option for a parameter: "query_shot" is --query-shot."""
    return OTHER_NAMES.get(parameter, f"--{parameter.replace('_', '-')}")
