# SPDX-License-Identifier: Apache-2.0
"""Who may write a trial's folder: its latest attempt, on whichever host that runs.

Each attempt at a trial takes the next number by creating `leases/<number>.json`, which only one
process can do. An attempt writes its checkpoints under its own number, and readers take the highest
number there is. So a process that was thought dead can come back and write at any moment: nothing
of its successor's is lost. It stops when it sees the higher lease.

On one machine the kernel's lock on the folder says whether the latest attempt lives. Between
machines its heartbeat does: the time in progress.json, at least every minute.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.files import read_json, writable, write_json_atomic
from ieg_core.host.liveness import is_recent
from ieg_core.host.processes import machine
from ieg_core.store.runs import RUN_ID


class SupersededError(RuntimeError):
    """A later attempt has taken the trial over: this process may write nothing more."""


@dataclass(frozen=True)
class Lease:
    """One attempt's right to a trial, until there is a later one.

    Attributes:
      folder: The trial's folder.
      attempt: Its number, from 1.
      token: Random; tells the lease from one of the same number in a folder made anew.
    """

    folder: Path
    attempt: int
    token: str

    @property
    def path(self) -> Path:
        """The lease's file."""
        return lease_path(self.folder, self.attempt)


def lease_path(folder: Path, attempt: int) -> Path:
    """Returns where an attempt's lease lies."""
    return folder / "leases" / f"{attempt:06d}.json"


def numbers(names: Iterator[str] | list[str], suffix: str) -> list[int]:
    """Returns the attempts that files named <number><suffix> belong to, the highest first."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)


def latest_attempt(folder: Path) -> int:
    """Returns the number of a trial's latest attempt; 0 before the first."""
    try:
        return max(numbers(os.listdir(folder / "leases"), ".json"), default=0)
    except FileNotFoundError:
        return 0


def new_record() -> dict[str, Any]:
    """Makes what a lease's file says of this process."""
    return {
        "token": secrets.token_hex(8),
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "run": os.environ.get(RUN_ID, ""),
        "started": time.time(),
    }


def is_alive(
    attempt: int, record: Mapping[str, Any], progress: Mapping[str, Any], now: float
) -> bool:
    """Returns whether an attempt on another machine may still be running.

    Args:
      attempt: Its number.
      record: What its lease's file says.
      progress: What the trial's progress.json says.
      now: Unix time. The machines' clocks must agree to a minute; a heartbeat far in the future
        counts as dead, like one far in the past.
    """
    if record.get("ended"):
        return False
    own = progress if progress.get("attempt") == attempt else {}
    beat = float(own.get("updated") or record.get("started") or 0.0)
    return is_recent(beat, now)


def is_live_elsewhere(folder: Path) -> bool:
    """Returns whether another machine's attempt at a trial is running."""
    attempt = latest_attempt(folder)
    if not attempt:
        return False
    path = lease_path(folder, attempt)
    record = _read(path)
    if not record:  # created, but not written yet
        with contextlib.suppress(FileNotFoundError):
            record = {"started": path.stat().st_mtime}
    elsewhere = record.get("machine") != machine()
    return elsewhere and is_alive(attempt, record, _read(folder / "progress.json"), time.time())


def take(folder: Path, attempt: int) -> Lease:
    """Takes a trial for this process.

    Raises:
      TrialBusyError: Another process was faster.
    """
    record = new_record()
    path = lease_path(folder, attempt)
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError as error:
            raise TrialBusyError(f"{folder.name} was just taken by another process") from error
        with file:
            json.dump(record, file)
    return Lease(folder, attempt, record["token"])


def require_current(lease: Lease) -> None:
    """Does nothing for the latest attempt.

    Raises:
      SupersededError: There is a later one, or the folder was removed under this one.
    """
    latest = latest_attempt(lease.folder)
    if latest > lease.attempt:
        record = _read(lease_path(lease.folder, latest))
        host = record.get("host") or "another process"
        raise SupersededError(
            f"{lease.folder.name}: attempt {lease.attempt} stops, for attempt {latest} on {host} "
            "has taken over"
        )
    if _read(lease.path).get("token") != lease.token:
        raise SupersededError(
            f"{lease.folder.name}: attempt {lease.attempt} stops, for its lease was removed"
        )


def is_current(lease: Lease) -> bool:
    """Returns whether this is the latest attempt."""
    try:
        require_current(lease)
    except SupersededError:
        return False
    return True


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[Lease]:
    """Holds a trial's folder for this process.

    Yields:
      The lease to write with.

    Raises:
      TrialBusyError: Another process works on the trial, here or on another machine.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(trial_lock(folder))
        except TrialBusyError:
            # A file server may keep the lock of a machine that is gone.
            latest = _read(lease_path(folder, latest_attempt(folder)))
            if latest.get("machine", machine()) == machine() or is_live_elsewhere(folder):
                raise
        if is_live_elsewhere(folder):
            raise TrialBusyError(f"{folder.name} is being trained on another machine")
        lease = take(folder, latest_attempt(folder) + 1)
        try:
            yield lease
        finally:
            _end(lease.path, lease.token)


def end_of(folder: Path, pid: int) -> bool:
    """Marks the lease of a process of this machine that is dead as ended.

    Returns:
      Whether the process was still the trial's owner, or had not come to lease it and no one else
      has. If not, what it left undone is no failure of the trial.
    """
    attempt = latest_attempt(folder)
    record = _read(lease_path(folder, attempt))
    if (record.get("machine"), record.get("pid")) == (machine(), pid):
        _end(lease_path(folder, attempt), record["token"])
        return True
    return not is_live_elsewhere(folder)


def _end(path: Path, token: str) -> None:
    record = _read(path)
    if record.get("token") == token and not record.get("ended"):
        with contextlib.suppress(UserError, OSError):  # a full disk: others wait for the heartbeat
            write_json_atomic(path, record | {"ended": time.time()})


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, UserError):
        return {}
    return value if isinstance(value, dict) else {}


class TrialBusyError(RuntimeError):
    """Another process works on the trial."""


@contextlib.contextmanager
def trial_lock(folder: Path) -> Iterator[None]:
    """Holds a trial's folder for this process; the kernel drops the lock when its owner dies.

    Raises:
      TrialBusyError: Another living process holds it.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrialBusyError(f"{folder.name} is being trained by another process") from error
        yield
    finally:
        os.close(handle)


BEAT_SECONDS = 30.0


@contextlib.contextmanager
def beating(
    lease: Lease, phase: str, step: int = 0, num_steps: int = 0
) -> Iterator[Callable[..., None]]:
    """Keeps a trial's progress.json up to date.

    Args:
      lease: The attempt that works on the trial.
      phase: "starting", "training" or "evaluating".
      step: Steps done.
      num_steps: Steps in all; 0 if not yet known.

    Yields:
      A function that takes what has changed (phase, step, num_steps, steps_per_second,
      accuracy_ema, gpu) and writes the file. It raises SupersededError if there is a later attempt.
    """
    shown: dict[str, Any] = {
        "phase": phase,
        "step": step,
        "num_steps": num_steps,
        "steps_per_second": 0.0,
        "accuracy_ema": None,
        "attempt": lease.attempt,
        "host": socket.gethostname(),
        "gpu": "",
    }
    lock, over = threading.Lock(), threading.Event()

    def report_progress(**changes: Any) -> None:
        with lock:
            shown.update(changes)
            require_current(lease)
            write_json_atomic(lease.folder / "progress.json", {**shown, "updated": time.time()})

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                report_progress()
            except SupersededError:
                return
            except (OSError, UserError):
                continue  # the training's next write meets the same, and says so

    report_progress()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield report_progress
    finally:
        over.set()
        thread.join()
