# SPDX-License-Identifier: Apache-2.0
"""Shows how far a command is that works through many items: rate and time left."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ieg_core.sweep.progress import duration

PLAIN_SECONDS: Final = 5.0


class Rates:
    """Progress on standard error: a bar in a terminal, elsewhere a line every few seconds.

    Used as a context manager. A step that is over before the first line says nothing.
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        plain_seconds: float = PLAIN_SECONDS,
    ) -> None:
        """Prepares to show on a stream, by default standard error.

        Args:
          stream: Where to write.
          now: The clock, in seconds.
          plain_seconds: Seconds between two plain lines.
        """
        self._console = Console(file=stream or sys.stderr)
        self._now, self._plain_seconds = now, plain_seconds
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )

    def __enter__(self) -> Self:
        """Starts to draw."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes the bar."""
        if self._bar:
            self._bar.stop()

    def step(self, title: str, unit: str) -> Callable[[int, int, float | None], None]:
        """Begins a step.

        Args:
          title: What is done, such as "computing features".
          unit: What the items are, such as "images".

        Returns:
          What is to be told after each item: items done, items in all, items a second (None to
          measure it here).
        """
        began = last = self._now()
        task = self._bar.add_task(title, total=None, rate="") if self._bar else None

        def report(done: int, total: int, rate: float | None = None) -> None:
            nonlocal last
            now = self._now()
            if rate is None:
                rate = done / max(now - began, 1e-9)
            if self._bar and task is not None:
                self._bar.update(task, completed=done, total=total, rate=f"{rate:.0f} {unit}/s")
            elif now - last >= self._plain_seconds:
                last = now
                left = duration((total - done) / max(rate, 1e-9))
                self._console.file.write(
                    f"{title}: {done} of {total} {unit}, {rate:.0f} {unit}/s, {left} left\n"
                )
                self._console.file.flush()

        return report
