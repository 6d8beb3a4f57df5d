# SPDX-License-Identifier: Apache-2.0
"""A clock that a test sets: no test waits for time to pass."""

import threading
import time
from collections.abc import Iterable

from ieg_core.host.clock import Clock

PATIENCE = 120.0
"""Real seconds after which a thread that should wait on the clock, but does not, fails the test."""


class ImpatientClock(Clock):
    """The real time, of which little passes between two looks: for real processes."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(0.02)


class FakeClock(Clock):
    """Time that passes only in `sleep` and `advance`.

    Attributes:
      time: The present, Unix time in seconds.
      slept: The seconds of each `sleep`.
      scenes: What happens elsewhere: a generator that is continued at every `sleep`.
    """

    def __init__(self, scenes: Iterable[object] = ()) -> None:
        self.slept: list[float] = []
        self.scenes = iter(scenes)
        self.time = time.time()
        self._changed = threading.Condition()
        self._waiting: dict[threading.Thread, float] = {}

    def now(self) -> float:
        return self.time

    monotonic = now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        next(self.scenes, None)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        thread = threading.current_thread()
        with self._changed:
            until = self._waiting[thread] = self.time + seconds
            while not event.is_set() and self.time < until:
                self._changed.wait(0.001)
            del self._waiting[thread]
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Lets time pass; returns when the threads that waited for it have done their work."""
        with self._changed:
            self._until(lambda: self._waiting)
            self.time += seconds
            due = [thread for thread, until in self._waiting.items() if until <= self.time]
            self._until(lambda: not any(self._works(thread) for thread in due))

    def _works(self, thread: threading.Thread) -> bool:
        return thread.is_alive() and self._waiting.get(thread, self.time) <= self.time

    def _until(self, condition) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "no thread waits on the clock"
            self._changed.wait(0.001)
