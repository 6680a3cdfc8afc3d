"""The meta-gradient of the mean loss over tasks: exact, complete, and the same under every plan."""

import pytest
import torch
from torch import nn

from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.types import Examples, Task, TaskSpec

SPEC = TaskSpec("regression", (3,), 1)
PLANS = [Plan("vmap"), Plan("chunks", 2), Plan("loop")]


class Toy(nn.Module):
    """A meta-loss whose gradient is known: squared error of a fit that depends on the support."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 1, dtype=torch.float64))
        self.unused = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.fixed = nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=False)

    def forward(self, task, spec, noise=None):
        assert spec is SPEC
        shift = (task.support.targets - task.support.inputs @ self.weight).mean()
        error = task.query.inputs @ self.weight + shift - task.query.targets
        return (error.square().mean()) * (1 if noise is None else noise)


def tasks(count=5):
    def examples(n):
        return Examples(torch.randn(count, n, 3, dtype=torch.float64), torch.randn(count, n, 1, dtype=torch.float64))

    return Task(examples(4), examples(6))


def reference(toy, batch, noise=None):
    losses = torch.stack(
        [
            toy(
                Task(*(Examples(*(leaf[i] for leaf in part)) for part in batch)),
                SPEC,
                None if noise is None else noise[i],
            )
            for i in range(len(batch.support.inputs))
        ]
    )
    return losses, torch.autograd.grad(losses.mean(), toy.weight)[0]


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("noisy", [False, True])
def test_it_is_the_gradient_of_the_mean_loss(plan, noisy):
    toy, batch = Toy(), tasks()
    noise = torch.rand(5, dtype=torch.float64) if noisy else None
    losses, gradients = meta_gradient(toy, batch, SPEC, plan=plan, noise=noise)
    expected_losses, expected = reference(toy, batch, noise)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients["weight"], expected, rtol=1e-12, atol=1e-12)
    assert not losses.requires_grad


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_every_trainable_parameter_gets_a_gradient_and_no_other(plan):
    """T7: zeros, never None, where the loss does not depend on it."""
    toy = Toy()
    _, gradients = meta_gradient(toy, tasks(), SPEC, plan=plan)
    assert set(gradients) == {"weight", "unused"}
    assert torch.equal(gradients["unused"], torch.zeros(2, dtype=torch.float64))
    assert all(parameter.grad is None for parameter in toy.parameters())


def test_changed_weights_are_seen_by_the_next_call():
    """The thread's skeleton holds structure, not numbers."""
    toy, batch = Toy(), tasks()
    first, _ = meta_gradient(toy, batch, SPEC, plan=Plan("vmap"))
    with torch.no_grad():
        toy.weight.add_(1)
    second, _ = meta_gradient(toy, batch, SPEC, plan=Plan("vmap"))
    torch.testing.assert_close(second, reference(toy, batch)[0])
    assert not torch.allclose(first, second)
