# SPDX-License-Identifier: Apache-2.0
import io

import pytest

from ieg_core.store import leases
from ieg_core.sweep import progress
from ieg_core.sweep.progress import TrialProgress
from tests.clock import FakeClock
from tests.records import put

TRIAL = "digits_uniform_0.8-l2r-seed0-0123456789ab"
TITLE = "digits_uniform_0.8-l2r-seed0"
SINCE = 1_000_000.0


def write(root, name, value, trial=TRIAL):
    put(root / "trials" / trial / name, **value)


def moment(**changes):
    values = {"phase": "training", "step": 150, "num_steps": 600, "steps_per_second": 30.0}
    return values | {"accuracy_ema": 0.5, "updated": SINCE + 1} | changes


def test_a_trial_without_a_folder_waits(tmp_path):
    assert progress.read_trial(tmp_path, TRIAL, SINCE) == TrialProgress(TRIAL, "waiting")


def test_a_running_trial_tells_how_far_it_is_and_how_long_it_still_takes(tmp_path):
    write(tmp_path, "progress.json", moment())
    trial = progress.read_trial(tmp_path, TRIAL, SINCE)
    assert (trial.state, trial.step, trial.num_steps, trial.accuracy) == ("training", 150, 600, 0.5)
    assert trial.seconds_left == (600 - 150) / 30
    assert trial.is_running
    assert not trial.is_over


def test_a_trial_whose_process_is_gone_is_interrupted_at_once(tmp_path):
    now = SINCE + 2
    write(tmp_path, "progress.json", moment(attempt=1))
    folder = tmp_path / "trials" / TRIAL
    leases.new_record().write(folder, 1)
    with leases.trial_lock(folder):
        assert progress.read_trial(tmp_path, TRIAL, 0.0, now).state == "training"
    assert progress.read_trial(tmp_path, TRIAL, 0.0, now).state == "interrupted"


def test_what_an_earlier_attempt_left_counts_as_waiting(tmp_path):
    write(tmp_path, "progress.json", moment(updated=SINCE - 1))
    write(tmp_path, "failure.json", {"reason": "old"})
    assert progress.read_trial(tmp_path, TRIAL, SINCE).state == "waiting"


def test_a_failed_trial_says_why(tmp_path):
    write(tmp_path, "progress.json", moment())
    write(tmp_path, "failure.json", {"reason": "loss is NaN"})
    trial = progress.read_trial(tmp_path, TRIAL, SINCE)
    assert (trial.state, trial.reason, trial.step) == ("failed", "loss is NaN", 150)
    assert progress.line(trial) == f"{TITLE}: failed, accuracy 50.0 %: loss is NaN"


def test_a_result_wins_over_everything(tmp_path):
    write(tmp_path, "failure.json", {"reason": "once"})
    write(tmp_path, "progress.json", moment())
    result = {"steps": 600, "steps_per_second": 31.5, "accuracy_ema_last": 0.935}
    write(tmp_path, "result.json", result)
    trial = progress.read_trial(tmp_path, TRIAL, SINCE)
    assert trial == TrialProgress(TRIAL, "finished", 600, 600, 31.5, 0.935)
    assert progress.line(trial) == f"{TITLE}: finished, accuracy 93.5 %"


@pytest.mark.parametrize("text", ["{", "[]", "null", ""])
def test_a_damaged_file_counts_as_not_there(tmp_path, text):
    folder = tmp_path / "trials" / TRIAL
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(text)
    (folder / "result.json").write_text(text)
    assert progress.read_trial(tmp_path, TRIAL, SINCE).state == "waiting"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03"), (None, "")],
)
def test_durations_read_like_a_clock(seconds, text):
    assert progress.duration(seconds) == text


def test_a_line_of_a_running_trial():
    trial = TrialProgress(TRIAL, "training", 150, 600, 30.0, 0.5)
    expected = f"{TITLE}: training step 150/600, 30.0 steps/s, 0:15 left, accuracy 50.0 %"
    assert progress.line(trial) == expected


def test_the_summary_counts():
    trials = [TrialProgress("a", state) for state in ("finished", "failed", "training", "waiting")]
    assert (
        progress.summary(trials, 65) == "1 of 4 trials finished, 1 running, 1 failed, 1:05 elapsed"
    )
    assert progress.summary(trials[:1], 65, expected=80).endswith("0 running, 1:05 of about 1:20")
    assert progress.summary(trials[:1], 65, expected=60).endswith("0 running, 1:05 elapsed")


def test_the_estimate_follows_the_pace():
    """A fifth of the work took twice as long as expected."""
    trials = [TrialProgress("a", "training", 150, 600), TrialProgress("b", "waiting")]
    estimates = {"a": 80.0, "b": 20.0}
    assert progress.forecast(trials, 40.0, 100.0, estimates) == 200.0
    assert progress.forecast(trials[1:], 40.0, 100.0, estimates) == 100.0
    over = [TrialProgress(name, state) for name, state in (("a", "finished"), ("b", "failed"))]
    assert progress.forecast(over, 90.0, 100.0, estimates) == 90.0
    assert progress.forecast(over, 90.0, 0.0, {}) == 0.0


def rendered(trials, height, width=120):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(progress.table(trials, 65, height, width=width))
    return console.file.getvalue().splitlines()


def test_the_table_has_a_line_a_trial_and_a_summary():
    trials = [
        TrialProgress(TRIAL, "training", 150, 600, 30.0, 0.5),
        TrialProgress("b-0", "waiting"),
    ]
    lines = rendered(trials, 24)
    assert lines[0].split() == ["trial", "state", "step", "steps/s", "left", "accuracy"]
    assert lines[1].split() == [TITLE, "training", "150/600", "30.0", "0:15", "50.0", "%"]
    assert lines[2].split() == ["b", "waiting"]
    assert lines[3] == "0 of 2 trials finished, 1 running, 1:05 elapsed"


def test_a_terminal_too_low_shows_the_running_trials_first():
    trials = [TrialProgress(f"trial{i}-0", "waiting") for i in range(30)]
    trials[29] = TrialProgress("last-0", "training")
    lines = rendered(trials, 10)
    assert len(lines) == 8
    assert lines[1].split()[0] == "last"
    assert lines[-1].endswith("24 more not shown")


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (79, ["state", "step", "steps/s", "left", "accuracy"]),
        (60, ["state", "step", "left", "accuracy"]),
        (40, ["state", "step", "accuracy"]),
    ],
)
def test_in_a_narrow_terminal_a_trial_is_one_line_that_tells_it_apart(width, columns):
    names = [f"cifar10_uniform_0.4-{name}-seed{i}" for i, name in enumerate(("ieg", "l2r"))]
    trials = [TrialProgress(f"{name}-0123456789ab", "training", 9, 99, 5.0, 0.5) for name in names]
    lines = rendered(trials, 24, width)[:3]
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["trial", *columns]
    for line, name in zip(lines[1:], names, strict=True):
        shown = line.split()[0]
        assert name.endswith(shown.removeprefix("…"))
        assert shown.endswith(name[-4:])


def test_without_a_terminal_each_change_is_a_line_and_nothing_else(tmp_path):
    """Three looks: waiting, training, finished; the trial that was finished before is silent."""
    done = "digits_uniform_0.2-l2r-seed0-0123456789ab"
    write(tmp_path, "result.json", {"steps": 600, "accuracy_ema_last": 0.9}, trial=done)
    changes = iter(
        [
            lambda: None,
            lambda: write(tmp_path, "progress.json", moment(updated=2e9)),
            lambda: write(tmp_path, "result.json", {"steps": 600, "accuracy_ema_last": 0.935}),
        ]
    )

    def is_alive():
        change = next(changes, None)
        if change:
            change()
        return change is not None

    stream = io.StringIO()
    last = progress.watch(tmp_path, [done, TRIAL], is_alive, stream=stream, clock=FakeClock())
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert lines == [
        f"{TITLE}: training step 150/600, 30.0 steps/s, 0:15 left, accuracy 50.0 %",
        f"{TITLE}: finished, accuracy 93.5 %",
    ]
    assert [trial.state for trial in last] == ["finished", "finished"]


def test_a_running_trial_is_repeated_after_a_while(tmp_path):
    write(tmp_path, "progress.json", moment(updated=2e9))
    stream, clock = io.StringIO(), FakeClock()
    progress.watch(tmp_path, [TRIAL], lambda: sum(clock.slept) < 25.0, stream=stream, clock=clock)
    assert len(stream.getvalue().splitlines()) == 3  # after 0, 10 and 20 seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_table_is_redrawn(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    write(tmp_path, "progress.json", moment(updated=2e9))
    looks = iter([True, False])
    stream = Terminal()
    progress.watch(tmp_path, [TRIAL], lambda: next(looks), stream=stream, clock=FakeClock())
    text = stream.getvalue()
    assert "150/600" in text
    assert "\x1b[1A" in text  # the cursor goes up to draw over the last table
