# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while other people's code runs that loses exceptions."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Holds the first SIGINT back until the end of the block; a second one acts at once.

    Libraries that try optional imports catch every exception there, KeyboardInterrupt included, so
    that a Ctrl-C at that moment would have no effect.
    """
    previous = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or previous is None:  # None: a handler that Python cannot set again
        yield
        return
    received: list[int] = []

    def hold(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            signal.signal(signal.SIGINT, previous)
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if len(received) == 1:
        signal.raise_signal(signal.SIGINT)
