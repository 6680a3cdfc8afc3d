"""Ctrl-C on the command line: a wish where work can be continued, an end where it cannot."""

import os
import signal
import threading

import pytest

from handful.cli.interruption import Interruption
from handful.events import (
    CONTINUED,
    LADDER_PRETRAINING,
    META_TRAINING,
    DoneEvent,
    PlanEvent,
    StepEvent,
    StoppedError,
    ignore,
)

PLAN = PlanEvent(
    parameters=1, way=None, shot=1, per_step=4, inputs=None, small_tasks=None, plan="loop", steps=9, workers=1
)


def ended(*happening, from_the_start: bool = False) -> tuple[list, bool]:
    """What was heard before `KeyboardInterrupt` ended it: of events, "Ctrl-C"s and errors; and whether it was asked."""
    heard = []

    def work(interruption):
        for each in happening:
            if each == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
                heard.append("Ctrl-C")
            elif isinstance(each, Exception):
                raise each
            else:
                interruption.hear(each)
        heard.append("the end")

    interruption = Interruption(heard.append, from_the_start=from_the_start)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruption:
        work(interruption)
    assert signal.getsignal(signal.SIGINT) is before
    return heard, interruption.stop.is_set()


@pytest.mark.parametrize("event", [PLAN, *(StepEvent(work, 1, 9) for work in sorted(CONTINUED))], ids=str)
def test_the_first_one_is_a_wish_while_work_can_be_continued(event):
    assert ended(event, "Ctrl-C", StoppedError()) == ([event, "Ctrl-C"], True)
    assert ended(event, "Ctrl-C", event, "Ctrl-C", StoppedError()) == ([event, "Ctrl-C", event], True)


@pytest.mark.parametrize("events", [[], [StepEvent("choosing", 0, 3)], [PLAN, DoneEvent(META_TRAINING, 1.0)]])
def test_it_ends_at_once_what_cannot_be_continued(events):
    assert ended(*events, "Ctrl-C") == (events, False)


def test_a_wish_that_comes_too_late_ends_at_the_next_event():
    last = StepEvent(LADDER_PRETRAINING, 9, 9)
    assert ended(last, "Ctrl-C", StepEvent("centroid", 1, 9)) == ([last, "Ctrl-C"], True)


def test_a_worker_that_hears_of_no_events_waits_for_the_first_one():
    assert ended("Ctrl-C", StoppedError(), from_the_start=True) == (["Ctrl-C"], True)


def test_outside_the_main_thread_no_handler_is_set():
    found = []

    def work():
        with Interruption(ignore):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
