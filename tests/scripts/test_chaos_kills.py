# SPDX-License-Identifier: Apache-2.0
"""Ending the processes of a sweep, which shell scripts stand for here."""

import os
import signal

import pytest

from scripts import chaos_kills
from scripts.chaos_kills import Sweep, kill
from scripts.chaos_long import Samples


@pytest.fixture
def script(monkeypatch):
    """A function that lets a shell script be the sweep; what is left of it ends with the test."""
    started = []

    def write(text):
        def start(results):
            started.append(Sweep.of(["sh", "-c", text], results, {}))
            return started[-1]

        monkeypatch.setattr(Sweep, "start", start)

    monkeypatch.setattr(chaos_kills, "PATTERNS", {"driver": "sleep\0" + "60", "trial": "61"})
    yield write
    for sweep in started:
        for pid in sweep.processes():
            os.kill(pid, signal.SIGKILL)


def test_one_process_of_a_kind_is_ended(script, tmp_path):
    script("exec sleep 60")
    assert kill(tmp_path, "driver", signal.SIGKILL, 0.0) == (True, "")


def test_what_runs_on_is_found(script, tmp_path, monkeypatch):
    monkeypatch.setattr(chaos_kills, "WAIT_SECONDS", 0.0)
    started = "until read name < /proc/$!/comm && [ $name = sleep ]; do :; done"
    script(f"sleep 61 & {started}; exec sleep 60")
    has_ended, problem = kill(tmp_path, "driver", signal.SIGKILL, 0.0)
    assert has_ended
    assert "sleep\\x0061" in problem
    assert "went on after SIGKILL of the driver" in problem


def test_a_kill_that_comes_too_late_is_none(script, tmp_path):
    script("true")
    assert kill(tmp_path, "trial", signal.SIGKILL, 0.0) == (False, "")


def test_growth_after_the_first_quarter_is_found(capsys):
    steady = Samples([9, 50, 51, 50, 51, 50, 51, 50], [3] * 8, [2] * 8)
    assert steady.problems("it") == []
    grown = Samples([2**20 * n for n in range(40, 48)], [*range(8)], [2] * 8)
    memory, files = grown.problems("it")
    assert memory == "it: memory 42 MiB, at the end 46 MiB"
    assert files == "it: files 2, at the end 6"


@pytest.mark.parametrize("late", [0, 2, 99])
def test_kills_that_come_too_late_are_made_in_another_sweep(monkeypatch, capsys, late):
    sweeps = iter(range(200))

    def end_in_turn(results, kills, lived, rng):
        made = kills[:3] if next(sweeps) >= late else []
        return [f"{number.name} of the {kind}" for kind, number in made], ""

    monkeypatch.setattr(chaos_kills, "end_in_turn", end_in_turn)
    monkeypatch.setattr(chaos_kills, "lives", lambda results: {})
    monkeypatch.setattr(chaos_kills, "outcome", lambda results: {})
    monkeypatch.setattr(Sweep, "start", lambda results: Sweep.of(["true"], results, {}))
    assert chaos_kills.main(["--tries=8"]) == (late == 99)
    output = capsys.readouterr().out
    assert ("kills: 8 of 8 survived" in output) == (late < 99)
    assert output.count("not made, 5 sweeps were too fast") == (8 if late == 99 else 0)
