# SPDX-License-Identifier: Apache-2.0
"""Synchronizes a trial in a bucket with the scratch folder in which a pod works on it.

Leases are in the bucket, too (see ieg_core.store.leases). A pod takes the next number by creating
leases/<number>.json, which only one pod can do, and writes its checkpoints under that number. Every
upload names the generation that it replaces. A pod whose upload is refused, or that sees a higher
lease, copies that lease into its scratch folder, where its worker finds it and stops.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host.clock import Clock
from ieg_core.store import gcs, leases, records
from ieg_core.store.gcs import StaleWriterError
from ieg_core.store.layout import CHECKPOINTS, LOG, TENSORBOARD, checkpoint_name

SYNC_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""Seconds between checks for a new checkpoint, which is uploaded at once to survive a lost pod."""
WAIT_SECONDS = 5.0
TRIES = 5
RESULT, FAILURE = records.ResultRecord.NAME, records.FailureRecord.NAME
LIVE = (
    *(f"{CHECKPOINTS}/", f"{TENSORBOARD}/", LOG),
    *(records.ProgressRecord.NAME, records.CurvesRecord.NAME, FAILURE),
)
"""Files uploaded while a trial runs; the rest follows at the end, result.json last."""
LOCAL = ("leases/", "lock")


@dataclass
class Copy:
    """The scratch folder of a trial and the state of its files in the bucket.

    Attributes:
      url: The trial's URL in the bucket.
      folder: The trial's folder in the scratch folder.
      attempt: The attempt number that this pod has leased.
      generations: Generation of each object when this pod last saw or wrote it.
      sent: The `stamp` of each file when it was last in sync with the bucket.
      superseded: Whether another pod has taken over, so that nothing more may be written.
    """

    url: str
    folder: Path
    attempt: int
    generations: dict[str, int]
    sent: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    superseded: bool = False


def fresh_copy(url: str, folder: Path, attempt: int) -> Copy:
    """Returns the state of a scratch folder that has just been downloaded."""
    copy = Copy(url, folder, attempt, read_generations(url))
    copy.sent |= {name: stamp(folder / name) for name in files_under(folder)}
    return copy


def take_lease(url: str, clock: Clock) -> tuple[int, records.LeaseRecord, int] | None:
    """Takes the next lease of a trial; waits until no other pod works on it.

    Returns:
      The attempt number, the lease, and its generation; None if the trial has its result.
    """
    while True:
        listed = gcs.list_files(url)
        if RESULT in listed:
            return None
        last = max(leases.attempts(listed), default=0)
        leased = records.LeaseRecord.read(url, last) if last else None
        if leases.is_alive(last, leased, records.ProgressRecord.read(url), clock.now()):
            clock.sleep(WAIT_SECONDS)
            continue
        record = leases.new_record()
        path = gcs.join(url, records.LeaseRecord.name(last + 1))
        with contextlib.suppress(StaleWriterError):
            return last + 1, record, gcs.write(path, record.encode(), 0)


def read_generations(url: str) -> dict[str, int]:
    """Returns the generations of a trial's objects."""
    return {name: stored.generation for name, stored in gcs.list_files(url).items()}


@contextlib.contextmanager
def kept_up(copy: Copy, clock: Clock) -> Iterator[None]:
    """Uploads changed files in a thread: a new checkpoint at once, the rest every minute.

    Everything else is uploaded at the end.
    """
    over = threading.Event()

    def work() -> None:
        path, tried = copy.folder / checkpoint_name(copy.attempt), clock.monotonic()
        seen = stamp(path)
        while not clock.wait(over, LOOK_SECONDS) and not copy.superseded:
            now = stamp(path)
            if now == seen and clock.monotonic() - tried < SYNC_SECONDS:
                continue
            seen, tried = now, clock.monotonic()
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
    """Uploads changed files, the checkpoint first and result.json last.

    Args:
      copy: The scratch folder.
      everything: Whether to upload all files, or only those in `LIVE`.

    Raises:
      UserError: When the bucket cannot be reached, or another process keeps writing to the trial.
    """
    for _ in range(TRIES):
        if is_superseded(copy):
            return
        try:
            send_once(copy, everything)
        except StaleWriterError:
            # The last upload of an earlier attempt: overwrite it.
            copy.generations = read_generations(copy.url)
        else:
            return
    raise UserError(f"{copy.url} is being written by another process: run again")


def is_superseded(copy: Copy) -> bool:
    """Returns whether there is a later lease, and copies it to the worker's scratch folder."""
    last = max(leases.attempts(gcs.list_files(copy.url, "leases/")), default=0)
    if last != copy.attempt and not copy.superseded:
        copy.superseded = True
        record = records.LeaseRecord.look(copy.url, last)[0]
        record = record or replace(leases.new_record(), host="another pod")
        record.write(copy.folder, max(last, leases.latest_attempt(copy.folder) + 1))
    return copy.superseded


def send_once(copy: Copy, everything: bool) -> None:
    """Uploads changed files, without retrying; see `send`.

    Raises:
      StaleWriterError: When an object has another generation than the one this pod last saw.
    """
    checkpoint = checkpoint_name(copy.attempt)
    stamps = {name: stamp(copy.folder / name) for name in files_under(copy.folder)}
    changed = [
        name
        for name, stamp in stamps.items()
        if stamp != copy.sent.get(name) and not name.startswith(LOCAL)
        if name == checkpoint or not name.startswith(f"{CHECKPOINTS}/")
    ]
    live = [name for name in changed if name.startswith(LIVE)]
    last = [name for name in changed if name == RESULT]
    rest = [name for name in changed if name not in (*live, *last)]
    for names in (live, rest, last) if everything else (live,):
        known = {name: copy.generations.get(name, 0) for name in names}
        with contextlib.suppress(FileNotFoundError):  # being replaced: uploaded next time
            copy.generations |= gcs.upload(copy.url, copy.folder, names, known)
            copy.sent |= {name: stamps[name] for name in names}
    gone = {}
    if checkpoint in copy.generations:  # the checkpoints of earlier attempts are obsolete
        saved = f"{CHECKPOINTS}/"
        gone = {n: g for n, g in copy.generations.items() if n.startswith(saved)}
        gone.pop(checkpoint)
    if FAILURE in copy.generations and FAILURE not in stamps:
        gone[FAILURE] = copy.generations[FAILURE]
    gcs.delete(copy.url, gone)
    for name in gone:
        del copy.generations[name]


def files_under(folder: Path) -> list[str]:
    """Lists the complete files under a folder, relative to it; skips temporary ones."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = (path.relative_to(folder) for path in paths if not path.name.startswith("."))
    return sorted(name.as_posix() for name in names)


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns inode, size and modification time (ns) of a file; zeros if it does not exist."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
