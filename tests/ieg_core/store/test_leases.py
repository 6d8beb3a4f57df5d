# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ieg_core.errors import UserError
from ieg_core.host.files import read_json
from ieg_core.host.liveness import STALE_SECONDS
from ieg_core.store import leases
from ieg_core.store.leases import (
    SupersededError,
    TrialBusyError,
    beating,
    latest_attempt,
    owned,
    require_current,
    take,
)
from ieg_core.store.records import LeaseRecord, ProgressRecord
from ieg_core.training import run_trial
from ieg_core.training.checkpoint import (
    Progress,
    checkpoint_path,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from tests.clock import FakeClock
from tests.records import example

CONTEXT = multiprocessing.get_context("spawn")
MACHINE = st.sampled_from(["first", "second", "third"])
# Young, at the rule's edge, and stale.
SECONDS = st.sampled_from([1.0, 30.0, STALE_SECONDS - 1, STALE_SECONDS + 1, 10 * STALE_SECONDS])


def lease_of_another_machine(folder: Path, attempt: int, **changes) -> None:
    record = replace(leases.new_record(), machine="other", host="pod-7", **changes)
    record.write(folder, attempt)


def beat(folder: Path, attempt: int, age: float) -> None:
    progress = ProgressRecord(phase="training", updated=time.time() - age, attempt=attempt)
    progress.write(folder)


def test_attempts_are_numbered_and_say_who_they_are(tmp_path):
    with owned(tmp_path) as lease:
        assert lease.attempt == 1
        record = read_json(tmp_path / "leases" / "000001.json")
        assert record["pid"] == os.getpid()
        assert record["host"]
        assert "ended" not in record
    assert read_json(tmp_path / "leases" / "000001.json")["ended"] >= record["started"]
    with owned(tmp_path) as lease:
        assert lease.attempt == 2
    assert leases.latest_attempt(tmp_path) == 2


def _take_one(folder: Path, barrier, taken) -> None:
    barrier.wait(300)
    try:
        take(folder, 1)
    except TrialBusyError:
        return
    taken.put(os.getpid())


def test_of_several_processes_one_gets_a_number(tmp_path):
    barrier, taken = CONTEXT.Barrier(4), CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=_take_one, args=(tmp_path, barrier, taken)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert taken.get(timeout=600) in {process.pid for process in processes}
    assert taken.empty()


def test_another_machine_is_waited_for_while_its_heart_beats(tmp_path):
    lease_of_another_machine(tmp_path, 3, started=time.time() - 1000)
    beat(tmp_path, 3, age=170)
    with pytest.raises(TrialBusyError, match="another machine"), owned(tmp_path):
        pass
    beat(tmp_path, 3, age=190)
    with owned(tmp_path) as lease:
        assert lease.attempt == 4


@pytest.mark.parametrize(
    ("record", "progress", "expected"),
    [
        pytest.param({"started": 900}, {}, True, id="has not told anything yet"),
        pytest.param({"started": 700}, {}, False, id="never told anything"),
        pytest.param({"started": 0}, {"attempt": 2, "updated": 900}, True, id="beats"),
        pytest.param({"started": 0}, {"attempt": 2, "updated": 800}, False, id="has stopped"),
        pytest.param({"started": 0}, {"attempt": 1, "updated": 999}, False, id="an earlier's beat"),
        pytest.param({"started": 0}, {"attempt": 2, "updated": 5000}, False, id="wrong clock"),
        pytest.param(
            {"started": 0, "ended": 950}, {"attempt": 2, "updated": 949}, False, id="has ended"
        ),
        pytest.param({}, {}, False, id="unreadable"),
    ],
)
def test_who_lives(record, progress, expected):
    lease = example(LeaseRecord, **record) if record else None
    shown = example(ProgressRecord, **progress) if progress else None
    assert leases.is_alive(2, lease, shown, now=1000.0) is expected


def test_a_lease_that_is_just_being_written_is_waited_for(tmp_path):
    path = LeaseRecord.path(tmp_path, 1)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(TrialBusyError), owned(tmp_path):
        pass
    os.utime(path, (0, 0))
    with owned(tmp_path) as lease:
        assert lease.attempt == 2


def test_a_lease_just_written_by_a_file_server_with_another_clock_is_waited_for(
    tmp_path, monkeypatch
):
    path = LeaseRecord.path(tmp_path, 1)
    path.parent.mkdir()
    path.touch()
    ahead = time.time() + 3600
    monkeypatch.setattr("time.time", lambda: ahead)
    assert leases.is_live_elsewhere(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_without_locks_the_heartbeat_decides(tmp_path, monkeypatch, number):
    def flock(handle, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with owned(tmp_path) as first:
        with pytest.raises(TrialBusyError, match="another process"), owned(tmp_path):
            pass
        assert not leases.has_died_here(tmp_path, first.attempt)
        beat(tmp_path, 1, age=200)  # alive, but without a heartbeat: taken over
        with owned(tmp_path) as second:
            assert second.attempt == 2
    dead = replace(leases.new_record(), pid=2**22 + 1)
    dead.write(tmp_path, 3)
    with owned(tmp_path) as third:
        assert third.attempt == 4


def test_a_pipe_in_the_place_of_a_lock_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(UserError, match="cannot write results under"), owned(tmp_path):
        pass


def _hold(folder: Path, ready) -> None:
    with owned(folder):
        ready.set()
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    ready = CONTEXT.Event()
    process = CONTEXT.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(300)
    yield process
    process.kill()
    process.join()


def test_on_one_machine_the_lock_decides_at_once(tmp_path, holder):
    beat(tmp_path, 1, age=1000)  # stopped by a debugger, or the laptop's lid
    with pytest.raises(TrialBusyError), owned(tmp_path):
        pass
    beat(tmp_path, 1, age=0)
    assert not leases.has_died_here(tmp_path, 1)
    holder.kill()
    holder.join()
    assert leases.has_died_here(tmp_path, 1)
    with owned(tmp_path) as lease:
        assert lease.attempt == 2


def test_a_lock_that_outlives_its_machine_is_passed_by(tmp_path, holder):
    replace(LeaseRecord.read(tmp_path, 1), machine="gone").write(tmp_path, 1)
    beat(tmp_path, 1, age=100)
    with pytest.raises(TrialBusyError), owned(tmp_path):
        pass
    beat(tmp_path, 1, age=200)
    with owned(tmp_path) as lease:
        assert lease.attempt == 2


def test_a_folder_made_again_belongs_to_nobody_of_before(tmp_path):
    old = take(tmp_path, 1)
    LeaseRecord.path(tmp_path, 1).unlink()
    with pytest.raises(SupersededError, match="lease was removed"):
        leases.require_current(old)
    take(tmp_path, 1)
    with pytest.raises(SupersededError, match="lease was removed"):
        leases.require_current(old)


def test_a_dead_childs_lease_is_ended_and_a_stale_ones_is_not(tmp_path):
    take(tmp_path, 1)
    assert leases.end_of(tmp_path, os.getpid())
    assert read_json(LeaseRecord.path(tmp_path, 1))["ended"]
    lease_of_another_machine(tmp_path, 2)
    assert not leases.end_of(tmp_path, os.getpid())
    assert "ended" not in read_json(LeaseRecord.path(tmp_path, 2))


def _write_until_stopped(folder: Path, value: int, started, outcome) -> None:
    """A stale writer: keeps saving ever later steps, as fast as it can."""
    lease = take(folder, leases.latest_attempt(folder) + 1)
    state = {"params": [np.full(100_000, value, np.float32)]}
    step = 0
    try:
        while True:
            step += 1000
            save_checkpoint(lease, state, Progress("trial", step, 1, 1, 0.0, {}))
            started.set()
    except SupersededError as error:
        outcome.put(str(error))


def test_a_stale_writer_stops_and_its_successors_checkpoint_survives(tmp_path):
    started, outcome = CONTEXT.Event(), CONTEXT.Queue()
    stale = CONTEXT.Process(target=_write_until_stopped, args=(tmp_path, 1, started, outcome))
    stale.start()
    assert started.wait(300)
    successor = take(tmp_path, 2)
    template = {"params": [np.full(100_000, 2, np.float32)]}
    for step in range(1, 20):
        save_checkpoint(successor, template, Progress("trial", step, 1, 1, 0.0, {}))
        state, progress = load_checkpoint(tmp_path, "trial", template)
        assert progress.step == step
        assert (state["params"][0] == 2).all()
    assert "attempt 1 stops" in outcome.get(timeout=3600)
    stale.join(300)
    assert stale.exitcode == 0
    save_checkpoint(successor, template, Progress("trial", 20, 1, 1, 0.0, {}))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["000002.safetensors"]


def test_a_frozen_writer_that_wakes_up_changes_nothing_that_counts(tmp_path):
    """Stopped at any point of a save, and continued when its successor has saved."""
    template = {"params": [np.full(100_000, 2, np.float32)]}
    for number in range(4):
        folder = tmp_path / str(number)
        started, outcome = CONTEXT.Event(), CONTEXT.Queue()
        stale = CONTEXT.Process(target=_write_until_stopped, args=(folder, 1, started, outcome))
        stale.start()
        assert started.wait(300)
        time.sleep(0.0007 * number)
        os.kill(stale.pid, signal.SIGSTOP)
        successor = take(folder, 2)
        save_checkpoint(successor, template, Progress("trial", 1, 1, 1, 0.0, {}))
        os.kill(stale.pid, signal.SIGCONT)
        assert "attempt 1 stops" in outcome.get(timeout=3600)
        stale.join(300)
        state, progress = load_checkpoint(folder, "trial", template)
        assert (progress.step, state["params"][0][0]) == (1, 2.0)


def test_progress_is_written_also_while_nothing_is_told(tmp_path):
    clock = FakeClock()
    with (
        owned(tmp_path) as lease,
        leases.beating(lease, "starting", 25, clock=clock) as report_progress,
    ):
        first = read_json(tmp_path / "progress.json")
        assert (first["phase"], first["step"], first["attempt"]) == ("starting", 25, 1)
        assert first["host"]
        assert first["gpu"] == ""
        report_progress(phase="training", step=50, num_steps=100)
        for _ in range(2):
            clock.advance(leases.BEAT_SECONDS)
            later = read_json(tmp_path / "progress.json")
            assert later["updated"] == clock.time
        assert (later["phase"], later["step"], later["num_steps"]) == ("training", 50, 100)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_stale_heart_stops_writing(tmp_path):
    lease, clock = take(tmp_path, 1), FakeClock()
    with leases.beating(lease, "starting", clock=clock) as report_progress:
        take(tmp_path, 2)
        (tmp_path / "progress.json").unlink()
        clock.advance(leases.BEAT_SECONDS)
        assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(SupersededError):
            report_progress(step=1)
    assert not (tmp_path / "progress.json").exists()


def test_a_stale_attempts_failure_is_no_failure_of_the_trial(tmp_path):
    stale = take(tmp_path, 1)

    def fail_when_it_is_taken_over() -> None:
        with run_trial._recorded(stale, "training"):
            take(tmp_path, 2)
            raise UserError("no such data")

    with pytest.raises(SupersededError):
        fail_when_it_is_taken_over()
    assert not (tmp_path / "failure.json").exists()
    current = take(tmp_path, 3)
    with pytest.raises(UserError), run_trial._recorded(current, "training"):
        raise UserError("no such data")
    assert json.loads((tmp_path / "failure.json").read_text())["reason"] == "no such data"


def test_leasing_takes_no_time(tmp_path):
    for _ in range(20):
        with owned(tmp_path):
            pass
    began = time.thread_time()
    for attempt in range(21, 121):
        take(tmp_path, attempt)
    assert (time.thread_time() - began) / 100 < 0.005
    assert read_progress(tmp_path) is None
    assert not checkpoint_path(tmp_path, 1).exists()


# Processes on three machines that take a trial, fall silent, wake up and end in any order.


class Process:
    """An attempt at the trial that does nothing by itself; its heart beats when it writes."""

    def __init__(self, machine: str, folder: Path) -> None:
        self.machine = machine
        with contextlib.ExitStack() as context:
            self.lease = context.enter_context(owned(folder))
            self.report_progress = context.enter_context(beating(self.lease, "training"))
            self.context = context.pop_all()


class Interleavings(RuleBasedStateMachine):
    """A trial's folder, and what must be true of it.

    Attributes:
      now: The only clock.
      processes: Those that have not ended, in the order of their attempts.
      current: The one of the latest attempt; None once it has ended.
      beat: When it last wrote.
      given: The numbers of all attempts there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp()) / "trial"
        self.now = 1e9
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.beat = 0.0
        self.given: list[int] = []

    @contextlib.contextmanager
    def on(self, machine: str):
        """Runs as a process of that machine, at the injected time."""
        with (
            mock.patch.object(time, "time", return_value=self.now),
            mock.patch.object(leases, "machine", return_value=machine),
        ):
            yield

    def is_current(self, process: Process) -> bool:
        with self.on(process.machine), contextlib.suppress(SupersededError):
            require_current(process.lease)
            return True
        return False

    @rule(machine=MACHINE)
    def start(self, machine):
        beats = self.current is not None and self.now - self.beat < STALE_SECONDS
        is_elsewhere = self.current is not None and self.current.machine != machine
        # What is left to the kernel: whose lock it is, of several processes that are there.
        must_fail = beats and is_elsewhere
        must_start = all(each.machine != machine for each in self.processes) and not beats
        must_start = must_start and (is_elsewhere or not self.processes)
        try:
            with self.on(machine):
                process = Process(machine, self.folder)
        except TrialBusyError:
            assert not must_start
            return
        assert not must_fail
        self.processes.append(process)
        self.current, self.beat = process, self.now
        self.given.append(process.lease.attempt)

    @precondition(lambda self: len(self.processes) == 1)
    @rule()
    def start_beside_a_living_process_of_the_same_machine(self):
        """However long it has been silent: it is there, and holds the lock."""
        (process,) = self.processes
        if process is self.current and process.lease.attempt == 1:
            with self.on(process.machine), pytest.raises(TrialBusyError):
                Process(process.machine, self.folder)

    @rule(seconds=SECONDS)
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def write(self, data):
        """A process writes, however long it was silent: the latest does, no other does."""
        process = data.draw(st.sampled_from(self.processes))
        path = self.folder / "progress.json"
        before = path.read_bytes()
        with self.on(process.machine):
            if process is self.current:
                process.report_progress(step=1)
                self.beat = self.now
            else:
                with pytest.raises(SupersededError):
                    process.report_progress(step=2)
                assert path.read_bytes() == before

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def end(self, data):
        """A process ends; one that is superseded leaves its successor's lease as it is."""
        process = data.draw(st.sampled_from(self.processes))
        others = [
            LeaseRecord.path(each.lease.folder, each.lease.attempt)
            for each in self.processes
            if each is not process
        ]
        before = [path.read_bytes() for path in others]
        with self.on(process.machine):
            process.context.close()
        assert [path.read_bytes() for path in others] == before
        self.processes.remove(process)
        if process is self.current:
            self.current = None

    @precondition(lambda self: self.given)
    @rule(machine=MACHINE, data=st.data())
    def take_a_number_that_is_gone(self, machine, data):
        """A race that is lost: the number was free when it was looked up."""
        number = data.draw(st.sampled_from(self.given))
        with self.on(machine), pytest.raises(TrialBusyError):
            take(self.folder, number)

    @invariant()
    def numbers_grow_and_the_latest_attempt_alone_is_current(self):
        assert self.given == sorted(set(self.given))
        assert latest_attempt(self.folder) == (self.given[-1] if self.given else 0)
        current = [process for process in self.processes if self.is_current(process)]
        assert current == ([self.current] if self.current else [])

    def teardown(self) -> None:
        for process in self.processes:
            with self.on(process.machine):
                process.context.close()
        shutil.rmtree(self.folder.parent)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=40, stateful_step_count=25)
