"""Whatever is done in whatever order, a store holds what a plain twin in memory holds."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from handful import Service
from handful.errors import UserError
from handful.serving.rows import KEPT_STATES
from serving.oracle import check
from serving.worlds import classifier, points

NUMBERS, LABELS, PICKS = st.integers(0, 7), st.sampled_from("abc"), st.integers(0, 10**6)
GIVEN = st.dictionaries(NUMBERS, LABELS, min_size=1, max_size=4)
TENANTS = itertools.count()


class Twin:
    """A task as plain values.

    versions: from the first, labels by the number of the input, or None of a tombstone. models: of which model each is.
    """

    def __init__(self, name, labels, model):
        self.name, self.versions, self.head, self.deleted = name, [labels], 1, False
        self.models, self.pinned = [model], set()

    @property
    def labels(self):
        return self.versions[self.head - 1]

    def moved(self, labels):
        if labels != self.labels:
            self.append(labels, self.model)

    def append(self, labels, model):
        self.versions.append(labels)
        self.models.append(model)
        self.head = len(self.versions)

    @property
    def model(self):
        return self.models[self.head - 1]

    def erase(self, number):
        self.versions[number - 1] = None
        self.pinned.discard(number)


class Machine(RuleBasedStateMachine):
    """Both at once. The store is the same for all runs, each with two tenants of its own."""

    place = models = None

    def __init__(self):
        super().__init__()
        self.model, self.next_model = self.models
        self.service = Service(self.model, self.place)
        self.tenants = [f"tenant {next(TENANTS)}" for _ in range(2)]
        self.twins = {tenant: {} for tenant in self.tenants}
        self.restarted, self.keys = False, itertools.count()

    def teardown(self):
        try:
            for tenant in self.tenants:
                check(self.service, tenant)
        finally:
            self.service.close()

    def picked(self, pick, *, deleted=False):
        """A tenant, the id of a task of its and its twin; nothing where there is none."""
        all_ = [(t, id_, twin) for t in self.tenants for id_, twin in self.twins[t].items() if twin.deleted == deleted]
        return all_[pick % len(all_)] if all_ else None

    def outcome(self, act):
        try:
            return act(), None
        except UserError as error:
            return None, error.code

    @initialize(labels=st.lists(LABELS, min_size=3, max_size=3))
    def begin(self, labels):
        """A task of each tenant, so that rules have something to do."""
        given = dict(enumerate([*"ab", *labels]))
        for which in range(2):
            self.create(given, "first", which, False)

    @rule(given=GIVEN, name=st.sampled_from(["one", "two", "three"]), which=st.integers(0, 1), key=st.booleans())
    def create(self, given, name, which, key):
        tenant = self.tenants[which]
        how = {"tenant": tenant, "idempotency_key": f"key {next(self.keys)}" if key else None}
        task, code = self.outcome(lambda: self.service.create(name, points(*given), [*given.values()], **how))
        if len(set(given.values())) < 2:
            assert code == "one-class"
        elif any(twin.name == name and not twin.deleted for twin in self.twins[tenant].values()):
            assert code == "name-taken"
        else:
            self.twins[tenant][task.id] = Twin(name, given, self.model)
            if key:
                again = self.service.create(name, points(*given), [*given.values()], **how)
                assert again == task

    @rule(given=GIVEN, pick=PICKS, clash=st.booleans())
    def add(self, given, pick, clash):
        if found := self.picked(pick):
            tenant, id_, twin = found
            if not clash:
                given = given | {number: twin.labels[number] for number in given if number in twin.labels}
            _, code = self.outcome(lambda: self.service.add(id_, points(*given), [*given.values()], tenant=tenant))
            if any(twin.labels.get(number, label) != label for number, label in given.items()):
                assert code == "contradictory-labels"
            else:
                assert code is None
                twin.moved(twin.labels | given)

    @rule(given=GIVEN, pick=PICKS)
    def correct(self, given, pick):
        if found := self.picked(pick):
            tenant, id_, twin = found
            _, code = self.outcome(lambda: self.service.correct(id_, points(*given), [*given.values()], tenant=tenant))
            labels = twin.labels | given
            assert code == ("one-class" if len(set(labels.values())) < 2 else None)
            if code is None:
                twin.moved(labels)

    @rule(pick=PICKS, which=st.integers(0, 7), erase=st.booleans(), version=PICKS)
    def lose(self, pick, which, erase, version):
        """Remove or erase an example; only those of the head can be removed."""
        if not (found := self.picked(pick)):
            return
        tenant, id_, twin = found
        there = [n for n, labels in enumerate(twin.versions, 1) if labels] if erase else [twin.head]
        of_version = there[version % len(there)]
        examples = self.service.examples(id_, of_version, tenant=tenant)
        example = examples[which % len(examples)]
        lost = self.number_of(example)
        held = [
            labels is not None and example.id in {e.id for e in self.service.examples(id_, n, tenant=tenant)}
            for n, labels in enumerate(twin.versions, 1)
        ]
        left = {n: label for n, label in twin.labels.items() if n != lost}
        act = self.service.erase if erase else self.service.remove
        _, code = self.outcome(lambda: act(id_, [example.id], tenant=tenant))
        if held[twin.head - 1] and len(set(left.values())) < 2:
            assert code in ("one-class", "too-few-examples")
            return
        assert code is None
        if held[twin.head - 1]:
            twin.append(left, twin.model)
        if erase:
            for number, gone in enumerate(held, 1):
                if gone:
                    twin.erase(number)

    def number_of(self, example):
        return next(
            n for n in range(8) if torch.allclose(torch.tensor(points(n)[0]).double(), torch.tensor(example.input))
        )

    @rule(pick=PICKS, version=PICKS)
    def roll_back(self, pick, version):
        if found := self.picked(pick):
            tenant, id_, twin = found
            version = version % (len(twin.versions) + 1) + 1
            _, code = self.outcome(lambda: self.service.roll_back(id_, version, tenant=tenant))
            if version > len(twin.versions) or twin.versions[version - 1] is None:
                assert code == "not-found"
            else:
                assert code is None
                twin.head = version

    @rule(pick=PICKS, version=PICKS, pinned=st.booleans())
    def pin(self, pick, version, pinned):
        if found := self.picked(pick):
            tenant, id_, twin = found
            version = version % len(twin.versions) + 1
            shown, code = self.outcome(lambda: self.service.pin(id_, version, pinned, tenant=tenant))
            if twin.versions[version - 1] is None:
                assert code == "not-found"
            else:
                assert shown.pinned == pinned
                (twin.pinned.add if pinned else twin.pinned.discard)(version)

    @rule(pick=PICKS, name=st.sampled_from(["one", "two", "three"]))
    def rename(self, pick, name):
        if found := self.picked(pick):
            tenant, id_, twin = found
            if twin.name != "first":
                _, code = self.outcome(lambda: self.service.rename(id_, name, tenant=tenant))
                others = [other for other in self.twins[tenant].values() if other is not twin and not other.deleted]
                taken = any(other.name == name for other in others)
                assert code == ("name-taken" if taken else None)
                twin.name = twin.name if taken else name

    @rule(pick=PICKS)
    def readapt(self, pick):
        if found := self.picked(pick):
            tenant, id_, twin = found
            made = self.service.readapt(id_, tenant=tenant)
            codes = {note.code for note in made.task.notes}
            assert made.promoted == codes.isdisjoint({"present-model", "not-promoted"})
            assert ("present-model" in codes) == (twin.model is self.model)
            if made.promoted:
                twin.append(twin.labels, self.model)

    @rule(pick=PICKS)
    def delete(self, pick):
        if found := self.picked(pick):
            tenant, id_, twin = found
            if twin.name != "first":  # so that there is always one
                self.service.delete(id_, tenant=tenant)
                twin.deleted = True

    @rule(pick=PICKS, erase=st.booleans())
    def restore_or_erase(self, pick, erase):
        if found := self.picked(pick, deleted=True):
            tenant, id_, twin = found
            if erase:
                self.service.erase_task(id_, tenant=tenant)
                del self.twins[tenant][id_]
                return
            _, code = self.outcome(lambda: self.service.restore(id_, tenant=tenant))
            taken = any(other.name == twin.name and not other.deleted for other in self.twins[tenant].values())
            assert code == ("name-taken" if taken else None)
            twin.deleted = taken

    @rule(pick=PICKS, version=PICKS)
    def predict(self, pick, version):
        """Equal to what the library predicts of the twin's examples, in the other order."""
        if found := self.picked(pick):
            tenant, id_, twin = found
            there = [n for n, labels in enumerate(twin.versions, 1) if labels]
            number = there[version % len(there)]
            labels = twin.versions[number - 1]
            model = twin.models[number - 1]
            task = model.adapt(torch.tensor(points(*reversed(labels))), [*reversed(labels.values())])
            wanted = model.predict(task, torch.tensor(points(90, 91))).logits.softmax(-1)
            made = self.service.predict(id_, points(90, 91), version=number, tenant=tenant)
            shown = torch.tensor([[one.probabilities[label] for label in task.labels] for one in made.predictions])
            assert torch.allclose(shown, wanted, atol=1e-5)
            other = self.tenants[1 - self.tenants.index(tenant)]
            assert self.outcome(lambda: self.service.get(id_, tenant=other)) == (None, "not-found")

    @precondition(lambda self: not self.restarted)
    @rule()
    def restart(self):
        """With another model from then on."""
        self.restarted = True  # once, since it takes as long as ten other steps
        self.model = self.next_model
        self.service.close()
        self.service = Service(self.model, self.place)

    @invariant()
    def equals_its_twin(self):
        for tenant, twins in self.twins.items():
            there = {task.id: task for task in self.service.tasks(tenant=tenant)}
            assert there.keys() == {id_ for id_, twin in twins.items() if not twin.deleted}
            for id_, task in there.items():
                twin = twins[id_]
                assert (task.name, task.head.number) == (twin.name, twin.head)
                assert task.head.labels == tuple(sorted(set(twin.labels.values())))
                shown = self.service.versions(id_, tenant=tenant)
                assert [one.erased_at is not None for one in shown] == [labels is None for labels in twin.versions]
                assert {one.number for one in shown if one.pinned} == twin.pinned
                assert [one.model_digest for one in shown] == [model.digest for model in twin.models]


def run(place, monkeypatch, examples, steps):
    monkeypatch.setattr("handful.serving.rows.KEPT_STATES", 3)  # so that states are dropped
    assert KEPT_STATES > 3
    monkeypatch.setattr(Machine, "place", place)
    monkeypatch.setattr(Machine, "models", (classifier(), classifier(seed=1)))
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=how)


def test_a_store_equals_its_twin(tmp_path, monkeypatch):
    run(tmp_path / "store", monkeypatch, 4, 40)


@pytest.mark.slow
def test_a_store_equals_its_twin_in_many_ways(tmp_path, monkeypatch):
    run(tmp_path / "store", monkeypatch, 30, 50)


@pytest.mark.slow
def test_a_store_in_postgresql_equals_its_twin(cluster, monkeypatch):
    run(cluster.store(), monkeypatch, 12, 30)
