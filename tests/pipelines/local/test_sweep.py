# SPDX-License-Identifier: Apache-2.0
import os
from types import SimpleNamespace

import pytest

from ieg_core.errors import UserError
from ieg_core.sweep.plan import Plan
from pipelines.local import sweep

PLANNED = Plan("digits-0123456789ab", ("a-0",))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The report of an earlier sweep, on a file server whose clock lags by an hour."""
    report = SimpleNamespace(
        table=[["method"]], headline=SimpleNamespace(sentence="", notes=()), missing=()
    )
    monkeypatch.setattr(sweep, "load_sweep", lambda root, name: None)
    monkeypatch.setattr(sweep, "summarize", lambda runs: report)
    path = sweep._page(tmp_path, PLANNED)
    path.parent.mkdir(parents=True)
    path.write_text("old")
    sweep.log_path(tmp_path, PLANNED).write_text("no space\n")
    return path


def test_a_report_is_new_whatever_the_clock_of_its_file_server_shows(tmp_path, page):
    before = sweep._identity(page)
    (tmp_path / "new").write_text("new")
    os.utime(tmp_path / "new", (0, 0))
    (tmp_path / "new").replace(page)
    assert sweep._conclude(tmp_path, PLANNED, 0, before) == 0


def test_a_report_that_stayed_is_a_failure(tmp_path, page, capsys):
    assert sweep._conclude(tmp_path, PLANNED, 0, sweep._identity(page)) == sweep.EXIT_FAILED
    assert "failed before its report: no space" in capsys.readouterr().err


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
