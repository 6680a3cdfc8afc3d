"""Prototypical networks against their formulas."""

import pytest
import torch

from contracts.problems import IMAGES, ROWS
from contracts.test_learners import (
    check_meta_gradients_agree,
    check_pointwise,
    check_predictions_agree,
    check_purity,
    check_state,
)
from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.transfer import Transfer
from handful.types import Examples, Task, TaskSpec, take


@pytest.mark.parametrize("problem", [ROWS, IMAGES], ids=str)
def test_logits_are_scaled_mean_squared_distances_to_class_means(problem):
    learner, task = problem.learner(PrototypicalNetwork), problem.task()
    support, query = learner.backbone(task.support.inputs), learner.backbone(task.query.inputs)
    expected = torch.stack(
        [-(query - support[task.support.targets == c].mean(0)).square().mean(-1) for c in range(3)], dim=-1
    )
    state = learner.adapt(task.support, problem.spec)
    logits = learner.predict(state, task.query.inputs).logits
    torch.testing.assert_close(logits, expected * learner.log_scale.exp())


def test_temperature_is_where_the_scale_starts():
    learner = PrototypicalNetwork.build(ROWS.spec, backbone="raw", temperature=2.5)
    torch.testing.assert_close(learner.log_scale.exp(), torch.tensor(2.5))


def test_classes_may_have_different_numbers_of_examples():
    learner = PrototypicalNetwork.build(TaskSpec("classification", (1,), 2), backbone="raw")
    support = Examples(torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 1]))
    state = learner.adapt(support, TaskSpec("classification", (1,), 2))
    assert state["prototypes"].tolist() == [[1.0], [10.0]]


def test_the_neighbors_loss_is_that_of_the_paper():
    """Written out example by example; one without a peer counts for nothing."""
    learner = ROWS.learner(PrototypicalNetwork, loss="neighbors")
    task = take(ROWS.tasks(1), 0)
    targets = torch.cat([task.support.targets, task.query.targets]).clone()
    targets[0] = 99
    features = learner.backbone(torch.cat([task.support.inputs, task.query.inputs]))
    scores = -torch.cdist(features, features).square() / features.shape[1] * learner.log_scale.exp()
    terms = []
    for i, own in enumerate(targets.tolist()):
        others = [j for j in range(len(targets)) if j != i]
        peers = [j for j in others if targets[j] == own]
        if peers:
            terms.append(scores[i, others].exp().sum().log() - scores[i, peers].exp().sum().log())
    assert len(terms) == len(targets) - 1
    torch.testing.assert_close(learner._neighbors_loss(features, targets), torch.stack(terms).mean())


def test_the_neighbors_loss_has_the_same_gradient_in_all_plans():
    learner, tasks = ROWS.learner(PrototypicalNetwork, loss="neighbors"), ROWS.tasks(3)
    plans = (Plan("vmap"), Plan("chunks", 2), Plan("loop"))
    first, *rest = (meta_gradient(learner, tasks, ROWS.spec, plan=plan)[1] for plan in plans)
    assert all(gradient.abs().sum() > 0 for gradient in first.values())
    for gradients in rest:
        torch.testing.assert_close(gradients, first)


def test_by_cosines_it_answers_as_the_transfer_rung_on_the_same_network():
    """Before any meta-training; its temperature counts twice, since a squared distance has a cosine two times."""
    learner, task = IMAGES.learner(PrototypicalNetwork, distance="cosine"), IMAGES.task()
    rung = IMAGES.learner(Transfer, temperature=2 * learner.log_scale.exp().item())
    rung.backbone.load_state_dict(learner.backbone.state_dict())
    answers = [one.predict(one.adapt(task.support, IMAGES.spec), task.query.inputs) for one in (learner, rung)]
    torch.testing.assert_close(*(answer.logits.softmax(-1) for answer in answers))


@pytest.mark.parametrize("loss", ["prototypes", "neighbors"])
def test_cosines_keep_the_contract(tmp_path, loss):
    learner = ROWS.learner(PrototypicalNetwork, distance="cosine", loss=loss)
    check_purity(learner, ROWS)
    check_predictions_agree(learner, ROWS)
    check_meta_gradients_agree(learner, ROWS)
    check_pointwise(learner, ROWS)
    check_state(learner, ROWS, tmp_path)


def test_by_cosines_the_length_of_features_does_not_matter():
    for loss in ("prototypes", "neighbors"):
        learner = PrototypicalNetwork.build(ROWS.spec, backbone="raw", distance="cosine", loss=loss)
        task = ROWS.task()
        longer = Task(*(Examples(3 * examples.inputs, examples.targets) for examples in task))
        torch.testing.assert_close(*(learner.meta_loss(one, ROWS.spec) for one in (task, longer)))


def test_views_are_embedded_one_by_one_and_averaged():
    """The first is the image itself; its maps are the same for all images, so one image is seen alike everywhere."""
    learner, task = IMAGES.learner(PrototypicalNetwork, views=3), IMAGES.task()
    assert learner.maps.shape == (2, 2, 3)

    def embedded(inputs):
        features = [learner.backbone(inputs)]
        for view in learner.maps:
            grid = torch.nn.functional.affine_grid(view.expand(len(inputs), 2, 3), inputs.shape, align_corners=False)
            seen = torch.nn.functional.grid_sample(inputs, grid, padding_mode="border", align_corners=False)
            features.append(learner.backbone(seen))
        return sum(features) / 3

    support, query = embedded(task.support.inputs), embedded(task.query.inputs)
    means = torch.stack([support[task.support.targets == c].mean(0) for c in range(3)])
    state = learner.adapt(task.support, IMAGES.spec)
    torch.testing.assert_close(state["prototypes"], means)
    expected = -(query.unsqueeze(1) - means).square().mean(-1) * learner.log_scale.exp()
    torch.testing.assert_close(learner.predict(state, task.query.inputs).logits, expected)


def test_views_change_neither_the_weights_nor_the_meta_loss():
    one, many = (IMAGES.learner(PrototypicalNetwork, views=views) for views in (1, 4))
    assert set(many.state_dict()) - set(one.state_dict()) == {"maps"}
    many.load_state_dict(one.state_dict() | {"maps": many.maps})
    task = IMAGES.task()
    assert torch.equal(one.meta_loss(task, IMAGES.spec), many.meta_loss(task, IMAGES.spec))
    assert not torch.allclose(
        *(learner.adapt(task.support, IMAGES.spec)["prototypes"] for learner in (one, many)), atol=1e-4
    )


def test_views_keep_the_contract(tmp_path):
    learner = IMAGES.learner(PrototypicalNetwork, views=3)
    check_purity(learner, IMAGES)
    check_predictions_agree(learner, IMAGES)
    check_meta_gradients_agree(learner, IMAGES)
    check_pointwise(learner, IMAGES)
    check_state(learner, IMAGES, tmp_path)


def test_the_loss_of_neighbors_holds_for_features_of_any_size():
    """By the formula, pair by pair; of raw inputs a thousand times as large the differences pass all constants."""
    learner = PrototypicalNetwork.build(ROWS.spec, backbone="raw", loss="neighbors").double()
    task = Task(*(Examples(1000 * examples.inputs, examples.targets.roll(1)) for examples in ROWS.task()))
    inputs, targets = (torch.cat(pair) for pair in zip(*task, strict=True))
    logits = -10.0 * torch.cdist(inputs, inputs).square() / inputs.shape[-1]
    others = [[j for j in range(len(inputs)) if j != i] for i in range(len(inputs))]
    expected = torch.stack(
        [
            logits[i, rest].logsumexp(0) - logits[i, [j for j in rest if targets[j] == targets[i]]].logsumexp(0)
            for i, rest in enumerate(others)
        ]
    ).mean()
    assert expected > 1e4
    torch.testing.assert_close(learner.meta_loss(task, ROWS.spec), expected)


def test_views_of_images_are_not_features_only():
    """They are made of the images themselves."""
    assert IMAGES.learner(PrototypicalNetwork, views=1).features_only
    assert not IMAGES.learner(PrototypicalNetwork, views=2).features_only


def test_views_of_rows_are_refused():
    with pytest.raises(UserError, match=r"not of inputs of shape .*Leave views=1"):
        PrototypicalNetwork.build(ROWS.spec, views=2)
