# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys
import time

from ieg_core.host.folders import temporary_folder, write_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from ieg_core.host.folders import temporary_folder

with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_leaves_the_next_one_removes(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "wanted")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".wanted.")
    # Beside it, one that is in use, and what only looks alike.
    (tmp_path / ".wanted.backup").mkdir()
    with temporary_folder(tmp_path / "wanted") as used:
        write_folder(tmp_path / "wanted", {"file": b"all of it"})
        assert names(tmp_path) == sorted([used.name, ".wanted.backup", "wanted"])
    assert names(tmp_path) == [".wanted.backup", "wanted"]
    assert names(tmp_path / "wanted") == ["file"]


def test_another_machine_s_folder_is_left_alone_while_it_changes(tmp_path):
    """Its locks need not be seen here."""
    other = tmp_path / f".wanted.{'0' * 8}.{'1' * 32}"
    (other / "class").mkdir(parents=True)
    os.utime(other, (0, 0))
    with temporary_folder(tmp_path / "wanted"):
        assert other.exists()
    os.utime(other / "class", (0, 0))
    with temporary_folder(tmp_path / "wanted"):
        assert not other.exists()


def test_a_file_server_with_another_clock_loses_nothing(tmp_path, monkeypatch):
    """The clock that counts is that of the files, which here lags by an hour."""
    other = tmp_path / f".wanted.{'0' * 8}.{'1' * 32}"
    other.mkdir()
    ahead = time.time() + 3600
    monkeypatch.setattr("time.time", lambda: ahead)
    with temporary_folder(tmp_path / "wanted"):
        assert other.exists()


def test_a_folder_that_is_there_stays(tmp_path):
    write_folder(tmp_path / "wanted", {"file": b"first"})
    write_folder(tmp_path / "wanted", {"file": b"second"})
    assert (tmp_path / "wanted" / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["wanted"]
