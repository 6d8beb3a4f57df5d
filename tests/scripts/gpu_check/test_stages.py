# SPDX-License-Identifier: Apache-2.0
import dataclasses

from scripts.gpu_check.stages import Stage, read_outcome, run_stages
from tests.clock import FakeClock


class Bench:
    """Runs stages of known length on a clock that only they move."""

    def __init__(self, state):
        self.state, self.clock, self.ran, self.lines = state, FakeClock(), [], []

    def stage(self, name, seconds, *, guess=None, group="", outcome=None, stops_in_time=False):
        def run(left):
            self.ran.append(name)
            self.clock.sleep(min(seconds, left()) if stops_in_time else seconds)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome or {}

        return Stage(name, group or name, guess or seconds, run, stops_in_time)

    def __call__(self, *stages, budget):
        self.ran.clear()
        return run_stages(stages, self.state, budget, self.clock, self.lines.append)


def test_no_stage_is_started_that_does_not_fit_and_the_call_says_what_is_left(tmp_path):
    bench = Bench(tmp_path / "state")
    stages = [bench.stage("long", 60), bench.stage("longer", 50), bench.stage("short", 30)]
    assert bench(*stages, budget=100) == {"longer": 50}
    assert bench.ran == ["long", "short"]  # a smaller one uses the time that is left
    assert bench.lines == ["long: done, 60 s", "short: done, 30 s"]


def test_the_next_call_repeats_nothing_and_continues_what_asks_for_it(tmp_path):
    bench = Bench(tmp_path)
    done = bench.stage("done", 10, outcome={"loss": 0.5})
    half = bench.stage("half", 500, guess=20, outcome={"finished": False}, stops_in_time=True)
    assert bench(done, half, budget=100) == {"half": 20}
    assert read_outcome(tmp_path, "half")["seconds"] == 90  # it stopped in time
    whole = bench.stage("half", 20, outcome={"finished": True})
    assert bench(done, whole, budget=100) == {}
    assert bench.ran == ["half"]
    assert read_outcome(tmp_path, "done")["loss"] == 0.5


def test_a_stage_that_fails_is_recorded_and_the_others_run(tmp_path):
    bench = Bench(tmp_path)
    stages = [bench.stage("bad", 1, outcome=ValueError("no memory")), bench.stage("good", 1)]
    assert bench(*stages, budget=10) == {}
    assert read_outcome(tmp_path, "bad")["error"] == "ValueError: no memory"
    bench(*stages, budget=10)
    assert bench.ran == []


def test_a_stage_that_cannot_run_says_why_and_runs_once_it_can(tmp_path):
    bench = Bench(tmp_path)
    stage = bench.stage("torch", 5)
    skipped = dataclasses.replace(stage, skip="PyTorch is not installed")
    assert bench(skipped, budget=10) == {}
    assert bench.ran == []
    assert bench.lines == ["torch: skipped, PyTorch is not installed"]
    assert read_outcome(tmp_path, "torch")["skipped"] == "PyTorch is not installed"
    bench(stage, budget=10)
    assert bench.ran == ["torch"]
    bench(skipped, budget=10)
    assert "skipped" not in read_outcome(tmp_path, "torch")


def test_a_figure_that_is_not_finite_is_kept(tmp_path):
    bench = Bench(tmp_path)
    bench(bench.stage("bad", 1, outcome={"losses": [float("nan"), 1.0]}), budget=10)
    assert read_outcome(tmp_path, "bad")["losses"] == ["nan", 1.0]


def test_a_group_that_turns_out_slower_than_guessed_is_expected_to_stay_so(tmp_path):
    bench = Bench(tmp_path)
    stages = [bench.stage(name, 60, guess=20, group="steps") for name in "ab"]
    assert bench(*stages, budget=100) == {"b": 60}
