# SPDX-License-Identifier: Apache-2.0
"""A results root in a bucket, worked on through a local copy of the part that a step needs.

Everything else knows results roots that are folders. Each step of a pipeline opens its root here:
a folder is handed on as it is; of gs://… a scratch folder gets what the step reads, and what the
step writes goes back while it runs (the cell's checkpoint, curves and progress) and at its end.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ieg_core import cell_copy, results, storage
from ieg_core.errors import UserError
from ieg_core.storage import StaleWriterError, Stored

TRIES = 5
HEAVY = (
    *("checkpoint/", "claims/", "tensorboard/", "model.keras", "log.txt", "lock"),
    *("audit/audit.", "examples.safetensors", "evaluations/"),
)
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
        _download(
            root,
            lambda: _only(storage.list_files(root, "sweeps/"), "/plan.json"),
            local,
        )
        yield local
        there = storage.list_files(root, "overlays/").keys()
        names = cell_copy.files_under(local)
        kept = [n for n in names if n.startswith(("overlays/", "cells/")) and n not in there]
        storage.side_by_side(lambda name: _create(root, local, name), kept)
        replaced = [name for name in names if name.startswith(("sweeps/", "runs/"))]
        storage.upload(root, local, replaced, dict.fromkeys(replaced))


@contextlib.contextmanager
def cell(root: str, name: str) -> Iterator[Path]:
    """Opens a results root to work on one cell, alone.

    Waits for another pod that works on the cell. What the step writes is uploaded each minute and
    at the end, also if it fails; what a superseded pod writes is not. A cell that has its result is
    not claimed: what a step adds to it goes up at the step's end.

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
        claim = cell_copy.take_claim(url)
        if claim is None:  # it has its result: nothing to be alone for
            _download(url, lambda: _finished(storage.list_files(url)), folder)
            _download_overlay(root, local, folder)
            before = cell_copy.fresh_copy(url, folder, 0).sent
            yield local
            files = {file: cell_copy.stamp(folder / file) for file in cell_copy.files_under(folder)}
            written = [file for file in files if files[file] != before.get(file)]
            storage.upload(url, folder, written, dict.fromkeys(written))
            return
        attempt, record, generation = claim
        try:
            _download(url, lambda: _needed(storage.list_files(url), attempt), folder)
            _download_overlay(root, local, folder)
            with cell_copy.kept_up(cell_copy.fresh_copy(url, folder, attempt)):
                yield local
        finally:
            # So that the next pod need not wait until this one's heartbeat is old.
            said = json.dumps(record | {"ended": time.time()}).encode()
            with contextlib.suppress(StaleWriterError, UserError):
                storage.write(storage.join(url, cell_copy.claim_name(attempt)), said, generation)


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
        written = [
            n for n in cell_copy.files_under(local) if n.startswith(f"sweeps/{name}/") and n != plan
        ]
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
    return storage.read_json(storage.join(root, name))


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


def _download_overlay(root: str, local: Path, folder: Path) -> None:
    overlay = (results.read_json(folder / "config.json") or {}).get("overlay")
    if overlay:
        _download(root, lambda: storage.list_files(root, f"overlays/{overlay}/"), local)


def _only(listed: dict[str, Stored], suffix: str) -> dict[str, Stored]:
    return {name: stored for name, stored in listed.items() if name.endswith(suffix)}


def _light(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Picks what a report reads of a cell."""
    return {name: stored for name, stored in listed.items() if not name.startswith(HEAVY)}


def _finished(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Picks what is shown of a finished cell: its audit too, or what one is made of."""
    page = "audit/audit.html"
    audited = {page, "audit/summary.json"} <= listed.keys()
    wanted = page if audited else "examples.safetensors"
    return _light(listed) | {name: listed[name] for name in listed.keys() & {wanted}}


def _needed(listed: dict[str, Stored], attempt: int) -> dict[str, Stored]:
    """Picks what a cell's next attempt reads.

    Not its own claim, which the worker in the scratch folder makes there as if it were alone.
    """
    saved = sorted(name for name in listed if name.startswith("checkpoint/"))
    earlier = [number for number in cell_copy.claim_numbers(listed) if number < attempt]
    claims = [cell_copy.claim_name(number) for number in earlier]
    logs = [name for name in listed if name == "log.txt"]
    return _finished(listed) | {name: listed[name] for name in [*saved[-1:], *claims, *logs]}


def _create(root: str, local: Path, name: str) -> None:
    with contextlib.suppress(StaleWriterError):  # another plan was faster with the same
        storage.upload(root, local, [name], {name: 0})


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ieg-results-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
