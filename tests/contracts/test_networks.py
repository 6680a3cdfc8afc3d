"""Networks of users: each works under every learner in all that is done with it, or is refused when it is built."""

import pytest
import torch

from contracts import networks
from contracts.networks import REFUSED, ROW, WORKING, InPlace, NeededOptions, built, matrix, through
from handful.errors import UserError
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.notes import collecting
from handful.training.loop import meta_train
from handful.types import TaskSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, of ways that are no longer its own

EACH = 3
"""Learners that a sample has of each network; all together it has every learner on every kind of task."""


def sample():
    pairs = [(key, kind) for network, key, kind in matrix() if network is WORKING[0]]
    there = set(matrix())
    wanted = [
        (network, *pairs[(EACH * place + turn) % len(pairs)])
        for place, network in enumerate(WORKING)
        for turn in range(EACH)
    ]
    return [case for case in wanted if case in there]


def name_of(case):
    return case.__name__ if isinstance(case, type) else str(case)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "key", "kind"), sample(), ids=name_of)
def test_a_network_goes_through_all_that_is_done_with_it(network, key, kind, tmp_path):
    with collecting():  # where an operation cannot be batched, a note says so
        through(network, key, kind, tmp_path / "model")


@pytest.mark.parametrize(("network", "why"), REFUSED.items(), ids=name_of)
def test_what_cannot_be_meta_learned_is_refused_when_it_is_built(network, why):
    for key in ("protonet", "maml"):
        with pytest.raises(UserError, match=why):
            built(network, key, "permuted")


@pytest.mark.parametrize(
    ("network", "key", "kind"),
    [
        (networks.OldWeightNorm, "fine-tune-all", "permuted"),
        (networks.Locked, "protonet", "permuted"),
        (networks.CastBfloat16, "protonet", "permuted"),
        (networks.Hooked, "dkt", "values"),
        (networks.SyncBatchNorm, "maml", "permuted"),
        (networks.NoWeights, "transfer", "permuted"),
    ],
    ids=name_of,
)
def test_networks_that_were_lost_on_the_way(network, key, kind, tmp_path):
    """In copies, as those of a model, in the steps that are taken again, or in types."""
    through(network, key, kind, tmp_path / "model")


@pytest.mark.parametrize("plan", [None, "loop"])
def test_a_network_without_second_derivatives_is_told_before_any_step(plan):
    network, tasks = networks.BagOfTokens, networks.tasks(networks.BagOfTokens, "permuted")
    settings = {"steps": 1, "meta_batch_size": 2, "validation_tasks": 2, "plan": plan}
    with pytest.raises(
        UserError, match=r"has no second derivative: .*embedding_bag.* Avoid second derivatives with first_order="
    ):
        meta_train(MAML.build(tasks.spec, backbone=network, inner_steps=1), tasks, **settings)
    for learner in (
        MAML.build(tasks.spec, backbone=network, inner_steps=1, first_order=True),
        built(network, "protonet", "permuted"),
    ):
        meta_train(learner, tasks, **settings)


def test_layers_that_work_in_place_change_no_inputs():
    spec = TaskSpec("classification", ROW, 2)
    learner, inputs = PrototypicalNetwork.build(spec, backbone=InPlace), torch.randn(3, *ROW)
    before = inputs.clone()
    learner.backbone(inputs)
    assert torch.equal(inputs, before)


class Drawing(networks.Plain):
    def forward(self, inputs):
        return self.network(inputs) + torch.randn(())


def test_to_try_a_network_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    PrototypicalNetwork.build(TaskSpec("classification", ROW, 2), backbone=Drawing)
    assert torch.equal(torch.get_rng_state(), before)


def test_options_that_a_network_needs_are_named():
    with pytest.raises(UserError, match=r"needs the option 'width'\. Set it in backbone_options="):
        PrototypicalNetwork.build(TaskSpec("classification", ROW, 2), backbone=NeededOptions)
