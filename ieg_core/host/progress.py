# SPDX-License-Identifier: Apache-2.0
"""A progress line for terminals, notebooks and log files."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final, TextIO

from ieg_core.host.clock import CLOCK, Clock

_LIVE_SECONDS: Final = 0.2
_PLAIN_SECONDS: Final = 10.0


class ProgressLine:
    """Shows the items done, the total, the rate and the time left.

    Terminals and notebooks redraw the line; a file gets a new line every ten seconds. Work that
    finishes before the first update shows nothing.
    """

    def __init__(
        self,
        title: str,
        unit: str = "images",
        *,
        stream: TextIO | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        """Starts the clock.

        Args:
          title: The task, shown at the start of the line.
          unit: The items counted, in the plural.
          stream: Output; by default standard error, and in a notebook standard output, since
            notebooks print standard error in red.
          clock: Tells the time since the start.
        """
        in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
        self._stream = stream or (sys.stdout if in_notebook else sys.stderr)
        self._redraws = self._stream.isatty() or in_notebook
        self._title, self._unit, self._clock = title, unit, clock
        self._started = self._last = clock.monotonic()
        self._first: tuple[float, int] | None = None
        self._width = 0

    def __call__(self, done: int, total: int, rate: float | None = None) -> None:
        """Updates the line, unless it was updated a moment ago.

        Args:
          done: Items done.
          total: Total items.
          rate: Items per second; by default measured since the first update, which may have
            waited for a framework to start.
        """
        began, before = self._first = self._first or (self._clock.monotonic(), done)
        if not self._is_due():
            return
        if rate is None:
            rate = (done - before) / (self._last - began) if self._last > began else 0.0
        share = 100 * done // max(total, 1)
        left = f", {duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        speed = f", {rate:.0f}/s" if rate > 0 else ""
        self._show(f"{self._title}: {done:,} of {total:,} {self._unit} ({share} %){speed}{left}")

    def show_time(self) -> None:
        """Shows the time since the start, for a task of unknown length; in a file ever less often.

        A line that tells no more than that the task still runs need not be there every ten seconds.
        """
        waited = self._clock.monotonic() - self._started
        if (self._redraws or waited >= 2 * (self._last - self._started)) and self._is_due():
            self._show(f"{self._title}: {duration(self._last - self._started)}")

    def _is_due(self) -> bool:
        now = self._clock.monotonic()
        if now - self._last < (_LIVE_SECONDS if self._redraws else _PLAIN_SECONDS):
            return False
        self._last = now
        return True

    def _show(self, text: str) -> None:
        if self._redraws:
            text = self._fitted(text)
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _fitted(self, text: str) -> str:
        """Returns what of a line a terminal can redraw: a wrapped line would be repeated."""
        room = 0
        if self._stream.isatty():  # not in a notebook
            with contextlib.suppress(OSError, ValueError):
                room = os.get_terminal_size(self._stream.fileno()).columns - 1
        if room <= 0 or len(text) <= room:
            return text
        return text.removeprefix(f"{self._title}: ")[:room]

    def close(self) -> None:
        """Replaces a redrawn line by the time that the task took."""
        if self._width:
            text = f"{self._title}: {duration(self._clock.monotonic() - self._started)}"
            self._stream.write(f"\r{self._fitted(text).ljust(self._width)}\n")
            self._stream.flush()
            self._width = 0


@contextlib.contextmanager
def timed(line: ProgressLine) -> Iterator[None]:
    """Shows how long the body, a task of unknown length, has taken; closes the line."""
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(_LIVE_SECONDS):
            line.show_time()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        line.close()


def duration(seconds: float) -> str:
    """Formats a time span, for example "43 s", "8 min 5 s" or "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
