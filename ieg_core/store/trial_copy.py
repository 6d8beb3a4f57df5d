# SPDX-License-Identifier: Apache-2.0
"""A trial in a bucket, and the scratch folder in which a pod works on it.

The leases are in the bucket too (see ieg_core.store.leases). A pod takes the next number by
creating leases/<number>.json, which only one pod can do, and writes checkpoints under its number.
Every upload names the generation that it replaces. If an upload is refused or there is a higher
lease, the pod copies that lease to its scratch folder, where its worker sees it and stops.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store import gcs, leases
from ieg_core.store.gcs import StaleWriterError
from ieg_core.store.layout import LOG, checkpoint_name
from ieg_core.store.records import (
    CurvesRecord,
    FailureRecord,
    LeaseRecord,
    ProgressRecord,
    ResultRecord,
)

SYNC_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""Seconds between looks for a new checkpoint, which is uploaded at once in case the pod is lost."""
WAIT_SECONDS = 5.0
TRIES = 5
RESULT, FAILURE = ResultRecord.NAME, FailureRecord.NAME
LIVE = ("checkpoint/", "tensorboard/", ProgressRecord.NAME, CurvesRecord.NAME, LOG, FAILURE)
"""The files that are uploaded while a trial runs; the others follow, result.json last."""
LOCAL = ("leases/", "lock")


@dataclass
class Copy:
    """A trial's scratch folder, and which of its files the bucket has.

    Attributes:
      url: The trial in the bucket.
      folder: The trial in the scratch folder.
      attempt: The number that this pod has leased.
      generations: The generations of the objects when this pod last read or wrote them.
      sent: The `stamp` of each file when it was last uploaded or downloaded.
      superseded: Whether another pod has taken over; if so, nothing may be written.
    """

    url: str
    folder: Path
    attempt: int
    generations: dict[str, int]
    sent: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    superseded: bool = False


def fresh_copy(url: str, folder: Path, attempt: int) -> Copy:
    """Describes a scratch folder that has just been filled from the bucket."""
    copy = Copy(url, folder, attempt, read_generations(url))
    copy.sent |= {name: stamp(folder / name) for name in files_under(folder)}
    return copy


def take_lease(url: str) -> tuple[int, LeaseRecord, int] | None:
    """Takes the next lease of a trial, once no other pod works on it.

    Returns:
      The number, the lease, and its generation; None if the trial has a result.
    """
    while True:
        listed = gcs.list_files(url)
        if RESULT in listed:
            return None
        last = max(leases.attempts(listed), default=0)
        leased = LeaseRecord.read(url, last) if last else None
        if leases.is_alive(last, leased, ProgressRecord.read(url), time.time()):
            time.sleep(WAIT_SECONDS)
            continue
        record = leases.new_record()
        path = gcs.join(url, LeaseRecord.name(last + 1))
        with contextlib.suppress(StaleWriterError):
            return last + 1, record, gcs.write(path, record.encode(), 0)


def read_generations(url: str) -> dict[str, int]:
    """Returns the generations of a trial's objects."""
    return {name: stored.generation for name, stored in gcs.list_files(url).items()}


@contextlib.contextmanager
def kept_up(copy: Copy) -> Iterator[None]:
    """Uploads new checkpoints at once, other changes every minute, and all changes at the end."""
    over = threading.Event()

    def work() -> None:
        path, tried = copy.folder / checkpoint_name(copy.attempt), time.monotonic()
        seen = stamp(path)
        while not over.wait(min(LOOK_SECONDS, SYNC_SECONDS)) and not copy.superseded:
            now = stamp(path)
            if now == seen and time.monotonic() - tried < SYNC_SECONDS:
                continue
            seen, tried = now, time.monotonic()
            try:
                send(copy, everything=False)
            except (UserError, OSError) as error:
                print(f"ieg: will try again: {error}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=work, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        thread.join()
        with contextlib.suppress(UserError, OSError):
            send(copy, everything=True)
        raise
    over.set()
    thread.join()
    send(copy, everything=True)


def send(copy: Copy, *, everything: bool) -> None:
    """Uploads what has changed: the checkpoint first, result.json last.

    Raises:
      UserError: When the bucket cannot be reached.
    """
    for _ in range(TRIES):
        if is_superseded(copy):
            return
        try:
            send_once(copy, everything)
        except StaleWriterError:
            # An earlier attempt's last upload: replace it.
            copy.generations = read_generations(copy.url)
        else:
            return
    raise UserError(f"{copy.url} is being written by another process: run again")


def is_superseded(copy: Copy) -> bool:
    """Returns whether there is a later lease; copies it to the scratch folder for the worker."""
    last = max(leases.attempts(gcs.list_files(copy.url, "leases/")), default=0)
    if last != copy.attempt and not copy.superseded:
        copy.superseded = True
        record = LeaseRecord.look(copy.url, last)[0]
        record = record or replace(leases.new_record(), host="another pod")
        record.write(copy.folder, max(last, leases.latest_attempt(copy.folder) + 1))
    return copy.superseded


def send_once(copy: Copy, everything: bool) -> None:
    """Uploads what has changed: everything, or only the files in `LIVE`.

    Raises:
      StaleWriterError: When an object has another generation than this pod last saw.
    """
    checkpoint = checkpoint_name(copy.attempt)
    stamps = {name: stamp(copy.folder / name) for name in files_under(copy.folder)}
    changed = [
        name
        for name, stamp in stamps.items()
        if stamp != copy.sent.get(name) and not name.startswith(LOCAL)
        if name == checkpoint or not name.startswith("checkpoint/")
    ]
    live = [name for name in changed if name.startswith(LIVE)]
    last = [name for name in changed if name == RESULT]
    rest = [name for name in changed if name not in (*live, *last)]
    for names in (live, rest, last) if everything else (live,):
        known = {name: copy.generations.get(name, 0) for name in names}
        with contextlib.suppress(FileNotFoundError):  # being replaced: uploaded the next time
            copy.generations |= gcs.upload(copy.url, copy.folder, names, known)
            copy.sent |= {name: stamps[name] for name in names}
    gone = {}
    if checkpoint in copy.generations:  # replaces the earlier attempts' checkpoints
        gone = {n: g for n, g in copy.generations.items() if n.startswith("checkpoint/")}
        gone.pop(checkpoint)
    if FAILURE in copy.generations and FAILURE not in stamps:
        gone[FAILURE] = copy.generations[FAILURE]
    gcs.delete(copy.url, gone)
    for name in gone:
        del copy.generations[name]


def files_under(folder: Path) -> list[str]:
    """Lists the complete files under a folder, by their names relative to it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = (path.relative_to(folder) for path in paths if not path.name.startswith("."))
    return sorted(name.as_posix() for name in names)


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns inode, size and mtime (ns), which change with a file; zeros if it does not exist."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
