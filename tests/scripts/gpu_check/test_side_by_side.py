# SPDX-License-Identifier: Apache-2.0
import io
import threading

import pytest

from scripts.gpu_check import tables
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
    events, outputs = [], iter(["ready\n[3.5, 1, 2]\n", "ready\n[4.5, 1, 2]\n"])
    found = run_together(2, lambda: Trial(next(outputs), events), 60)
    assert found == [[3.5, 1, 2], [4.5, 1, 2]]
    assert events == ["started", "started", "killed", "killed"]


def test_the_table_says_what_several_gain_and_what_one_takes():
    mib = 1024**2
    one, other = [4.0, 3 * mib, 5 * mib], [2.5, 2 * mib, 6 * mib]
    outcome = {"method": "ieg", "dataset": "digits", "trials": {"1": [one], "2": [one, other]}}
    lines = tables.performance({"side-by-side": outcome}).splitlines()
    assert lines[-2:] == ["| 1 | 4.0 | 4.0 | 1.00 | 3 | 5 |", "| 2 | 2.5 | 6.5 | 1.62 | 3 | 6 |"]


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
