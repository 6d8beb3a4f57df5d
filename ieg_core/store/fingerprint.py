# SPDX-License-Identifier: Apache-2.0
"""What names a trial: a digest of everything that decides its outcome."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ieg_core.host.runtime import BACKENDS, chosen_backend

COUNTED = (
    "audit/feature_posterior.py",
    "audit/posterior.py",
    "augment",
    "backend",
    "data",
    "draws",
    "experiment",
    "features",
    "methods",
    "models",
    "training",
)
"""Rooms, and two files, whose code decides what a trial computes: an edit renames every trial."""

UNCOUNTED = (
    "__init__.py",
    "audit",
    "cli",
    "errors.py",
    "fitting.py",
    "host",
    "recipes",
    "report",
    "store",
    "sweep",
    "tasks",
)
"""Rooms and files whose code cannot change what a trial computes: an edit trains nothing again."""


@functools.cache
def code_version(package: Path = Path(__file__).parents[1]) -> str:
    """Returns a digest of the source files in `COUNTED` and of the libraries that compute.

    Args:
      package: The folder of ieg_core.

    Returns:
      Twelve hexadecimal digits.
    """
    digest = hashlib.sha256()
    for room in COUNTED:
        folder = package / room
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    others = set(BACKENDS) - {chosen_backend()}  # installed or not, they compute nothing
    versions = {name: at for name, at in library_versions().items() if name not in others}
    digest.update(json.dumps(versions).encode())
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


def trial_name(dataset: str, method: str, seed: int, outcome: Mapping[str, Any]) -> str:
    """Names a trial: readable front, then a digest of all that decides its outcome."""
    text = json.dumps(outcome, sort_keys=True, allow_nan=False)
    return f"{dataset}-{method}-seed{seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def short_digest(names: Iterable[str]) -> str:
    """Returns eight hexadecimal digits that stand for a list of names."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
