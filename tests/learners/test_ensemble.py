"""The average of several learners' predictions, as a learner and as a saved model."""

import pytest
import torch

from handful.errors import ArtifactError, UserError
from handful.learners.ensemble import Ensemble, averaged
from handful.models.meta_model import MetaModel
from handful.registry import LEARNERS
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


@pytest.mark.parametrize(
    "member", ["cnp", {"learner": "cnp"}, {"learner": "cnp", "weight": 0}, {"learner": "cnp", "weight": 1, "more": 2}]
)
def test_what_is_no_recipe_with_a_weight_is_refused(member):
    with pytest.raises(UserError, match="Make an ensemble"):
        Ensemble.build(SPEC, members=[member])
