"""Gaussian processes: values have the covariance that the kernel says, and the oracle is the textbook's posterior."""

import math

import numpy as np
import pytest
import torch

from handful.errors import UserError
from handful.tasks.distribution import BLOCK
from handful.tasks.gaussian_process import GaussianProcess
from handful.tasks.opening import open_tasks
from handful.workflows.catalog import entry

KERNELS = ("rbf", "matern", "periodic")


class Known(GaussianProcess):
    """Every task has lengthscale 0.35, standard deviation 0.55 and period 0.3: the middle of each range."""

    def _covariance(self, uniform, inputs):
        fixed = uniform.clone()
        fixed[..., :3] = 0.5
        return super()._covariance(fixed, inputs)


def kernel(name: str, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """By the formulas of Rasmussen & Williams, Gaussian Processes for Machine Learning, chapter 4."""
    r, length = np.abs(x[:, None] - z[None, :]), 0.35
    if name == "rbf":
        k = np.exp(-(r**2) / (2 * length**2))
    elif name == "matern":
        k = (1 + 5**0.5 * r / length + 5 * r**2 / (3 * length**2)) * np.exp(-(5**0.5) * r / length)
    else:
        k = np.exp(-2 * np.sin(np.pi * r / 0.3) ** 2 / length**2)
    return 0.55**2 * k


@pytest.mark.parametrize("name", KERNELS)
def test_the_oracle_is_the_posterior_of_the_textbook(name):
    tasks = Known(name, seed=3).with_sizes(shot=7, query_shot=9)
    for index in range(5):
        support, query = tasks.task(index)
        x, z = (part.inputs.squeeze(-1).double().numpy() for part in (support, query))
        y = support.targets.squeeze(-1).double().numpy()
        inverse = np.linalg.inv(kernel(name, x, x) + 0.02**2 * np.eye(7))
        across = kernel(name, z, x)
        covariance = kernel(name, z, z) - across @ inverse @ across.T + 0.02**2 * np.eye(9)
        mean, variance = (part.squeeze(-1).double().numpy() for part in tasks.oracle(index))
        np.testing.assert_allclose(mean, across @ inverse @ y, atol=1e-4)
        np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", KERNELS)
def test_values_vary_together_as_the_kernel_says(name):
    """Whitened by the kernel, the values of many tasks are independent and of variance 1."""
    tasks = Known(name, seed=1).with_sizes(shot=6, query_shot=4)
    white = []
    for index in range(400):
        x, y = (torch.cat(parts).squeeze(-1).double().numpy() for parts in zip(*tasks.task(index), strict=True))
        factor = np.linalg.cholesky(kernel(name, x, x) + 0.02**2 * np.eye(10))
        white.append(np.linalg.solve(factor, y))
    moments = np.stack(white).T @ np.stack(white) / 400
    assert np.abs(moments - np.eye(10)).max() < 5 * math.sqrt(2 / 400)


def test_hyperparameters_are_drawn_anew_for_each_task_within_their_ranges():
    """Seen in the variance of a value, and in its correlation with another one 0.2 away."""
    tasks = GaussianProcess(seed=5).with_sizes(shot=3, query_shot=3)
    inputs = torch.tensor([0.0, 0.2], dtype=torch.float64)
    covariances = []
    for index in range(400):
        uniform = torch.rand(3, generator=tasks.generator_of(index), dtype=torch.float64)
        covariances.append(tasks._covariance(uniform, inputs))
    variances = torch.stack([c[0, 0] for c in covariances]) - 0.02**2
    deviations = variances.sqrt()
    assert 0.1 <= deviations.min() < 0.12
    assert 0.98 < deviations.max() <= 1
    lengths = 0.2 / (-2 * (torch.stack([c[0, 1] for c in covariances]) / variances).log()).sqrt()
    assert 0.1 <= lengths.min() < 0.11
    assert 0.59 < lengths.max() <= 0.6


def test_sizes_are_those_of_the_protocol():
    tasks = GaussianProcess(seed=2)
    sizes = [tasks.sizes_of(BLOCK * block) for block in range(500)]
    assert {size.shot for size in sizes} == set(range(3, 47))
    assert all(3 <= size.query_shot <= 49 - size.shot for size in sizes)
    of_few = {size.query_shot for size in sizes if size.shot < 10}
    assert min(of_few) < 8
    assert max(of_few) > 35
    assert tasks.task(0).query.inputs.shape == (sizes[0].query_shot, 1)
    assert all(part.inputs.abs().max() <= 2 for part in tasks.task(0))


def test_sizes_that_are_asked_for_are_given():
    tasks = GaussianProcess().with_sizes(shot=100, query_shot=30)
    assert [len(part.inputs) for part in tasks.task(0)] == [100, 30]
    assert len(GaussianProcess().with_sizes(shot=100, query_shot=(20, 30)).task(0).query.inputs) == 20


def test_better_knowledge_of_the_task_makes_the_oracle_surer():
    few, many = (GaussianProcess(seed=1).with_sizes(shot=shot, query_shot=20) for shot in (3, 40))
    spread = [torch.stack([tasks.oracle(i).variance.mean() for i in range(50)]).mean() for tasks in (few, many)]
    assert spread[1] < 0.3 * spread[0]


def test_the_kernel_is_named_behind_the_source():
    assert open_tasks("gp").kernel == "rbf"
    assert open_tasks("gp:matern", seed=4).seed == 4
    found = {name: open_tasks(f"gp:{name}").with_sizes(shot=5, query_shot=5).task(0) for name in KERNELS}
    values = [task.query.targets for task in found.values()]
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])
    with pytest.raises(UserError, match="rbf, matern, periodic, not 'linear'"):
        open_tasks("gp:linear")
    with pytest.raises(UserError, match="does not take a path"):
        open_tasks("sine:rbf")
    with pytest.raises(UserError, match="write omniglot:PATH"):
        open_tasks("omniglot")
    assert "one of rbf, matern, periodic: gp is gp:rbf" in entry("gp")["text"]
    assert "omniglot:PATH" in entry("omniglot")["text"]
    assert entry("sine")["text"].endswith("scored on 50.")
