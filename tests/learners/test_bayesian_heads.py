"""Bayesian regression: the posterior is the textbook's, in both forms, and its uncertainty is honest."""

import numpy as np
import pytest
import torch

from contracts.problems import VALUES
from handful import evaluate, meta_train
from handful.errors import UserError
from handful.learners.bayesian_heads import SPEED, BayesianLastLayer, DeepKernelTransfer, posterior
from handful.tasks.distribution import SizeRanges, TaskDistribution
from handful.tasks.gaussian_process import GaussianProcess
from handful.tasks.sine import Sine
from handful.types import Examples, Task, TaskSpec

SPEC = TaskSpec("regression", (3,), 2)


def away_from_the_start(learner, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.double().parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return learner.eval()


def examples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Examples(*(torch.randn(count, size, generator=generator, dtype=torch.float64) for size in (3, 2)))


@pytest.mark.parametrize("count", [2, 4, 9], ids=["fewer examples than features", "as many", "more"])
def test_the_posterior_is_the_closed_form_of_the_paper(count):
    """ALPaCA's equations with the prior's precision, all in numpy."""
    learner = away_from_the_start(BayesianLastLayer.build(SPEC, backbone="raw"))
    support, query = examples(count), examples(5, seed=1)
    state = learner.adapt(support, SPEC)
    mean, variance = (part.detach().numpy() for part in learner.predict(state, query.inputs))
    features, ahead = (np.c_[part.inputs.numpy(), np.ones(len(part.inputs))] for part in (support, query))
    factor = np.tril(learner.prior_below_diagonal.detach().numpy(), -1)
    factor = factor + np.diag(np.exp(SPEED * learner.prior_exponents.detach().numpy()))
    prior_precision, prior_mean = np.linalg.inv(factor @ factor.T), learner.prior_mean.detach().numpy()
    precision = features.T @ features + prior_precision
    weights = np.linalg.solve(precision, features.T @ support.targets.numpy() + prior_precision @ prior_mean)
    noise = (np.exp(SPEED * learner.noise_exponents.detach().numpy()) + 0.01) ** 2
    spread = np.einsum("ni,ij,nj->n", ahead, np.linalg.inv(precision), ahead)
    np.testing.assert_allclose(mean, ahead @ weights, rtol=1e-7)
    np.testing.assert_allclose(variance, (1 + spread)[:, None] * noise, rtol=1e-7)
    covariance = (state["factor"] @ state["factor"].mT).detach().numpy()
    np.testing.assert_allclose(covariance, np.linalg.inv(precision), rtol=1e-6, atol=1e-9)


def test_examples_one_after_the_other_give_what_they_give_at_once():
    """The posterior of the first is the prior of the next."""
    x, y = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, factor = torch.zeros(4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for row in range(12):
        features = x[row : row + 1]
        change, shrinkage = posterior(features @ factor, y[row : row + 1] - features @ mean)
        mean, factor = mean + factor @ change, factor @ shrinkage
    at_once, whole = posterior(x, y)
    torch.testing.assert_close(mean, at_once)
    torch.testing.assert_close(factor @ factor.mT, whole @ whole.mT)


@pytest.mark.parametrize("count", [5, 200])
def test_float32_is_enough_where_the_noise_is_small_and_examples_are_repeated(count):
    """Variances neither vanish nor turn negative, with weights five hundred times as large as the noise."""
    learner = BayesianLastLayer.build(SPEC, backbone="mlp", prior=10.0, noise=0.01)
    support = Examples(*(part[:1].repeat(count, 1).float() for part in examples(1)))
    prediction = learner.predict(learner.adapt(support, SPEC), support.inputs[:1])
    assert prediction.mean.isfinite().all()
    assert (prediction.variance >= 0.99 * 0.02**2).all()
    assert (prediction.variance < 2.1 * 0.02**2).all()


def test_the_deep_kernels_posterior_is_that_of_a_gaussian_process():
    learner = away_from_the_start(DeepKernelTransfer.build(SPEC, backbone="raw"))
    support, query = examples(6), examples(4, seed=1)
    mean, variance = (p.detach().numpy() for p in learner.predict(learner.adapt(support, SPEC), query.inputs))

    def kernel(a, b):
        squared = ((a[:, None] - b[None]) ** 2).sum(-1) / 3
        return np.exp(-squared / (2 * np.exp(2 * learner.log_lengthscale.item())))

    x, z, noise = support.inputs.numpy(), query.inputs.numpy(), (np.exp(learner.log_noise.item()) + 0.01) ** 2
    inverse = np.linalg.inv(kernel(x, x) + noise * np.eye(6))
    offset, scale = learner.mean.detach().numpy(), np.exp(2 * learner.log_scale.detach().numpy())
    np.testing.assert_allclose(mean, offset + kernel(z, x) @ inverse @ (support.targets.numpy() - offset), rtol=1e-7)
    spread = np.diag(kernel(z, z) - kernel(z, x) @ inverse @ kernel(x, z)) + noise
    np.testing.assert_allclose(variance, spread[:, None] * scale, rtol=1e-7)


def test_a_far_query_does_not_change_the_answers_to_others():
    learner = away_from_the_start(DeepKernelTransfer.build(SPEC, backbone="raw")).float()
    state = learner.adapt(Examples(*(leaf.float() for leaf in examples(8))), SPEC)
    queries = examples(5, seed=1).inputs.float()
    among = learner.predict(state, torch.cat([queries, torch.full((1, 3), 1e5)]))
    torch.testing.assert_close(among.mean[:5], learner.predict(state, queries).mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [BayesianLastLayer, DeepKernelTransfer])
def test_more_examples_make_it_surer(cls):
    learner = away_from_the_start(cls.build(SPEC, backbone="mlp"))
    query = examples(20, seed=1).inputs
    spread = [learner.predict(learner.adapt(examples(n), SPEC), query).variance.mean() for n in (1, 5, 30)]
    assert spread[0] > spread[1] > spread[2]


def test_meta_training_learns_the_prior_of_sines():
    """Two features, sine and cosine, are all that a wave needs; five points then tell it."""
    waves = Sine().with_sizes(shot=5, query_shot=20)
    learner = BayesianLastLayer.build(waves.spec)
    before = evaluate(learner, waves.split("val"), tasks=100)
    meta_train(learner, waves, steps=120, meta_batch_size=8, outer_lr=0.005, validation_tasks=2, plan="vmap")
    after = evaluate(learner, waves.split("val"), tasks=100)
    assert after.score.high < 0.5 * before.score.low
    assert after.log_likelihood.low > before.log_likelihood.high


def test_on_a_gaussian_process_the_kernel_of_its_own_features_comes_nearer_to_the_best():
    tasks = GaussianProcess().with_sizes(shot=15, query_shot=15)
    learner = DeepKernelTransfer.build(tasks.spec, backbone="raw")
    before = evaluate(learner, tasks.split("val"), tasks=64)
    meta_train(learner, tasks, steps=50, meta_batch_size=8, outer_lr=0.05, validation_tasks=2, plan="vmap")
    found = evaluate(learner, tasks.split("val"), tasks=64)
    assert found.likelihood_gap.low > 0, "nothing is better than the oracle"
    assert found.likelihood_gap.high < before.likelihood_gap.low


@pytest.mark.parametrize("option", ["noise", "prior", "smallest_noise"])
def test_deviations_that_cannot_be_are_refused(option):
    with pytest.raises(UserError, match=f"{option}.*above 0, not -1"):
        BayesianLastLayer.build(SPEC, **{option: -1.0})


@pytest.mark.parametrize("cls", [BayesianLastLayer, DeepKernelTransfer])
def test_one_value_for_two_outputs_is_refused_and_never_broadcast(cls):
    learner, task = VALUES.learner(cls), VALUES.task()
    with pytest.raises(UserError, match=r"targets.*\(6, 2\)"):
        learner.adapt(Examples(task.support.inputs, task.support.targets[:, :1]), VALUES.spec)


class NoisyTasks(TaskDistribution):
    """One function of three numbers for all tasks, under noise as large as the function: five examples tell nothing."""

    default_sizes = SizeRanges(way=None, shot=5, query_shot=10)

    def spec_for(self, sizes):
        return TaskSpec("regression", (3,), 1)

    def sample(self, generator, sizes):
        def examples(count):
            inputs, noise = (torch.randn(count, size, generator=generator) for size in (3, 1))
            return Examples(inputs, inputs[:, :1] + noise)

        return Task(examples(sizes.shot), examples(sizes.query_shot))


def test_a_short_training_on_noisy_tasks_shrinks_towards_what_all_tasks_share():
    """The least error is that of the noise, 1; a posterior that trusts five examples has four times as much.

    The best log-likelihood is -1.4; with a noise that could not yet be learned, it is -3.
    """
    tasks = NoisyTasks()
    learner = BayesianLastLayer.build(tasks.spec, backbone="mlp", backbone_options={"hidden": (16,)})
    meta_train(learner, tasks, steps=200, validate_every=100, validation_tasks=20, plan="vmap")
    found = evaluate(learner, tasks.split("test"), tasks=100)
    assert found.score.mean < 2
    assert found.log_likelihood.mean > -2
