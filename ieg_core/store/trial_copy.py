# SPDX-License-Identifier: Apache-2.0
"""A trial in a bucket and the scratch folder in which a pod works on it.

The leases lie in the bucket too (see ieg_core.store.leases): a pod takes the next number by
creating leases/<number>.json, which only one can do, and writes checkpoints under its number. Every
upload names the generation that it replaces; a pod whose upload is refused, or that sees a higher
lease, copies that lease into its scratch folder, where its worker finds it and stops.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host import files
from ieg_core.store import gcs, leases
from ieg_core.store.gcs import StaleWriterError

SYNC_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""A checkpoint goes up when it is seen: until then a lost pod would cost what lies before it."""
WAIT_SECONDS = 5.0
TRIES = 5
LIVE = ("checkpoint/", "tensorboard/", "progress.json", "curves.json", "log.txt", "failure.json")
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


def take_lease(url: str) -> tuple[int, dict[str, Any], int] | None:
    """Takes the next number of a trial, once nobody else works on it.

    Returns:
      The number, what the lease says, and its generation; None if the trial has its result.
    """
    while True:
        listed = gcs.list_files(url)
        if "result.json" in listed:
            return None
        last = max(lease_numbers(listed), default=0)
        leased = gcs.read_json(gcs.join(url, lease_name(last))) if last else None
        progress = gcs.read_json(gcs.join(url, "progress.json")) or {}
        if leased and leases.is_alive(last, leased, progress, time.time()):
            time.sleep(WAIT_SECONDS)
            continue
        record = leases.new_record()
        path = gcs.join(url, lease_name(last + 1))
        with contextlib.suppress(StaleWriterError):
            return last + 1, record, gcs.write(path, json.dumps(record).encode(), 0)


def lease_numbers(names: Iterable[str]) -> list[int]:
    """Returns the numbers of the leases among a trial's objects."""
    return leases.numbers(
        [name.removeprefix("leases/") for name in names if name.startswith("leases/")], ".json"
    )


def read_generations(url: str) -> dict[str, int]:
    """Returns the generations of a trial's objects."""
    return {name: stored.generation for name, stored in gcs.list_files(url).items()}


def lease_name(attempt: int) -> str:
    """Returns the name of an attempt's lease, relative to its trial."""
    return f"leases/{attempt:06d}.json"


def own_checkpoint(copy: Copy) -> str:
    """Returns the name of this attempt's checkpoint, relative to its trial."""
    return f"checkpoint/{copy.attempt:06d}.safetensors"


@contextlib.contextmanager
def kept_up(copy: Copy) -> Iterator[None]:
    """Uploads what changes, in a thread: a new checkpoint at once, the rest each minute.

    And everything at the end.
    """
    over = threading.Event()

    def work() -> None:
        path, tried = copy.folder / own_checkpoint(copy), time.monotonic()
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
    last = max(lease_numbers(gcs.list_files(copy.url, "leases/")), default=0)
    if last != copy.attempt and not copy.superseded:
        copy.superseded = True
        record = gcs.read_json(gcs.join(copy.url, lease_name(last))) or {"host": "another pod"}
        shown = max(last, leases.latest_attempt(copy.folder) + 1)
        files.write_json_atomic(leases.lease_path(copy.folder, shown), record)
    return copy.superseded


def send_once(copy: Copy, everything: bool) -> None:
    """Uploads what has changed; all of it or what goes up while the trial runs.

    Raises:
      StaleWriterError: An object is another than this pod last saw.
    """
    own = own_checkpoint(copy)
    stamps = {name: stamp(copy.folder / name) for name in files_under(copy.folder)}
    changed = [
        name
        for name, stamp in stamps.items()
        if stamp != copy.sent.get(name) and not name.startswith(LOCAL)
        if name == own or not name.startswith("checkpoint/")
    ]
    live = [name for name in changed if name.startswith(LIVE)]
    last = [name for name in changed if name == "result.json"]
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
    if "failure.json" in copy.generations and "failure.json" not in stamps:
        gone["failure.json"] = copy.generations["failure.json"]
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
