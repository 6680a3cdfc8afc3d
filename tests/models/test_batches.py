"""Many adapted tasks at once: what comes out is what each of them gives alone."""

import threading
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.utils import _pytree as pytree

from contracts.problems import IMAGES, ROWS, SHARED, VALUES, cases, name_of
from handful.engine.over_tasks import over_tasks
from handful.errors import DataError, DivergedError, HandfulError, UserError
from handful.estimators import FewShotClassifier
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.r2d2 import R2D2
from handful.models import batches
from handful.models.meta_model import AdaptedTask, AdaptedTasks, MetaModel
from handful.pipelines.rows import TablePipeline
from handful.registry import LEARNERS
from handful.types import Categorical, Gaussian, Point, TaskSpec
from noted import noted

each_case = pytest.mark.parametrize(("cls", "problem"), cases(), ids=name_of)
CLASSES = ROWS.spec


def model(cls=PrototypicalNetwork, problem=ROWS, **options) -> MetaModel:
    return MetaModel(problem.learner(cls, **options))


def raw(problem=ROWS, cls=PrototypicalNetwork, **options) -> MetaModel:
    return MetaModel(cls.build(problem.spec, backbone="raw", **options).double())


def task(problem, seed, size=None, classes="abc"):
    """Inputs and answers of one task, some of its examples left out; and queries."""
    drawn = problem.task(seed=seed, way=len(classes) if problem.spec.labels == "permuted" else None)
    inputs, targets = drawn.support.inputs[:size], drawn.support.targets[:size]
    if not problem.spec.classification:
        return inputs, targets, drawn.query.inputs
    names = classes if problem.spec.labels == "permuted" else "012"
    return inputs, [names[number] for number in targets.tolist()], drawn.query.inputs


def rows(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(found, expected, tolerance=1e-8):
    assert type(found) is type(expected)
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    for a, b in pairs:
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance), f"{(a - b).abs().max():.1e} apart"


def mixed(cls, problem):
    """Tasks of several sizes and, where the learner takes them, numbers of classes; each with its queries."""
    other = "ab" if problem.spec.labels == "permuted" and problem.learner(cls).any_way else "abc"
    sizes = [(None, "abc"), (8, "abc"), (None, other), (None, "abc"), (8, other)]
    drawn = [task(problem, seed, size, classes) for seed, (size, classes) in enumerate(sizes)]
    return [one[:2] for one in drawn], [one[2][:count] for one, count in zip(drawn, (3, 5, 0, 1, 3), strict=True)]


# As one by one


@each_case
def test_many_are_adapted_and_answered_as_one_by_one(cls, problem):
    """Of every learner: sizes, classes and numbers of queries mixed; also those that see all queries of a task."""
    for normalization in cls.normalizations:
        meta = model(cls, problem, normalization=normalization)
        tasks, queries = mixed(cls, problem)
        singles = [meta.adapt(*one) for one in tasks]
        adapted = meta.adapt_many(tasks)
        assert len(adapted) == len(tasks)
        for found, expected in zip(adapted, singles, strict=True):
            close(found.state, expected.state)
            assert (found.spec, found.labels, found.manifest) == (expected.spec, expected.labels, expected.manifest)
            assert found.support_digest == expected.support_digest
            assert torch.equal(found.support.targets, expected.support.targets)
        predictions = adapted.predict_many(queries)
        answered = [
            (a, single.predict(q)) for a, single, q in zip(predictions, singles, queries, strict=True) if len(q)
        ]
        assert len(answered) == 4
        for found, expected in answered:
            close(found, expected)
        assert predictions[2][0].shape == (0, singles[2].spec.outputs)
        check_some_and_stacked(adapted, singles, [task(problem, seed)[2][:4] for seed in range(5)])


def check_some_and_stacked(adapted, singles, queries):
    wanted = [4, 0, 0, 3]  # any order, and one of them twice
    expected = [singles[number].predict(queries[place]) for place, number in enumerate(wanted)]
    for found, one in zip(adapted.predict_many(queries[:4], wanted), expected, strict=True):
        close(found, one)
    alike = [number for number in (3, 1, 0) if singles[number].spec == singles[0].spec]
    stacked = adapted.predict_many(torch.stack(queries[: len(alike)]), alike)
    for place, number in enumerate(alike):
        close(type(stacked)(*(leaf[place] for leaf in stacked)), singles[number].predict(queries[place]))


def test_values_come_back_in_the_target_s_own_units():
    pipeline = TablePipeline.__new__(TablePipeline)  # its targets are all that matters here
    pipeline.target_mean, pipeline.target_scale = torch.tensor([[100.0], [20.0]])
    meta = raw(VALUES, R2D2, regularization=1e-6)
    meta.pipeline = pipeline
    tasks = [(rows(8, 3), 100 + 20 * rows(8, 2)) for _ in range(3)]
    adapted = meta.adapt_many(tasks, estimate=True)
    queries = rows(3, 4, 3)
    together = adapted.predict_many(queries)
    for number, (inputs, answers) in enumerate(tasks):
        single = meta.adapt(inputs, answers, estimate=True)
        expected = single.predict(queries[number])
        close(Point(together.mean[number]), expected)
        close(adapted.predict_many([queries[number]], [number])[0], expected)
        assert expected.mean.mean() > 20
        assert adapted[number].estimate["mean"] == pytest.approx(single.estimate["mean"])
        assert 1 < single.estimate["mean"] < 50  # of several targets: of standardized ones
    wide = MetaModel(meta.learner, pipeline)
    wide.learner.predict = lambda state, inputs: Gaussian(inputs[:, :2], inputs[:, :2].square())
    found = wide.adapt_many(tasks).predict_many(queries)
    close(found, Gaussian(100 + 20 * queries[..., :2], 400 * queries[..., :2].square()))


def test_estimates_are_those_of_single_tasks_and_made_only_when_asked_for():
    meta = raw()
    tasks = [task(ROWS, seed)[:2] for seed in range(4)]
    tasks.append((rows(4, 5), list("aabc")))  # without b, there would be no b
    assert all(one.estimate is None for one in meta.adapt_many(tasks))
    found = [one.estimate for one in meta.adapt_many(tasks, estimate=True)]
    assert found == [meta.adapt(*one, estimate=True).estimate for one in tasks]
    assert found[4] is None
    assert {one["examples"] for one in found[:4]} == {15}
    groups = [[str(min(row, 9) // (1 + seed)) for row in range(len(one[1]))] for seed, one in enumerate(tasks)]
    grouped = [one.estimate for one in meta.adapt_many(tasks, groups=groups, estimate=True)]
    assert grouped == [
        meta.adapt(*one, groups=own, estimate=True).estimate for one, own in zip(tasks, groups, strict=True)
    ]
    assert grouped[0] != found[0]
    with pytest.raises(UserError, match="5 tasks, but groups for 1"):
        meta.adapt_many(tasks, groups=groups[:1])


def test_kin_are_examples_of_one_group_or_with_equal_inputs_or_by_way_of_others():
    inputs = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [4.0, 5.0], [6.0, 7.0], [4.0, 5.0]])

    def sets(numbers):
        return {
            frozenset(row for row, own in enumerate(numbers.tolist()) if own == number)
            for number in set(numbers.tolist())
        }

    assert sets(batches.kin(inputs, None)) == {frozenset(own) for own in ([0, 2], [1], [3, 5], [4])}
    assert sets(batches.kin(inputs, list("abcdea"))) == {frozenset(own) for own in ([0, 2, 3, 5], [1], [4])}


def test_a_large_request_is_worked_on_in_parts(monkeypatch):
    """Tasks, and one task's queries, are divided; answers stay in order."""
    meta = raw(ROWS, R2D2)
    tasks = [(rows(2, 5), list("ab")) for _ in range(7)]
    adapted = meta.adapt_many(tasks)
    queries = [rows(count, 5) for count in (9, 0, 23, 1, 4, 4, 10)]
    few, plenty = rows(7, 2, 5), rows(7, 9, 5)
    expected = adapted.predict_many(queries), adapted.predict_many(few), adapted.predict_many(plenty), adapted[3].state
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", 7 * batches.FEATURES)
    seen = []

    def watched(function, stacked, *rest):
        seen.append(pytree.tree_leaves(stacked[-1])[0].shape[:2])
        return over_tasks(function, stacked, *rest)

    monkeypatch.setattr(batches, "over_tasks", watched)
    again = meta.adapt_many(tasks)
    assert seen == [(3, 2), (3, 2), (1, 2)]
    close(again[3].state, expected[3])
    for found, one in zip(again.predict_many(queries), expected[0], strict=True):
        close(found, one)
    close(again.predict_many(few), expected[1])
    close(again.predict_many(plenty), expected[2])
    sizes = [count * examples for count, examples in seen]
    assert 4 < max(sizes) <= 7


class Wide(torch.nn.Module):
    """A network of one layer whose activations take a hundred times what its inputs take."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        self.seen.append(len(inputs))
        return inputs.repeat(1, 2000).reshape(len(inputs), 2000, -1).mean(1)


def test_queries_are_predicted_in_parts_by_what_the_network_makes_of_them(monkeypatch):
    """However a prediction is asked for: 3,000 photos at once took gigabytes."""
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", 7 * 2000 * 5 + 1000)
    network = Wide()
    spec = TaskSpec("classification", (5,), 3)
    learner = PrototypicalNetwork.build(spec, backbone=lambda shape: network)
    network = learner.backbone
    meta = MetaModel(learner)
    inputs, answers, queries = torch.randn(6, 5), list("abcabc"), torch.randn(60, 5)
    adapted, together = meta.adapt(inputs, answers), meta.adapt_many([(inputs, answers)] * 2)
    expected = learner.predict(adapted.state, queries)
    classifier = FewShotClassifier(meta).fit(inputs.numpy(), answers)
    ways = {
        "predict": lambda: adapted.predict(queries),
        "a list": lambda: together.predict_many([queries, queries[:3]])[0],
        "stacked": lambda: Categorical(together.predict_many(torch.stack([queries, queries])).logits[1]),
        "estimator": lambda: Categorical(torch.from_numpy(classifier.predict_proba(queries.numpy())).log()),
    }
    for way, predicted in ways.items():
        network.seen.clear()
        logits = predicted().logits
        assert torch.allclose(logits.softmax(1).float(), expected.logits.softmax(1), atol=1e-5), way
        assert 4 <= max(network.seen) <= 7, way


def test_memory_that_does_not_suffice_is_a_sentence(monkeypatch):
    meta = model()
    inputs, answers, queries = task(ROWS, 0)
    adapted, together = meta.adapt(inputs, answers), meta.adapt_many([(inputs, answers)])

    def full(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(meta.learner, "predict", full)
    for predict in (lambda: adapted.predict(queries), lambda: together.predict_many([queries])):
        with pytest.raises(HandfulError, match=rf"memory does not suffice for predicting {len(queries)} inputs.*fewer"):
            predict()


def test_many_tasks_of_a_learner_that_vmap_refuses_are_worked_on_one_after_another():
    """They say so once: another warning would be an error here."""

    class Branching(R2D2):
        def adapt(self, support, spec):
            assert bool(support.inputs.isfinite().all())
            return super().adapt(support, spec)

    tasks = [(rows(2, 5), list("ab")) for _ in range(4)]
    queries = rows(4, 3, 5)
    expected = raw(ROWS, R2D2).adapt_many(tasks, estimate=True)
    meta = raw(ROWS, Branching)
    with noted("Branching adapts and predicts one task after another"):
        found = meta.adapt_many(tasks, estimate=True)
    close(found.predict_many(queries), expected.predict_many(queries))
    assert [one.estimate for one in found] == [one.estimate for one in expected]


def test_queries_of_a_transductive_learner_are_not_divided(monkeypatch):
    meta = model(PrototypicalNetwork, ROWS, normalization="transductive")
    inputs, answers, queries = task(ROWS, 0)
    alone = meta.adapt(inputs, answers).predict(queries)
    assert not torch.allclose(alone.logits[:2], meta.adapt(inputs, answers).predict(queries[:2]).logits, atol=1e-3)
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", 1)
    adapted = meta.adapt_many([(inputs, answers)] * 2)
    for found in adapted.predict_many([queries, queries]):
        close(found, alone)
    close(Categorical(adapted.predict_many(torch.stack([queries, queries])).logits[1]), alone)


def test_tasks_of_equal_states_are_one_group_whatever_their_sizes():
    adapted = raw().adapt_many([task(ROWS, seed, size)[:2] for seed, size in enumerate((8, None, 8, 15))])
    assert [group.members for group in adapted._states.groups] == [[0, 1, 2, 3]]


# Without gradients, without side effects


def test_nothing_is_recorded_and_the_learner_stays_as_it_was():
    meta = model()
    tasks = [task(ROWS, seed)[:2] for seed in range(3)]
    before = {name: tensor.clone() for name, tensor in meta.learner.state_dict().items()}
    adapted = meta.adapt_many(tasks)
    stacked, listed = adapted.predict_many(rows(3, 4, 5)), adapted.predict_many(list(rows(3, 4, 5)))
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves([adapted[0].state, stacked, listed]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in meta.learner.state_dict().items())


def test_a_task_taken_out_holds_nothing_of_the_others():
    adapted = raw().adapt_many([task(ROWS, seed)[:2] for seed in range(50)])
    for leaf in pytree.tree_leaves(adapted[7].state):
        assert leaf.untyped_storage().nbytes() == leaf.numel() * leaf.element_size()
    adapted[7].state["prototypes"].zero_()
    adapted[7].labels.clear()
    assert adapted[7].state["prototypes"].any()
    assert adapted[7].labels == adapted.labels(7) == ["a", "b", "c"]


@pytest.mark.parametrize("problem", [IMAGES, VALUES], ids=name_of)
def test_two_threads_may_predict_at_once(problem):
    meta = model(LEARNERS["maml"], problem)
    adapted = [meta.adapt_many([task(problem, 10 * part + seed)[:2] for seed in range(4)]) for part in range(2)]
    queries = [task(problem, seed)[2][: 2 + seed] for seed in range(4)]
    expected = [tasks.predict_many(queries) for tasks in adapted]
    wrong = []

    def check(part):
        try:
            for _ in range(5):
                for found, one in zip(adapted[part].predict_many(queries), expected[part], strict=True):
                    close(found, one)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=check, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("problem", [IMAGES, VALUES], ids=name_of)
def test_cores_share_the_tasks_and_give_the_same(problem, two_cores, monkeypatch):
    """Where tasks are predicted for all at once, that is too short to be shared."""
    meta = model(LEARNERS["maml"], problem)
    tasks, queries = [task(problem, seed)[:2] for seed in range(5)], [task(problem, seed)[2] for seed in range(5)]
    expected = [meta.adapt(*one).predict(own) for one, own in zip(tasks, queries, strict=True)]
    seen = {"adapt": set(), "predict": set()}

    def watched(name, original):
        def method(*given):
            seen[name].add(threading.current_thread().name.split("_")[0])
            return original(*given)

        monkeypatch.setattr(MAML, name, method)

    watched("adapt", MAML.adapt)
    watched("predict", MAML.predict)
    close(meta.adapt_many(tasks).predict_many(queries), expected)
    assert seen == {"adapt": {"handful-task"}, "predict": {"handful-task" if problem is IMAGES else "MainThread"}}


# A value that holds many


def test_single_tasks_are_put_together_added_and_replaced(tmp_path):
    meta = raw()
    meta.save_pretrained(tmp_path / "model")
    data = [task(ROWS, seed, None, "abcd"[: 2 + seed % 3]) for seed in range(6)]
    for number, one in enumerate(data):
        meta.adapt(*one[:2]).save(tmp_path / str(number))
    loaded = [AdaptedTask.load(tmp_path / str(number)) for number in range(6)]  # each with a model of its own
    for one in loaded:
        one.model.learner.double()  # it is built in single precision
    tasks = AdaptedTasks.from_tasks(loaded[:4])
    check_same(tasks, loaded[:4])
    check_same(tasks.added(), loaded[:4])
    check_same(tasks.added(loaded[4], loaded[5]), loaded)
    check_same(tasks.replaced(1, loaded[4]), [loaded[0], loaded[4], loaded[2], loaded[3]])  # of the same way
    check_same(tasks.replaced(1, loaded[3]), [loaded[0], loaded[3], loaded[2], loaded[3]])  # of another one
    check_same(tasks.replaced(0, loaded[2]).replaced(3, loaded[5]), [*loaded[2:0:-1], loaded[2], loaded[5]])
    check_same(tasks, loaded[:4])  # it is a value


def check_same(tasks, expected):
    queries = [rows(1 + number % 2, 5) for number in range(len(expected))]
    assert len(tasks) == len(expected)
    for number, (found, one) in enumerate(zip(tasks.predict_many(queries), expected, strict=True)):
        close(found, one.predict(queries[number]))
        again = tasks[number]
        for name in ("spec", "labels", "manifest", "support_digest", "estimate"):
            assert getattr(again, name) == getattr(one, name), name
        close(again.state, one.state, 0)
    members = [group.members for group in tasks._states.groups]
    assert sorted(number for group in members for number in group) == list(range(len(expected)))
    assert all(a < b for group in members for a, b in pairwise(group))


def test_a_task_of_many_can_be_saved_and_extended(tmp_path):
    meta = raw()
    meta.save_pretrained(tmp_path / "model")
    inputs, answers, queries = task(ROWS, 0)
    ids = [[f"row {number}" for number in range(len(inputs))], list("xyz")]
    adapted = meta.adapt_many([(inputs, answers), (rows(3, 5), list("abb"))], ids=ids)
    assert [one.manifest for one in adapted] == ids
    adapted[0].save(tmp_path / "task")
    close(AdaptedTask.load(tmp_path / "task", meta).predict(queries), adapted.predict_many([queries], [0])[0])
    assert adapted[0].with_examples(inputs[:1], ["new"]).labels == ["a", "b", "c", "new"]


def test_tasks_that_forget_their_examples_hold_none():
    meta = raw()
    data = [task(ROWS, seed)[:2] for seed in range(2)]
    forgotten = meta.adapt_many(data, keep_support=False)
    for found, one in zip(forgotten, data, strict=True):
        assert found.support is None
        assert found.support_digest == meta.adapt(*one).support_digest
        assert found.manifest is None
        assert found.examples == 15
    with pytest.raises(UserError, match="forget its examples"):
        forgotten[0].with_examples(*data[1])


def test_no_tasks_at_all():
    meta = raw()
    for empty in (meta.adapt_many([]), AdaptedTasks.from_tasks([], meta)):
        assert len(empty) == 0
        assert list(empty) == []
        assert empty.predict_many([]) == []
        assert len(empty.added(meta.adapt(*task(ROWS, 0)[:2]))) == 1
    assert meta.adapt_many([task(ROWS, 0)[:2]]).predict_many([], []) == []
    with pytest.raises(UserError, match="no tasks, so there is no meta-model"):
        AdaptedTasks.from_tasks([])


def test_stacked_inputs_without_queries_give_stacked_predictions_without_rows():
    adapted = raw().adapt_many([task(ROWS, seed)[:2] for seed in range(2)])
    assert adapted.predict_many(torch.zeros(2, 0, 5, dtype=torch.float64)).logits.shape == (2, 0, 3)


# What is wrong


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (
            (torch.zeros(3, 4, dtype=torch.float64), list("aba")),
            r"Task 2: The model takes inputs of shape \(n, 5\), not \(3, 4\)",
        ),
        (
            (torch.zeros(5, dtype=torch.float64), list("aba")),
            r"Task 2: The model takes inputs of shape \(n, 5\), not \(5,\)",
        ),
        ((rows(15, 5) + torch.inf, list("abc") * 5), "Task 2: Example 0 holds NaN or infinity"),
        ((torch.zeros(3, 5, dtype=torch.float64), list("aaa")), "Task 2: .*two classes, got only a"),
        ((torch.zeros(3, 5, dtype=torch.float64), list("ab")), "Task 2: There are 3 examples, but 2 answers"),
        ((torch.zeros(0, 5, dtype=torch.float64), []), "Task 2: .*two classes"),
    ],
)
def test_a_task_that_cannot_be_is_named_by_its_number(wrong, named):
    tasks = [task(ROWS, 0)[:2], task(ROWS, 1, 6, "ab")[:2], wrong, task(ROWS, 2)[:2]]
    with pytest.raises(DataError, match=named):
        raw().adapt_many(tasks)


def test_classes_that_do_not_fit_the_model_are_named():
    with pytest.raises(DataError, match="Task 1: The model knows the classes 0, 1, 2, not 7"):
        raw(SHARED).adapt_many([task(SHARED, 0)[:2], (torch.zeros(2, 5, dtype=torch.float64), ["0", "7"])])
    fixed = model(LEARNERS["maml"], ROWS, head="slots")
    with pytest.raises(DataError, match=r"Task 0: .*made for 3 classes"):
        fixed.adapt_many([task(ROWS, 0, None, "ab")[:2]])


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        (torch.zeros(3, 1, dtype=torch.float64), r"of 3 examples have shape \(3, 1\)"),
        (torch.zeros(4, 2, dtype=torch.float64), r"of 3 examples have shape \(4, 2\)"),
        ([[0, 1], [1, torch.nan], [0, 0]], "answer to example 1 is NaN"),
        ([["low", "high"]] * 3, "not all numbers"),
    ],
)
def test_targets_that_do_not_fit_the_model_are_named(answers, named):
    meta = raw(VALUES, R2D2)
    with pytest.raises(DataError, match=named):
        meta.adapt(rows(3, 3), answers)
    with pytest.raises(DataError, match=f"Task 1: .*{named}"):
        meta.adapt_many([task(VALUES, 0)[:2], (rows(3, 3), answers)])


@pytest.mark.parametrize("stacked", [False, True])
def test_requests_that_cannot_be_answered_are_named(stacked):
    """Stacked ones are refused together; in a list, only the one that is wrong."""
    adapted = raw().adapt_many([task(ROWS, seed)[:2] for seed in range(3)])

    def ask(inputs, tasks=None):
        found = adapted.predict_many(inputs if stacked else list(inputs), tasks)
        for number, one in zip(tasks, found, strict=True):
            if isinstance(one, DataError):
                raise one
            close(one, adapted[number].predict(inputs[0]))

    spoiled = torch.zeros(2, 4, 5, dtype=torch.float64)
    spoiled[1, 3, 2] = torch.nan
    for error, named, inputs, tasks in [
        (UserError, "no task 3: there are 3, numbered from 0", torch.zeros(1, 4, 5, dtype=torch.float64), [3]),
        (UserError, "no task -1", torch.zeros(1, 4, 5, dtype=torch.float64), [-1]),
        (UserError, "inputs for 2 tasks, but 3 tasks", torch.zeros(2, 4, 5, dtype=torch.float64), None),
        (DataError, "Task 0: Example 3 holds NaN", spoiled, [2, 0]),
        (
            DataError,
            r"shape \(.*n, 5\), not" if stacked else r"Task 1: .*\(n, 5\), not \(4, 6\)",
            torch.zeros(1, 4, 6, dtype=torch.float64),
            [1],
        ),
    ]:
        with pytest.raises(error, match=named):
            ask(inputs, tasks)


@pytest.mark.parametrize("at_once", [batches.NUMBERS_AT_ONCE, 1500], ids=["in one go", "in pieces"])
def test_one_task_that_diverges_fails_alone(at_once, monkeypatch):
    """In its place is the error with its number, whether its inputs or its examples have squares that overflow."""
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", at_once)
    tasks = [task(ROWS, seed) for seed in range(6)]
    tasks[2] = 1e200 * tasks[2][0], *tasks[2][1:]
    adapted = raw().adapt_many([one[:2] for one in tasks])
    queries = [own[: 3 + number] for number, (*_, own) in enumerate(tasks)]
    queries[4] = torch.cat([queries[4], torch.full((1, 5), 1e200, dtype=torch.float64)])
    queries[5] = torch.full((2, 5), torch.nan, dtype=torch.float64)
    *found, last = adapted.predict_many(queries)
    for number, one in enumerate(found):
        if number in (2, 4):
            assert isinstance(one, DivergedError)
            assert (one.key, str(one)[:31]) == (number, f"No finite prediction of task {number}:")
        else:
            close(one, adapted[number].predict(queries[number]))
    assert isinstance(last, DataError)
    assert str(last).startswith("Task 5: Example 0 holds NaN")
    with pytest.raises(DivergedError, match="of task 2") as raised:
        adapted.predict_many(torch.stack([tasks[0][2][:2]] * 3), [0, 2, 1])
    assert raised.value.key == 2


def test_wrong_numbers_of_tasks_are_named():
    adapted = raw().adapt_many([task(ROWS, 0)[:2]])
    for wrong in (lambda: adapted[1], lambda: adapted.labels(-1), lambda: adapted.replaced(5, adapted[0])):
        with pytest.raises(UserError, match=r"There is no task -?\d: there are 1, numbered from 0"):
            wrong()
    with pytest.raises(UserError, match="There is no task 0: there are none"):
        raw().adapt_many([])[0]
    with pytest.raises(UserError, match="1 tasks, but ids for 2"):
        raw().adapt_many([task(ROWS, 0)[:2]], ids=[["a"], ["b"]])
    with pytest.raises(UserError, match="no tasks to answer for"):
        adapted.predict_many(torch.zeros(0, 4, 5, dtype=torch.float64), [])


@pytest.mark.parametrize("at_once", [batches.NUMBERS_AT_ONCE, 1], ids=["small", "too large for one go"])
def test_stacked_inputs_need_tasks_of_equal_outputs(at_once, monkeypatch):
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", at_once)
    adapted = raw().adapt_many([task(ROWS, 0)[:2], task(ROWS, 1, None, "ab")[:2]])
    with pytest.raises(UserError, match=r"different numbers of classes \(2, 3\).*as a list"):
        adapted.predict_many(torch.zeros(2, 4, 5, dtype=torch.float64))
    assert [one.logits.shape[1] for one in adapted.predict_many(list(torch.zeros(2, 4, 5, dtype=torch.float64)))] == [
        3,
        2,
    ]


def test_tasks_of_different_models_are_refused(tmp_path):
    one, other = raw(), raw(temperature=3.0)
    tasks = [meta.adapt(*task(ROWS, 0)[:2]) for meta in (one, other)]
    with pytest.raises(UserError, match=r"Task 1 is of another meta-model"):
        AdaptedTasks.from_tasks(tasks)
    one.save_pretrained(tmp_path / "one")
    other.save_pretrained(tmp_path / "other")
    for wrong in (lambda: AdaptedTasks.from_tasks(tasks), lambda: one.adapt_many([]).added(tasks[1])):
        with pytest.raises(UserError, match=r"is of another meta-model \(digest " + other.digest[:8]):
            wrong()
    twin = replace(tasks[0], model=MetaModel.from_pretrained(tmp_path / "one"))
    assert len(AdaptedTasks.from_tasks([tasks[0], twin])) == 2
