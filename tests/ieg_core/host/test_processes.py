# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys
import time

import pytest

from ieg_core.host import processes
from tests.clock import FakeClock

CHILD = (
    "from ieg_core.host.processes import die_with_parent; die_with_parent(); "
    "import time; time.sleep(60)"
)
PARENT = f"""
import os, subprocess, sys, time
from ieg_core.host.processes import children_environment
child = subprocess.Popen(
    [sys.executable, "-c", {CHILD!r}], env=os.environ | children_environment()
)
print(child.pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    return processes.start_time(pid) != "" and "Z" not in _state(pid)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wait_for(condition, seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_nothing_happens_where_nobody_named_a_parent():
    ended: list[int] = []
    processes.die_with_parent({}, ended.append)
    assert ended == []


def test_a_living_parent_ends_nothing():
    ended: list[int] = []
    processes.die_with_parent(processes.children_environment(), ended.append)
    time.sleep(0.1)
    assert ended == []


def test_a_parent_that_is_gone_already_ends_the_child():
    process = subprocess.Popen(["true"])
    environment = {
        processes.PID: str(process.pid),
        processes.START: processes.start_time(process.pid),
    }
    process.wait()
    ended: list[int] = []
    processes.die_with_parent(environment, ended.append)
    assert ended == [1]


def test_an_id_that_another_process_has_by_now_counts_as_gone():
    ended: list[int] = []
    processes.die_with_parent({processes.PID: str(os.getpid()), processes.START: "1"}, ended.append)
    assert ended == [1]


def test_start_time_copes_with_brackets_and_spaces_in_a_program_name(tmp_path):
    program = tmp_path / "a) b (c"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "60"])
    try:
        assert int(processes.start_time(process.pid)) > 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_itself_when_its_parent_is_killed(number):
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert is_running(child)
    time.sleep(0.3)  # the child imports what it needs to watch
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    assert wait_for(lambda: not is_running(child))


def test_without_pidfd_the_parent_is_polled(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = subprocess.Popen(["sleep", "60"])
    ended: list[int] = []

    def scenes():
        yield
        assert ended == []
        process.kill()
        process.wait()

    environment = {
        processes.PID: str(process.pid),
        processes.START: processes.start_time(process.pid),
    }
    processes.die_with_parent(environment, ended.append, FakeClock(scenes()))
    assert wait_for(lambda: ended == [1])
