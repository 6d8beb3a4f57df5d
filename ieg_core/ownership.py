# SPDX-License-Identifier: Apache-2.0
"""Who may write a cell's folder: its latest attempt, on whichever host that runs.

Each attempt at a cell takes the next number by creating `claims/<number>.json`, which only one
process can do. An attempt writes its checkpoints under its own number, and readers take the highest
number there is. So a process that was thought dead can come back and write at any moment: nothing
of its successor's is lost. It stops when it sees the higher claim.

On one machine the kernel's lock on the folder says whether the latest attempt lives. Between
machines its heartbeat does: the time in progress.json, at least every minute.
"""

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.results import CellBusyError, cell_lock, read_json, writable, write_json_atomic
from ieg_core.runs import RUN_ID

STALE_SECONDS = 180.0
"""An attempt on another machine whose heartbeat is older counts as dead."""


class SupersededError(RuntimeError):
    """A later attempt has taken the cell over: this process may write nothing more."""


@dataclass(frozen=True)
class Claim:
    """One attempt's right to a cell, until there is a later one.

    Attributes:
      folder: The cell's folder.
      attempt: Its number, from 1.
      token: Random; tells the claim from one of the same number in a folder made anew.
    """

    folder: Path
    attempt: int
    token: str

    @property
    def path(self) -> Path:
        """The claim's file."""
        return claim_path(self.folder, self.attempt)


def claim_path(folder: Path, attempt: int) -> Path:
    """Returns where an attempt's claim lies."""
    return folder / "claims" / f"{attempt:06d}.json"


def numbers(names: Iterator[str] | list[str], suffix: str) -> list[int]:
    """Returns the attempts that files named <number><suffix> belong to, the highest first."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)


def latest_attempt(folder: Path) -> int:
    """Returns the number of a cell's latest attempt; 0 before the first."""
    try:
        return max(numbers(os.listdir(folder / "claims"), ".json"), default=0)
    except FileNotFoundError:
        return 0


def new_record() -> dict[str, Any]:
    """Makes what a claim's file says of this process."""
    return {
        "token": secrets.token_hex(8),
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "run": os.environ.get(RUN_ID, ""),
        "started": time.time(),
    }


def lives(attempt: int, record: Mapping[str, Any], progress: Mapping[str, Any], now: float) -> bool:
    """Returns whether an attempt on another machine may still be running.

    Args:
      attempt: Its number.
      record: What its claim's file says.
      progress: What the cell's progress.json says.
      now: Unix time. The machines' clocks must agree to a minute; a heartbeat far in the future
        counts as dead, like one far in the past.
    """
    if record.get("ended"):
        return False
    own = progress if progress.get("attempt") == attempt else {}
    beat = float(own.get("updated") or record.get("started") or 0.0)
    return abs(now - beat) < STALE_SECONDS


def is_live_elsewhere(folder: Path) -> bool:
    """Returns whether another machine's attempt at a cell is running."""
    attempt = latest_attempt(folder)
    if not attempt:
        return False
    path = claim_path(folder, attempt)
    record = _read(path)
    if not record:  # created, but not written yet
        with contextlib.suppress(FileNotFoundError):
            record = {"started": path.stat().st_mtime}
    elsewhere = record.get("machine") != machine()
    return elsewhere and lives(attempt, record, _read(folder / "progress.json"), time.time())


def take(folder: Path, attempt: int) -> Claim:
    """Takes a cell for this process.

    Raises:
      CellBusyError: Another process was faster.
    """
    record = new_record()
    path = claim_path(folder, attempt)
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError as error:
            raise CellBusyError(f"{folder.name} was just taken by another process") from error
        with file:
            json.dump(record, file)
    return Claim(folder, attempt, record["token"])


def require_current(claim: Claim) -> None:
    """Does nothing for the latest attempt.

    Raises:
      SupersededError: There is a later one, or the folder was removed under this one.
    """
    latest = latest_attempt(claim.folder)
    if latest > claim.attempt:
        record = _read(claim_path(claim.folder, latest))
        host = record.get("host") or "another process"
        raise SupersededError(
            f"{claim.folder.name}: attempt {claim.attempt} stops, for attempt {latest} on {host} "
            "has taken over"
        )
    if _read(claim.path).get("token") != claim.token:
        raise SupersededError(
            f"{claim.folder.name}: attempt {claim.attempt} stops, for its claim was removed"
        )


def is_current(claim: Claim) -> bool:
    """Returns whether this is the latest attempt."""
    try:
        require_current(claim)
    except SupersededError:
        return False
    return True


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[Claim]:
    """Holds a cell's folder for this process.

    Yields:
      The claim to write with.

    Raises:
      CellBusyError: Another process works on the cell, here or on another machine.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cell_lock(folder))
        except CellBusyError:
            # A file server may keep the lock of a machine that is gone.
            latest = _read(claim_path(folder, latest_attempt(folder)))
            if latest.get("machine", machine()) == machine() or is_live_elsewhere(folder):
                raise
        if is_live_elsewhere(folder):
            raise CellBusyError(f"{folder.name} is being trained on another machine")
        claim = take(folder, latest_attempt(folder) + 1)
        try:
            yield claim
        finally:
            _end(claim.path, claim.token)


def end_of(folder: Path, pid: int) -> bool:
    """Marks the claim of a process of this machine that is dead as ended.

    Returns:
      Whether the process was still the cell's owner, or had not come to claim it and no one else
      has. If not, what it left undone is no failure of the cell.
    """
    attempt = latest_attempt(folder)
    record = _read(claim_path(folder, attempt))
    if (record.get("machine"), record.get("pid")) == (machine(), pid):
        _end(claim_path(folder, attempt), record["token"])
        return True
    return not is_live_elsewhere(folder)


def _end(path: Path, token: str) -> None:
    record = _read(path)
    if record.get("token") == token and not record.get("ended"):
        with contextlib.suppress(UserError, OSError):  # a full disk: others wait for the heartbeat
            write_json_atomic(path, record | {"ended": time.time()})


def machine() -> str:
    """Names the running kernel: containers on one node share it, and with it the locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, UserError):
        return {}
    return value if isinstance(value, dict) else {}
