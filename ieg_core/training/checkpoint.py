# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with the whole state, and what the host knows in its header.

The file is written under a temporary name, flushed and renamed, so that a kill at any moment leaves
the old checkpoint or the new one. Nothing in it is executed when it is read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ieg_core.errors import UserError
from ieg_core.results import write_bytes_atomic

Tree = Any
FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """What the host carries from checkpoint to checkpoint.

    Attributes:
      cell: The cell that the state belongs to.
      step: Steps done.
      threads: CPU threads of the run (ieg_core.runtime).
      num_replicas: Replicas of the run.
      train_seconds: Time spent in training so far, over all attempts.
      curves: What curves.json holds so far.
    """

    cell: str
    step: int
    threads: int
    num_replicas: int
    train_seconds: float
    curves: dict[str, list[dict[str, float]]]


def checkpoint_path(folder: Path) -> Path:
    """Returns where a cell's checkpoint lies."""
    return folder / "checkpoint" / "last.safetensors"


def save_checkpoint(folder: Path, state: Mapping[str, Tree], progress: Progress) -> None:
    """Writes a checkpoint.

    Args:
      folder: The cell's folder.
      state: Lists and dictionaries of numpy arrays.
      progress: Goes into the file's header.

    Raises:
      UserError: The folder cannot be written, or the disk is full.
    """
    header = json.dumps({"format": FORMAT, **asdict(progress)}, allow_nan=False)
    write_bytes_atomic(checkpoint_path(folder), save(_flatten(state), {"ieg": header}))


def read_progress(folder: Path) -> Progress | None:
    """Reads a checkpoint's header; None where there is no checkpoint.

    Raises:
      UserError: The file is damaged or of another format.
    """
    path = checkpoint_path(folder)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("ieg", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if header.pop("format", None) != FORMAT:
        raise _damaged(path, f"expected format {FORMAT}")
    return Progress(**header)


def load_checkpoint(folder: Path, cell: str, template: Mapping[str, Tree]) -> tuple[Any, Progress]:
    """Reads a checkpoint into the shape of a template.

    Args:
      folder: The cell's folder.
      cell: The cell that it must belong to.
      template: A state of the same structure, as `training.step.initial_state` makes it.

    Returns:
      The state, as numpy arrays, and the progress.

    Raises:
      UserError: There is none, it is damaged, or it belongs to another configuration.
    """
    path = checkpoint_path(folder)
    progress = read_progress(folder)
    if progress is None:
        raise UserError(f"{folder} has no checkpoint: train it first")
    if progress.cell != cell:
        raise UserError(
            f"{path} belongs to {progress.cell}, not to {cell}: it was made with another "
            "configuration; choose another folder or delete it to start anew"
        )
    expected = _flatten(template)
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if shapes != {name: (array.shape, array.dtype) for name, array in expected.items()}:
        raise _damaged(path, "its tensors are not this network's")
    return _unflatten(template, arrays, ""), progress


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} cannot be read ({reason}): delete it to start this cell anew")


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
