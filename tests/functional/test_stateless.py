"""Modules as pure functions: nothing is written, threads do not meet, tied weights stay tied."""

import functools
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from handful.functional.normalization import BatchNorm, convert
from handful.functional.stateless import call, call_and_fit, own_copy, part, shared_copy, skeleton, tensors


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


class Odd(nn.Module):
    """Keeps what modules of users keep beside their tensors."""

    def __init__(self):
        super().__init__()
        self.linear = nn.utils.weight_norm(nn.Linear(3, 3))
        self.table, self.lock, self.calls = np.zeros(1000), threading.Lock(), []
        self.hidden = {"layers": [nn.Linear(3, 3)], "scale": torch.ones(3)}
        self.seen = self.activation = None
        self.start = functools.partial(self.linear.__class__.forward, self.linear)
        self.activation = self.squash

    def squash(self, x):
        return torch.tanh(x) * self.hidden["scale"]

    def forward(self, x):
        with self.lock:
            self.seen = self.activation(self.hidden["layers"][0](self.linear(x)))
        return self.seen


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("made", [shared_copy, own_copy, skeleton], ids=["shared", "own", "skeleton"])
def test_a_copy_shares_what_holds_neither_modules_nor_tensors_and_has_all_else_of_its_own(made):
    module, x = Odd(), torch.randn(2, 3)
    expected = module(x)  # from here on there is a computed tensor, of which Python's deepcopy fails
    copied = made(module)
    assert copied.table is module.table
    assert copied.lock is module.lock
    assert copied.linear is not module.linear
    assert copied.hidden["layers"][0] is not module.hidden["layers"][0]
    assert copied.start.args[0] is copied.linear
    assert copied.activation.__self__ is copied
    torch.testing.assert_close(call(copied, tensors(module), x), expected)


def test_a_shared_copy_has_the_tensors_and_a_mode_of_its_own():
    module = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 2, 2))
    module[0].bias = nn.Parameter(torch.zeros(4))
    copied = shared_copy(module).eval()
    assert module.training
    assert all(tensors(copied)[name] is tensor for name, tensor in tensors(module).items())


def test_an_own_copy_shares_no_tensor_and_keeps_what_requires_a_gradient():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    module[0].weight.requires_grad_(False)
    copied = own_copy(module)
    for name, tensor in tensors(module).items():
        own = tensors(copied)[name]
        assert torch.equal(own, tensor)
        assert own.data_ptr() != tensor.data_ptr()
        assert own.requires_grad == tensor.requires_grad
