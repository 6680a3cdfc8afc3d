"""handful's own engine."""

import math
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine.networks import TorchStep, backbone, tensors
from benchmarks.engine.workloads import Batch, Workload
from handful.engine.meta_gradient import MetaGradient
from handful.engine.planner import rule
from handful.learners.learner import Learner
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.types import Examples, Task, TaskSpec

VERSIONS = {"torch": torch.__version__, "handful": version("handful")}


class Step(TorchStep):
    """The meta-gradient of a learner."""

    def __init__(self, workload: Workload, dtype: str, **options: Any) -> None:
        kind = "classification" if workload.classification else "regression"
        self.spec = TaskSpec(kind, workload.input_shape, workload.outputs)
        self.learner = learner_of(workload, self.spec, dtype)
        self.gradient = MetaGradient(self.learner, replace(rule(self.learner, workload.tasks), **options))
        super().__init__(workload, dtype, {n: p for n, p in self.learner.named_parameters() if p.requires_grad})

    def convert(self, batch: Batch) -> Task:
        """What `step` takes; its time does not count."""
        support_inputs, support_targets, query_inputs, query_targets = super().convert(batch)
        return Task(Examples(support_inputs, support_targets), Examples(query_inputs, query_targets))

    def backward(self, tasks: Task) -> Tensor:
        """Put the meta-gradient into the parameters' `grad`."""
        losses, gradients = self.gradient(tasks, self.spec)
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        return losses.mean()


def prepare(workload: Workload, dtype: str, **options: Any) -> Step:
    """The step of this implementation; the options are those of a plan."""
    return Step(workload, dtype, **options)


def learner_of(workload: Workload, spec: TaskSpec, dtype: str) -> Learner:
    """The workload's learner with its starting weights."""
    network, options = {
        "mlp": ("mlp", {"hidden": workload.widths}),
        "conv4": ("conv4", {"widths": workload.widths}),
        "linear": ("raw", {}),
        "transformer": (backbone(workload), {}),
    }[workload.network]
    learner: Learner
    if workload.method == "maml":
        learner = MAML.build(
            spec,
            backbone=network,
            backbone_options=options,
            normalization="transductive",
            inner_steps=workload.inner_steps,
            head="slots",
        )
        fixed = {f"rates.{name}": workload.inner_lr for name in learner.rates}
    else:
        learner = PrototypicalNetwork.build(
            spec, backbone=network, backbone_options=options, normalization="transductive"
        )
        # Distances are means over features: times their number they are the sums that the others take.
        learner.log_scale.requires_grad_(False)
        fixed = {"log_scale": math.log(workload.features)}
    learner.to(getattr(torch, dtype))
    missing = learner.load_state_dict(tensors(workload.start(), dtype), strict=False).missing_keys
    own = dict(learner.named_parameters())
    for name, value in fixed.items():  # after the conversion, so that doubles hold all digits
        own[name].data.fill_(value)
    unset = [name for name in missing if name in own and name not in fixed]
    assert not unset, f"no starting weights for {unset}"
    return learner
