"""The average of several learners' predictions, as a learner and as a saved model."""

import math
import sys

import pytest
import torch

from handful.errors import ArtifactError, UserError
from handful.learners.ensemble import Ensemble, averaged
from handful.models.meta_model import MetaModel
from handful.registry import LEARNERS
from handful.storage import tensors_from_bytes, tensors_to_bytes
from handful.types import Categorical, Examples, Gaussian, Point, TaskSpec

SPEC = TaskSpec("regression", (3,), 2)
SUPPORT = Examples(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.randn(6, 2))
WEIGHTS = torch.tensor([0.25, 0.75])


class OwnNetwork(torch.nn.Linear):
    """As a user brings it."""

    def __init__(self, input_shape):
        super().__init__(input_shape[0], 4)


def learner(key: str, *, spec=SPEC, seed=0, **more):
    return LEARNERS[key].build(spec, seed=seed, **{"backbone": "mlp", "backbone_options": {"hidden": [8]}} | more)


def fitted_on_trees():
    """With trees of other tasks, which are no weights."""
    found = learner("cavia", backbone="boosted", backbone_options={"columns": 2, "hidden": [8]}, seed=3)
    found.fit([Examples(torch.randn(40, 3), torch.randn(40, 2)) for _ in range(3)])
    return found.eval()


def test_probabilities_are_averaged_and_not_logits():
    found = averaged([Categorical(torch.tensor([[0.0, 0.0]])), Categorical(torch.tensor([[5.0, 7.0]]))], WEIGHTS)
    expected = 0.25 * 0.5 + 0.75 * torch.tensor([5.0, 7.0]).softmax(0)
    torch.testing.assert_close(found.logits.exp(), expected.unsqueeze(0))


def test_the_variance_is_that_of_the_mixture():
    """By a million draws of it."""
    one, two = Gaussian(torch.tensor([[1.0]]), torch.tensor([[0.5]])), Gaussian(torch.tensor([[3.0]]), torch.ones(1, 1))
    found = averaged([one, two], WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(1_000_000, generator=generator) < 0.25
    noise = torch.randn(1_000_000, generator=generator)
    drawn = torch.where(first, 1 + 0.5**0.5 * noise, 3 + noise)
    assert found.mean.item() == pytest.approx(drawn.mean().item(), abs=0.01)
    assert found.variance.item() == pytest.approx(drawn.var().item(), rel=0.01)


def test_members_without_a_variance_add_how_far_they_are_apart():
    point, gaussian = Point(torch.tensor([[1.0]])), Gaussian(torch.tensor([[3.0]]), torch.tensor([[0.5]]))
    found = averaged([point, gaussian], WEIGHTS)
    assert found.mean.item() == pytest.approx(2.5)
    assert found.variance.item() == pytest.approx(0.5 + 0.25 * 1.5**2 + 0.75 * 0.5**2)
    assert averaged([point, point], WEIGHTS) == point


def test_it_predicts_what_its_members_predict_on_average():
    members = [learner("cnp", seed=1), learner("maml", seed=2), fitted_on_trees()]
    ensemble = Ensemble.of(dict(zip(members, (1, 2, 1), strict=True)))
    queries = torch.randn(5, 3)
    found = [member.predict(member.adapt(SUPPORT, SPEC), queries) for member in members]
    prediction = ensemble.predict(ensemble.adapt(SUPPORT, SPEC), queries)
    expected = sum(share * one.mean for share, one in zip((0.25, 0.5, 0.25), found, strict=True))
    torch.testing.assert_close(prediction.mean, expected)
    assert isinstance(prediction, Gaussian)
    assert ensemble.predicts_deviation
    assert not ensemble.state_holds_examples
    assert Ensemble.of({learner("neighbors"): 1, members[0]: 1}).state_holds_examples


def test_a_saved_one_has_its_members_and_their_weights(tmp_path):
    ensemble = Ensemble.of({learner("cnp", seed=1): 3, fitted_on_trees(): 1, learner("bayesian-last-layer"): 4})
    MetaModel(ensemble).save_pretrained(tmp_path / "model")
    loaded = MetaModel.from_pretrained(tmp_path / "model").learner
    queries = torch.randn(5, 3)
    one, two = (which.predict(which.adapt(SUPPORT, SPEC), queries) for which in (ensemble, loaded))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.variance, two.variance)


def test_code_that_a_member_names_is_run_only_where_it_is_trusted(tmp_path):
    own = learner("cnp", backbone=OwnNetwork, backbone_options={})
    MetaModel(Ensemble.of({own: 1, learner("maml"): 1})).save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="OwnNetwork"):
        MetaModel.from_pretrained(tmp_path / "model")
    trusted = MetaModel.from_pretrained(tmp_path / "model", trust=(OwnNetwork.__module__.partition(".")[0],))
    assert type(trusted.learner.members[0].backbone) is OwnNetwork


def saved_with(members=None, **recipe):
    """A model of an ensemble, or of `cnp` without members, whose file was changed by hand."""
    kept = Ensemble.of({learner("cnp"): 1, learner("maml"): 1}) if members else learner("cnp")
    tensors, config, _ = tensors_from_bytes(MetaModel(kept).to_bytes(), "the model")
    if members:
        members(config["recipe"]["options"]["members"])
    changed = config["recipe"] | recipe
    config["recipe"] = {name: one for name, one in changed.items() if one != GONE}
    return tensors_to_bytes(tensors, config)[0]


GONE = "gone"
FOREIGN = {"backbone": "learners.foreign_code:Net"}


def without_backbone(members):
    del members[0]["backbone"]
    members[0]["options"] |= FOREIGN


def beside_backbone(members):
    members[0]["options"] |= FOREIGN


def within_another(members):
    inner = members[0] | FOREIGN
    members[0] |= {"learner": "ensemble", "backbone": "raw", "options": {"members": [inner, members[1]]}}


@pytest.mark.parametrize(
    "content",
    [
        lambda: saved_with(backbone=GONE, options=FOREIGN),
        lambda: saved_with(options=FOREIGN),
        lambda: saved_with(without_backbone),
        lambda: saved_with(beside_backbone),
        lambda: saved_with(within_another),
    ],
    ids=["options for a network", "both", "a member without a network", "a member", "a member of a member"],
)
def test_no_code_is_run_that_a_file_names_where_none_should_be_named(content, monkeypatch):
    monkeypatch.delitem(sys.modules, "learners.foreign_code", raising=False)
    with pytest.raises(ArtifactError):
        MetaModel.from_bytes(content())
    assert "learners.foreign_code" not in sys.modules
    assert MetaModel.from_bytes(saved_with()).learner.key == "cnp", "an unchanged one loads"


MEMBER = {
    "weight": 1,
    "learner": "cnp",
    "backbone": "mlp",
    "backbone_options": {},
    "normalization": None,
    "seed": 0,
    "options": {},
}


@pytest.mark.parametrize(
    "members",
    [
        5,
        "cnp",
        [],
        ["cnp"],
        [{"learner": "cnp", "weight": 1}],
        *([MEMBER | wrong] for wrong in ({"weight": 0}, {"weight": "a"}, {"weight": math.inf}, {"weight": True})),
        *([MEMBER | wrong] for wrong in ({"learner": ["cnp"]}, {"options": 5}, {"more": 2})),
    ],
    ids=str,
)
def test_what_is_no_recipe_with_a_weight_is_refused(members):
    with pytest.raises(UserError, match="Make an ensemble of trained learners"):
        Ensemble.build(SPEC, members=members)
    assert Ensemble.build(SPEC, members=[MEMBER]).members[0].key == "cnp"


def test_learners_that_cannot_be_averaged_are_refused():
    with pytest.raises(UserError, match="Make an ensemble"):
        Ensemble.of({})
    with pytest.raises(UserError, match="for the same tasks"):
        Ensemble.of({learner("cnp"): 1, learner("cnp", spec=TaskSpec("regression", (5,), 2)): 1})


def test_a_network_without_a_name_works_until_it_is_saved():
    members = {learner("cnp", backbone=lambda shape: torch.nn.Linear(shape[0], 4), backbone_options={}): 1}
    ensemble = Ensemble.of(members)
    assert ensemble.predict(ensemble.adapt(SUPPORT, SPEC), torch.randn(5, 3)).mean.shape == (5, 2)
    with pytest.raises(UserError, match="no importable name"):
        MetaModel(ensemble).to_bytes()


def test_it_has_copies_and_leaves_the_learners_as_they_are():
    own = learner("cnp").train()
    ensemble = Ensemble.of({own: 1})
    assert own.training
    assert all(parameter.requires_grad for parameter in own.parameters())
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())


def test_what_holds_of_one_member_holds_of_it():
    alone, others = (Ensemble.of({learner("ridge-probe"): 1, learner(key): 1}) for key in ("neighbors", "cnp"))
    assert not alone.uses_other_tasks
    assert others.uses_other_tasks
    assert alone.start == others.start == "raw", "the ladder beside it takes the network of the run"
