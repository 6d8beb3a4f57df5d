# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file that holds the whole state, with the progress in its header.

The file is written under a temporary name, flushed and renamed, so a kill at any moment leaves
either the old checkpoint or the new one. Each attempt at a trial writes to its own numbered file
and the highest number counts, so an attempt that was presumed dead cannot overwrite its
successor's checkpoint. Loading a checkpoint executes nothing from it.
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
    """The host-side state of a training, stored in the checkpoint's header.

    Attributes:
      trial: The trial that the state belongs to.
      step: Number of completed steps.
      threads: CPU threads of the run (ieg_core.host.runtime).
      num_replicas: Number of replicas of the run.
      train_seconds: Training time so far in seconds, summed over all attempts.
      curves: The contents of curves.json so far.
    """

    trial: str
    step: int
    threads: int
    num_replicas: int
    train_seconds: float
    curves: dict[str, list[dict[str, float]]]


def checkpoint_path(folder: Path, attempt: int) -> Path:
    """Returns the path of an attempt's checkpoint."""
    return folder / checkpoint_name(attempt)


def saved_attempts(folder: Path) -> list[int]:
    """Returns the numbers of the attempts that have a checkpoint, latest first."""
    try:
        path = checkpoint_path(folder, 0)
        return numbers(os.listdir(path.parent), path.suffix)
    except FileNotFoundError:
        return []


def save_checkpoint(lease: Lease, state: Mapping[str, Tree], progress: Progress) -> None:
    """Writes an attempt's checkpoint, then deletes those of earlier attempts.

    Args:
      lease: The attempt; it determines the file.
      state: Nested lists and dictionaries of numpy arrays.
      progress: Stored in the file's header.

    Raises:
      SupersededError: When there is a later attempt; nothing is written.
      UserError: When the folder is not writable or the disk is full.
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
    """Reads the header of the latest readable checkpoint; None if the trial has no checkpoint.

    Raises:
      UserError: When every checkpoint is damaged or has an unknown format.
    """
    latest = _latest(folder)
    return latest[1] if latest else None


def describe_latest(folder: Path) -> str:
    """Describes the checkpoint that a trial would resume from: "step 75, <path>", or "none"."""
    latest = _latest(folder)
    return f"step {latest[1].step}, {latest[0]}" if latest else "none"


def load_checkpoint(folder: Path, trial: str, template: Mapping[str, Tree]) -> tuple[Any, Progress]:
    """Reads the latest readable checkpoint into the structure of a template.

    Args:
      folder: The trial's folder.
      trial: The trial that the checkpoint must belong to.
      template: A state of the same structure, as built by `training.step.initial_state`.

    Returns:
      The state, as numpy arrays, and the progress.

    Raises:
      UserError: When there is no checkpoint, it is damaged, or it belongs to another configuration.
    """
    expected = _flatten(template)
    while latest := _latest(folder):
        path, progress = latest
        if progress.trial != trial:
            raise UserError(
                f"{path} belongs to {progress.trial}, expected {trial}: it was written with "
                "another configuration; choose another folder, or delete the file to start again"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                header = _parse((file.metadata() or {}).get("ieg", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            continue  # a later attempt has saved its checkpoint and deleted this one
        except SafetensorError as error:
            raise _damaged(path, str(error)) from error
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if shapes != {name: (array.shape, array.dtype) for name, array in expected.items()}:
            raise _damaged(path, "its tensors do not match this network")
        return _unflatten(template, arrays, ""), header
    raise UserError(f"{folder} has no checkpoint: train the trial first")


def _latest(folder: Path) -> tuple[Path, Progress] | None:
    """Finds the latest readable checkpoint and reads its header.

    Raises:
      UserError: When there are checkpoints but none is readable.
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
    return UserError(f"{path} cannot be read ({reason}): delete it to start this trial again")


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
