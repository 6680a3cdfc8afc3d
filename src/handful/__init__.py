"""Meta-learning and few-shot learning on PyTorch.

Names are resolved on first use, so that `import handful` and `handful --help` do not import torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Examples": "types",
    "Task": "types",
    "TaskSpec": "types",
    "Categorical": "types",
    "Point": "types",
    "Gaussian": "types",
    "HandfulError": "errors",
    "UserError": "errors",
    "DataError": "errors",
    "ArtifactError": "errors",
    "DivergedError": "errors",
    "Learner": "learners.learner",
    "TaskDistribution": "tasks.distribution",
    "Sizes": "tasks.distribution",
    "SizeRanges": "tasks.distribution",
    "LEARNERS": "registry",
    "TASKS": "registry",
    "BACKBONES": "registry",
    "METRICS": "registry",
    "Metric": "metrics",
    "evaluate": "evaluation.scoring",
    "Evaluation": "evaluation.scoring",
    "Ladder": "evaluation.ladder",
    "open_tasks": "tasks.opening",
    "Settings": "training.settings",
    "meta_train": "training.loop",
    "MetaModel": "models.meta_model",
    "AdaptedTask": "models.adapted_task",
    "TaskBank": "models.task_bank",
    "Service": "serving.service",
    "Client": "client.client",
    "AsyncClient": "client.client",
    "Plan": "engine.plan",
    "FewShotClassifier": "estimators",
    "FewShotRegressor": "estimators",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    return getattr(importlib.import_module(f"handful.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
