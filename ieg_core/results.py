# SPDX-License-Identifier: Apache-2.0
"""The results root: one folder a cell, named by all that decides its outcome.

<root>/overlays/<overlay>/       prepared data (ieg_core.data)
<root>/cells/<cell>/             config.json, claims/, checkpoint/, progress.json, curves.json,
                                 matrices.safetensors, model.keras, result.json (last)
<root>/sweeps/<sweep>/           plan.json, report/
<root>/latest                    a link to the newest sweep
<root>/scheduled/<name>/<run>/   a scheduled run's namespace: a results root of its own
<root>/accepted/<name>.json      the rows that a schedule's next runs are held against
"""

import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError

OUTCOME_FREE = (
    "acceptance.py",
    "attempts.py",
    "audit",
    "report",
    "cell_copy.py",
    "cli.py",
    "audit_bench.py",
    "bench.py",
    "doctor.py",
    "estimate.py",
    "evaluate_task.py",
    "heartbeat.py",
    "mirror.py",
    "model_file.py",
    "notebook.py",
    "ownership.py",
    "parent.py",
    "predict.py",
    "published.py",
    "progress.py",
    "recipe_list.py",
    "recipes.py",
    "reproduction.py",
    "results.py",
    "runs.py",
    "slots.py",
    "status.py",
    "storage.py",
    "sweep.py",
    "worker.py",
)
"""Parts of the package that cannot change what a cell computes; editing them re-runs nothing."""


SCHEDULED, ACCEPTED = "scheduled", "accepted"


def cell_folder(root: Path, cell: str) -> Path:
    """Returns a cell's folder."""
    return root / "cells" / cell


def find_run(place: Path) -> Path:
    """Returns the folder that people mean by a run's path, absolute.

    A name may lack the digest at its end, as in runs/cells/digits_uniform_0.4-ieg-seed0. Of several
    runs of that name, with other settings or by other code, the one that was planned last is meant.
    """
    folder = place.resolve()
    if folder.exists():
        return folder
    planned = [
        config
        for config in folder.parent.glob(f"{glob.escape(folder.name)}-*/config.json")
        if re.fullmatch("-[0-9a-f]{12}", config.parent.name.removeprefix(folder.name))
    ]
    newest = max(planned, key=lambda config: (config.stat().st_mtime_ns, config), default=None)
    return newest.parent if newest else folder


def overlays_folder(root: Path) -> Path:
    """Returns the folder of the prepared data sets."""
    return root / "overlays"


def sweep_folder(root: Path, sweep: str) -> Path:
    """Returns a sweep's folder."""
    return root / "sweeps" / sweep


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write under `path` into one clear line.

    Raises:
      UserError: No permission, a read-only or full disk, or a file where a folder is needed.
    """
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EISDIR: "a folder of that name is in the way",
        errno.EEXIST: "a file of that name is in the way",
        errno.ENOENT: "no folder can be made there",
    }
    try:
        yield
    except OSError as error:
        if error.errno in reasons:
            raise UserError(
                f"cannot write results under {path}: {reasons[error.errno]}; "
                "make room or choose another folder (OUT=…)"
            ) from error
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, also after a power cut."""
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinity are refused, they are no JSON."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_bytes_atomic(path, text.encode())


def read_json(path: Path) -> Any:
    """Reads JSON; returns None where there is no such file.

    Raises:
      UserError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error


def planned_cells(folder: Path) -> list[str] | None:
    """Returns the names of the cells that a sweep's plan lists; None for a folder without a plan.

    Raises:
      UserError: The plan is damaged.
    """
    plan = read_json(folder / "plan.json")
    if plan is None:
        return None
    names = plan.get("cells") if isinstance(plan, dict) else None
    if not isinstance(names, list):
        raise UserError(
            f"{folder / 'plan.json'} is damaged (it has no list of cells): run the sweep again"
        )
    return [str(name) for name in names]


def set_latest(root: Path, sweep: str) -> None:
    """Points <root>/latest at a sweep, atomically."""
    temporary = root / f".latest.{os.getpid()}"
    with writable(root):
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(Path("sweeps") / sweep)
        temporary.replace(root / "latest")


class CellBusyError(RuntimeError):
    """Another process works on the cell."""


@contextlib.contextmanager
def cell_lock(folder: Path) -> Iterator[None]:
    """Holds a cell's folder for this process; the kernel drops the lock when its owner dies.

    Raises:
      CellBusyError: Another living process holds it.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CellBusyError(f"{folder.name} is being trained by another process") from error
        yield
    finally:
        os.close(handle)


@functools.cache
def code_version() -> str:
    """Returns a digest of the source files that decide a cell's outcome, and of the libraries."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in OUTCOME_FREE:
            digest.update(f"{name}\0".encode())
            digest.update(path.read_bytes())
    digest.update(json.dumps(library_versions()).encode())
    return digest.hexdigest()[:12]


@functools.cache
def library_versions() -> Mapping[str, str]:
    """Returns the versions of the libraries that take part in the computation."""
    versions = {}
    names = ("numpy", "keras", "tensorflow", "jax", "safetensors", "scikit-learn", "pillow")
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def cell_name(dataset: str, method: str, seed: int, outcome: Mapping[str, Any]) -> str:
    """Names a cell: readable front, then a digest of all that decides its outcome."""
    text = json.dumps(outcome, sort_keys=True, allow_nan=False)
    return f"{dataset}-{method}-seed{seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def short_digest(names: Iterable[str]) -> str:
    """Returns eight hexadecimal digits that stand for a list of names."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
