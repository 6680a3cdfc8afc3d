"""Ctrl-C: while work can be continued later, a wish that the library finishes its step and saves."""

import signal
import threading
from types import FrameType
from typing import Self

from handful.events import CONTINUED, DoneEvent, Event, OnEvent, PlanEvent, StepEvent, StoppedError


class Interruption:
    """Inside, the first Ctrl-C sets `stop` while events tell of work that can be continued; else it ends all at once,
    as the second one does. What was stopped ends with `KeyboardInterrupt`, too.

    on_event: what `hear` passes events on to. from_the_start: whether there is such work before the first event.
    """

    def __init__(self, on_event: OnEvent, *, from_the_start: bool = False) -> None:
        self.on_event = on_event
        self.stop = threading.Event()
        self.continued = from_the_start

    def __enter__(self) -> Self:
        self.active = threading.current_thread() is threading.main_thread()
        if self.active:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self._before)
        if isinstance(error, StoppedError):
            raise KeyboardInterrupt from error

    def hear(self, event: Event) -> None:
        """Follow what is running, and pass it on; raises `KeyboardInterrupt` where a wish came too late."""
        if isinstance(event, StepEvent):
            self.continued = event.work in CONTINUED
        elif isinstance(event, PlanEvent | DoneEvent):
            self.continued = isinstance(event, PlanEvent)
        if self.stop.is_set() and not self.continued:
            raise KeyboardInterrupt
        self.on_event(event)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set() or not self.continued:
            raise KeyboardInterrupt
        self.stop.set()
