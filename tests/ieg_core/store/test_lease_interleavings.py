# SPDX-License-Identifier: Apache-2.0
"""Processes on three machines that take a trial, fall silent, wake up and end in any order."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
from ieg_core.store.records import LeaseRecord

MACHINE = st.sampled_from(["first", "second", "third"])
# Young, at the rule's edge, and stale.
SECONDS = st.sampled_from([1.0, 30.0, STALE_SECONDS - 1, STALE_SECONDS + 1, 10 * STALE_SECONDS])


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
