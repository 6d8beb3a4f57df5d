# SPDX-License-Identifier: Apache-2.0
"""Converts a results root from an earlier version, in place.

Each file is replaced atomically, and each trial is moved after all of its files are converted, so
an interrupted conversion can be completed by running it again.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.files import read_json, writable, write_bytes_atomic, write_json_atomic
from ieg_core.store.layout import ACCEPTED, SCHEDULED, label_sets_folder, trial_folder
from ieg_core.store.leases import TrialBusyError, trial_lock
from ieg_core.store.records import LeaseRecord

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
    roots = [root, *sorted(path for path in root.glob(f"{SCHEDULED}/*/*") if path.is_dir())]
    with writable(root):
        return sum(map(_migrate_root, roots))


def _migrate_root(root: Path) -> int:
    patterns = ("sweeps/*/plan.json", "sweeps/*/report/*.json", "runs/*.json", f"{ACCEPTED}/*.json")
    for pattern in patterns:
        for path in root.glob(pattern):
            _convert(path)
    for folder in _children(root / "overlays"):
        _move(folder, label_sets_folder(root) / folder.name)
    count = 0
    # Trials come last: while one is left, the root still counts as an earlier version's.
    for folder in _children(root / "cells"):
        try:
            with trial_lock(folder):
                _migrate_trial(folder)
                _move(folder, trial_folder(root, folder.name))
        except TrialBusyError as error:
            raise UserError(
                f"{error}: wait until it ends, or stop it, and run this again"
            ) from error
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


def _migrate_trial(folder: Path) -> None:
    for path in [*folder.glob("*.json"), *folder.glob("audit/*.json")]:
        _convert(path)
    for path in folder.glob("checkpoint/[!.]*"):
        _convert_checkpoint(path)
    claims = folder / "claims"
    if claims.is_dir():
        _move(claims, LeaseRecord.path(folder, 0).parent)


def _children(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("*") if path.is_dir())


def _move(source: Path, target: Path) -> None:
    if target.exists():
        raise UserError(
            f"cannot move {source} to {target}, which exists: delete one of them and run this again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _convert(path: Path) -> None:
    """Renames the keys of a JSON file; leaves a damaged one, which its readers report."""
    try:
        old = read_json(path)
    except UserError:
        return
    new = _renamed(old)
    if new != old:
        write_json_atomic(path, new)


def _renamed(value: Any) -> Any:
    """Renames the keys of an object and its rows; deeper keys are user-defined names."""
    if not isinstance(value, dict):
        return value
    renamed = {KEYS.get(key, key): each for key, each in value.items()}
    directory = renamed.get("run_directory")
    if isinstance(directory, str) and directory.startswith("cells/"):
        renamed["run_directory"] = f"trials/{directory.removeprefix('cells/')}"
    rows = renamed.get("trials")
    if isinstance(rows, list):
        renamed["trials"] = [_renamed(row) for row in rows]
    return renamed


def _convert_checkpoint(path: Path) -> None:
    """Renames the trial's key in a checkpoint's header; leaves the tensors unchanged."""
    data = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        metadata = json.loads(header["__metadata__"]["ieg"])
    except (ValueError, struct.error, KeyError, TypeError):  # damaged: its readers report it
        return
    if "cell" not in metadata:
        return
    header["__metadata__"]["ieg"] = json.dumps(_renamed(metadata))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes_atomic(path, struct.pack("<Q", len(text)) + text + data[8 + length :])
