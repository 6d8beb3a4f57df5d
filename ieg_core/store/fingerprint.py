# SPDX-License-Identifier: Apache-2.0
"""Names of trials: a readable part and a digest of everything that decides the outcome."""

import contextlib
import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ieg_core.host.runtime import BACKENDS, chosen_backend
from ieg_core.store.records import TrialRecord

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
"""Rooms and files whose code decides what a trial computes: an edit renames every trial."""

UNCOUNTED = (
    "__init__.py",
    "audit",
    "auditing.py",
    "cli",
    "errors.py",
    "feature_fitting.py",
    "fitting.py",
    "host",
    "recipes",
    "report",
    "store",
    "sweep",
    "tasks",
)
"""Rooms and files whose code cannot change what a trial computes: an edit renames no trial."""


@functools.cache
def code_version(package: Path = Path(__file__).parents[1]) -> str:
    """Returns a digest of the source files in `COUNTED` and the versions of computing libraries.

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
    others = set(BACKENDS) - {chosen_backend()}  # they compute nothing, even if installed
    versions = {name: v for name, v in library_versions().items() if name not in others}
    digest.update(json.dumps(versions).encode())
    return digest.hexdigest()[:12]


@functools.cache
def library_versions() -> Mapping[str, str]:
    """Returns the installed versions of the libraries that affect the computation."""
    versions = {}
    names = ("numpy", "keras", "tensorflow", "jax", "safetensors", "scikit-learn", "pillow")
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def environment_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that affect the computation."""
    return {"python": platform.python_version(), **library_versions()}


def trial_name(record: TrialRecord, label_set_key: str = "label_set_digest") -> str:
    """Names a trial: a readable part, then a digest of everything that decides its outcome.

    Args:
      record: The trial; its own `trial` does not matter.
      label_set_key: What the digest calls the label set's digest.
    """
    outcome: dict[str, Any] = {
        "config": record.config,
        label_set_key: record.label_set_digest,
        "code_version": record.code_version,
        "backend": record.backend,
        "precision": record.precision,
    }
    if record.network_digest:
        outcome["network_digest"] = record.network_digest
    text = json.dumps(outcome, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{record.dataset}-{record.method}-seed{record.seed}-{digest}"


def is_named(record: TrialRecord, trial: str) -> bool:
    """Returns whether a record gives a trial its name, or did so before `ieg migrate`."""
    return trial in (trial_name(record), trial_name(record, "overlay_digest"))


def short_digest(names: Iterable[str]) -> str:
    """Returns a digest of a list of names, eight hexadecimal digits."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
