"""Many tasks at once: what comes out is what each of them gives alone."""

import re
import threading

import pytest
import torch
from torch.utils import _pytree as pytree

from contracts.problems import IMAGES, ROWS, SHARED, VALUES, cases, name_of, slow_on
from handful.engine import parts
from handful.engine.over_tasks import over_tasks
from handful.errors import DataError, DivergedError, HandfulError, UserError
from handful.estimators import FewShotClassifier
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.r2d2 import R2D2
from handful.models import batches
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.models.task_bank import TaskBank
from handful.pipelines.rows import TablePipeline
from handful.registry import LEARNERS
from handful.types import Categorical, Gaussian, TaskSpec
from noted import noted

each_case = pytest.mark.parametrize(("cls", "problem"), slow_on(cases(), IMAGES), ids=name_of)
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


def banked(meta, adapted) -> TaskBank:
    """The tasks by their numbers."""
    bank = TaskBank(meta)
    for number, one in enumerate(adapted):
        if isinstance(one, AdaptedTask):
            bank.put(number, one)
    return bank


def predictions(meta, adapted, queries):
    """Of all tasks at once, each for queries of its own."""
    return banked(meta, adapted).predict(list(enumerate(queries)))


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
        found = predictions(meta, adapted, queries)
        for one, single, own in zip(found, singles, queries, strict=True):
            if len(own):
                close(one, meta.predict(single, own))
        assert found[2][0].shape == (0, singles[2].spec.outputs)
        wanted = [4, 0, 0, 3]  # any order, and one of them twice
        more = [task(problem, seed)[2][:4] for seed in range(4)]
        again = banked(meta, adapted).predict(list(zip(wanted, more, strict=True)))
        for one, number, own in zip(again, wanted, more, strict=True):
            close(one, meta.predict(singles[number], own))


def test_values_come_back_in_the_target_s_own_units():
    pipeline = TablePipeline.__new__(TablePipeline)  # its targets are all that matters here
    pipeline.target_mean, pipeline.target_scale = torch.tensor([[100.0], [20.0]])
    pipeline.config, pipeline.targets = dict, ("a", "b")
    meta = raw(VALUES, R2D2, regularization=1e-6)
    meta.pipeline = pipeline
    tasks = [(rows(8, 3), 100 + 20 * rows(8, 2)) for _ in range(3)]
    adapted = meta.adapt_many(tasks, estimate=True)
    queries = rows(3, 4, 3)
    together = predictions(meta, adapted, queries)
    for number, (inputs, answers) in enumerate(tasks):
        single = meta.adapt(inputs, answers, estimate=True)
        expected = meta.predict(single, queries[number])
        close(together[number], expected)
        assert expected.mean.mean() > 20
        assert adapted[number].estimate.mean == pytest.approx(single.estimate.mean)
        assert 1 < single.estimate.mean < 50  # of several targets: of standardized ones
    wide = MetaModel(meta.learner, pipeline)
    wide.learner.predict = lambda state, inputs: Gaussian(inputs[:, :2], inputs[:, :2].square())
    for found, own in zip(predictions(wide, wide.adapt_many(tasks), queries), queries, strict=True):
        close(found, Gaussian(100 + 20 * own[:, :2], 400 * own[:, :2].square()))


def test_estimates_are_those_of_single_tasks_and_made_only_when_asked_for():
    meta = raw()
    tasks = [task(ROWS, seed)[:2] for seed in range(4)]
    tasks.append((rows(4, 5), list("aabc")))  # without b, there would be no b
    assert all(one.estimate is None for one in meta.adapt_many(tasks))
    found = [one.estimate for one in meta.adapt_many(tasks, estimate=True)]
    assert found == [meta.adapt(*one, estimate=True).estimate for one in tasks]
    assert found[4] is None
    assert {one.examples for one in found[:4]} == {15}
    groups = [[str(min(row, 9) // (1 + seed)) for row in range(len(one[1]))] for seed, one in enumerate(tasks)]
    grouped = [one.estimate for one in meta.adapt_many(tasks, groups=groups, estimate=True)]
    assert grouped == [
        meta.adapt(*one, groups=own, estimate=True).estimate for one, own in zip(tasks, groups, strict=True)
    ]
    assert grouped[0] != found[0]
    with pytest.raises(UserError, match="5 tasks, but groups for 1"):
        meta.adapt_many(tasks, groups=groups[:1])


def test_a_large_request_is_worked_on_in_parts(monkeypatch):
    """Tasks, and one task's queries, are divided; predictions stay in order."""
    meta = raw(ROWS, R2D2)
    tasks = [(rows(2, 5), list("ab")) for _ in range(7)]
    adapted = meta.adapt_many(tasks)
    queries = [rows(count, 5) for count in (9, 0, 23, 1, 4, 4, 10)]
    expected = predictions(meta, adapted, queries)
    for module in (batches, parts):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 7 * parts.FEATURES)
    seen = []

    def watched(function, stacked, *rest):
        seen.append(pytree.tree_leaves(stacked[-1])[0].shape[:2])
        return over_tasks(function, stacked, *rest)

    monkeypatch.setattr(batches, "over_tasks", watched)
    again = meta.adapt_many(tasks)
    assert seen == [(3, 2), (3, 2), (1, 2)]
    close(again[3].state, adapted[3].state)
    for found, one in zip(predictions(meta, again, queries), expected, strict=True):
        close(found, one)
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
    spec = TaskSpec("classification", (5,), 3)
    learner = PrototypicalNetwork.build(spec, backbone=lambda shape: Wide())
    meta = MetaModel(learner)
    network = meta.learner.backbone
    inputs, answers, queries = torch.randn(6, 5), list("abcabc"), torch.randn(60, 5)
    adapted = meta.adapt(inputs, answers)
    expected = learner.predict(adapted.state, queries)
    classifier = FewShotClassifier(meta).fit(inputs.numpy(), answers)
    ways = {
        "predict": lambda: meta.predict(adapted, queries),
        "bank": lambda: predictions(meta, [adapted, adapted], [queries, queries[:3]])[0],
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
    adapted = meta.adapt(inputs, answers)
    bank = banked(meta, [adapted])

    def full(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(meta.learner, "predict", full)
    monkeypatch.setattr(meta.learner, "predict_stacked", full)
    for predict in (lambda: meta.predict(adapted, queries), lambda: bank.predict([(0, queries)])):
        with pytest.raises(HandfulError, match=rf"Out of memory while predicting {len(queries)} inputs.*fewer"):
            predict()


def test_many_tasks_of_a_learner_that_vmap_refuses_are_worked_on_one_after_another():
    """They say so once: another warning would be an error here."""

    class Branching(R2D2):
        def adapt(self, support, spec):
            assert bool(support.inputs.isfinite().all())
            return super().adapt(support, spec)

    tasks = [(rows(2, 5), list("ab")) for _ in range(4)]
    queries = rows(4, 3, 5)
    plain, meta = raw(ROWS, R2D2), raw(ROWS, Branching)
    expected = plain.adapt_many(tasks, estimate=True)
    with noted("Branching adapts and predicts one task after another"):
        found = meta.adapt_many(tasks, estimate=True)
    close(predictions(meta, found, queries), predictions(plain, expected, queries))
    assert [one.estimate for one in found] == [one.estimate for one in expected]


def test_queries_of_a_transductive_learner_are_not_divided(monkeypatch):
    meta = model(PrototypicalNetwork, ROWS, normalization="transductive")
    inputs, answers, queries = task(ROWS, 0)
    adapted = meta.adapt(inputs, answers)
    alone = meta.predict(adapted, queries)
    assert not torch.allclose(alone.logits[:2], meta.predict(adapted, queries[:2]).logits, atol=1e-3)
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", 1)
    for found in predictions(meta, [adapted, adapted], [queries, queries]):
        close(found, alone)


# Without gradients, without side effects


def test_nothing_is_recorded_and_the_learner_stays_as_it_was():
    meta = model()
    tasks = [task(ROWS, seed)[:2] for seed in range(3)]
    before = {name: tensor.clone() for name, tensor in meta.learner.state_dict().items()}
    adapted = meta.adapt_many(tasks)
    found = predictions(meta, adapted, rows(3, 4, 5))
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves([adapted[0].state, found]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in meta.learner.state_dict().items())


def test_a_task_taken_out_holds_nothing_of_the_others():
    adapted = raw().adapt_many([task(ROWS, seed)[:2] for seed in range(50)])
    for leaf in pytree.tree_leaves(adapted[7].state):
        assert leaf.untyped_storage().nbytes() == leaf.numel() * leaf.element_size()


@pytest.mark.parametrize("problem", [IMAGES, VALUES], ids=name_of)
def test_two_threads_may_predict_at_once(problem):
    meta = model(LEARNERS["maml"], problem)
    banks = [banked(meta, meta.adapt_many([task(problem, 10 * part + n)[:2] for n in range(4)])) for part in range(2)]
    requests = [(seed, task(problem, seed)[2][: 2 + seed]) for seed in range(4)]
    expected = [bank.predict(requests) for bank in banks]
    wrong = []

    def check(part):
        try:
            for _ in range(5):
                for found, one in zip(banks[part].predict(requests), expected[part], strict=True):
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


@pytest.mark.parametrize("problem", [pytest.param(IMAGES, marks=pytest.mark.slow), VALUES], ids=name_of)
def test_cores_share_the_tasks_and_give_the_same(problem, two_cores, monkeypatch):
    """Where tasks are predicted for all at once, that is too short to be shared."""
    meta = model(LEARNERS["maml"], problem)
    tasks, queries = [task(problem, seed)[:2] for seed in range(5)], [task(problem, seed)[2] for seed in range(5)]
    expected = [meta.predict(meta.adapt(*one), own) for one, own in zip(tasks, queries, strict=True)]
    seen = {"adapt": set(), "predict": set()}

    def watched(name, original):
        def method(*given):
            seen[name].add(threading.current_thread().name.split("_")[0])
            return original(*given)

        monkeypatch.setattr(MAML, name, method)

    watched("adapt", MAML.adapt)
    watched("predict", MAML.predict)
    adapted = meta.adapt_many(tasks)
    close(predictions(meta, adapted, queries), expected)
    assert seen["predict"] == {"handful-task" if problem is IMAGES else "MainThread"}
    assert "handful-task" in seen["adapt"]


def test_tasks_that_forget_their_examples_hold_none():
    meta = raw()
    data = [task(ROWS, seed)[:2] for seed in range(2)]
    forgotten = meta.adapt_many(data, keep_support=False)
    for found, one in zip(forgotten, data, strict=True):
        assert found.support is None
        assert found.support_digest == meta.adapt(*one).support_digest
        assert found.manifest is None
        assert found.examples == 15
    with pytest.raises(UserError, match="forgotten its examples"):
        meta.with_examples(forgotten[0], *data[1])


def test_no_tasks_at_all():
    assert raw().adapt_many([]) == []
    assert TaskBank(raw()).predict([]) == []


# What is wrong


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (
            (torch.zeros(3, 4, dtype=torch.float64), list("aba")),
            r"Task 2: The model needs inputs of shape \(n, 5\), not \(3, 4\)",
        ),
        (
            (torch.zeros(5, dtype=torch.float64), list("aba")),
            r"Task 2: The model needs inputs of shape \(n, 5\), not \(5,\)",
        ),
        ((rows(15, 5) + torch.inf, list("abc") * 5), "Task 2: Example 0 holds NaN or infinity"),
        ((torch.zeros(3, 5, dtype=torch.float64), list("aaa")), "Task 2: .*two classes, got only a"),
        ((torch.zeros(3, 5, dtype=torch.float64), list("ab")), "Task 2: 3 examples and 2 labels"),
        ((torch.zeros(0, 5, dtype=torch.float64), []), "Task 2: .*at least one example"),
    ],
)
def test_a_task_that_cannot_be_fails_alone_and_is_named_by_its_number(wrong, named):
    meta, tasks = raw(), [task(ROWS, 0)[:2], task(ROWS, 1, 6, "ab")[:2], wrong, task(ROWS, 2)[:2]]
    found = meta.adapt_many(tasks)
    assert isinstance(found[2], DataError)
    assert re.search(named, str(found[2]))
    for number in (0, 1, 3):
        assert found[number] == meta.adapt(*tasks[number])


def test_classes_that_do_not_fit_the_model_are_named():
    _, error = raw(SHARED).adapt_many([task(SHARED, 0)[:2], (torch.zeros(2, 5, dtype=torch.float64), ["0", "7"])])
    assert str(error).startswith("Task 1: The model has the classes 0, 1, 2, not 7")
    [error] = model(LEARNERS["maml"], ROWS, head="slots").adapt_many([task(ROWS, 0, None, "ab")[:2]])
    assert re.search("Task 0: .*made for 3 classes", str(error))


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        (torch.zeros(3, 1, dtype=torch.float64), r"of 3 examples have shape \(3, 1\)"),
        (torch.zeros(4, 2, dtype=torch.float64), r"of 3 examples have shape \(4, 2\)"),
        ([[0, 1], [1, torch.nan], [0, 0]], "target of example 1 is NaN"),
        ([["low", "high"]] * 3, "not all numbers"),
    ],
)
def test_targets_that_do_not_fit_the_model_are_named(answers, named):
    meta = raw(VALUES, R2D2)
    with pytest.raises(DataError, match=named):
        meta.adapt(rows(3, 3), answers)
    _, error = meta.adapt_many([task(VALUES, 0)[:2], (rows(3, 3), answers)])
    assert re.search(f"Task 1: .*{named}", str(error))


@pytest.mark.parametrize("at_once", [batches.NUMBERS_AT_ONCE, 1500], ids=["in one go", "in pieces"])
def test_one_task_that_diverges_fails_alone(at_once, monkeypatch):
    """In its place is the error with its number, whether its inputs or its examples have squares that overflow."""
    monkeypatch.setattr(batches, "NUMBERS_AT_ONCE", at_once)
    tasks = [task(ROWS, seed) for seed in range(6)]
    tasks[2] = 1e200 * tasks[2][0], *tasks[2][1:]
    meta = raw()
    adapted = meta.adapt_many([one[:2] for one in tasks])
    queries = [own[: 3 + number] for number, (*_, own) in enumerate(tasks)]
    queries[4] = torch.cat([queries[4], torch.full((1, 5), 1e200, dtype=torch.float64)])
    queries[5] = torch.full((2, 5), torch.nan, dtype=torch.float64)
    *found, last = predictions(meta, adapted, queries)
    for number, one in enumerate(found):
        if number in (2, 4):
            assert isinstance(one, DivergedError)
            assert (one.key, str(one)[:31]) == (number, f"No finite prediction of task {number}:")
        else:
            close(one, meta.predict(adapted[number], queries[number]))
    assert isinstance(last, DataError)
    assert str(last).startswith("Example 0 holds NaN")


def test_ids_of_another_number_of_tasks_are_refused():
    with pytest.raises(UserError, match="1 task, but ids for 2"):
        raw().adapt_many([task(ROWS, 0)[:2]], ids=[["a"], ["b"]])
