# SPDX-License-Identifier: Apache-2.0
"""A trial in a bucket and the scratch folder in which a pod works on it.

The leases lie in the bucket too (see ieg_core.store.leases): a pod takes the next number by
creating leases/<number>.json, which only one can do, and writes checkpoints under its number. Every
upload names the generation that it replaces; a pod whose upload is refused, or that sees a higher
lease, copies that lease into its scratch folder, where its worker finds it and stops.
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
"""A checkpoint goes up when it is seen: until then a lost pod would cost what lies before it."""
WAIT_SECONDS = 5.0
TRIES = 5
RESULT, FAILURE = ResultRecord.NAME, FailureRecord.NAME
LIVE = ("checkpoint/", "tensorboard/", ProgressRecord.NAME, CurvesRecord.NAME, LOG, FAILURE)
"""What of a trial goes up while it runs; the rest goes at the end, result.json last."""
LOCAL = ("leases/", "lock")


@dataclass
class Copy:
    """A trial's scratch folder and what the bucket has of it.

    Attributes:
      url: The trial in the bucket.
      folder: The trial in the scratch folder.
      attempt: The number that this pod has leased.
      generations: Of the objects as this pod last saw or wrote them.
      sent: Which state of each file the bucket has.
      superseded: Whether another pod has taken over: nothing more may be written.
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
    """Takes the next number of a trial, once nobody else works on it.

    Returns:
      The number, what the lease says, and its generation; None if the trial has its result.
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
    """Uploads what changes, in a thread: a new checkpoint at once, the rest each minute.

    And everything at the end.
    """
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
    """Brings the bucket up to date: checkpoint first, result.json last.

    Raises:
      UserError: The bucket cannot be reached.
    """
    for _ in range(TRIES):
        if is_superseded(copy):
            return
        try:
            send_once(copy, everything)
        except StaleWriterError:
            # An earlier attempt's last upload: take note of it and write over it.
            copy.generations = read_generations(copy.url)
        else:
            return
    raise UserError(f"{copy.url} is being written by another process: run again")


def is_superseded(copy: Copy) -> bool:
    """Returns whether there is a later lease, and shows it to the worker in the scratch folder."""
    last = max(leases.attempts(gcs.list_files(copy.url, "leases/")), default=0)
    if last != copy.attempt and not copy.superseded:
        copy.superseded = True
        record = LeaseRecord.look(copy.url, last)[0]
        record = record or replace(leases.new_record(), host="another pod")
        record.write(copy.folder, max(last, leases.latest_attempt(copy.folder) + 1))
    return copy.superseded


def send_once(copy: Copy, everything: bool) -> None:
    """Uploads what has changed; all of it or what goes up while the trial runs.

    Raises:
      StaleWriterError: An object is another than this pod last saw.
    """
    own = checkpoint_name(copy.attempt)
    stamps = {name: stamp(copy.folder / name) for name in files_under(copy.folder)}
    changed = [
        name
        for name, stamp in stamps.items()
        if stamp != copy.sent.get(name) and not name.startswith(LOCAL)
        if name == own or not name.startswith("checkpoint/")
    ]
    live = [name for name in changed if name.startswith(LIVE)]
    last = [name for name in changed if name == RESULT]
    rest = [name for name in changed if name not in (*live, *last)]
    for names in (live, rest, last) if everything else (live,):
        known = {name: copy.generations.get(name, 0) for name in names}
        with contextlib.suppress(FileNotFoundError):  # being replaced: the next time
            copy.generations |= gcs.upload(copy.url, copy.folder, names, known)
            copy.sent |= {name: stamps[name] for name in names}
    gone = {}
    if own in copy.generations:  # the earlier attempts' checkpoints have served
        gone = {n: g for n, g in copy.generations.items() if n.startswith("checkpoint/")}
        gone.pop(own)
    if FAILURE in copy.generations and FAILURE not in stamps:
        gone[FAILURE] = copy.generations[FAILURE]
    gcs.delete(copy.url, gone)
    for name in gone:
        del copy.generations[name]


def files_under(folder: Path) -> list[str]:
    """Lists the files under a folder that are whole, by their names relative to it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = (path.relative_to(folder) for path in paths if not path.name.startswith("."))
    return sorted(name.as_posix() for name in names)


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns what changes when a file does; zeros where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
