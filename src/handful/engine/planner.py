"""Choosing a plan."""

from torch import nn

from handful.engine.plan import Plan


def rule(learner: nn.Module) -> Plan:
    """A plan without measuring: one by one where there are convolutions, else all at once.

    On a CPU, `vmap` over per-task convolution weights is slower and far fatter than a loop, and even shared ones
    lose their native batch norm under it; networks of matrices are many times faster all at once.
    """
    if any(parameter.ndim >= 4 for parameter in learner.parameters()):
        return Plan("loop")
    return Plan("vmap")
