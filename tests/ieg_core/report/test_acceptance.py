# SPDX-License-Identifier: Apache-2.0
import json
import os

import pytest

from ieg_core.errors import UserError
from ieg_core.report import acceptance
from ieg_core.store import gcs as storage
from ieg_core.store.records import AcceptedRecord
from ieg_core.store.seal import seal
from tests import gcs
from tests.ieg_core.report.test_reproduction import row
from tests.records import put_json

NOTHING = {"results": "", "schedule": "", "accepted": ""}


def reported(root, run, rows, moment):
    path = root / "scheduled" / "nightly" / run / "sweeps" / f"s-{run}" / "report" / "results.json"
    path.parent.mkdir(parents=True)
    put_json(path, {"schema": 1, "trials": rows})
    os.utime(path, (moment, moment))


@pytest.fixture
def results(tmp_path):
    # By name r2 is the last, by time r9.
    reported(tmp_path, "r9", [row(0.91)], 2000)
    reported(tmp_path, "r2", [row(0.9)], 1000)
    return tmp_path


def accepted(results):
    return json.loads((results / "accepted" / "nightly.json").read_text())


def test_the_newest_reported_run_is_accepted_with_its_rows(results):
    assert acceptance.accept(str(results), "nightly") == "nightly: accepted r9, 1 trials"
    found = accepted(results)
    assert found["trials"] == [row(0.91)]
    assert found["run"]["namespace"] == "scheduled/nightly/r9"
    assert found["run"]["sweep"] == "s-r9"


def test_a_run_can_be_named(results):
    acceptance.accept(str(results), "nightly", "r2")
    assert accepted(results)["trials"] == [row(0.9)]


@pytest.mark.parametrize(
    ("schedule", "run", "message"),
    [
        ("weekly", "", "SCHEDULE=.weekly., of which no run has .*: expected one of nightly"),
        ("nightly", "r7", "RUN='r7': expected a run of nightly with a report: r2, r9"),
        ("../nightly", "", "expected a schedule's name"),
        ("", "", "expected a schedule's name"),
    ],
)
def test_what_is_not_there_is_refused(results, schedule, run, message):
    with pytest.raises(UserError, match=message):
        acceptance.accept(str(results), schedule, run)
    assert not (results / "accepted").exists()


def test_a_run_with_a_failed_trial_is_not_accepted(results):
    reported(results, "r10", [row(0.9), row(None, 1, status="failed")], 3000)
    with pytest.raises(UserError, match="1 of 2 trials of nightly/r10 did not finish"):
        acceptance.accept(str(results), "nightly")


def test_without_a_tolerance_nothing_is_judged(tmp_path):
    assert acceptance.judge_report([], tmp_path, tolerance=-1, **NOTHING) == ("", [])


def test_a_run_to_compare_with_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"accepted='.*expected a results\.json"):
        acceptance.judge_report(
            [], tmp_path, tolerance=1, **NOTHING | {"accepted": str(tmp_path / "absent.json")}
        )


def test_what_fails_a_run_is_one_line():
    assert acceptance.failures_text("", []) == ""
    assert acceptance.failures_text("a: why", ["b", "c"]) == "trials did not finish: a: why; b; c"
    assert len(acceptance.failures_text("x" * 4000, ["y" * 9000])) == 8000


def test_a_run_in_a_bucket_is_accepted_and_held_against(monkeypatch):
    root = f"gs://{gcs.BUCKET}/team"
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        for run, accuracy in (("r2", 0.9), ("r1", 0.92)):
            name = f"scheduled/nightly/{run}/sweeps/s/report/results.json"
            text = json.dumps(seal({"schema": 1, "trials": [row(accuracy)]}))
            storage.write(storage.join(root, name), text.encode())
        assert "accepted r2" in acceptance.accept(root, "nightly", "r2")
        found = AcceptedRecord.read(root, "nightly")
        assert (found.trials, found.run.sweep) == ([row(0.9)], "s")
        with pytest.raises(UserError, match="expected one of nightly"):
            acceptance.accept(root, "weekly")
