"""Predictions by the tasks of a store, of many requests together."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from handful.errors import HandfulError
from handful.models.results import results_of_each
from handful.notes import Note, collecting
from handful.serving import inputs as kept
from handful.serving.inputs import Given
from handful.serving.own_columns import own_columns
from handful.serving.records import Predictions, Version
from handful.serving.states import Key, States
from handful.serving.supports import encoded, prepared
from handful.types import Prediction

Lookup: TypeAlias = Callable[[str, int | None, str], Version]
"""Finds the version of this number of a task, by default the head, of a tenant."""
_Costs: TypeAlias = tuple[str, int]
"""A model, and the power of two below which a task has examples."""


@dataclass(frozen=True)
class Asked:
    """A prediction that is asked for; see `Service.predict` for what the fields mean."""

    tenant: str
    task: str
    inputs: Sequence[Any] | np.ndarray
    version: int | None = None
    top: int | None = None


@dataclass(frozen=True)
class Unread:
    """A prediction by the head of a tenant's task that is asked for in some content.

    read: returns what is asked for, once it is predicted.
    """

    tenant: str
    task: str
    read: Callable[[], Asked]


class Predictor:
    """Predicts by the tasks of all tenants: one encoding and one prediction for the requests to each model.

    An error of a request does not affect others: if a batch fails, each request is repeated alone. The same happens if
    a note is made, which is about an input of one of them.

    states: of the versions.
    lookup: finds these.
    held: finds the head of a tenant's task, where that needs no look at the store.

    Attributes:
        encode_seconds: that threads have spent on making tensors of inputs.
    """

    def __init__(self, states: States, lookup: Lookup, held: Callable[[str, str], Version | None]) -> None:
        self._states, self._lookup, self._held = states, lookup, held
        self._counting = threading.Lock()
        self._seconds: dict[_Costs, float] = {}  # for a row, of the batch that was predicted last
        self.encode_seconds = 0.0

    def predict(self, asked: Sequence[Asked | Unread]) -> list[Predictions | Exception]:
        """The predictions of each request, or the error about it, in their order; see `Service.predict`."""
        requests = [_Request(one) for one in asked]
        _tried(_alone(requests), self._read)
        _tried(_alone(requests), self._look_up)
        _tried([requests], partial(_alike, self._encoded_with, self._encode))
        _tried([requests], partial(_alike, lambda one: one.version.model_digest, self._predict))
        _tried([[one for one in requests if one.error is None]], self._resolve)
        return [one.error or one.told for one in requests]

    def seconds_of_row(self, asked: Sequence[Asked | Unread]) -> float:
        """Seconds that a row of these requests takes at most, by what tasks like theirs took last.

        Infinity where that is not known: some head or state is not in memory, or no such task was predicted yet.
        """
        most = 0.0
        for one in asked:
            head = self._held(one.tenant, one.task) if isinstance(one, Unread) else None
            if head is None or not self._states.holds(head.model_digest, (one.tenant, one.task, head.number)):
                return math.inf
            most = max(most, self._seconds.get(_costs(head), math.inf))
        return most

    def _read(self, requests: "Sequence[_Request]") -> None:
        for one in requests:
            one.asked = one.content.read() if isinstance(one.content, Unread) else one.content

    def _look_up(self, requests: "Sequence[_Request]") -> None:
        for one in requests:
            one.version = self._lookup(one.asked.task, one.asked.version, one.asked.tenant)
            one.given = kept.taken(one.asked.inputs)

    def _encoded_with(self, one: "_Request") -> object:
        """What requests share whose inputs are encoded together; rows with columns of their own are by themselves."""
        digest = one.version.model_digest
        return one if own_columns(self._states.model(digest)) else (digest, kept.kind_of(one.given))

    def _encode(self, requests: "Sequence[_Request]") -> None:
        model = self._states.model_of(requests[0].version.model_digest, requests[0].key)
        started = time.monotonic()
        with collecting() as notes:
            tensor = prepared(model, encoded(model, kept.joined([one.given for one in requests])))
        took = time.monotonic() - started
        with self._counting:
            self.encode_seconds += took
        if notes and len(requests) > 1:
            _tried(_alone(requests), self._encode)
            return
        seconds = took / len(tensor)
        for one, own in zip(requests, torch.split(tensor, [len(one.given) for one in requests]), strict=True):
            one.tensor, one.notes, one.seconds = own, tuple(notes), seconds

    def _predict(self, requests: "Sequence[_Request]") -> None:
        wanted = [(one.key, one.tensor) for one in requests]
        digest, started = requests[0].version.model_digest, time.monotonic()
        predictions = self._states.predict(digest, wanted)
        seconds = (time.monotonic() - started) / sum(len(one.given) for one in requests)
        seconds += max(one.seconds for one in requests)
        self._seconds.update(dict.fromkeys({_costs(one.version) for one in requests}, seconds))
        for one, prediction in zip(requests, predictions, strict=True):
            if isinstance(prediction, HandfulError):
                one.error = prediction
            else:
                one.prediction = prediction

    def _resolve(self, requests: "Sequence[_Request]") -> None:
        with_inputs = [one for one in requests if len(one.given)]
        made = results_of_each([(one.version, one.prediction, one.asked.top) for one in with_inputs])
        found = dict(zip(with_inputs, made, strict=True))
        for one in requests:
            version = one.version
            one.told = Predictions(
                one.asked.task,
                version.number,
                version.model,
                version.model_digest,
                tuple(found.get(one, ())),
                one.notes,
            )


@dataclass(eq=False)
class _Request:
    """What is known of a request so far.

    seconds: that making its tensor took, for a row.
    """

    content: Asked | Unread
    error: Exception | None = None
    notes: tuple[Note, ...] = ()
    given: Given = ()
    asked: Asked = field(init=False)
    version: Version = field(init=False)
    tensor: Tensor = field(init=False)
    seconds: float = field(init=False)
    prediction: Prediction = field(init=False)
    told: Predictions = field(init=False)

    @property
    def key(self) -> Key:
        """Of the state that predicts it."""
        return self.asked.tenant, self.asked.task, self.version.number


def _costs(version: Version) -> _Costs:
    """What versions share whose predictions take about as long: some models look at each example again."""
    return version.model_digest, (version.examples or 0).bit_length()


def _alone(requests: Sequence[_Request]) -> list[list[_Request]]:
    """Each request by itself."""
    return [[one] for one in requests if one.error is None]


def _alike(
    kind: Callable[[_Request], object], work: Callable[[Sequence[_Request]], None], requests: Sequence[_Request]
) -> None:
    """Do some work on the requests with inputs of each kind together."""
    found: dict[object, list[_Request]] = defaultdict(list)
    for one in requests:
        if one.error is None and len(one.given):
            found[kind(one)].append(one)
    _tried(list(found.values()), work)


def _tried(groups: Sequence[Sequence[_Request]], work: Callable[[Sequence[_Request]], None]) -> None:
    """Do some work on each group, or where that fails on each of its members alone, whose error it then is."""
    for group in groups:
        try:
            work(group)
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
            else:
                _tried(_alone(group), work)
