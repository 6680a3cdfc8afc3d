"""The rungs on raw inputs against scikit-learn's, and what is ours about them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neighbors import NearestCentroid as ReferenceCentroid
from torch.utils import _pytree as pytree

from handful.backbones import Raw
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.functional.closed_form_heads import spread
from handful.learners.probes import Constant, LogisticProbe, NearestCentroid, NearestNeighbors, RidgeProbe
from handful.types import Examples, TaskSpec, stack

WAY, SHOT, D = 4, 3, 6
CLASSES = TaskSpec("classification", (D,), WAY)
VALUES = TaskSpec("regression", (D,), 2)
RUNGS = (Constant, NearestCentroid, NearestNeighbors, RidgeProbe, LogisticProbe)


def classes(seed: int = 0, shot: int = SHOT, way: int = WAY) -> tuple[Examples, torch.Tensor]:
    """A support set and query inputs in float64."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(way).repeat_interleave(shot)
    means = torch.randn(way, D, generator=generator, dtype=torch.float64)
    inputs = means[labels] + 0.7 * torch.randn(way * shot, D, generator=generator, dtype=torch.float64)
    return Examples(inputs, labels), torch.randn(20, D, generator=generator, dtype=torch.float64)


def values(seed: int = 0, count: int = 8) -> tuple[Examples, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, D, generator=generator, dtype=torch.float64)
    targets = inputs @ torch.randn(D, 2, generator=generator, dtype=torch.float64) + 3
    return Examples(inputs, targets), torch.randn(20, D, generator=generator, dtype=torch.float64)


def predicted(learner, support: Examples, query: torch.Tensor):
    return learner.predict(learner.adapt(support, learner.recipe["spec"]), query)


def test_constant_answers_the_majority_and_ties_are_equal() -> None:
    support = Examples(torch.zeros(5, D), torch.tensor([2, 2, 2, 0, 1]))
    logits = predicted(Constant.build(CLASSES), support, torch.zeros(3, D)).logits
    assert logits.argmax(-1).tolist() == [2, 2, 2]
    assert logits[0, 0] == logits[0, 1] > logits[0, 3] > -10
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(3))


def test_constant_answers_the_mean() -> None:
    support, query = values()
    mean = predicted(Constant.build(VALUES), support, query).mean
    torch.testing.assert_close(mean, support.targets.mean(0).expand(20, 2))


def test_constant_repeats_equal_targets_to_the_last_digit() -> None:
    targets = torch.tensor([[0.1, 1 / 3]]).expand(7, 2)
    mean = predicted(Constant.build(VALUES), Examples(torch.zeros(7, D), targets), torch.zeros(3, D)).mean
    assert torch.equal(mean, targets[:3])


def test_centroid_equals_scikit_learn_and_an_absent_class_never_wins() -> None:
    support, query = classes()
    reference = ReferenceCentroid().fit(support.inputs.numpy(), support.targets.numpy())
    logits = predicted(NearestCentroid.build(CLASSES), support, query).logits
    assert logits.argmax(-1).tolist() == reference.predict(query.numpy()).tolist()
    fewer = Examples(support.inputs[SHOT:], support.targets[SHOT:])
    logits = predicted(NearestCentroid.build(CLASSES), fewer, query).logits
    assert logits.isfinite().all()
    assert (logits.argmax(-1) != 0).all()


@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_neighbors_equal_scikit_learn(neighbors: int) -> None:
    support, query = classes(way=2, shot=6)  # two classes and an odd number of votes: no ties
    reference = KNeighborsClassifier(neighbors).fit(support.inputs.numpy(), support.targets.numpy())
    learner = NearestNeighbors.build(TaskSpec("classification", (D,), 2), neighbors=neighbors)
    assert predicted(learner, support, query).logits.argmax(-1).tolist() == reference.predict(query.numpy()).tolist()

    support, query = values()
    regression = KNeighborsRegressor(neighbors).fit(support.inputs.numpy(), support.targets.numpy())
    learner = NearestNeighbors.build(VALUES, neighbors=neighbors)
    np.testing.assert_allclose(predicted(learner, support, query).mean.numpy(), regression.predict(query.numpy()))


def test_a_tie_of_neighbors_goes_to_the_nearest_and_more_votes_always_win() -> None:
    spec = TaskSpec("classification", (1,), 3)
    query = torch.zeros(1, 1)
    tie = Examples(torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([0, 2, 1]))
    assert predicted(NearestNeighbors.build(spec, neighbors=3), tie, query).logits.argsort(-1).tolist() == [[0, 1, 2]]
    # the two nearest against the three farther ones
    votes = Examples(torch.arange(1.0, 6).unsqueeze(1), torch.tensor([0, 0, 1, 1, 1]))
    assert predicted(NearestNeighbors.build(spec, neighbors=5), votes, query).logits.argmax() == 1


def test_neighbors_are_capped_by_the_support() -> None:
    support, query = values(count=2)
    mean = predicted(NearestNeighbors.build(VALUES, neighbors=5), support, query).mean
    torch.testing.assert_close(mean, support.targets.mean(0).expand(20, 2))


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_ridge_probe_equals_scikit_learn(strength: float) -> None:
    support, query = values()
    scale = spread(support.inputs)
    reference = Ridge(alpha=strength).fit((support.inputs / scale).numpy(), support.targets.numpy())
    mean = predicted(RidgeProbe.build(VALUES, regularization=strength), support, query).mean
    np.testing.assert_allclose(mean.numpy(), reference.predict((query / scale).numpy()), atol=1e-8)


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_logistic_probe_gives_the_probabilities_of_scikit_learn(strength: float) -> None:
    support, query = classes()
    scale = spread(support.inputs)
    reference = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000)
    reference.fit((support.inputs / scale).numpy(), support.targets.numpy())
    ours = predicted(LogisticProbe.build(CLASSES, regularization=strength), support, query).logits.softmax(-1)
    np.testing.assert_allclose(ours.numpy(), reference.predict_proba((query / scale).numpy()), atol=5e-3)


@pytest.mark.parametrize("cls", [NearestCentroid, RidgeProbe, LogisticProbe])
def test_the_unit_of_the_inputs_does_not_matter(cls) -> None:
    support, query = classes()
    moved = support._replace(inputs=1000 * support.inputs + 50)
    learner = cls.build(CLASSES)
    torch.testing.assert_close(
        predicted(learner, support, query).logits,
        predicted(learner, moved, 1000 * query + 50).logits,
        atol=1e-6,
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        pytest.param(spec, cls, id=f"{spec.kind}-{cls.__name__}")
        for spec in (CLASSES, VALUES)
        for cls in RUNGS
        if spec.kind in cls.kinds
    ],
)
def test_many_tasks_at_once_are_as_one_by_one(cls, spec: TaskSpec) -> None:
    learner = cls.build(spec)
    draws = [(classes if spec.classification else values)(seed) for seed in range(4)]
    stacked = stack(draws)

    def one(draw):
        return predicted(learner, *draw)

    loop, vmap = (over_tasks(one, (stacked,), Plan(backend)) for backend in ("loop", "vmap"))
    torch.testing.assert_close(vmap[0], loop[0])


@pytest.mark.parametrize("cls", RUNGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_example_per_class_and_one_example_in_all_are_finite(cls, dtype: torch.dtype) -> None:
    learner = cls.build(CLASSES)
    for count in (WAY, 1):
        support = Examples(torch.randn(count, D, dtype=dtype), torch.arange(count))
        logits = predicted(learner, support, torch.randn(5, D, dtype=dtype)).logits
        assert logits.dtype == dtype
        assert logits.isfinite().all()


@pytest.mark.parametrize("cls", RUNGS)
def test_they_work_on_raw_images_whatever_backbone_is_asked_for(cls) -> None:
    spec = TaskSpec("classification", (1, 8, 8), WAY)
    learner = cls.build(spec, backbone="conv4", backbone_options={"widths": (4,)}, normalization="support")
    assert isinstance(learner.backbone, Raw)
    assert learner.recipe["backbone"] == "raw"
    assert not list(learner.parameters())
    support = Examples(torch.randn(WAY, 1, 8, 8), torch.arange(WAY))
    state = learner.adapt(support, spec)
    assert all(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(state))
    assert learner.predict(state, torch.randn(3, 1, 8, 8)).logits.shape == (3, WAY)


def test_a_cosine_centroid_compares_directions_alone() -> None:
    """Of inputs and of class means, each of unit length."""
    support, query = classes()
    learner = NearestCentroid.build(CLASSES, distance="cosine").double()
    unit = torch.nn.functional.normalize
    means = torch.stack([unit(support.inputs)[support.targets == label].mean(0) for label in range(WAY)])
    wanted = (unit(query) @ unit(means).T).argmax(-1)
    assert torch.equal(predicted(learner, support, query).logits.argmax(-1), wanted)
    lengths = torch.rand(len(support.inputs), 1, dtype=torch.float64) + 0.5
    longer = Examples(support.inputs * lengths, support.targets)
    torch.testing.assert_close(predicted(learner, longer, 7 * query).logits, predicted(learner, support, query).logits)
    plain = predicted(NearestCentroid.build(CLASSES).double(), support, query).logits
    assert not torch.equal(plain.argmax(-1), wanted)
