"""The meta-gradient of the mean loss over tasks: exact, complete, and the same under every plan."""

import threading

import pytest
import torch
from torch import nn

from handful.engine.meta_gradient import MetaGradient, branches, meta_gradient, shared_tree_sum, tree_sum
from handful.engine.plan import Plan
from handful.engine.threads import cores
from handful.errors import UserError
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


def test_a_gradient_is_laid_out_as_its_parameter():
    """A fused optimizer walks both memories alike; the gradients of convolutions may come out as channels last."""

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(8, 8, 3)

        def forward(self, task, spec):
            return self.layer(task.query.inputs.contiguous(memory_format=torch.channels_last)).square().mean()

    module = Convolution()
    examples = Examples(torch.randn(2, 4, 8, 6, 6), torch.zeros(2, 4))
    _, gradients = meta_gradient(module, Task(examples, examples), SPEC, plan=Plan("loop"))
    loss = torch.stack([module(Task(*[Examples(*(leaf[i] for leaf in examples))] * 2), SPEC) for i in range(2)]).mean()
    loss.backward()
    for name, parameter in module.named_parameters():
        assert gradients[name].stride() == parameter.stride()
        torch.testing.assert_close(gradients[name], parameter.grad)


# The tree


class Together:
    """Workers in threads, which hear one another by way of a list."""

    def __init__(self, rank, count, heard, barrier):
        self.rank, self.count, self.heard, self.barrier = rank, count, heard, barrier

    def gather(self, sums, *, most, losses):
        assert 1 <= len(sums) <= most
        assert all(len(leaf[0]) <= losses for leaf in sums)
        self.heard[self.rank] = sums
        self.barrier.wait()
        return [leaf for sums in self.heard for leaf in sums]


def parts_of(count, size=2):
    generator = torch.Generator().manual_seed(count)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 10 ** (4 * torch.rand(shape, generator=generator))

    return [(random(size), [random(3, 4), random(5), random()]) for _ in range(count)]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip([one[0], *one[1]], [other[0], *other[1]], strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 13, 64])
def test_the_sum_of_workers_has_the_bits_of_one_process(count):
    parts = parts_of(count)
    expected = tree_sum(iter(parts), count)
    for workers in range(1, min(count, 5) + 1):
        heard, barrier, sums = [None] * workers, threading.Barrier(workers), [None] * workers
        _, runs = branches(count, workers)
        starts = [sum(map(sum, runs[:rank])) for rank in range(workers + 1)]

        def work(rank, workers=workers, heard=heard, barrier=barrier, sums=sums, starts=starts):
            own = iter(parts[starts[rank] : starts[rank + 1]])
            sums[rank] = shared_tree_sum(own, count, Together(rank, workers, heard, barrier), size=2)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert starts[-1] == count
        assert all(equal(one, expected) for one in sums)


def test_sums_in_another_order_have_other_bits():
    """So that the test above can fail."""
    parts = parts_of(13)
    total = parts[0][1][0]
    for part in parts[1:]:
        total = total + part[1][0]
    assert not torch.equal(total, tree_sum(iter(parts), 13)[1][0])


def test_workers_share_as_evenly_as_whole_branches_allow():
    assert branches(8, 1) == (0, [[8]])
    assert branches(8, 2) == (1, [[4], [4]])
    assert branches(8, 4) == (2, [[2], [2], [2], [2]])
    assert branches(4, 3) == (2, [[1], [1], [1, 1]])
    assert branches(3, 3) == (2, [[1], [1], [1]])


def test_threads_are_restored_where_the_sum_raises():
    def lost(parts):
        next(parts)
        raise UserError("another worker is gone")

    before = torch.get_num_threads()
    with pytest.raises(UserError) as caught:
        MetaGradient(Toy(), Plan("loop", threads=2))(tasks(), SPEC, None, lost)
    assert caught.traceback, "kept, with all that its frames hold"
    assert torch.get_num_threads() == cores() == before
