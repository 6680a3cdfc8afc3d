"""Tasks with columns of their own under a service: whatever is derived anew is what it was."""

import pytest

from handful import Service
from handful.errors import DataError
from handful.learners.bayesian_heads import BayesianLastLayer
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.serving import rows as stored_rows
from handful.serving.verification import verify
from handful.types import TaskSpec
from noted import nothing_noted
from serving.oracle import check

ROWS = [{"size": 3.0 * place % 7, "color": "red" if place % 3 else "NA"} for place in range(8)]
QUERIES = [{"size": 2.5, "color": "red"}]


def tables(seed=0):
    spec = TaskSpec("classification", (5,), 2, "permuted")
    learner = PrototypicalNetwork.build(spec, backbone="linear", seed=seed)
    return MetaModel(learner, ManyTablesPipeline(width=5, label="last"), facts={"seed": seed})


def common():
    size = {"name": "size", "median": 2.0, "width": 1.0, "clipped": True}
    return MetaModel(
        tables().learner,
        TablePipeline(columns=[size, *({"name": name, "categories": ["red", "NA"]} for name in ("color", "tint"))]),
    )


def probabilities(service, task):
    [made] = service.predict(task.id, [QUERIES[0] | {"tint": "red"}]).predictions
    return dict(made.probabilities)


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_a_version_whose_state_was_dropped_is_derived_again(place, monkeypatch, caplog, kind):
    monkeypatch.setattr(stored_rows, "KEPT_STATES", 1)
    model, labels = tables(), [*"abababab"]
    if kind == "values":
        learner = BayesianLastLayer.build(TaskSpec("regression", (5,), 1, "shared"), backbone="mlp")
        model, labels = MetaModel(learner, ManyTablesPipeline(width=5, target="price")), [3.0, 5, 2, 8, 1, 9, 4, 1e9]
    with Service(model, place) as service:
        task = service.create("shelf", ROWS[:4], labels[:4], estimate=True)
        assert task.head.targets == (("price",) if kind == "values" else ())
        first = service.predict(task.id, QUERIES)
        service.add(task.id, ROWS[4:], labels[4:])
        service.remove(task.id, [service.examples(task.id)[-1].id])
        assert service.evaluate(task.id).by == "leave-one-out"
        assert check(service) == 3
    assert verify(place).findings == ()
    with Service(model, place) as service, nothing_noted():
        with service.store.reading("default") as rows:
            assert rows.state(task.id, 1) is None
        assert service.predict(task.id, QUERIES, version=1).predictions == first.predictions
        assert service.roll_back(task.id, 1).head.digest == task.head.digest
    assert not caplog.records, "the notes are the user's who made the task"


def test_tasks_in_another_order_are_the_same_and_rows_of_others_are_not_read(place):
    with Service(tables(), place) as service:
        task = service.create("shelf", ROWS, [*"abababab"])
        turned = service.create("turned", [dict(reversed(row.items())) for row in ROWS[::-1]], [*"babababa"])
        assert turned.head.digest == task.head.digest
        other = service.create("other", [{"weight": 1, "size": 90}, {"weight": 2, "size": 80}], [*"ab"])
        asked = [(task.id, QUERIES), (other.id, [{"weight": 1, "size": 85}]), (other.id, QUERIES), (turned.id, QUERIES)]
        one, two, wrong, three = service.predict_many(asked)
        assert one.predictions == three.predictions == service.predict(task.id, QUERIES).predictions
        assert two.predictions == service.predict(other.id, [{"weight": 1, "size": 85}]).predictions
        both = service.predict(task.id, [*QUERIES, ROWS[0]]).predictions
        alone = [*one.predictions, *service.predict(task.id, [ROWS[0]]).predictions]
        for together, by_itself in zip(both, alone, strict=True):
            assert dict(together.probabilities) == pytest.approx(dict(by_itself.probabilities), abs=1e-5)
        assert service.evaluate(task.id, ROWS[:2], ["a", "b"]).by == "examples"
        assert "no column 'weight'" in wrong.message


def test_a_task_moves_between_models_of_common_columns_and_of_its_own(place):
    with Service({"m": common()}, place) as service:
        task = service.create("shelf", [row | {"tint": "red"} for row in ROWS], [*"aabbaabb"])
        before = probabilities(service, task)
    for model, number in ((tables(), 2), (tables(seed=1), 3), (common(), 4)):
        with Service({"m": model}, place) as service:
            moved = service.readapt(task.id)
            assert (moved.promoted, moved.task.head.number) == (True, number)
            service.add(task.id, [ROWS[0] | {"tint": "red"}], ["a"])  # is there already
            check(service)
    assert verify(place).findings == ()
    with Service({"m": common()}, place) as service:
        assert probabilities(service, task) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("make", [tables, common])
def test_a_row_to_predict_has_all_columns_whatever_others_have(place, make):
    whole = ROWS[0] | {"tint": "red"}
    lacking = {name: cell for name, cell in whole.items() if name != "color"}
    with Service(make(), place) as service:
        task = service.create("shelf", [row | {"tint": "red"} for row in ROWS], [*"abababab"])
        with pytest.raises(DataError, match="row 1, has no column 'color'"):
            service.predict(task.id, [lacking])
        with pytest.raises(DataError, match="row 2, has no column 'color'"):
            service.predict(task.id, [whole, lacking])
        made, refused = service.predict_many([(task.id, [whole]), (task.id, [lacking])])
        assert made.predictions == service.predict(task.id, [whole]).predictions
        assert isinstance(refused, DataError)
        if make is common:
            with pytest.raises(DataError, match="row 2, has no column 'color'"):
                service.create("other", [whole, lacking], ["a", "b"])
