# SPDX-License-Identifier: Apache-2.0
"""Converts a results root from an earlier version, in place.

Each file is replaced atomically, and each trial is moved after all of its files are converted, so
an interrupted conversion can be completed by running it again. Files without a digest
(`ieg_core.store.seal`) get that of their present content.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ieg_core.errors import UserError
from ieg_core.host.files import writable, write_bytes_atomic, write_json_atomic
from ieg_core.store import arrays, layout
from ieg_core.store.leases import TrialBusyError, trial_lock
from ieg_core.store.model_file import add_digest
from ieg_core.store.records import LeaseRecord, RatesRecord
from ieg_core.store.seal import DIGEST, parse_json, read_file, seal

KEYS = {
    "cell": "trial",
    "cells": "trials",
    "overlay": "label_set",
    "overlay_digest": "label_set_digest",
}


def migrate(root: Path) -> int:
    """Converts a results root and the namespaces of its scheduled runs.

    Args:
      root: The results root, a folder.

    Returns:
      The number of converted trials.

    Raises:
      UserError: When there is no such folder, a trial is being trained, or a file cannot be written
        or moved.
    """
    if not root.is_dir():
        raise UserError(f"received {root}: expected the folder of a results root, such as runs")
    roots = [root, *sorted(path for path in root.glob(f"{layout.SCHEDULED}/*/*") if path.is_dir())]
    with writable(root):
        return sum(map(_migrate_root, roots))


def _migrate_root(root: Path) -> int:
    sweep, report = layout.relative_sweep("*"), layout.relative_report("*")
    patterns = (f"{sweep}/*.json", f"{report}/*.json", "runs/*.json", f"{layout.ACCEPTED}/*.json")
    for pattern in (*patterns, RatesRecord.NAME):
        for path in root.glob(pattern):
            _convert(path)
    for folder in _children(root / "overlays"):
        _move(folder, layout.label_sets_folder(root) / folder.name)
    for path in layout.label_sets_folder(root).glob("*/*.json"):
        _convert(path)
    # Trials come last: while one is left, the root still counts as an earlier version's.
    count = sum(_migrate_trial(folder) for folder in _children(root / layout.TRIALS))
    for folder in _children(root / "cells"):
        _migrate_trial(folder, layout.trial_folder(root, folder.name))
        count += 1
    for name in ("overlays", "cells"):
        if left := sorted((root / name).glob("*")):
            raise UserError(
                f"received {left[0]}: expected only folders in {name}/; move it away and run this "
                "again"
            )
        if (root / name).is_dir():
            (root / name).rmdir()
    return count


def _migrate_trial(folder: Path, target: Path | None = None) -> bool:
    """Converts a trial's files and moves it to `target`; returns whether it changed a file."""
    claims, jsons = folder / "claims", ("claims", "leases", "evaluations", "audit", ".")
    try:
        with trial_lock(folder):
            changed = [_convert(path) for each in jsons for path in folder.glob(f"{each}/*.json")]
            changed += [
                _convert_arrays(path) for path in folder.glob(f"{layout.CHECKPOINTS}/[!.]*")
            ]
            changed += [
                _convert_arrays(folder / name)
                for name in (layout.EXAMPLES, layout.HEAD, layout.MATRICES)
            ]
            changed.append(add_digest(folder / layout.MODEL))
            if claims.is_dir():
                _move(claims, LeaseRecord.path(folder, 0).parent)
            if target:
                _move(folder, target)
    except TrialBusyError as error:
        raise UserError(f"{error}: wait until it ends, or stop it, and run this again") from error
    return any(changed)


def _children(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("*") if path.is_dir())


def _move(source: Path, target: Path) -> None:
    if target.exists():
        raise UserError(
            f"cannot move {source} to {target}, which exists: delete one of them and run this again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _convert(path: Path) -> bool:
    """Renames the keys of a JSON file and adds a digest; returns whether it did.

    Leaves a damaged file, which its readers report.
    """
    try:
        old = parse_json(read_file(path))
        if not isinstance(old, dict) or DIGEST in old:
            return False
        new = seal(_renamed(old))
    except (OSError, ValueError, RecursionError):
        return False
    write_json_atomic(path, new)
    return True


def _renamed(value: Any) -> Any:
    """Renames the keys of an object and its rows; deeper keys are user-defined names."""
    if not isinstance(value, dict):
        return value
    renamed = {KEYS.get(key, key): each for key, each in value.items()}
    directory = renamed.get("run_directory")
    if isinstance(directory, str) and directory.startswith("cells/"):
        renamed["run_directory"] = layout.relative_trial(directory.removeprefix("cells/"))
    rows = renamed.get("trials")
    if isinstance(rows, list):
        renamed["trials"] = [_renamed(row) for row in rows]
    return renamed


def _convert_arrays(path: Path) -> bool:
    """As `_convert`, for arrays and the JSON that a checkpoint has in its metadata."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = parse_json((file.metadata() or {}).get("ieg", "{}").encode())
            if not isinstance(facts, dict) or DIGEST in facts:
                return False
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = arrays.encode(tensors, _renamed(facts))
    except (OSError, SafetensorError, ValueError, RecursionError):
        return False
    write_bytes_atomic(path, content)
    return True
