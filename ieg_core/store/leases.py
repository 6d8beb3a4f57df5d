# SPDX-License-Identifier: Apache-2.0
"""Ownership of a trial's folder: only the latest attempt, on any host, may write it.

Each attempt at a trial takes the next number by creating `leases/<number>.json`, which only one
process can do. An attempt writes its checkpoints under its own number, and readers use the highest
number. So a process that was presumed dead can resume and write at any time without destroying its
successor's files; it stops when it sees the higher lease.

On one machine, the kernel's lock on the folder shows whether the latest attempt is alive. Across
machines, and on a file system without locks, its heartbeat does: the time in progress.json, by the
rule of `ieg_core.host.liveness`.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.files import writable
from ieg_core.host.liveness import is_new, is_recent
from ieg_core.host.locks import lock, open_lock
from ieg_core.host.processes import is_running, machine
from ieg_core.store.records import LeaseRecord, ProgressRecord

BEAT_SECONDS = 30.0
LOCK = "lock"


class SupersededError(RuntimeError):
    """A later attempt has taken over the trial; this process must not write any more."""


class TrialBusyError(RuntimeError):
    """Another process is working on the trial."""


@dataclass(frozen=True)
class Lease:
    """An attempt's ownership of a trial, until a later attempt takes over.

    Attributes:
      folder: The trial's folder.
      attempt: Its number, from 1.
      token: Random; distinguishes leases with the same number if the folder was recreated.
    """

    folder: Path
    attempt: int
    token: str


def numbers(names: Iterable[str], suffix: str) -> list[int]:
    """Returns the numbers of files named <number><suffix>, highest first."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)


def attempts(names: Iterable[str]) -> list[int]:
    """Returns the attempts that have a lease, highest first.

    Args:
      names: File names, relative to the trial's folder.
    """
    front, _, suffix = LeaseRecord.NAME.partition("{:06d}")
    return numbers((n.removeprefix(front) for n in names if n.startswith(front)), suffix)


def latest_attempt(folder: Path) -> int:
    """Returns the number of a trial's latest attempt; 0 before the first."""
    leases = LeaseRecord.path(folder, 0).parent
    try:
        names = [f"{leases.name}/{name}" for name in os.listdir(leases)]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max(attempts(names), default=0)


def new_record() -> LeaseRecord:
    """Returns a lease record of this process."""
    return LeaseRecord(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        started=time.time(),
    )


def is_alive(
    attempt: int, record: LeaseRecord | None, progress: ProgressRecord | None, now: float
) -> bool:
    """Returns whether an attempt on another machine may still be running.

    Args:
      attempt: Its number.
      record: Its lease; None if unreadable.
      progress: The trial's progress; None if there is none.
      now: Unix time.
    """
    if record is None or record.ended is not None:
        return False
    beats = progress is not None and progress.attempt == attempt
    return is_recent(progress.updated if progress and beats else record.started, now)


def is_live_elsewhere(folder: Path) -> bool:
    """Returns whether a trial's latest attempt is running on another machine."""
    attempt = latest_attempt(folder)
    if not attempt:
        return False
    record, problem = LeaseRecord.look(folder, attempt)
    if problem:  # created, but not written yet
        with contextlib.suppress(OSError):
            return is_new(LeaseRecord.path(folder, attempt))
    if record is None or record.machine == machine():
        return False
    return is_alive(attempt, record, ProgressRecord.look(folder)[0], time.time())


def take(folder: Path, attempt: int) -> Lease:
    """Takes the lease of a trial's attempt for this process.

    Raises:
      TrialBusyError: When another process was faster.
    """
    record = new_record()
    path = LeaseRecord.path(folder, attempt)
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("xb")
        except FileExistsError as error:
            raise TrialBusyError(f"another process has just taken {folder.name}") from error
        with file:
            file.write(record.encode())
    return Lease(folder, attempt, record.token)


def require_current(lease: Lease) -> None:
    """Checks that a lease is still the latest.

    Raises:
      SupersededError: When there is a later attempt, or the folder was removed.
    """
    latest = latest_attempt(lease.folder)
    record, _ = LeaseRecord.look(lease.folder, latest)
    stops = f"{lease.folder.name}: attempt {lease.attempt} stops"
    if latest > lease.attempt:
        host = record.host if record else "another process"
        raise SupersededError(f"{stops}, because attempt {latest} on {host} has taken over")
    if record is None or record.token != lease.token:
        raise SupersededError(f"{stops}, because its lease was removed")


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[Lease]:
    """Owns a trial's folder while the context is active.

    Yields:
      The lease to write with.

    Raises:
      TrialBusyError: When another process, on any machine, is working on the trial.
    """
    with contextlib.ExitStack() as stack:
        try:
            is_locked = stack.enter_context(trial_lock(folder))
        except TrialBusyError:
            is_locked = True
            # A file server may keep the lock of a machine that no longer exists.
            latest, _ = LeaseRecord.look(folder, latest_attempt(folder))
            if latest is None or latest.machine == machine() or is_live_elsewhere(folder):
                raise
        if is_live_elsewhere(folder):
            raise TrialBusyError(f"{folder.name} is being trained on another machine")
        if not is_locked and _beats_here(folder):
            raise TrialBusyError(f"{folder.name} is being trained by another process")
        lease = take(folder, latest_attempt(folder) + 1)
        try:
            yield lease
        finally:
            _end(folder, lease.attempt, lease.token)


@contextlib.contextmanager
def trial_lock(folder: Path) -> Iterator[bool]:
    """Holds the kernel's lock on a trial's folder, which is released when its process ends.

    Yields:
      Whether the lock is held; False if the file system does not support locks.

    Raises:
      TrialBusyError: When another running process holds it.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_lock(folder / LOCK)
    try:
        is_locked = lock(handle)
        if is_locked is False:
            raise TrialBusyError(f"{folder.name} is being trained by another process")
        yield bool(is_locked)
    finally:
        os.close(handle)


def has_died_here(folder: Path, attempt: int) -> bool:
    """Returns whether an attempt ran on this machine and has certainly ended.

    Args:
      folder: The trial's folder.
      attempt: The attempt's number.
    """
    record, _ = LeaseRecord.look(folder, attempt)
    if record is None or record.machine != machine():
        return False
    if record.ended is not None:
        return True
    try:
        handle = open_lock(folder / LOCK, create=False)
    except OSError:
        return False
    try:
        return bool(lock(handle, shared=True))
    finally:
        os.close(handle)


def _beats_here(folder: Path) -> bool:
    """Returns whether the latest attempt runs on this machine, where locks cannot tell."""
    attempt = latest_attempt(folder)
    record, _ = LeaseRecord.look(folder, attempt)
    if record is None or record.machine != machine():
        return False
    if record.host == socket.gethostname() and not is_running(record.pid):
        return False
    return is_alive(attempt, record, ProgressRecord.look(folder)[0], time.time())


def end_of(folder: Path, pid: int) -> bool:
    """Marks the lease of a dead process on this machine as ended.

    Returns:
      Whether the process still owned the trial, or died before it took the lease and no other
      machine owns the trial. If not, its death is not a failure of the trial.
    """
    attempt = latest_attempt(folder)
    record, _ = LeaseRecord.look(folder, attempt)
    if record and (record.machine, record.pid) == (machine(), pid):
        _end(folder, attempt, record.token)
        return True
    return not is_live_elsewhere(folder)


def _end(folder: Path, attempt: int, token: str) -> None:
    record, _ = LeaseRecord.look(folder, attempt)
    if record and record.token == token and record.ended is None:
        with contextlib.suppress(
            UserError, OSError
        ):  # full disk: others wait for the heartbeat to expire
            replace(record, ended=time.time()).write(folder, attempt)


@contextlib.contextmanager
def beating(
    lease: Lease, phase: str, step: int = 0, clock: Clock = CLOCK
) -> Iterator[Callable[..., None]]:
    """Keeps a trial's progress.json up to date.

    Args:
      lease: The attempt that owns the trial.
      phase: "starting", "training" or "evaluating".
      step: Steps done.
      clock: Tells the time between two heartbeats.

    Yields:
      A function that takes the changed fields (phase, step, num_steps, steps_per_second,
      accuracy_ema, gpu) and writes the file. It raises SupersededError if there is a later attempt.
    """
    shown = ProgressRecord(
        phase=phase,
        updated=clock.now(),
        step=step,
        attempt=lease.attempt,
        host=socket.gethostname(),
    )
    lock, over = threading.Lock(), threading.Event()

    def report_progress(**changes: Any) -> None:
        nonlocal shown
        with lock:
            shown = replace(shown, **changes, updated=clock.now())
            require_current(lease)
            shown.write(lease.folder)

    def beat() -> None:
        while not clock.wait(over, BEAT_SECONDS):
            try:
                report_progress()
            except SupersededError:
                return
            except (OSError, UserError):
                continue  # the training's next write fails, too, and reports it

    report_progress()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield report_progress
    finally:
        over.set()
        thread.join()
