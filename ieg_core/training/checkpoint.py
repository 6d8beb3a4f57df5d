# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with the whole state, and what the host knows in its header.

The file is written under a temporary name, flushed and renamed, so that a kill at any moment leaves
the old checkpoint or the new one. Each attempt at a trial writes a file of its own number, and the
highest number counts, so that an attempt thought dead cannot write over its successor's. Nothing
in a checkpoint is executed when it is read.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ieg_core.errors import UserError
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store.layout import checkpoint_name
from ieg_core.store.leases import Lease, numbers, require_current

Tree = Any
FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """What the host carries from checkpoint to checkpoint.

    Attributes:
      trial: The trial that the state belongs to.
      step: Steps done.
      threads: CPU threads of the run (ieg_core.host.runtime).
      num_replicas: Replicas of the run.
      train_seconds: Time spent in training so far, over all attempts.
      curves: What curves.json holds so far.
    """

    trial: str
    step: int
    threads: int
    num_replicas: int
    train_seconds: float
    curves: dict[str, list[dict[str, float]]]


def checkpoint_path(folder: Path, attempt: int) -> Path:
    """Returns where an attempt's checkpoint lies."""
    return folder / checkpoint_name(attempt)


def saved_attempts(folder: Path) -> list[int]:
    """Returns the attempts that a trial has checkpoints of, the latest first."""
    try:
        path = checkpoint_path(folder, 0)
        return numbers(os.listdir(path.parent), path.suffix)
    except FileNotFoundError:
        return []


def save_checkpoint(lease: Lease, state: Mapping[str, Tree], progress: Progress) -> None:
    """Writes an attempt's checkpoint, then deletes those of earlier attempts.

    Args:
      lease: The attempt, which says where.
      state: Lists and dictionaries of numpy arrays.
      progress: Goes into the file's header.

    Raises:
      SupersededError: There is a later attempt; nothing is written.
      UserError: The folder cannot be written, or the disk is full.
    """
    header = json.dumps({"format": FORMAT, **asdict(progress)}, allow_nan=False)
    data = save(_flatten(state), {"ieg": header})
    require_current(lease)
    write_bytes_atomic(checkpoint_path(lease.folder, lease.attempt), data)
    for attempt in saved_attempts(lease.folder):
        if attempt < lease.attempt:
            with contextlib.suppress(OSError):
                checkpoint_path(lease.folder, attempt).unlink()


def read_progress(folder: Path) -> Progress | None:
    """Reads the header of the latest checkpoint that can be read; None where there is none.

    Raises:
      UserError: There are checkpoints, and all are damaged or of another format.
    """
    found = _latest(folder)
    return found[1] if found else None


def describe_latest(folder: Path) -> str:
    """Says which checkpoint a trial would go on from: "step 75, <path>", or "none"."""
    found = _latest(folder)
    return f"step {found[1].step}, {found[0]}" if found else "none"


def load_checkpoint(folder: Path, trial: str, template: Mapping[str, Tree]) -> tuple[Any, Progress]:
    """Reads the latest checkpoint that can be read into the shape of a template.

    Args:
      folder: The trial's folder.
      trial: The trial that it must belong to.
      template: A state of the same structure, as `training.step.initial_state` makes it.

    Returns:
      The state, as numpy arrays, and the progress.

    Raises:
      UserError: There is none, it is damaged, or it belongs to another configuration.
    """
    expected = _flatten(template)
    while found := _latest(folder):
        path, progress = found
        if progress.trial != trial:
            raise UserError(
                f"{path} belongs to {progress.trial}, not to {trial}: it was made with another "
                "configuration; choose another folder or delete it to start anew"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                header = _parse((file.metadata() or {}).get("ieg", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            continue  # the next attempt has saved its own and deleted this one
        except SafetensorError as error:
            raise _damaged(path, str(error)) from error
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if shapes != {name: (array.shape, array.dtype) for name, array in expected.items()}:
            raise _damaged(path, "its tensors are not this network's")
        return _unflatten(template, arrays, ""), header
    raise UserError(f"{folder} has no checkpoint: train it first")


def _latest(folder: Path) -> tuple[Path, Progress] | None:
    """Finds the latest readable checkpoint and reads its header.

    Raises:
      UserError: There are checkpoints, and none can be read.
    """
    damaged = None
    for attempt in saved_attempts(folder):
        path = checkpoint_path(folder, attempt)
        try:
            with safe_open(path, framework="numpy") as file:
                return path, _parse((file.metadata() or {}).get("ieg", "{}"))
        except FileNotFoundError:
            return _latest(folder)
        except (SafetensorError, ValueError, TypeError) as error:
            damaged = damaged or _damaged(path, str(error))
    if damaged:
        raise damaged
    return None


def _parse(text: str) -> Progress:
    header = json.loads(text)
    if header.pop("format", None) != FORMAT:
        raise ValueError(f"expected format {FORMAT}")
    return Progress(**header)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} cannot be read ({reason}): delete it to start this trial anew")


def _flatten(tree: Tree, prefix: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list):
        items = {f"{index:04d}": value for index, value in enumerate(tree)}.items()
    else:
        return {prefix: np.ascontiguousarray(tree)}
    flat: dict[str, np.ndarray] = {}
    for key, value in items:
        flat |= _flatten(value, f"{prefix}/{key}" if prefix else key)
    return flat


def _unflatten(template: Tree, arrays: Mapping[str, np.ndarray], prefix: str) -> Tree:
    def name(key: str) -> str:
        return f"{prefix}/{key}" if prefix else key

    if isinstance(template, Mapping):
        return {key: _unflatten(value, arrays, name(key)) for key, value in template.items()}
    if isinstance(template, list):
        return [
            _unflatten(value, arrays, name(f"{index:04d}")) for index, value in enumerate(template)
        ]
    return arrays[prefix]
