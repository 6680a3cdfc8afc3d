"""How well versions predict: scores with intervals, as the library's metrics give them."""

import math

import pytest
import torch

from handful import Service
from handful.errors import DataError, DivergedError, UserError
from handful.evaluation.intervals import interval
from handful.metrics import METRICS
from handful.serving.scoring import Judged, estimates, surely_worse
from handful.types import Categorical, Point
from serving.oracle import check
from serving.worlds import classifier, clusters, points, regressor


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture
def service(model, place):
    with Service(model, place) as service:
        yield service


def scattered(count):
    return points(*range(count)), list("ab" * count)[:count]


def test_given_examples_are_scored_by_what_is_predicted(service):
    task = service.create("shelf", *clusters(4))
    inputs, labels = clusters(5, seed=1)
    labels[0], labels[7] = "b", "a"
    scores = service.evaluate(task.id, inputs, labels)
    assert (scores.by, scores.version, scores.examples, scores.labels) == ("examples", 1, 10, ("a", "b"))
    assert scores.confusion == ((4, 1), (1, 4))
    [accuracy] = scores.estimates
    wanted = interval(torch.tensor([0.0] * 2 + [1.0] * 8), bounds=(0, 1))
    assert (accuracy.metric, accuracy.value, accuracy.low) == ("accuracy", 0.8, pytest.approx(wanted.low))
    assert accuracy.high == 1.0 < wanted.high


def test_leave_one_out_is_what_predicting_each_without_it_gives(service, model):
    inputs, labels = scattered(9)
    task = service.create("shelf", inputs, labels)
    scores = service.evaluate(task.id)
    right, confusion = [], [[0, 0], [0, 0]]
    for place in range(9):
        rest = [at for at in range(9) if at != place]
        own = model.adapt(torch.tensor([inputs[at] for at in rest]), [labels[at] for at in rest])
        found = own.labels[model.predict(own, torch.tensor([inputs[place]])).logits.argmax()]
        right.append(float(found == labels[place]))
        confusion["ab".index(labels[place])]["ab".index(found)] += 1
    assert (scores.by, scores.examples) == ("leave-one-out", 9)
    assert scores.estimates[0].value == pytest.approx(sum(right) / 9)
    assert 0 < sum(right) < 9
    assert scores.confusion == tuple(map(tuple, confusion))
    library = model.adapt(torch.tensor(inputs), labels, estimate=True)
    assert library.estimate.mean == pytest.approx(scores.estimates[0].value)


def test_values_are_scored_in_their_unit(place):
    with Service(regressor(), place) as service:
        task = service.create("prices", points(1, 2, 3, 4, 5), [1.0, 2.0, 3.0, 4.0, 5.0], estimate=True)
        predictions = [one.value for one in service.predict(task.id, points(7, 8, 9)).predictions]
        scores = service.evaluate(task.id, points(7, 8, 9), [3.0, 3.0, 4.0])
        errors = [value - target for value, target in zip(predictions, [3.0, 3.0, 4.0], strict=True)]
        rmse, mae = scores.estimates
        assert (rmse.metric, mae.metric, scores.labels, scores.confusion) == ("rmse", "mae", None, None)
        assert rmse.value == pytest.approx(math.sqrt(sum(error**2 for error in errors) / 3))
        assert mae.value == pytest.approx(sum(map(abs, errors)) / 3)
        assert rmse.low <= rmse.value <= rmse.high
        assert task.head.estimate == service.evaluate(task.id).estimates[0]


def test_estimates_are_kept_with_the_versions_that_they_are_of(service, model, place):
    task = service.create("shelf", *clusters(4), estimate=True)
    assert task.head.estimate.metric == "accuracy"
    assert service.add(task.id, points(9), ["a"]).head.estimate is None
    corrected = service.correct(task.id, points(9), ["b"], estimate=True)
    assert corrected.head.estimate == service.evaluate(task.id).estimates[0] != task.head.estimate
    removed = service.remove(task.id, [service.examples(task.id)[8].id], estimate=True)
    assert removed.head.estimate == task.head.estimate
    check(service)  # states know of no estimate
    service.close()
    with Service(model, place) as again:
        assert again.versions(task.id)[2].estimate == corrected.head.estimate


def test_too_few_examples_have_no_estimate_but_a_note(service):
    task = service.create("shelf", points(1, 2), ["a", "b"], estimate=True)
    assert task.head.estimate is None
    assert [note.code for note in task.notes] == ["no-estimate"]
    with pytest.raises(DataError, match="three different examples, and two of each class") as error:
        service.evaluate(task.id)
    assert error.value.code == "too-few-examples"


def test_many_examples_are_left_out_several_at_a_time(service, monkeypatch):
    monkeypatch.setattr("handful.serving.scoring.MOST", 4)
    task = service.create("shelf", *clusters(6))
    scores = service.evaluate(task.id)
    assert (scores.examples, scores.estimates[0].value) == (12, 1.0)


def test_what_cannot_be_scored_is_refused(service):
    task = service.create("shelf", *clusters(3))
    with pytest.raises(DataError, match="Example 1 is labeled 'c', which is not a class") as unknown:
        service.evaluate(task.id, points(1, 2), ["a", "c"])
    assert (unknown.value.code, unknown.value.field) == ("unknown-label", ("labels", 1))
    bare = service.create("bare", *clusters(3), keep_examples=False)
    with pytest.raises(UserError, match="Give labeled inputs"):
        service.evaluate(bare.id)
    for use in (lambda: service.evaluate(task.id, tenant="u"), lambda: service.evaluate(task.id, version=9)):
        with pytest.raises(UserError) as missing:
            use()
        assert missing.value.code == "not-found"


def judged(logits, targets, ids=None):
    count = len(targets)
    return Judged(
        tuple(ids or map(str, range(count))),
        Categorical(torch.tensor(logits)),
        torch.tensor(targets),
        torch.arange(count),
        None,
    )


def test_a_score_is_surely_worse_where_chance_does_not_explain_it():
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    before = judged([right] * 12, [0] * 12)
    accuracy = METRICS["accuracy"]
    assert surely_worse(judged([wrong] * 6 + [right] * 6, [0] * 12), before, accuracy)
    assert not surely_worse(judged([wrong] * 2 + [right] * 10, [0] * 12), before, accuracy)
    assert not surely_worse(before, judged([wrong] * 12, [0] * 12), accuracy)
    assert surely_worse(judged([[math.nan] * 2] + [right] * 11, [0] * 12), before, accuracy)


def test_scores_of_two_models_are_paired_by_example():
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    before = judged([right] * 6 + [wrong] * 6, [0] * 12, ids="abcdefghijkl")
    after = judged([wrong] * 10 + [right] * 2, [0] * 12, ids="abcdghijklef")  # worse for 4, and better for none
    assert surely_worse(after, before, METRICS["accuracy"])


def test_values_of_two_models_are_compared_in_one_unit():
    """A model that was trained on values of a larger spread is not better for that."""

    def of(error, scale):
        return Judged(
            tuple(map(str, range(9))),
            Point(error + torch.arange(18.0, dtype=torch.float64).reshape(9, 2) / 100),
            torch.zeros(9, 2, dtype=torch.float64),
            torch.arange(9),
            torch.tensor(scale, dtype=torch.float64),
            ("width", "price"),
        )

    rmse = METRICS["rmse"]
    assert surely_worse(of(3.0, [100.0, 100.0]), of(2.0, [1.0, 1.0]), rmse)
    assert not surely_worse(of(2.0, [1.0, 1.0]), of(3.0, [100.0, 100.0]), rmse)


def test_several_values_are_scored_by_each_and_in_standard_deviations():
    values = Judged(
        ("x", "y"),
        Point(torch.tensor([[1.0, 30.0], [3.0, 10.0]], dtype=torch.float64)),
        torch.tensor([[2.0, 10.0], [2.0, 30.0]], dtype=torch.float64),
        torch.arange(2),
        torch.tensor([1.0, 10.0], dtype=torch.float64),
        ("width", "price"),
    )
    found = {one.target: one.value for one in estimates(values, [METRICS["mae"]])}
    assert found == {None: 1.5, "width": 1.0, "price": 20.0}


def test_a_score_without_a_finite_prediction_is_none():
    nothing = Judged(
        ("x",), Point(torch.tensor([[math.nan]], dtype=torch.float64)), torch.zeros(1, 1), torch.zeros(1), None
    )
    with pytest.raises(DivergedError):
        estimates(nothing, [METRICS["rmse"]])
