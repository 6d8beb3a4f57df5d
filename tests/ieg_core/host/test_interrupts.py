# SPDX-License-Identifier: Apache-2.0
import contextlib
import signal
import threading

import pytest

from ieg_core.host.interrupts import deferred_interrupt


def test_an_interrupt_that_an_import_would_lose_comes_after_it():
    previous, done = signal.getsignal(signal.SIGINT), []

    def start():
        with deferred_interrupt():
            with contextlib.suppress(BaseException):  # as around an optional import
                signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is previous


def test_a_second_interrupt_acts_at_once():
    def start():
        with deferred_interrupt():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second one was held back")

    with pytest.raises(KeyboardInterrupt):
        start()


def test_nothing_is_held_back_in_other_threads():
    seen = []

    def work():
        with deferred_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
