"""Metrics against scikit-learn's and SciPy's, and their rules for what is undefined, diverged or left out."""

import math

import pytest
import torch
from scipy.stats import norm
from sklearn import metrics as reference

from handful.errors import DataError, UserError
from handful.metrics import METRICS, Metric, find_metric, finite_tasks, read_costs, recorded_metric
from handful.types import Categorical, Gaussian, Point

N, WAY = 12, 3
ALL = torch.ones(2, N, dtype=torch.bool)
SHARES = ("accuracy", "balanced-accuracy", "macro-f1", "auc")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def classes(generator):
    """Predictions and targets of two tasks, with the classes of unequal frequency and some equal logits."""
    logits = torch.randn(2, N, WAY, generator=generator).round(decimals=1)
    return Categorical(logits), torch.tensor([[0] * 7 + [1] * 3 + [2] * 2] * 2)


@pytest.fixture
def values(generator):
    mean, targets = torch.randn(2, 2, N, 2, generator=generator)
    return Gaussian(mean, 0.5 + mean.square()), targets


def of_reference(name, predictions, targets):
    probabilities = predictions.logits.double().softmax(-1)
    answers, true = probabilities.argmax(-1), targets
    return {
        "accuracy": lambda: reference.accuracy_score(true, answers),
        "balanced-accuracy": lambda: reference.balanced_accuracy_score(true, answers),
        "macro-f1": lambda: reference.f1_score(true, answers, average="macro"),
        "auc": lambda: reference.roc_auc_score(true, probabilities, multi_class="ovr"),
        "log-likelihood": lambda: -reference.log_loss(true, probabilities),
    }[name]()


@pytest.mark.parametrize("name", [*SHARES, "log-likelihood"])
def test_of_classes_as_scikit_learn_has_them(name, classes):
    predictions, targets = classes
    found = METRICS[name].score(predictions, targets, ALL)
    assert (found.shape, found.dtype) == ((2, 1), torch.float64)
    for task in range(2):
        expected = of_reference(name, Categorical(predictions.logits[task]), targets[task])
        assert found[task].item() == pytest.approx(expected, abs=1e-9)


def test_auc_of_two_classes_as_scikit_learn_has_it(generator):
    logits, targets = torch.randn(1, N, 2, generator=generator), torch.tensor([[0, 1] * (N // 2)])
    found = METRICS["auc"].score(Categorical(logits), targets, ALL[:1])
    expected = reference.roc_auc_score(targets[0], logits[0].softmax(-1)[:, 1])
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_auc_tells_sure_predictions_apart():
    """Probabilities of all four are 1 in doubles; their logits are not."""
    logits = torch.tensor([[[0.0, 50], [0, 60], [0, 70], [0, 80]]])
    found = METRICS["auc"].score(Categorical(logits), torch.tensor([[0, 0, 1, 1]]), ALL[:1, :4])
    assert found.item() == 1


def test_of_values_by_target(values):
    predictions, targets = values
    error = (predictions.mean - targets).double()
    found = METRICS["rmse"].score(predictions, targets, ALL)
    torch.testing.assert_close(found, error.square().mean(1))
    torch.testing.assert_close(METRICS["mae"].score(Point(predictions.mean), targets, ALL), error.abs().mean(1))
    likelihood = norm.logpdf(targets.double(), predictions.mean, predictions.variance.double().sqrt()).mean(1)
    torch.testing.assert_close(METRICS["log-likelihood"].score(predictions, targets, ALL), torch.tensor(likelihood))
    assert METRICS["rmse"].root
    assert not METRICS["mae"].root


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"cost"}))
def test_what_is_masked_counts_for_nothing(name, classes, values):
    predictions, targets = classes if "classification" in METRICS[name].kinds else values
    mask = ALL.clone()
    mask[:, 1::4] = False
    broken = type(predictions)(*(leaf.clone() for leaf in predictions))
    for leaf in broken:
        leaf[~mask] = math.nan
    fewer = type(predictions)(*(leaf[:, mask[0]] for leaf in predictions))
    expected = METRICS[name].score(fewer, targets[:, mask[0]], mask[:, mask[0]])
    torch.testing.assert_close(METRICS[name].score(broken, targets, mask), expected)
    assert METRICS[name].score(predictions, targets, ~ALL).isnan().all()


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"cost"}))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_diverged_has_the_worst_score(name, value, classes, values):
    metric = METRICS[name]
    predictions, targets = classes if "classification" in metric.kinds else values
    predictions[0][1, 0, 0] = value
    found = metric.score(predictions, targets, ALL)
    worst = 0 if name in SHARES else -math.inf if metric.higher_is_better else math.inf
    assert (found[1] == worst).all()
    assert found[0].isfinite().all()
    assert finite_tasks(predictions).tolist() == [True, False]


def test_what_is_undefined_is_nan(classes, values):
    predictions, targets = classes
    alike = METRICS["auc"].score(predictions, torch.zeros_like(targets), ALL)
    without = METRICS["log-likelihood"].score(Point(values[0].mean), values[1], ALL)
    assert alike.isnan().all()
    assert without.shape == (2, 2)
    assert without.isnan().all()


@pytest.mark.parametrize("name", ["rmse", "mae", "log-likelihood"])
def test_nothing_is_broadcast(name, values):
    with pytest.raises(UserError, match="must have the shape of the predicted values"):
        METRICS[name].score(values[0], values[1][..., :1], ALL)


def test_the_other_kind_of_prediction_is_refused(classes, values):
    with pytest.raises(UserError, match="not of values"):
        METRICS["accuracy"].score(values[0], values[1], ALL)
    with pytest.raises(UserError, match="not of classes"):
        METRICS["rmse"].score(classes[0], classes[1], ALL)


@pytest.fixture
def costs(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,no,yes\nno,0,1\nyes,10,-2\n")
    return path


def test_costs_are_of_classes_by_name(costs):
    logits = torch.tensor([[[0.0, 1], [1, 0], [0, 1]]])  # yes, no, yes
    targets, mask = torch.tensor([[0, 1, 1]]), ALL[:1, :3]
    metric = find_metric(f"cost:{costs}", "classification", ["no", "yes"])
    assert metric.score(Categorical(logits), targets, mask).item() == pytest.approx((1 + 10 - 2) / 3)
    other = find_metric(f"cost:{costs}", "classification", ["yes", "no"])
    assert other.score(Categorical(logits.flip(-1)), 1 - targets, mask).item() == pytest.approx(3)
    assert other.name == f"cost:{costs}"
    assert not recorded_metric(other.name).higher_is_better
    assert read_costs(costs).tolist() == [[0, 1], [10, -2]]
    with pytest.raises(UserError, match="for 2 classes, but these tasks have 3"):
        metric.score(Categorical(torch.zeros(1, 3, 3)), targets, mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a table of numbers"),
        ("true,no,yes\nno,0,x\nyes,1,0\n", "could not convert string to float: 'x'"),
        ("true,no,yes\nno,0,nan\nyes,1,0\n", "2 finite costs in each line"),
        ("true,no,yes\nno,0\nyes,1,0\n", "2 finite costs in each line"),
        ("true,no,maybe\nno,0,1\nmaybe,1,0\n", "for each class \\('no', 'yes'\\), and has the lines 'no', 'maybe'"),
        ("true,no,yes\nno,0,1\nno,0,1\nyes,1,0\n", "one line and one column for each class"),
    ],
)
def test_a_file_of_something_else_is_refused(text, message, costs):
    costs.write_text(text)
    with pytest.raises(DataError, match=message):
        read_costs(costs, ["no", "yes"])


def test_a_metric_is_found_by_its_name(tmp_path):
    assert find_metric(None, "classification") is METRICS["accuracy"]
    assert find_metric(None, "regression") is METRICS["rmse"]
    assert find_metric("auc", "classification") is METRICS["auc"]
    own = Metric("own", "own", frozenset({"regression"}), True, "nats", lambda p, t, m: t.double().mean(1))
    assert find_metric(own, "regression") is own
    for name, kind, message in (
        ("rmse", "classification", "'rmse' cannot score classification. Metrics that can: accuracy, auc"),
        ("aoc", "classification", "Unknown metric 'aoc'. Did you mean 'auc'"),
        ("auc:x", "classification", "does not take a file"),
        ("cost", "classification", "The metric cost needs a file"),
    ):
        with pytest.raises(UserError, match=message):
            find_metric(name, kind)
    with pytest.raises(UserError, match="differ from task to task"):
        find_metric("cost:x.csv", "classification", shared=False)
    with pytest.raises(DataError, match=r"x\.csv cannot be read: No such file"):
        find_metric(f"cost:{tmp_path}/x.csv", "classification")


def test_an_own_metric_follows_the_rule_for_what_diverged(values):
    own = Metric("own", "own", frozenset({"regression"}), True, "nats", lambda p, t, m: t.double().mean(1))
    values[0].mean[1] = math.nan
    found = own.score(*values, ALL)
    torch.testing.assert_close(found[0], values[1][0].double().mean(0))
    assert (found[1] == -math.inf).all()
