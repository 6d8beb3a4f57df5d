# SPDX-License-Identifier: Apache-2.0
"""A results root in a bucket, worked on through a local copy of the part that a step needs.

Everything else knows results roots that are folders. Each step of a pipeline opens its root here:
a folder is handed on as it is; of gs://… a scratch folder gets what the step reads, and what the
step writes goes back while it runs (the cell's checkpoint, curves and progress) and at its end.

Of a cell in a bucket the claims lie there too (see ieg_core.ownership): a pod takes the next
number by creating claims/<number>.json, which only one can do, and writes checkpoints under its
number. Every upload names the generation that it replaces; a pod whose upload is refused, or that
sees a higher claim, copies that claim into its scratch folder, where its worker finds it and stops.
"""

import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieg_core import ownership, results, storage
from ieg_core.errors import UserError
from ieg_core.storage import StaleWriterError, Stored

SYNC_SECONDS = 60.0
WAIT_SECONDS = 5.0
TRIES = 5
LIVE = ("checkpoint/", "progress.json", "curves.json", "log.txt", "failure.json")
"""What of a cell goes up while it runs, the checkpoint first; the rest at the end."""
LOCAL = ("claims/", "lock")
HEAVY = ("checkpoint/", "claims/", "tensorboard/", "model.keras", "log.txt", "lock")
"""What of a cell no report reads."""
LATEST = "latest.json"


@contextlib.contextmanager
def planning(root: str) -> Iterator[Path]:
    """Opens a results root to plan a sweep in.

    Overlays and cells' settings that are there already stay as they are: their names say their
    content. Nothing is uploaded if the body fails.

    Yields:
      The folder to plan in.

    Raises:
      UserError: The bucket cannot be reached, or no permission.
    """
    if not storage.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        _download(root, lambda: _only(storage.list_files(root, "sweeps/"), "/plan.json"), local)
        yield local
        there = storage.list_files(root, "overlays/").keys()
        names = _files(local)
        kept = [n for n in names if n.startswith(("overlays/", "cells/")) and n not in there]
        storage.side_by_side(lambda name: _create(root, local, name), kept)
        replaced = [name for name in names if name.startswith(("sweeps/", "runs/"))]
        storage.upload(root, local, replaced, dict.fromkeys(replaced))


@contextlib.contextmanager
def cell(root: str, name: str) -> Iterator[Path]:
    """Opens a results root to work on one cell, alone.

    Waits for another pod that works on the cell. What the step writes is uploaded each minute and
    at the end, also if it fails; what a superseded pod writes is not.

    Args:
      root: The results root.
      name: The cell's name.

    Yields:
      A folder with that cell and its overlay, as a results root.

    Raises:
      UserError: The bucket cannot be reached, or no permission.
    """
    if not storage.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        url = storage.join(root, f"cells/{name}")
        folder = results.cell_folder(local, name)
        claim = _claim(url)
        if claim is None:  # it has its result
            _download(url, lambda: _light(storage.list_files(url)), folder)
            yield local
            return
        attempt, record, generation = claim
        _download(url, lambda: _needed(storage.list_files(url), attempt), folder)
        overlay = (results.read_json(folder / "config.json") or {}).get("overlay")
        if overlay:
            prefix = f"overlays/{overlay}/"
            _download(root, lambda: storage.list_files(root, prefix), local)
        copy = _Copy(url, folder, attempt, _generations(url))
        copy.sent |= {name: _stamp(folder / name) for name in _files(folder)}
        try:
            with _kept_up(copy):
                yield local
        finally:
            # So that the next pod need not wait until this one's heartbeat is old.
            said = json.dumps(record | {"ended": time.time()}).encode()
            with contextlib.suppress(StaleWriterError, UserError):
                storage.write(storage.join(url, _claim_name(attempt)), said, generation)


@contextlib.contextmanager
def sweep(root: str, name: str) -> Iterator[Path]:
    """Opens a results root to report on a sweep.

    Yields:
      A folder with the sweep's plan and the small files of its cells, as a results root. The report
      written there goes up if the body succeeds; then, if the body called `results.set_latest`,
      the pointer to the newest sweep is moved.

    Raises:
      UserError: The bucket cannot be reached, or no permission.
    """
    if not storage.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        plan = f"sweeps/{name}/plan.json"
        _download(root, lambda: storage.list_files(root, plan), local)
        cells = (results.read_json(local / plan) or {}).get("cells", [])

        def small() -> dict[str, Stored]:
            listed = _only(storage.list_files(root, "overlays/"), "/manifest.json")
            for found in storage.side_by_side(
                lambda cell: {
                    f"cells/{cell}/{file}": stored
                    for file, stored in _light(
                        storage.list_files(storage.join(root, f"cells/{cell}"))
                    ).items()
                },
                cells,
            ):
                listed |= found
            return listed

        _download(root, small, local)
        yield local
        written = [n for n in _files(local) if n.startswith(f"sweeps/{name}/") and n != plan]
        storage.upload(root, local, written, dict.fromkeys(written))
        if (local / "latest").is_symlink():
            newest = (local / "latest").readlink().name
            storage.point(storage.join(root, LATEST), json.dumps({"sweep": newest}) + "\n")


def read_json(root: str, name: str) -> Any:
    """Reads a small JSON file of a results root; None where there is none.

    Args:
      root: A folder or gs://….
      name: Relative to it, such as "cells/<cell>/progress.json".

    Raises:
      UserError: It is no JSON, or the bucket cannot be read.
    """
    if not storage.is_url(root):
        return results.read_json(Path(root) / name)
    url = storage.join(root, name)
    found = storage.read(url)
    try:
        return json.loads(found[0]) if found else None
    except ValueError as error:
        raise UserError(f"{url} is damaged ({error}): delete it and run again") from error


def latest(root: str) -> str:
    """Returns the name of the sweep that was reported on last; "" before the first."""
    if storage.is_url(root):
        return str((read_json(root, LATEST) or {}).get("sweep", ""))
    link = Path(root) / "latest"
    return link.readlink().name if link.is_symlink() else ""


def fetch(root: str, name: str, folder: Path) -> list[Path]:
    """Copies what lies under a name in a results root, such as "sweeps/<sweep>/report".

    Args:
      root: A folder or gs://….
      name: Relative to it.
      folder: Where to, for a root in a bucket.

    Returns:
      The files, where they lie now; for a root that is a folder, those in it.
    """
    if not storage.is_url(root):
        return [path for path in sorted((Path(root) / name).rglob("*")) if path.is_file()]
    url = storage.join(root, name)
    listed = storage.list_files(url)
    storage.download(url, listed, folder)
    return [folder / name for name in sorted(listed)]


@dataclass
class _Copy:
    """A cell's scratch folder and what the bucket has of it.

    Attributes:
      url: The cell in the bucket.
      folder: The cell in the scratch folder.
      attempt: The number that this pod has claimed.
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


def _claim(url: str) -> tuple[int, dict[str, Any], int] | None:
    """Takes the next number of a cell, once nobody else works on it.

    Returns:
      The number, what the claim says, and its generation; None if the cell has its result.
    """
    while True:
        listed = storage.list_files(url)
        if "result.json" in listed:
            return None
        last = max(_claims(listed), default=0)
        claimed = read_json(url, _claim_name(last)) if last else None
        progress = read_json(url, "progress.json") or {}
        if claimed and ownership.lives(last, claimed, progress, time.time()):
            time.sleep(WAIT_SECONDS)
            continue
        record = ownership.new_record()
        path = storage.join(url, _claim_name(last + 1))
        with contextlib.suppress(StaleWriterError):
            return last + 1, record, storage.write(path, json.dumps(record).encode(), 0)


def _claims(names: Any) -> list[int]:
    return ownership.numbers(
        [name.removeprefix("claims/") for name in names if name.startswith("claims/")], ".json"
    )


def _download(url: str, list_wanted: Callable[[], dict[str, Stored]], folder: Path) -> None:
    """Downloads what a listing names; lists again where something was replaced meanwhile."""
    for left in reversed(range(TRIES)):
        try:
            storage.download(url, list_wanted(), folder)
        except FileNotFoundError:
            if not left:
                raise
        else:
            return


def _only(listed: dict[str, Stored], suffix: str) -> dict[str, Stored]:
    return {name: stored for name, stored in listed.items() if name.endswith(suffix)}


def _light(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Picks what a report reads of a cell."""
    return {name: stored for name, stored in listed.items() if not name.startswith(HEAVY)}


def _needed(listed: dict[str, Stored], attempt: int) -> dict[str, Stored]:
    """Picks what a cell's next attempt reads.

    Not its own claim, which the worker in the scratch folder makes there as if it were alone.
    """
    saved = sorted(name for name in listed if name.startswith("checkpoint/"))
    claims = [_claim_name(number) for number in _claims(listed) if number < attempt]
    logs = [name for name in listed if name == "log.txt"]
    return _light(listed) | {name: listed[name] for name in [*saved[-1:], *claims, *logs]}


def _generations(url: str) -> dict[str, int]:
    return {name: stored.generation for name, stored in storage.list_files(url).items()}


def _claim_name(attempt: int) -> str:
    return f"claims/{attempt:06d}.json"


@contextlib.contextmanager
def _kept_up(copy: _Copy) -> Iterator[None]:
    """Uploads what changes each minute in a thread, and everything at the end."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(SYNC_SECONDS) and not copy.superseded:
            try:
                _send(copy, everything=False)
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
            _send(copy, everything=True)
        raise
    over.set()
    thread.join()
    _send(copy, everything=True)


def _send(copy: _Copy, *, everything: bool) -> None:
    """Brings the bucket up to date: checkpoint first, result.json last.

    Raises:
      UserError: The bucket cannot be reached.
    """
    for _ in range(TRIES):
        if _is_superseded(copy):
            return
        try:
            _send_once(copy, everything)
        except StaleWriterError:
            # An earlier attempt's last upload: take note of it and write over it.
            copy.generations = _generations(copy.url)
        else:
            return
    raise UserError(f"{copy.url} is being written by another process: run again")


def _is_superseded(copy: _Copy) -> bool:
    """Returns whether there is a later claim, and shows it to the worker in the scratch folder."""
    last = max(_claims(storage.list_files(copy.url, "claims/")), default=0)
    if last != copy.attempt and not copy.superseded:
        copy.superseded = True
        record = read_json(copy.url, _claim_name(last)) or {"host": "another pod"}
        shown = max(last, ownership.latest_attempt(copy.folder) + 1)
        results.write_json_atomic(ownership.claim_path(copy.folder, shown), record)
    return copy.superseded


def _send_once(copy: _Copy, everything: bool) -> None:
    own = f"checkpoint/{copy.attempt:06d}.safetensors"
    stamps = {name: _stamp(copy.folder / name) for name in _files(copy.folder)}
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
            copy.generations |= storage.upload(copy.url, copy.folder, names, known)
            copy.sent |= {name: stamps[name] for name in names}
    gone = {}
    if own in copy.generations:  # the earlier attempts' checkpoints have served
        gone = {n: g for n, g in copy.generations.items() if n.startswith("checkpoint/")}
        gone.pop(own)
    if "failure.json" in copy.generations and "failure.json" not in stamps:
        gone["failure.json"] = copy.generations["failure.json"]
    storage.delete(copy.url, gone)
    for name in gone:
        del copy.generations[name]


def _create(root: str, local: Path, name: str) -> None:
    with contextlib.suppress(StaleWriterError):  # another plan was faster with the same
        storage.upload(root, local, [name], {name: 0})


def _files(folder: Path) -> list[str]:
    """Lists the files under a folder that are whole, by their names relative to it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = (path.relative_to(folder) for path in paths if not path.name.startswith("."))
    return sorted(name.as_posix() for name in names)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ieg-results-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
