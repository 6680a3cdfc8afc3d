"""Graceful interruption: Ctrl-C during work that can be resumed finishes the step and saves it first."""

import signal
import threading
from types import FrameType
from typing import Self

from handful.events import CONTINUED, DoneEvent, Event, OnEvent, PlanEvent, StepEvent, StoppedError


class Interruption:
    """Within this context, the first Ctrl-C sets `stop` if the work can be resumed; otherwise it interrupts at once, as
    a second Ctrl-C does. Work that was stopped raises `KeyboardInterrupt`, too.

    on_event: receives the events that `hear` gets.
    from_the_start: whether the work can be resumed before the first event.
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
        """Track the running work and forward its event; raises `KeyboardInterrupt` if Ctrl-C came too late to save."""
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
