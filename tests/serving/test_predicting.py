"""Predictions of many requests together: each as alone, and each with its own errors and notes."""

import math
from functools import partial

import numpy as np
import pytest

from handful import Service
from handful.errors import UserError
from handful.notes import note
from handful.serving import inputs as kept
from handful.serving import predicting as module
from handful.serving.predicting import Asked, Unread
from serving.worlds import classifier, points, regressor


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    models = {"classes": classifier(), "values": regressor()}
    with Service(models, tmp_path_factory.mktemp("service") / "store") as service:
        yield service


@pytest.fixture(scope="module")
def tasks(service):
    """Ids: 8 of classes, of 2 tenants, and one of values."""
    found = [
        service.create(
            f"{number}",
            points(number, number + 1, number + 2),
            ["a", "b", "c"][: 2 + number % 2] + ["a"] * (1 - number % 2),
            model="classes",
            tenant=f"t{number % 2}",
        ).id
        for number in range(8)
    ]
    return [*found, service.create("values", points(1, 2, 3), [1.0, 2.0, 3.0], model="values", tenant="t0").id]


def asked(tasks, number, *inputs, **options):
    task = number % len(tasks)
    return Asked(f"t{task % 2}", tasks[task], points(*(inputs or (number,))), **options)


def numbers(made):
    return [one.probabilities or {"value": one.value, "low": one.low} for one in made.predictions]


@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_an_input_is_predicted_alike_alone_and_among_others(service, tasks, count):
    requests = [asked(tasks, number, *range(number, number + number % 3 + 1)) for number in range(count)]
    together = service.predictor.predict(requests)
    for request, made in zip(requests, together, strict=True):
        [alone] = service.predictor.predict([request])
        assert (made.task, made.version, made.model) == (request.task, 1, alone.model)
        assert [one.label for one in made.predictions] == [one.label for one in alone.predictions]
        for one, other in zip(numbers(made), numbers(alone), strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_seconds_of_a_row_are_known_of_heads_and_states_in_memory(tmp_path):
    with Service({"classes": classifier(), "values": regressor()}, tmp_path / "store") as service:
        one = service.create("one", points(1, 2), ["a", "b"], model="classes", tenant="t").id
        two = service.create("two", points(1, 2), [1.0, 2.0], model="values", tenant="t").id
        first, second = (Unread("t", task, partial(Asked, "t", task, points(3))) for task in (one, two))
        predictor = service.predictor

        def known(*requests):
            return math.isfinite(predictor.seconds_of_row(requests))

        assert not known(first), "nothing was measured"
        predictor.predict([first])
        assert known(first)
        assert not known(first, second)
        predictor.predict([first, second])
        assert predictor.seconds_of_row([first, second]) == max(map(predictor.seconds_of_row, ([first], [second]))) > 0
        assert not known(Asked("t", one, points(3))), "which may be large, or of a cold version"
        many = service.create("many", points(*range(9)), ["a", "b", "c"] * 3, model="classes", tenant="t").id
        large = Unread("t", many, partial(Asked, "t", many, points(3)))
        assert not known(large), "it may take longer than a task of the same model with fewer examples"
        predictor.predict([large])
        assert known(large)
        assert not known(Unread("other", one, first.read))
        service.states.forget([("t", one, 1)])
        assert not known(first)
        predictor.predict([first])
        assert known(first)
        service.correct(one, points(3), ["b"], tenant="t")
        assert not known(first), "the head is another one"


@pytest.mark.parametrize("task", [0, 8])
def test_vectors_in_an_array_are_predicted_as_in_lists(service, tasks, task):
    array = np.array(points(1, 2))
    array.flags.writeable = False
    listed = Asked("t0", tasks[task], array.tolist())
    [alone] = service.predictor.predict([listed])
    requests = [Asked("t0", tasks[task], array), Asked("t0", tasks[task], array[:1]), listed]
    both, first, again = service.predictor.predict(requests)
    assert numbers(both) == [pytest.approx(one, abs=1e-5) for one in numbers(alone)] == numbers(again)
    assert numbers(first) == numbers(alone)[:1]


def test_an_array_has_its_own_error(service, tasks):
    good, bad = np.array(points(1)), np.array([[1.0, np.nan, 2.0]])
    arrays = good, bad, good[:, :2], good[:0], np.ma.masked_equal(good, good[0, 0])
    found = service.predictor.predict([Asked("t0", tasks[0], array) for array in arrays])
    codes = [one.code if isinstance(one, UserError) else len(one.predictions) for one in found]
    assert codes == [1, "non-finite", "wrong-shape", 0, 1]


def test_each_request_has_its_own_error_and_none_disturbs_another(service, tasks):
    good = asked(tasks, 0)
    requests = [
        good,
        Asked("t1", tasks[0], points(1)),
        Asked("t0", tasks[0], [[1.0, 2.0]]),
        Asked("t0", tasks[0], [[1.0, float("nan"), 2.0]]),
        Asked("t0", tasks[0], "text"),
        Asked("t0", tasks[0], points(1), version=9),
        Asked("t0", tasks[0], []),
        good,
    ]
    found = service.predictor.predict(requests)
    codes = [one.code if isinstance(one, UserError) else len(one.predictions) for one in found]
    assert codes == [1, "not-found", "wrong-shape", "non-finite", "invalid-data", "not-found", 0, 1]
    assert str(found[3]).startswith("Example 0 ")


@pytest.mark.parametrize("step", ["all_written", "encoded", "predict", "results_of_each"])
@pytest.mark.parametrize("bad", [1, 2])
def test_an_unexpected_error_concerns_its_request_alone(service, tasks, monkeypatch, step, bad):
    homes = {"all_written": module.kept, "predict": service.predictor._states}
    original = getattr(homes.get(step, module), step)
    requests = [asked(tasks, number, number) for number in range(4)]
    service.predictor.predict(requests)
    calls = []

    def failing(*arguments, **options):
        """Fails for all together, and for some when they are alone."""
        calls.append(arguments)
        together = step != "all_written"
        if len(calls) - together in range(1 - together, bad + 1):
            raise RuntimeError("a bug")
        return original(*arguments, **options)

    monkeypatch.setattr(homes.get(step, module), step, failing)
    found = service.predictor.predict(requests)
    assert [isinstance(one, RuntimeError) for one in found] == [number < bad for number in range(4)]
    monkeypatch.undo()
    assert not any(isinstance(one, Exception) for one in service.predictor.predict(requests))


def test_where_requests_cannot_be_grouped_each_goes_alone(service, tasks, monkeypatch):
    alike, calls = module._alike, []

    def failing(kind, work, requests):
        calls.append(len(requests))
        if len(requests) > 1:
            raise RuntimeError("a bug")
        alike(kind, work, requests)

    monkeypatch.setattr(module, "_alike", failing)
    found = service.predictor.predict([asked(tasks, number) for number in range(3)])
    assert [len(one.predictions) for one in found] == [1, 1, 1]
    assert calls == [3, 1, 1, 1] * 2


def test_a_note_goes_to_the_request_that_it_is_about(service, tasks, monkeypatch):
    original = module.encoded

    def noting(model, given):
        if any(one.content == kept.written(points(2)[0]).content for one in given):
            note("odd", "An input is odd.")
        return original(model, given)

    monkeypatch.setattr(module, "encoded", noting)
    found = service.predictor.predict([asked(tasks, number) for number in range(4)])
    assert [[one.code for one in made.notes] for made in found] == [[], [], ["odd"], []]


def test_several_tasks_are_predicted_in_one_call(service, tasks):
    made, missing = service.predict_many([(tasks[0], points(1, 2)), (tasks[1], points(1))], tenant="t0")
    assert made == service.predict(tasks[0], points(1, 2), tenant="t0")
    assert missing.code == "not-found"
    assert service.predictor.encode_seconds > 0
