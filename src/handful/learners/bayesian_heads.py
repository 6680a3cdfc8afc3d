"""Bayesian regression on learned features: predictions that say how sure they are."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.backbones import feature_count
from handful.functional.closed_form_heads import cholesky, squared_distances
from handful.learners.learner import Learner, Race
from handful.learners.options import Positive
from handful.types import Examples, Gaussian, TaskSpec, TaskState, check_shape

SPEED = 10.0
"""How many times faster than weights the scales of noise and prior are learned. A step of Adam changes a parameter by
about the learning rate, and tasks may be nearly all noise, or have none."""


class BayesianLastLayer(Learner):
    """Bayesian linear regression on learned features, from a learned prior of the last layer.

    *Meta-Learning Priors for Efficient Online Bayesian Regression* (Harrison, Sharma & Pavone, 2018),
    https://arxiv.org/abs/1807.08912 (ALPaCA). Meta-learned are the features, the prior's mean and covariance, and the
    noise of each output; the posterior is exact. Departures: the noise is learned, not given; a constant is among the
    features; the prior's covariance, and not its inverse, has a Cholesky factor as parameters, so that every matrix
    that is solved with is one plus something positive; the scales of noise and prior learn faster than weights, so that
    noisy tasks soon shrink towards the prior's mean. The noise is a deviation above `smallest_noise`, by `noise` at the
    start of meta-learning, and `prior` the deviation of a weight there. The posterior could be updated example by
    example; here a task is adapted to all its examples at once, with the same result.
    """

    key = "bayesian-last-layer"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 1}
    predicts_deviation = True
    kinds = frozenset({"regression"})

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        noise: Positive = 0.3,
        prior: Positive = 0.3,
        smallest_noise: Positive = 0.01,
    ) -> None:
        super().__init__()
        size = feature_count(backbone, spec.input_shape) + 1
        self.backbone, self.outputs = backbone, spec.outputs
        self.smallest_noise = smallest_noise
        self.noise_exponents = nn.Parameter(torch.full((spec.outputs,), _exponent(noise)))
        self.prior_mean = nn.Parameter(torch.zeros(size, spec.outputs))
        # In units of the noise: the prior's covariance is `factor @ factor.T` times the variance of the noise.
        self.prior_exponents = nn.Parameter(torch.full((size,), _exponent(prior / (noise + smallest_noise))))
        self.prior_below_diagonal = nn.Parameter(torch.zeros(size, size))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The posterior's mean `(d, outputs)`, and a factor `(d, d)` of its covariance in units of the noise."""
        self._check_outputs(spec)
        features = self._features(support.inputs)
        factor = self.prior_below_diagonal.tril(-1) + torch.diag_embed((SPEED * self.prior_exponents).exp())
        expected = features @ self.prior_mean
        check_shape("targets", support.targets, expected)
        change, shrinkage = posterior(features @ factor, support.targets - expected)
        return {"mean": self.prior_mean + factor @ change, "factor": factor @ shrinkage}

    def predict(self, state: TaskState, inputs: Tensor) -> Gaussian:
        """The posterior predictive distribution, noise included."""
        features = self._features(inputs)
        uncertainty = (features @ state["factor"]).square().sum(-1, keepdim=True)  # (n, 1), in units of the noise
        noise = (SPEED * self.noise_exponents).exp() + self.smallest_noise
        return Gaussian(features @ state["mean"], noise.square() * (1 + uncertainty))

    def _features(self, inputs: Tensor) -> Tensor:
        return F.pad(self.backbone(inputs), (0, 1), value=1.0)


def posterior(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of weights with a standard normal prior, seen with noise of variance 1: mean `(d, outputs)` and factor `(d, d)`.

    features `(n, d)`, targets `(n, outputs)`; the covariance is `factor @ factor.T`. With fewer examples than features
    the matrix to solve with is n x n, and the factor is Andrews' (*A Square Root Formulation of the Kalman Covariance
    Equations*, 1968, https://doi.org/10.2514/3.4693): no difference of large numbers is ever a variance.
    """
    n, d = features.shape
    like, features, targets = features, features.double(), targets.double()  # repeated examples make huge numbers
    one = torch.eye(min(n, d), dtype=features.dtype, device=features.device)
    if n < d:
        lower = cholesky(features @ features.mT + one)
        white = torch.linalg.solve_triangular(lower, torch.cat([features, targets], dim=-1), upper=False)
        half = white[:, :d]  # (n, d)
        other = torch.linalg.solve_triangular(lower + one, features, upper=False)
        mean = half.mT @ white[:, d:]
        factor = torch.eye(d, dtype=features.dtype, device=features.device) - half.mT @ other
    else:
        lower = cholesky(features.mT @ features + one)
        factor = torch.linalg.solve_triangular(lower, one, upper=False).mT
        mean = factor @ (factor.mT @ (features.mT @ targets))
    return mean.to(like), factor.to(like)


def _exponent(value: float) -> float:
    """What `SPEED` times it is the logarithm of, in single precision."""
    return float(torch.tensor(value, device="cpu").log() / SPEED)


class DeepKernelTransfer(Learner):
    """A Gaussian process on learned features, with a learned kernel and noise.

    *Bayesian Meta-Learning for the Few-Shot Setting via Deep Kernels* (Patacchiola et al., 2020),
    https://arxiv.org/abs/1910.05199. The kernel is Gaussian; scale, lengthscale, noise and mean of each output are
    learned with the features. Departures: the query's predictive likelihood is maximized, given the support, in place
    of the marginal likelihood of both; regression only. The noise is a deviation above `smallest_noise`, by `noise`
    where meta-learning starts. The state holds the support's features: it grows with the support.
    """

    key = "dkt"
    features_only = True
    candidate_for: ClassVar[dict[Race, int]] = {"rows": 4}
    state_holds_examples = True
    predicts_deviation = True
    kinds = frozenset({"regression"})

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, noise: Positive = 0.1, smallest_noise: Positive = 0.01
    ) -> None:
        super().__init__()
        self.size = feature_count(backbone, spec.input_shape)
        self.backbone, self.outputs = backbone, spec.outputs
        self.smallest_noise = smallest_noise
        self.mean = nn.Parameter(torch.zeros(spec.outputs))
        self.log_scale = nn.Parameter(torch.zeros(spec.outputs))
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))
        self.log_lengthscale = nn.Parameter(torch.zeros(()))

    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """The support's features `(n, d)`, the Cholesky factor `(n, n)` of their kernel, and weights `(n, outputs)`."""
        self._check_outputs(spec)
        features = self.backbone(support.inputs).clone()  # "raw" returns its inputs
        exact = features.double()  # in float32 the kernel of many equal examples may have no Cholesky factor
        noise = self._noise().square() * torch.eye(len(exact), dtype=exact.dtype, device=exact.device)
        lower = cholesky(self._kernel(exact, exact) + noise)
        expected = self.mean.expand(len(features), -1)
        check_shape("targets", support.targets, expected)
        weights = torch.cholesky_solve((support.targets - expected).double(), lower)
        return {
            "features": features,
            "lower": lower.to(features).contiguous(),
            "weights": weights.to(features).contiguous(),
        }

    def predict(self, state: TaskState, inputs: Tensor) -> Gaussian:
        """The posterior predictive distribution, noise included."""
        # The support is in the middle: around the queries' mean, a far one would cost the others their digits.
        across = self._kernel(self.backbone(inputs), state["features"]).mT  # (n, queries)
        explained = torch.linalg.solve_triangular(state["lower"], across, upper=False).square().sum(0)
        # Never below the noise: rounding may make the explained variance more than all of it.
        variance = (1 - explained).clamp_min(0).unsqueeze(-1) + self._noise().square()
        return Gaussian(self.mean + across.mT @ state["weights"], self.log_scale.exp().square() * variance)

    def _kernel(self, features: Tensor, others: Tensor) -> Tensor:
        """In units of the scale: 1 for equal features."""
        distances = squared_distances(features, others).clamp_min(0) / self.size
        return torch.exp(-0.5 * distances * (-2 * self.log_lengthscale).exp())

    def _noise(self) -> Tensor:
        """Its standard deviation, in units of the scale."""
        return self.log_noise.exp() + self.smallest_noise
