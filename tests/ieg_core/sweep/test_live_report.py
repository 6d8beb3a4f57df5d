# SPDX-License-Identifier: Apache-2.0
import time
from dataclasses import replace

import pytest

from ieg_core.report.trials import load_trial
from ieg_core.store import layout
from ieg_core.sweep import live_report
from ieg_core.sweep.live_report import LiveReport, describe
from ieg_core.sweep.progress import TrialProgress
from tests.clock import FakeClock
from tests.ieg_core.report.pages import Page
from tests.ieg_core.report.roots import build_results_root

NOON = time.mktime((2025, 3, 5, 12, 0, 0, 0, 0, -1))
DONE, RUNS = (f"digits_uniform_0.8-{name}-seed0-0123456789ab" for name in ("supervised", "l2r"))
TRAINING = TrialProgress(RUNS, "training", 300, 600, 10.0, 0.5)
FINISHED = TrialProgress(DONE, "finished", 600, 600, 10.0, 0.9)


@pytest.fixture
def root(tmp_path):
    """A sweep of two trials, of which one has finished."""
    return build_results_root(tmp_path, rates=(0.8,), skipped=[("l2r", 0.8, 0)])


@pytest.fixture
def sweep(root):
    return Sweep(root)


class Sweep:
    """A live report with a clock of its own."""

    def __init__(self, root):
        self.clock, self.lines = FakeClock(), []
        self.clock.time = NOON
        self.live = LiveReport(root, "s1", {RUNS: 60.0}, self.lines.append, self.clock)

    @property
    def text(self):
        return self.live.path.read_text()

    @property
    def state(self):
        status = self.live.path.stat()
        return status.st_ino, status.st_mtime_ns

    def update(self, step, after=0.0):
        self.clock.time += after
        self.live.update([FINISHED, replace(TRAINING, step=step)], left=30.0)


def test_the_page_shows_what_runs_and_the_results_so_far(sweep):
    sweep.update(300)
    page = Page(sweep.text)
    assert ("meta", "http-equiv", "refresh") in page.attributes
    assert ("meta", "content", "10") in page.attributes
    assert "<h1>1 of 2 trials finished</h1>" in sweep.text
    assert "1 running. Less than a minute left, until about 12:00." in sweep.text
    assert "digits_uniform_0.8-l2r-seed0" in sweep.text
    assert "300 / 600" in sweep.text
    assert "Results so far" in sweep.text
    assert "Use " not in sweep.text  # no advice from half of a table
    assert "script" not in page.tags


def test_what_a_trial_says_is_text(sweep):
    evil = "<script>alert(1)</script>"
    sweep.live.update([TrialProgress(f"{evil}-0", "failed", reason=evil), TRAINING], left=1.0)
    assert "script" not in Page(sweep.text).tags
    assert sweep.text.count("&lt;script&gt;") == 2


def test_it_is_written_when_something_changed_and_ten_seconds_have_passed(sweep):
    sweep.update(300)
    first = sweep.state
    sweep.update(301, after=9.9)
    sweep.update(300, after=100)
    assert sweep.state == first
    sweep.update(301, after=0.1)
    assert sweep.state != first
    assert "301 / 600" in sweep.text


def test_a_page_that_takes_long_is_written_rarely(sweep, monkeypatch):
    render = live_report.page.render

    def slow(*arguments):
        sweep.clock.time += 3
        return render(*arguments)

    monkeypatch.setattr(live_report.page, "render", slow)
    sweep.update(300)
    first = sweep.state
    sweep.update(301, after=59)  # 20 * 3 s
    assert sweep.state == first
    sweep.update(302, after=1)
    assert sweep.state != first
    assert '<meta http-equiv="refresh" content="60">' in sweep.text


def test_an_error_is_one_line_in_the_log_and_the_sweep_goes_on(sweep):
    sweep.live.path.parent.write_text("in the way")
    for step in (1, 2, 3):
        sweep.update(step, after=60)
    (line,) = sweep.lines
    assert line.startswith("The live report could not be written: UserError: cannot write results")
    sweep.live.path.parent.unlink()
    sweep.update(4, after=60)
    assert "4 / 600" in sweep.text


def test_when_all_trials_have_ended_the_sweep_writes_the_page(sweep):
    sweep.live.update([FINISHED, replace(TRAINING, state="failed")], left=0.0)
    assert not sweep.live.path.exists()


def test_the_report_takes_the_place_of_the_page_of_an_interrupted_sweep(sweep):
    sweep.update(300)
    sweep.live.close()
    assert 'http-equiv="refresh"' not in sweep.text
    assert "1 of 2 trials has no result." in sweep.text
    assert sweep.live.path.with_name("results.csv").exists()


def test_the_report_that_the_sweep_wrote_stays(sweep):
    sweep.update(300)
    sweep.live.path.write_text("the report")
    sweep.live.close()
    assert sweep.text == "the report"
    Sweep(sweep.live.path.parents[3]).live.close()  # nothing was written, nothing is replaced
    assert sweep.text == "the report"


def test_a_finished_trial_is_read_once(sweep, monkeypatch):
    read = []

    def counted(root, name):
        read.append(name)
        return load_trial(root, name)

    monkeypatch.setattr(live_report, "load_trial", counted)
    for step in (1, 2, 3):
        sweep.update(step, after=60)
    assert [read.count(DONE), read.count(RUNS)] == [1, 3]


def test_the_curves_of_a_running_trial_are_shown(root, sweep):
    sweep.update(300)
    assert sweep.text.count('class="end-label"') >= 2
    (layout.trial_folder(root, RUNS) / "curves.json").unlink()
    before = sweep.text.count('class="end-label"')
    sweep.update(301, after=60)
    assert sweep.text.count('class="end-label"') == before - 1


def test_the_words_by_hand():
    trials = [TrialProgress("w-0", "waiting"), replace(FINISHED, state="failed", reason="NaN"),
              TRAINING, FINISHED]  # fmt: skip
    estimates = {"w-0": 3600.0, RUNS: 100.0, DONE: 100.0}
    live = describe(trials, estimates, 3630.0, NOON, 10.0)
    assert live.title == "1 of 4 trials finished"
    assert live.now == "1 running, 1 waiting, 1 failed. About 60 minutes left, until about 13:00."
    assert live.updated == "2025-03-05 12:00:00"
    assert [each.state for each in live.trials] == ["training", "failed", "waiting"]
    assert [each.share for each in live.trials] == [0.5, 1.0, 0.0]
    # half of 100 s, twice a trial that has ended, nothing of an hour
    assert live.share == (50 + 100 + 100) / 3800
    late = describe(trials, estimates, 50_030.0, NOON, 10.0)
    assert late.now.endswith("About 13.9 hours left, until about Thursday 01:53.")
