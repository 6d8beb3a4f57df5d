# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from ieg_core.errors import UserError
from ieg_core.report.trials import file_stamp
from ieg_core.store import layout
from ieg_core.sweep.plan import Plan
from pipelines.local import sweep
from tests.ieg_core.report.roots import build_results_root

PLANNED = Plan("digits-0123456789ab", ("a-0",))


def test_a_report_is_new_whatever_the_clock_of_its_file_server_shows(tmp_path):
    results, new = tmp_path / "results", tmp_path / "new"
    assert not sweep._is_new(results, None)
    results.write_text("old")
    before = file_stamp(results)
    assert not sweep._is_new(results, before)
    new.write_text("new")
    os.utime(new, (0, 0))  # a clock that lags
    new.replace(results)
    assert sweep._is_new(results, before)


def test_a_report_that_stayed_is_a_failure(tmp_path, capsys):
    sweep.log_path(tmp_path, PLANNED).parent.mkdir(parents=True)
    sweep.log_path(tmp_path, PLANNED).write_text("no space\n")
    assert sweep._conclude(tmp_path, PLANNED, 0, False) == sweep.EXIT_FAILED
    assert "failed before its report: no space" in capsys.readouterr().err


def test_the_end_of_a_sweep_says_which_method_to_use_and_where_the_report_is(tmp_path, capsys):
    build_results_root(tmp_path, rates=(0.8,), failed=[("l2r", 0.8, 0)], methods=("l2r", "ieg"))
    layout.set_latest(tmp_path, "s1")
    assert sweep._conclude(tmp_path, Plan("s1", ()), 0, True) == sweep.EXIT_FAILED
    output = capsys.readouterr()
    assert "At 80 % noise ieg keeps " in output.out
    assert "Nothing to choose from: only ieg has a result." in output.out
    assert "- The table is incomplete: l2r has no result at 80 % noise." in output.out
    assert output.out.splitlines()[-1] == f"Report: {tmp_path}/latest/report/report.html"
    assert output.err.startswith("failed: digits_uniform_0.8-l2r-seed0-0123456789ab: the loss")


@pytest.mark.parametrize("kind", ["pipe", "another user's", "dangling link"])
def test_what_others_put_into_the_temporary_folder_stops_nobody(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lock = tmp_path / f"{sweep.SCRATCH}x" / "lock"
    lock.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "dangling link":
        lock.symlink_to(tmp_path / "nowhere")
    else:
        lock.touch()
        monkeypatch.setattr("os.getuid", lambda: 12345)
    with sweep._scratch_folder():
        assert lock.parent.exists()


def test_a_temporary_folder_without_locks_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sweep, "lock", lambda handle: None)
    with pytest.raises(UserError, match="set TMPDIR to a folder on a local disk"):
        sweep._scratch_folder().__enter__()
