# SPDX-License-Identifier: Apache-2.0
"""Converts a results root that an earlier version wrote, in place.

Each file is replaced whole and each trial is moved once all of its files are converted, so that a
conversion that was interrupted is finished by running it again.
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
      root: A folder.

    Returns:
      How many trials were converted.

    Raises:
      UserError: There is no such folder, a trial is being trained, or the folder cannot be written.
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
    # The trials last: as long as there is one left, the root counts as one of an earlier version.
    for folder in _children(root / "cells"):
        try:
            with trial_lock(folder):
                _migrate_trial(folder)
                _move(folder, trial_folder(root, folder.name))
        except TrialBusyError as error:
            raise UserError(f"{error}: wait for its end, or stop it, and run this again") from error
        count += 1
    for name in ("overlays", "cells"):
        if left := sorted((root / name).glob("*")):
            raise UserError(
                f"received {left[0]}: expected folders only in {name}/; move it away and run this "
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
        raise UserError(f"{source} cannot be converted: expected no {target}; delete one of them")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _convert(path: Path) -> None:
    """Renames the keys of a JSON file; one that is damaged stays as it is, for its readers."""
    try:
        old = read_json(path)
    except UserError:
        return
    new = _renamed(old)
    if new != old:
        write_json_atomic(path, new)


def _renamed(value: Any) -> Any:
    """Renames the keys of an object and of the rows in it, not what is deeper: a user's names."""
    if not isinstance(value, dict):
        return value
    found = {KEYS.get(key, key): each for key, each in value.items()}
    directory = found.get("run_directory")
    if isinstance(directory, str) and directory.startswith("cells/"):
        found["run_directory"] = f"trials/{directory.removeprefix('cells/')}"
    rows = found.get("trials")
    if isinstance(rows, list):
        found["trials"] = [_renamed(row) for row in rows]
    return found


def _convert_checkpoint(path: Path) -> None:
    """Renames the trial's key in a checkpoint's header; its tensors stay as they are."""
    data = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        said = json.loads(header["__metadata__"]["ieg"])
    except (ValueError, struct.error, KeyError, TypeError):  # damaged: its reader says so
        return
    if "cell" not in said:
        return
    header["__metadata__"]["ieg"] = json.dumps(_renamed(said))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes_atomic(path, struct.pack("<Q", len(text)) + text + data[8 + length :])
