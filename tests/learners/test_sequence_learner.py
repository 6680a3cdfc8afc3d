"""What sequence learners share: codes of classes, drawn in training, and any way that there are codes for."""

from dataclasses import replace

import pytest
import torch

from contracts.problems import ROWS, SHARED, VALUES
from handful.errors import UserError
from handful.learners.in_context import InContextTransformer
from handful.learners.learner import Learner
from handful.learners.mann import MemoryAugmentedNetwork
from handful.learners.snail import SNAIL
from handful.types import Examples, Gaussian, TaskSpec

LEARNERS = [InContextTransformer, MemoryAugmentedNetwork, SNAIL]
each = pytest.mark.parametrize("cls", LEARNERS, ids=lambda cls: cls.key)


def drawn(learner, task, spec, seed=0):
    return learner.draw_noise(task, spec, torch.Generator().manual_seed(seed))


def test_codes_are_of_one_length_and_at_right_angles_or_opposite():
    codes = ROWS.learner(InContextTransformer, width=16).codes
    products = codes @ codes.mT / 8
    assert codes.shape == (16, 8)
    torch.testing.assert_close(products.diagonal(), torch.ones(16, dtype=torch.float64), atol=1e-5, rtol=0)
    others = products[~torch.eye(16, dtype=torch.bool)]
    assert torch.minimum(others.abs(), (others + 1).abs()).max() < 1e-5


@each
def test_a_fresh_learner_already_answers_with_the_label_of_what_is_like_the_query(cls):
    spec = TaskSpec("classification", (6,), 4)
    learner = cls.build(spec, backbone="raw")
    support = Examples(torch.eye(4, 6), torch.tensor([2, 0, 3, 1]))
    with torch.no_grad():
        logits = learner.predict(learner.adapt(support, spec), support.inputs).logits
    assert logits.argmax(-1).tolist() == [2, 0, 3, 1]


@each
def test_codes_are_drawn_where_class_numbers_mean_nothing_and_kept_where_they_mean_something(cls):
    for problem, draws_codes in ((ROWS, True), (SHARED, False), (VALUES, False)):
        learner = problem.learner(cls)
        noise = drawn(learner, problem.task(), problem.spec) or {}
        assert ("codes" in noise) == draws_codes
        assert ("order" in noise) == cls.reads_order


@each
def test_the_meta_loss_with_noise_is_that_of_renamed_classes_in_another_order(cls):
    """The learner whose codes are swapped, on the support in that order."""
    learner, task = ROWS.learner(cls), ROWS.task()
    noise = drawn(learner, task, ROWS.spec)
    loss = learner.meta_loss(task, ROWS.spec, noise)
    order = noise.get("order", torch.arange(len(task.support.inputs))).argsort()
    learner.codes = learner.codes[noise["codes"]]
    shuffled = task._replace(support=Examples(*(part[order] for part in task.support)))
    torch.testing.assert_close(loss, learner.meta_loss(shuffled, ROWS.spec))
    assert not torch.equal(noise["codes"], drawn(learner, task, ROWS.spec, seed=1)["codes"])


@each
def test_what_is_normalized_by_itself_is_meta_trained_so_too(cls):
    learner, task = ROWS.learner(cls, normalization="transductive"), ROWS.task()
    torch.testing.assert_close(learner.meta_loss(task, ROWS.spec), Learner.meta_loss(learner, task, ROWS.spec))


@each
def test_more_classes_than_codes_are_refused_with_the_way_out(cls):
    learner = ROWS.learner(cls, width=4)
    spec = replace(ROWS.spec, outputs=5)
    with pytest.raises(UserError, match=r"4 classes, not to 5.* even width of 6"):
        learner.adapt(ROWS.task(way=5).support, spec)
    with pytest.raises(UserError, match="width"):
        cls.build(spec, backbone="mlp", width=4)
    with pytest.raises(UserError, match="even number"):
        cls.build(spec, backbone="mlp", width=7)


@each
def test_values_of_another_dimension_are_refused(cls):
    with pytest.raises(UserError, match=r"2 target values .* 3"):
        VALUES.learner(cls).adapt(VALUES.task().support, replace(VALUES.spec, outputs=3))


@each
def test_values_are_answered_by_a_normal_distribution(cls):
    learner, task = VALUES.learner(cls), VALUES.task()
    prediction = learner.predict(learner.adapt(task.support, VALUES.spec), task.query.inputs)
    assert isinstance(prediction, Gaussian)
    assert prediction.mean.shape == prediction.variance.shape == task.query.targets.shape
    assert (prediction.variance > 0).all()


@each
def test_the_scale_and_origin_of_features_do_not_matter_to_classes(cls):
    spec = TaskSpec("classification", (5,), 3)
    learner, task = cls.build(spec, backbone="raw").double(), ROWS.task()

    def logits(moved):
        return learner.predict(
            learner.adapt(Examples(moved(task.support.inputs), task.support.targets), spec), moved(task.query.inputs)
        ).logits

    torch.testing.assert_close(logits(lambda x: x), logits(lambda x: 100 * x - 7))
