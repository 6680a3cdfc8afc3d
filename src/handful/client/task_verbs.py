"""What can be done with tasks from afar: the verbs of `handful.Service`, each defined once for both clients."""

import uuid
from collections.abc import Sequence
from typing import Any

from handful.client.calls import Call, Plan, ask, quoted
from handful.client.content import in_parts
from handful.client.records import (
    Page,
    RemoteExample,
    RemoteLimits,
    RemoteModel,
    RemotePredictions,
    RemoteReadaptation,
    RemoteReceipt,
    RemoteScores,
    RemoteTask,
    RemoteVersion,
)
from handful.client.verbs import listing, verb
from handful.client.written_inputs import are_numbers, listed_labels, written_inputs, written_labels
from handful.errors import DataError, count_of

TASKS = "/v1/tasks"
SMALL_INPUTS, SMALL_BYTES = 64, 256 * 2**10
"""What every server takes in one request, so that nobody asks how much it does."""
ENVELOPE = 1024
"""Bytes that a request has around its inputs, at most."""


class TaskVerbs:
    """Methods on tasks.

    Those that change a task take `expected`, the version that it has to be at, else `UserError`. Those that create
    something take an `idempotency_key`; by default each call has its own, so that what is sent again after a broken
    connection is carried out once.
    """

    @verb
    def create(
        self,
        name: str,
        inputs: Any,
        labels: Any,
        *,
        model: str | None = None,
        keep_examples: bool = True,
        estimate: bool = False,
        idempotency_key: str | None = None,
    ) -> Plan[RemoteTask]:
        """Adapt a new task to examples.

        name: unlike those of the tenant's other tasks that are not deleted.
        inputs: texts; rows as mappings or a data frame; images as bytes or `Path`s; or arrays of numbers.
        labels: class names `(n,)`, or values `(n,)` or `(n, outputs)`, which may be mappings of their names.
        model: the name of one; may be left out where the server has but one.
        keep_examples: whether the server keeps the examples, without which the task cannot change.
        estimate: whether to estimate its score, as `evaluate` does on its own examples.

        Raises `DataError` for examples that cannot be used, and `UserError` for a name that is taken.
        """
        examples = yield from _examples(inputs, labels, model=model)
        body = {"name": name, "keep_examples": keep_examples, "examples": examples}
        if model is not None:
            body["model"] = model
        if estimate:
            body["estimate"] = True
        return (yield from ask(_creating(TASKS, body, idempotency_key)))

    @verb
    def add(
        self,
        task: str,
        inputs: Any,
        labels: Any,
        *,
        expected: int | None = None,
        estimate: bool = False,
        idempotency_key: str | None = None,
    ) -> Plan[RemoteTask]:
        """Adapt a task anew to its examples and more of them, of which new classes may be.

        inputs, labels, estimate: as for `create`. Inputs with labels that the task has already are left out, with a
            note; `DataError` if they have another label.
        """
        return (yield from _labeling(task, "examples", inputs, labels, expected, idempotency_key, estimate))

    @verb
    def correct(
        self,
        task: str,
        inputs: Any,
        labels: Any,
        *,
        expected: int | None = None,
        estimate: bool = False,
        idempotency_key: str | None = None,
    ) -> Plan[RemoteTask]:
        """Adapt a task anew with these labels: in place of others for inputs among its examples, else added to them.

        inputs, labels, estimate: as for `create`.
        """
        return (yield from _labeling(task, "corrections", inputs, labels, expected, idempotency_key, estimate))

    @verb
    def remove(self, task: str, example: str, *, expected: int | None = None) -> Plan[RemoteTask]:
        """Adapt a task anew without the example of this id; earlier versions keep it, see `erase`.

        Raises `UserError` for an unknown id, and `DataError` if too few examples are left.
        """
        path = _path(task, "examples", example)
        return (yield from ask(Call("DELETE", path, RemoteTask, changes=True, expected=expected)))

    @verb
    def erase(self, task: str, example: str, *, expected: int | None = None) -> Plan[RemoteReceipt]:
        """Erase the example of this id, from all versions: those that hold it are gone, but for number and time.

        When the receipt is returned, it is in no table, memory or file of the server's store; backups that were made
        before are not changed. The same request, sent again, gives the same receipt.

        Raises `UserError` for an unknown id, and `DataError` if too few examples would be left to adapt to.
        """
        path = _path(task, "examples", example)
        return (yield from ask(_erasing(path, expected)))

    @verb
    def roll_back(self, task: str, version: int, *, expected: int | None = None) -> Plan[RemoteTask]:
        """Let an earlier or later version of a task predict from now on; no version is lost.

        Raises `UserError` if the version does not exist, or was erased.
        """
        path = _path(task, "rollback")
        return (
            yield from ask(
                Call(
                    "POST",
                    path,
                    RemoteTask,
                    body={"version": version},
                    changes=True,
                    expected=expected,
                    repeatable=expected is None,
                )
            )
        )

    @verb
    def readapt(self, task: str, *, expected: int | None = None) -> Plan[RemoteReadaptation]:
        """Move a task to the model that its model's name has now, as a new version.

        No version is made if its score on the task's own examples is significantly below that of the previous model.
        Raises `UserError` if the server has no model of this name, or the examples are not stored.
        """
        call: Call[RemoteReadaptation] = Call(
            "POST",
            _path(task, "readapt"),
            RemoteReadaptation,
            body={},
            changes=True,
            expected=expected,
            repeatable=expected is None,
        )
        return (yield from ask(call))

    @verb
    def pin(self, task: str, version: int, pinned: bool = True) -> Plan[RemoteVersion]:
        """Keep the state of a version, so that it predicts at once however many versions follow.

        pinned: False to let go of it again.

        Raises `UserError` if the version does not exist, or was erased.
        """
        path = _path(task, "versions", str(version), "pin")
        call: Call[RemoteVersion] = Call("POST", path, RemoteVersion, body={"pinned": pinned}, repeatable=True)
        return (yield from ask(call))

    @verb
    def rename(self, task: str, name: str, *, expected: int | None = None) -> Plan[RemoteTask]:
        """Give a task another name; `UserError` if that is taken."""
        call: Call[RemoteTask] = Call(
            "PATCH", _path(task), RemoteTask, body={"name": name}, changes=True, expected=expected, repeatable=True
        )
        return (yield from ask(call))

    @verb
    def delete(self, task: str, *, expected: int | None = None) -> Plan[None]:
        """Delete a task; it can be restored for 7 days, and its name is free."""
        yield from ask(Call("DELETE", _path(task), None, changes=True, expected=expected))

    @verb
    def restore(self, task: str) -> Plan[RemoteTask]:
        """Bring a task back that was deleted in the last 7 days.

        Raises `UserError` if its name was given to another one meanwhile.
        """
        return (yield from ask(Call("POST", _path(task, "restore"), RemoteTask, repeatable=True)))

    @verb
    def erase_task(self, task: str, *, expected: int | None = None) -> Plan[RemoteReceipt]:
        """Erase a task with all its versions and examples, deleted or not; see `erase`."""
        return (yield from ask(_erasing(_path(task), expected)))

    @verb
    def get(self, task: str) -> Plan[RemoteTask]:
        """A task; `UserError` if it does not exist."""
        call: Call[RemoteTask] = _looking(_path(task), RemoteTask)
        return (yield from ask(call))

    @listing
    def tasks(self, *, deleted: bool = False, limit: int | None = None) -> Call[Page[RemoteTask]]:
        """Tasks that are not deleted, from the oldest.

        deleted: those that are, until they are erased, in place of the others.
        limit: how many are asked for at once.
        """
        return _looking(TASKS, Page[RemoteTask], deleted="true" if deleted else None, limit=limit)

    @listing
    def versions(self, task: str, *, limit: int | None = None) -> Call[Page[RemoteVersion]]:
        """All versions of a task, from the first.

        limit: how many are asked for at once.
        """
        return _looking(_path(task, "versions"), Page[RemoteVersion], limit=limit)

    @verb
    def version(self, task: str, version: int) -> Plan[RemoteVersion]:
        """One version of a task; `UserError` if it does not exist."""
        call: Call[RemoteVersion] = _looking(_path(task, "versions", str(version)), RemoteVersion)
        return (yield from ask(call))

    @listing
    def examples(self, task: str, version: int | None = None, *, limit: int | None = None) -> Call[Page[RemoteExample]]:
        """The examples of a version, the head by default; none where they are not kept, or the version was erased.

        limit: how many are asked for at once.
        """
        return _looking(_path(task, "examples"), Page[RemoteExample], version=version, limit=limit)

    @verb
    def predict(
        self, task: str, inputs: Any, *, version: int | None = None, top: int | None = None
    ) -> Plan[RemotePredictions]:
        """Predict inputs, by the head or by another version of a task.

        inputs: as for `create`; may be none, and more than the server takes at once: then they are sent in parts, all
            of them predicted by one version.
        top: how many classes have their probability shown, the most probable first; None: all.

        Raises `UserError` for an unknown task or version, and `DataError` for inputs that do not fit.
        """
        written = written_inputs(inputs)
        parts = list(in_parts(written, SMALL_INPUTS, SMALL_BYTES))
        if len(parts) > 1:
            limits = yield from ask(_looking("/v1/limits", RemoteLimits))
            parts = list(in_parts(written, limits.inputs, _bytes_of(limits)))
        first = yield from ask(_predicting(task, parts[0], 0, version, top))
        done, calls = len(parts[0]), []
        for part in parts[1:]:
            calls.append(_predicting(task, part, done, first.version, top))
            done += len(part)
        others = (yield calls) if calls else []
        predictions = (*first.predictions, *(one for other in others for one in other.predictions))
        notes = dict.fromkeys((*first.notes, *(note for other in others for note in other.notes)))
        return RemotePredictions(first.task, first.version, first.model, predictions, tuple(notes))

    @verb
    def predict_many(self, requests: Sequence[tuple[str, Any]]) -> Plan[list[RemotePredictions]]:
        """Predict inputs of many tasks in one request.

        requests: of each a task, and its inputs as for `predict`.

        Raises as `predict` does, for all of them where one is wrong.
        """
        body = [{"task": task, "inputs": written_inputs(inputs)} for task, inputs in requests]
        call: Call[list[RemotePredictions]] = Call(
            "POST", "/v1/predict", list[RemotePredictions], body=body, repeatable=True
        )
        return (yield from ask(call))

    @verb
    def evaluate(
        self, task: str, inputs: Any = None, labels: Any = None, *, version: int | None = None
    ) -> Plan[RemoteScores]:
        """Score a task on labeled examples, or without any on its own ones, each predicted from the others.

        inputs, labels: as for `create`.
        """
        body: dict[str, Any] = {}
        if version is not None:
            body["version"] = version
        if inputs is not None:
            body["examples"] = yield from _examples(inputs, labels, task=task)
        call: Call[RemoteScores] = Call("POST", _path(task, "evaluate"), RemoteScores, body=body, repeatable=True)
        return (yield from ask(call))

    @verb
    def export(self, task: str, version: int | None = None) -> Plan[bytes]:
        """A version, the head by default, as the file of an adapted task: `AdaptedTask.from_bytes` reads it."""
        call: Call[bytes] = _looking(_path(task, "export"), bytes, version=version)
        return (yield from ask(call))

    @verb
    def import_task(self, name: str, content: bytes, *, idempotency_key: str | None = None) -> Plan[RemoteTask]:
        """Make a task of the file of an adapted task, which may be from elsewhere.

        name: see `create`.
        content: of the file, as `export` gives it.

        Raises `UserError` if its model is not on the server.
        """
        call: Call[RemoteTask] = Call(
            "POST",
            f"{TASKS}/import",
            RemoteTask,
            {"name": name},
            content=content,
            idempotency_key=idempotency_key or uuid.uuid4().hex,
            repeatable=True,
        )
        return (yield from ask(call))


def _path(task: str, *more: str) -> str:
    return "/".join([TASKS, *map(quoted, (task, *more))])


def _looking(path: str, answer: Any, **query: Any) -> Call[Any]:
    """A request that changes nothing."""
    return Call("GET", path, answer, query, repeatable=True)


def _creating(
    path: str, body: Any, idempotency_key: str | None, *, changes: bool = False, expected: int | None = None
) -> Call[RemoteTask]:
    """A request that makes a task or a version, and is known when it comes again."""
    key = idempotency_key or uuid.uuid4().hex
    return Call(
        "POST",
        path,
        RemoteTask,
        body=body,
        in_parts=True,
        changes=changes,
        expected=expected,
        idempotency_key=key,
        repeatable=True,
    )


def _erasing(path: str, expected: int | None) -> Call[RemoteReceipt]:
    """A request that is known when it comes again: the server has the receipt."""
    query = {"erase": "true"}
    return Call("DELETE", path, RemoteReceipt, query, changes=True, expected=expected, repeatable=True)


def _predicting(
    task: str, inputs: Sequence[Any], first: int, version: int | None, top: int | None
) -> Call[RemotePredictions]:
    body = {"inputs": inputs, "version": version, "top": top}
    return Call("POST", _path(task, "predict"), RemotePredictions, body=body, repeatable=True, first=first)


def _labeling(
    task: str, kind: str, inputs: Any, labels: Any, expected: int | None, idempotency_key: str | None, estimate: bool
) -> Plan[RemoteTask]:
    body: dict[str, Any] = {"examples": (yield from _examples(inputs, labels, task=task))}
    if estimate:
        body["estimate"] = True
    path = _path(task, kind)
    return (yield from ask(_creating(path, body, idempotency_key, changes=True, expected=expected)))


def _targets(task: str | None, model: str | None) -> Plan[tuple[str, ...] | None]:
    """Names of the values that a task or a model predicts, from the server; None for classes."""
    if task is not None:
        record: RemoteTask = yield from ask(_looking(_path(task), RemoteTask))
        return record.targets if record.labels is None else None
    models: Page[RemoteModel] = yield from ask(_looking("/v1/models", Page[RemoteModel]))
    named = [one for one in models.data if model in (None, one.name)]
    return named[0].targets if named and named[0].kind == "regression" else None


def _examples(
    inputs: Any, labels: Any, *, task: str | None = None, model: str | None = None
) -> Plan[list[dict[str, Any]]]:
    """Examples as the wire has them, of a task, or a new one of a model: labels that are numbers may be classes too."""
    listed = listed_labels(labels)
    targets = (yield from _targets(task, model)) if are_numbers(listed) else None
    written, given = written_inputs(inputs), written_labels(listed, targets)
    if len(written) != len(given):
        raise DataError(f"{count_of(len(written), 'input')} and {count_of(len(given), 'label')}: give one for each.")
    name = "label" if targets is None else "value"
    return [{"input": value, name: label} for value, label in zip(written, given, strict=True)]


def _bytes_of(limits: RemoteLimits) -> int:
    """How many bytes of inputs one request may have: a number in them takes two at least."""
    return min(limits.json_bytes, 2 * limits.numbers) - ENVELOPE
