"""Modules as pure functions: nothing is written, threads do not meet, tied weights stay tied."""

import sys
import threading
import time

import torch
from torch import nn
from torch.func import functional_call, grad

from handful.functional.normalization import BatchNorm, convert
from handful.functional.stateless import call, call_and_fit, part, skeleton, tensors


class Pause(nn.Module):
    """Lets the other thread run in the middle of a forward pass."""

    def forward(self, x):
        time.sleep(1e-5)
        return x


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def inputs():
    return torch.randn(5, 3, dtype=torch.float64)


def test_a_call_uses_the_given_values_and_leaves_the_module_as_it_was():
    module, x = network(), inputs()
    doubled = {name: 2 * value for name, value in tensors(module).items()}
    before = {name: value.clone() for name, value in tensors(module).items()}
    other = network()
    other.load_state_dict(doubled)
    assert torch.equal(call(module, doubled, x), other(x))
    assert all(torch.equal(value, before[name]) for name, value in tensors(module).items())


def test_tied_weights_are_named_once_and_get_one_sum_of_gradients():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double()
    module[1].weight = module[0].weight
    values = tensors(module)
    assert list(values) == ["0.weight", "0.bias", "1.bias"]
    x = inputs()
    (own,) = torch.autograd.grad(module(x).square().sum(), module[0].weight)
    (stateless,) = torch.autograd.grad(call(module, values, x).square().sum(), module[0].weight)
    torch.testing.assert_close(stateless, own)
    doubled = call(module, values | {"0.weight": 2 * module[0].weight}, x)
    with torch.no_grad():
        module[0].weight.mul_(2)
    torch.testing.assert_close(doubled, module(x), msg="both layers have the new weight")


def test_each_thread_has_one_skeleton_without_numbers():
    module = network()
    own = skeleton(module)
    others = []
    thread = threading.Thread(target=lambda: others.append(skeleton(module)))
    thread.start()
    thread.join()
    assert own is skeleton(module)
    assert others[0] is not own
    assert {parameter.device.type for parameter in own.parameters()} == {"meta"}


def test_the_skeleton_follows_the_training_mode():
    module = convert(nn.Sequential(nn.BatchNorm1d(3)), "frozen").double()
    x = inputs()
    for training in (True, False, True):
        module.train(training)
        torch.testing.assert_close(call(module, tensors(module), x), module(x))


def test_a_skeleton_can_be_made_while_the_module_holds_the_tensors_of_a_transform():
    """`functional_call` on a learner whose own backbone is then called for the first time."""

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return call(self.inner, tensors(self.inner), x).square().sum()

    outer, x = Outer(), inputs()
    values = {name: value.detach() for name, value in outer.named_parameters()}
    gradients = grad(lambda v: functional_call(outer, v, (x,)))(values)
    expected = torch.autograd.grad(outer.inner(x).square().sum(), list(outer.parameters()))
    for own, reference in zip(gradients.values(), expected, strict=True):
        torch.testing.assert_close(own, reference)


def test_fitting_returns_the_statistics_of_the_batch_and_ends():
    module = nn.Sequential(BatchNorm(3, "support")).double()
    x = 2 * inputs() + 1
    outputs, statistics = call_and_fit(module, tensors(module), x)
    torch.testing.assert_close(statistics["0.mean"], x.mean(0))
    torch.testing.assert_close(statistics["0.variance"], x.var(0, correction=0))
    torch.testing.assert_close(outputs, call(module, tensors(module) | statistics, x))
    assert not torch.allclose(call(module, tensors(module), x), outputs)
    assert torch.equal(module[0].mean, torch.zeros(3, dtype=torch.float64))


def test_two_threads_on_one_module_get_their_own_results():
    module, x = nn.Sequential(Pause(), *network()), inputs()
    values = [{name: factor * value for name, value in tensors(module).items()} for factor in (1, 3)]
    expected = [call(module, own, x) for own in values]
    wrong = []

    def run(index):
        wrong.extend(index for _ in range(100) if not torch.equal(call(module, values[index], x), expected[index]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not wrong


def test_a_part_has_the_names_that_its_module_gives():
    whole = nn.ModuleDict({"backbone": nn.Linear(2, 1), "backbones": nn.Linear(2, 1)})
    own = part(tensors(whole), "backbone")
    assert set(own) == {"weight", "bias"}
    assert own["weight"] is whole["backbone"].weight
