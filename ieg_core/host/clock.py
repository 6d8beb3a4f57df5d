# SPDX-License-Identifier: Apache-2.0
"""Time as an argument, so that a test of something that waits does not wait."""

import threading
import time


class Clock:
    """This machine's clock."""

    def now(self) -> float:
        """Returns the Unix time in seconds, which can be set and is comparable across machines."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds since some moment, for durations; cannot be set."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Waits for an event, at most so many seconds; returns whether it is set."""
        return event.wait(seconds)


CLOCK = Clock()
