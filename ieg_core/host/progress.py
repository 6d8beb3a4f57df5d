# SPDX-License-Identifier: Apache-2.0
"""One line of progress, in terminals, notebooks and log files."""

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

_LIVE_SECONDS: Final = 0.2
_PLAIN_SECONDS: Final = 10.0


class ProgressLine:
    """Reports done, total, rate and the time left.

    A terminal and a notebook's output area redraw the line; a file gets a line every ten seconds.
    What is over at once reports nothing.
    """

    def __init__(
        self,
        title: str,
        unit: str = "images",
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sets the line up.

        Args:
          title: What is done, the line's beginning.
          unit: What is counted.
          stream: Where the line goes; by default standard error, and in a notebook standard output,
            since notebooks print standard error in red.
          clock: Seconds.
        """
        in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
        self._stream = stream or (sys.stdout if in_notebook else sys.stderr)
        self._redraws = self._stream.isatty() or in_notebook
        self._title, self._unit, self._clock = title, unit, clock
        self._started = self._last = clock()
        self._width = 0

    def __call__(self, done: int, total: int, rate: float) -> None:
        """Shows progress, unless the last time was a moment ago.

        Args:
          done: How many are done.
          total: How many there are.
          rate: How many a second, lately.
        """
        now = self._clock()
        if now - self._last < (_LIVE_SECONDS if self._redraws else _PLAIN_SECONDS):
            return
        self._last = now
        share = 100 * done // max(total, 1)
        left = f", {_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        speed = f", {rate:.0f}/s" if rate > 0 else ""
        text = f"{self._title}: {done:,} of {total:,} {self._unit} ({share} %){speed}{left}"
        if self._redraws:
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends a redrawn line by what it took."""
        if self._width:
            text = f"{self._title}: {_duration(self._clock() - self._started)}"
            self._stream.write(f"\r{text.ljust(self._width)}\n")
            self._stream.flush()
            self._width = 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )
