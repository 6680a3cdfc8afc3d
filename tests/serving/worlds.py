"""Small models and services for tests."""

import torch

from handful.learners.bayesian_heads import BayesianLastLayer
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.types import TaskSpec


def classifier(seed=0):
    spec = TaskSpec("classification", (3,), 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear", seed=seed), facts={"seed": seed})


def regressor():
    spec = TaskSpec("regression", (3,), 1, "shared")
    return MetaModel(BayesianLastLayer.build(spec, backbone="mlp", backbone_options={"hidden": [6]}))


def points(*numbers):
    """An input for each number, unlike those of others."""
    return [torch.randn(3, generator=torch.Generator().manual_seed(number)).tolist() for number in numbers]


def blind():
    """A classifier that sees nothing of its inputs."""
    learner = classifier().learner
    with torch.no_grad():
        learner.backbone.weight.copy_(-torch.eye(3))  # which is added to the identity
    return MetaModel(learner)


def clusters(each, seed=0):
    """Inputs and labels of two classes that are far apart, so many of each."""
    noise = torch.randn(2, each, 3, generator=torch.Generator().manual_seed(seed)) / 4
    noise[1] += 5
    return noise.flatten(0, 1).tolist(), ["a"] * each + ["b"] * each


def filled(service, tenant, model=None):
    """Give a tenant rows of each kind: a key, an answer to a request, and a receipt."""
    service.keys.create(tenant, "predict", "\u65e5")
    how = {"model": model, "tenant": tenant}
    service.create("kept", points(1, 2, 3), [*"aab"], idempotency_key="filled", **how)
    task = service.create("\u00e4pfel", points(1, 2, 3), [*"aab"], **how).id
    service.erase(task, [service.examples(task, tenant=tenant)[0].id], tenant=tenant)
