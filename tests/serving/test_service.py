"""Tasks of a service: made, changed, rolled back, predicted, and found again after a restart."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sqlalchemy import text, update

from handful import Service
from handful.errors import ArtifactError, DataError, UserError
from handful.pipelines.texts import TextPipeline
from handful.serving.opening import open_store
from handful.serving.rows import KEPT_STATES
from handful.serving.supports import adapted
from handful.serving.tables import VERSIONS
from serving.worlds import classifier, points, regressor


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture
def service(model, place):
    with Service(model, place) as service:
        yield service


def made(service, name="shelf", **options):
    return service.create(name, points(1, 2, 3, 4), ["a", "a", "b", "b"], **options)


def probabilities(service, task, **options):
    return [dict(one.probabilities) for one in service.predict(task.id, points(20, 21), **options).predictions]


def close(one, other):
    return all(
        a.keys() == b.keys() and all(abs(a[k] - b[k]) < 1e-5 for k in a) for a, b in zip(one, other, strict=True)
    )


def test_a_task_predicts_as_the_library_does(service, model):
    task = made(service)
    assert (task.name, task.head.number, task.head.labels, task.head.examples) == ("shelf", 1, ("a", "b"), 4)
    assert task.head.model_digest == model.digest
    library = model.adapt(torch.tensor(points(1, 2, 3, 4)), ["a", "a", "b", "b"])
    logits = model.predict(library, torch.tensor(points(20, 21))).logits.softmax(-1)
    assert close(probabilities(service, task), [dict(zip("ab", row, strict=True)) for row in logits.tolist()])
    shown = service.predict(task.id, points(20), top=1)
    assert (shown.version, shown.model, len(shown.predictions[0].probabilities)) == (1, "default", 1)
    assert service.predict(task.id, []).predictions == ()


def test_everything_is_found_after_a_restart(service, model, place):
    task = made(service)
    service.add(task.id, points(5), ["c"])
    before = probabilities(service, task), service.versions(task.id), service.tasks()
    service.close()
    with Service(model, place) as again:
        assert (probabilities(again, task), again.versions(task.id), again.tasks()) == before
        assert np.allclose([one.input for one in again.examples(task.id)], points(1, 2, 3, 4, 5))
        assert [one.label for one in again.examples(task.id)] == ["a", "a", "b", "b", "c"]


def test_a_change_is_a_version_and_rolling_back_moves_the_head(service):
    task = made(service)
    first = probabilities(service, task)
    added = service.add(task.id, points(5, 6), ["c", "a"], actor="ann")
    assert (added.head.number, added.head.parent, added.head.change, added.head.actor) == (2, 1, "added", "ann")
    assert added.head.labels == ("a", "b", "c")
    removed = service.remove(task.id, [service.examples(task.id)[4].id])
    assert (removed.head.number, removed.head.labels) == (3, ("a", "b"))
    back = service.roll_back(task.id, 1)
    assert (back.head.number, probabilities(service, task)) == (1, first)
    assert service.roll_back(task.id, 1) == back
    corrected = service.correct(task.id, points(1), ["b"])
    assert (corrected.head.number, corrected.head.parent, corrected.head.change) == (4, 1, "corrected")
    assert [version.number for version in service.versions(task.id)] == [1, 2, 3, 4]
    assert close(probabilities(service, task, version=1), first)
    with service.store.reading("default") as rows:
        actions = [entry.action for entry in rows.audit(99)]
    assert actions == ["created", "added", "removed", "rolled-back", "corrected"]


def test_a_corrected_label_equals_the_second_label_alone(service):
    one = made(service)
    service.correct(one.id, points(1, 9), ["b", "a"])
    other = service.create("other", points(9, 4, 3, 2, 1), ["a", "b", "b", "a", "b"])
    assert service.get(one.id).head.digest == other.head.digest
    same = service.correct(one.id, points(1), ["b"])
    assert same.head.number == 2


def test_order_and_repetition_change_nothing(service):
    one = made(service)
    other = service.create("again", points(4, 1, 3, 2, 1), ["b", "a", "b", "a", "a"])
    assert other.head.digest == one.head.digest
    again = service.add(one.id, points(1), ["a"])
    assert again.head == one.head
    assert [note.code for note in (*other.notes, *again.notes)] == ["repeated", "repeated"]


def test_two_labels_of_an_input_contradict(service):
    task = made(service)
    for use in (
        lambda: service.create("other", points(1, 2, 1), ["a", "b", "b"]),
        lambda: service.add(task.id, points(1), ["b"]),
    ):
        with pytest.raises(DataError, match="the same input 'a' already") as error:
            use()
        assert error.value.code == "contradictory-labels"


def test_values_keep_repeated_rows_and_are_corrected(place):
    with Service(regressor(), place) as service:
        task = service.create("prices", points(1, 1, 2, 3), [1.0, 1.0, 2.0, 3.0])
        assert (task.head.examples, task.head.labels, task.head.targets) == (4, None, ("value 0",))
        assert service.correct(task.id, points(1), [5.0]).head.examples == 3
        assert [one.label for one in service.examples(task.id)] == [(2.0,), (3.0,), (5.0,)]
        assert service.predict(task.id, points(7)).predictions[0].low is not None
        with pytest.raises(DataError, match="not finite"):
            service.add(task.id, points(8), [float("nan")])


def test_a_task_that_keeps_no_examples_predicts_and_cannot_change(service):
    task = made(service, keep_examples=False)
    assert close(probabilities(service, task), probabilities(service, made(service, "kept")))
    assert service.examples(task.id) == []
    for change in (lambda: service.add(task.id, points(5), ["c"]), lambda: service.remove(task.id, [])):
        with pytest.raises(UserError, match="are not stored, so the task cannot change"):
            change()


def test_deleted_tasks_come_back_unless_their_name_is_taken(service):
    task = made(service)
    service.delete(task.id)
    for use in (service.get, service.versions, lambda id_: service.predict(id_, points(1)), service.delete):
        with pytest.raises(UserError, match="does not exist"):
            use(task.id)
    assert service.tasks() == []
    [found] = service.tasks(deleted=True)
    assert (found.id, found.deleted_at is None) == (task.id, False)
    assert service.tasks(deleted=True, after=task.id) == service.tasks(deleted=True, tenant="u") == []
    assert service.restore(task.id) == task
    assert service.tasks(deleted=True) == []
    service.delete(task.id)
    made(service)
    with pytest.raises(UserError, match="A task 'shelf' already exists"):
        service.restore(task.id)


def test_nothing_of_another_tenant_can_be_had(service):
    task = made(service, tenant="t")
    made(service, tenant="u")
    example = service.examples(task.id, tenant="t")[0].id
    uses = [
        lambda: service.get(task.id, tenant="u"),
        lambda: service.versions(task.id, tenant="u"),
        lambda: service.examples(task.id, tenant="u"),
        lambda: service.predict(task.id, points(1), tenant="u"),
        lambda: service.add(task.id, points(5), ["c"], tenant="u"),
        lambda: service.correct(task.id, points(5), ["c"], tenant="u"),
        lambda: service.remove(task.id, [example], tenant="u"),
        lambda: service.roll_back(task.id, 1, tenant="u"),
        lambda: service.delete(task.id, tenant="u"),
        lambda: service.restore(task.id, tenant="u"),
    ]
    for use in uses:
        with pytest.raises(UserError) as foreign:
            use()
        assert (foreign.value.code, foreign.value.message) == ("not-found", f"The task {task.id!r} does not exist.")
    assert [one.id for one in service.tasks(tenant="t")] == [task.id]


def test_expected_versions_are_checked_and_without_them_both_of_two_changes_are_kept(service, monkeypatch):
    task = made(service)
    insert, numbers = service.states.adapt, iter((6, 7))

    def slow(*arguments, **options):
        monkeypatch.setattr(service.states, "adapt", insert)
        service.add(task.id, points(next(numbers)), ["d"])  # while the other one adapts
        return insert(*arguments, **options)

    monkeypatch.setattr(service.states, "adapt", slow)
    both = service.add(task.id, points(5), ["c"])
    assert (both.head.number, both.head.labels) == (3, ("a", "b", "c", "d"))
    monkeypatch.setattr(service.states, "adapt", slow)
    example = service.examples(task.id)[0].id
    with pytest.raises(UserError, match="no longer at version 3") as conflict:
        service.remove(task.id, [example], expected=3)
    assert conflict.value.code == "version-conflict"
    with pytest.raises(UserError, match="at version 4, not 2"):
        service.roll_back(task.id, 1, expected=2)


def test_changes_by_many_threads_are_all_kept(service):
    task = made(service)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: service.add(task.id, points(number), ["a"]), range(30, 38)))
    versions = service.versions(task.id)
    assert [version.number for version in versions] == list(range(1, 10))
    assert versions[-1].examples == 12


def test_a_failing_write_leaves_nothing(service, monkeypatch):
    def fail(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr("handful.serving.rows.Rows.log", fail)
    with pytest.raises(RuntimeError):
        made(service)
    monkeypatch.undo()
    with service.store.reading("default") as rows:
        for table in ("tasks", "versions", "heads", "examples", "supports", "models", "audit"):
            assert rows._run(text(f"SELECT COUNT(*) FROM {table}")).scalar() == 0


def test_old_states_are_dropped_and_adapted_again(service):
    task = made(service)
    first = probabilities(service, task)
    for number in range(KEPT_STATES + 1):
        service.correct(task.id, points(1), ["ab"[number % 2 == 0]])
    with service.store.reading("default") as rows:
        states = [rows.state(task.id, version.number) is not None for version in service.versions(task.id)]
    assert states == [False, False] + [True] * KEPT_STATES
    assert close(probabilities(service, task, version=1), first)
    service.roll_back(task.id, 1)
    with service.store.reading("default") as rows:
        assert rows.state(task.id, 1) is not None


def test_an_altered_state_is_never_served_but_adapted_again(service, model, place):
    task, bare = made(service), made(service, "bare", keep_examples=False)
    before = probabilities(service, task)
    service.store.write("default", lambda rows: rows._run(update(VERSIONS).values(state=bytes(300))))
    service.close()
    with Service(model, place) as again:
        assert close(probabilities(again, task), before)
        with again.store.reading("default") as rows:
            assert [entry.action for entry in rows.audit(9)] == ["created", "created", "repaired"]
            assert rows.state(task.id, 1) is not None
        with pytest.raises(ArtifactError, match="damaged, and its examples are not stored"):
            again.predict(bare.id, points(1))


def test_a_cold_state_is_loaded_once_for_all_that_wait(service, model, place, monkeypatch):
    task = made(service)
    service.close()
    with Service(model, place) as again:
        loads, load = [], again._states.load
        [bank] = again._states._banks.values()
        monkeypatch.setattr(bank, "_load", lambda key: loads.append(key) or load(key))
        gate = threading.Barrier(64)

        def ask(_):
            gate.wait()
            return again.predict(task.id, points(1)).version

        with ThreadPoolExecutor(64) as pool:
            assert list(pool.map(ask, range(64))) == [1] * 64
        assert loads == [("default", task.id, 1)]


def test_every_prediction_is_of_its_own_task_and_version_while_states_come_and_go(model, place):
    wanted = {}
    with Service(model, place, max_bytes=200) as service:
        tasks = [service.create(f"shelf {n}", points(n, n + 1, n + 2), ["a", "b", "a"]) for n in range(10)]
        for number, task in enumerate(tasks):
            service.add(task.id, points(number + 50), ["b"])
            for version, labels in ((1, ["a", "b", "a"]), (2, ["a", "b", "a", "b"])):
                support = torch.tensor(points(number, number + 1, number + 2, number + 50)[: len(labels)])
                logits = model.predict(model.adapt(support, labels), torch.tensor(points(90))).logits
                wanted[task.id, version] = logits.softmax(-1)[0, 0].item()

        def ask(seed):
            generator = np.random.default_rng(seed)
            for _ in range(40):
                task = tasks[generator.integers(10)].id
                if generator.random() < 0.3:
                    service.roll_back(task, int(generator.integers(1, 3)))
                made = service.predict(task, points(90))
                assert abs(made.predictions[0].probabilities["a"] - wanted[task, made.version]) < 1e-5
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(4)))
        [bank] = service._states._banks.values()
        assert len(bank) <= 200 // 24
        assert len({round(one, 4) for one in wanted.values()}) > 10


def test_a_task_keeps_its_model_though_its_name_gets_another(service, model, place):
    task = made(service)
    before = probabilities(service, task)
    service.close()
    other = classifier(seed=1)
    with open_store(place) as store, Service({"default": other, "second": model}, store) as again:
        assert close(probabilities(again, task), before)
        assert made(again, "new", model="default").head.model_digest == other.digest
        with pytest.raises(UserError, match="several models: default, second") as caught:
            made(again, "no model")
        assert (caught.value.hint, caught.value.field) == ("Choose one with {model}.", ("model",))
        with pytest.raises(UserError, match="model 'third' does not exist"):
            made(again, "no model", model="third")
    with Service(other, place) as alone:
        assert close(probabilities(alone, task), before)  # from the store's copy
        assert alone.add(task.id, points(5), ["c"]).head.model_digest == model.digest


def test_any_version_is_what_adapting_its_examples_gives(service, model):
    task = made(service)
    service.add(task.id, points(5), ["c"])
    for version in service.versions(task.id):
        with service.store.reading("default") as rows:
            again, state = adapted(model, rows.examples(task.id, version.number)), rows.state(task.id, version.number)
        assert again.to_bytes() == state


def test_texts_are_kept_as_they_came_and_read_by_the_pipeline(place, monkeypatch):
    embed = lambda _, texts: torch.tensor([[len(text), text.count("a"), 1.0] for text in texts])  # noqa: E731
    monkeypatch.setattr(TextPipeline, "_embedded", embed)
    pipeline = TextPipeline(text="text", width=3, encoder="none", revision="none")
    with Service(classifier_with(pipeline), place) as service:
        task = service.create("mail", ["aaa", "aa", "bbbbbb", "cccccc"], ["short", "short", "long", "long"])
        assert service.predict(task.id, ["aaaa"]).predictions[0].label == "short"
        assert [one.input for one in service.examples(task.id)] == ["aaa", "aa", "bbbbbb", "cccccc"]
        with pytest.raises(DataError, match="Input 1 is an array of shape"):
            service.predict(task.id, ["a", [1.0, 2.0, 3.0]])
        for use in (lambda: service.add(task.id, "aaa", ["short"]), lambda: service.predict(task.id, "aaa")):
            with pytest.raises(DataError, match=r"Give a list\."):
                use()


def classifier_with(pipeline):
    from handful.models.meta_model import MetaModel

    return MetaModel(classifier().learner, pipeline)


@pytest.mark.parametrize(
    ("inputs", "labels", "reason"),
    [
        ([], [], "at least one example"),
        (points(1), ["a"], "at least two classes"),
        (points(1, 2), ["a"], "2 inputs and 1 label: give"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], ["a", "b"], r"Input 1 is an array of shape \(2\)"),
        ([[1.0, [2.0], 3.0], [1.0, 2.0, 3.0]], ["a", "b"], "Input 0: its rows have different lengths"),
        ([[1.0, 2.0]] * 2, ["a", "b"], r"inputs of shape \(n, 3\)"),
        ([[1.0, 2.0, float("nan")], [1.0, 2.0, 3.0]], ["a", "b"], "NaN"),
        ([[1.0, 2.0, 1e39], [1.0, 2.0, 3.0]], ["a", "b"], "infinity"),
        (["text", "more"], ["a", "b"], "its inputs are arrays"),
        (["\ud800", "more"], ["a", "b"], "Input 0 is not text"),
        ([{"x": object()}, {"x": 1}], ["a", "b"], "Input 0: A cell is"),
        ([["1", 2, 3], [1, 2, 3]], ["a", "b"], "is not an input"),
        (points(1, 2), ["a", "b\u202e"], "control or direction"),
        (points(1, 2), ["a", "b" * 129], "1 to 128 characters, not 129"),
    ],
)
def test_what_cannot_be_examples_is_one_sentence_and_changes_nothing(service, inputs, labels, reason):
    with pytest.raises(UserError, match=reason):
        service.create("shelf", inputs, labels)
    assert service.tasks() == []


def test_names_are_composed_and_checked(service):
    task = made(service, "cafe\u0301")
    assert task.name == "caf\u00e9"
    with pytest.raises(UserError, match="already"):
        made(service, "caf\u00e9")
    for name in ("", " ", "a\nb", "x" * 129):
        with pytest.raises(UserError, match="A name"):
            made(service, name)


def test_examples_are_read_a_page_at_a_time(service):
    task = service.create("pages", points(1, 2, 3, 4), ["a", "b", "a", "b"]).id
    every = [one.id for one in service.examples(task)]
    first, rest = (service.examples_page(task, limit=2, nbytes=10**6, after=after) for after in ("", every[1]))
    assert ([one.id for one in first.examples], first.more) == (every[:2], True)
    assert ([one.id for one in rest.examples], rest.more) == (every[2:], False)
    assert service.examples_page(task, limit=2, nbytes=10**6, after=every[-1]) == ([], False)
    assert len(service.examples_page(task, limit=4, nbytes=1).examples) == 1
