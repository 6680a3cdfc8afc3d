"""The head on two blocks of a pre-trained network: its features, its probabilities, and what it shares with rungs."""

import pytest
import torch
from torch import Generator
from torch.nn import functional as F

from handful.errors import UserError
from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.transfer import FineTuneAll, Transfer
from handful.types import Examples, TaskSpec

SPEC = TaskSpec("classification", (1, 16, 16), 3)
NETWORK = {"backbone": "conv4", "backbone_options": {"widths": (4, 4, 4, 6)}}
ROWS = TaskSpec("classification", (5,), 3)


def images(count, seed=0):
    return torch.rand(count, 1, 16, 16, generator=Generator().manual_seed(seed))


def support():
    return Examples(images(6), torch.tensor([0, 1, 2, 0, 1, 2]))


def built(**options):
    return PretrainedBlocks.build(SPEC, **NETWORK, **options)


def test_features_are_those_of_the_last_block_and_half_of_the_quarters_of_the_one_before():
    learner = built()
    maps, last = learner.backbone.blocks(images(4))[-2:]
    assert maps.shape == (4, 4, 2, 2)  # each position is a quarter
    wanted = torch.cat([F.normalize(last, dim=-1), 0.5 * F.normalize(maps.flatten(1), dim=-1)], dim=-1) / 1.25**0.5
    torch.testing.assert_close(learner.embed(images(4)), wanted)


def test_classes_are_told_apart_by_the_angle_to_their_means():
    learner = built(temperature=7.0)
    state = learner.adapt(support(), SPEC)
    means = learner.embed(support().inputs).view(2, 3, -1).mean(0)
    wanted = 7 * F.cosine_similarity(learner.embed(images(5, 1)).unsqueeze(1), means, dim=-1)
    torch.testing.assert_close(learner.predict(state, images(5, 1)).logits, wanted)


def test_with_ridge_logits_are_the_sum_of_both():
    learner = built(ridge=True, temperature=9.0, ridge_temperature=4.0)
    features, seen = learner.embed(support().inputs).double(), learner.embed(images(5, 1)).double()
    targets = F.one_hot(support().targets, 3).double()
    x, y = features - features.mean(0), targets - targets.mean(0)
    weights = torch.linalg.solve(x.mT @ x + 0.3 * torch.eye(x.shape[1], dtype=x.dtype), x.mT @ y)
    outputs = (seen - features.mean(0)) @ weights + targets.mean(0)
    cosines = built(temperature=9.0).predict(built().adapt(support(), SPEC), images(5, 1)).logits
    found = learner.predict(learner.adapt(support(), SPEC), images(5, 1)).logits
    torch.testing.assert_close(found, cosines + 4 * outputs.float())


def test_a_class_without_examples_is_never_predicted_by_either():
    learner, few = built(ridge=True), Examples(images(2), torch.tensor([0, 2]))
    logits = learner.predict(learner.adapt(few, SPEC), images(5, 1)).logits
    assert logits.isfinite().all()
    assert (logits.softmax(-1)[:, 1] == 0).all()


def test_mirrored_views_take_an_image_and_its_mirror_image_alike():
    learner = built(views="mirrored")
    torch.testing.assert_close(learner.embed(images(4)), learner.embed(images(4).flip(-1)))
    both = (built().embed(images(4)) + built().embed(images(4).flip(-1))) / 2
    torch.testing.assert_close(learner.embed(images(4)), F.normalize(both, dim=-1))


def test_affine_views_are_the_same_for_all_images_and_in_each_call():
    learner = built(views="affine")
    found = learner.embed(images(4))
    assert not torch.allclose(found, built().embed(images(4)), atol=1e-3)
    torch.testing.assert_close(learner.embed(images(4)[2:]), found[2:])


def test_views_are_of_images_alone():
    with pytest.raises(UserError, match=r"not of inputs of shape \(5,\)"):
        PretrainedBlocks.build(ROWS, views="mirrored")


def test_a_network_without_blocks_makes_it_the_rung_on_its_last_features():
    examples = Examples(torch.randn(6, 5, generator=Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2]))
    ours, rung = (cls.build(ROWS, backbone="mlp") for cls in (PretrainedBlocks, Transfer))
    for learner in (ours, rung):
        learner.found = learner.predict(learner.adapt(examples, ROWS), examples.inputs).logits
    torch.testing.assert_close(ours.found, rung.found)


def test_features_that_it_has_made_stand_for_inputs():
    """So that heads are tried on features that are computed once."""
    features = built().embed(images(4))
    on_features = PretrainedBlocks.build(TaskSpec("classification", features.shape[1:], 3), backbone="raw")
    torch.testing.assert_close(on_features.embed(features), features)


def test_rungs_take_its_network_and_it_takes_theirs():
    """Though each has numbers of its own."""
    learner = built(views="affine")
    rung = learner.twin(FineTuneAll)
    again = rung.twin(PretrainedBlocks, ridge=True)
    for name, value in learner.backbone.state_dict().items():
        assert torch.equal(value, rung.backbone.state_dict()[name])
        assert torch.equal(value, again.backbone.state_dict()[name])
    assert again.recipe["backbone"] == "conv4"
    assert again.recipe["options"]["ridge"] is True
