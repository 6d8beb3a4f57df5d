# SPDX-License-Identifier: Apache-2.0
import io
import threading

import pytest

from scripts.gpu_check.side_by_side import run_together


class Trial:
    """Stands in for the process of a trial: what it prints, and the order of what happens."""

    def __init__(self, output, events):
        self.stdout, self.stdin, self.events = io.StringIO(output), io.StringIO(), events
        self.stdin.flush = lambda: events.append("started")

    def kill(self):
        self.events.append("killed")

    def wait(self):
        pass


def test_trials_start_together_and_answer_with_their_speed():
    events, outputs = [], iter(["ready\n3.5\n", "ready\n4.5\n"])
    assert run_together(2, lambda: Trial(next(outputs), events), 60) == [3.5, 4.5]
    assert events == ["started", "started", "killed", "killed"]


class Hanging(Trial):
    """Prints nothing until it is killed."""

    def __init__(self, events):
        super().__init__("", events)
        killed = threading.Event()
        self.kill = killed.set
        self.stdout.readline = lambda: killed.wait(60) and ""


def test_a_trial_that_hangs_is_killed():
    with pytest.raises(RuntimeError, match="one of 1 trials ended before it was ready"):
        run_together(1, lambda: Hanging([]), 0.01)


@pytest.mark.parametrize(("output", "when"), [("", "ready"), ("ready\n", "measured")])
def test_a_trial_that_dies_ends_the_others(output, when):
    events, outputs = [], iter(["ready\n3.5\n", output])
    with pytest.raises(RuntimeError, match=f"one of 2 trials ended before it was {when}"):
        run_together(2, lambda: Trial(next(outputs), events), 60)
    assert events[-2:] == ["killed", "killed"]
