# SPDX-License-Identifier: Apache-2.0
"""Trains image classifiers on data with wrong labels: data sets, methods, training, reports.

From Python: `audit` says which labels look wrong, `fit` trains a network, and `UserError` is what
both raise where a request is wrong.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {"UserError": "ieg_core.errors", "fit": "ieg_core.fitting"}

__all__ = ["UserError", "audit", "fit"]  # __getattr__ provides them


def __getattr__(name: str) -> Any:
    """Loads the API on first use: most programs import this package without it."""
    if name == "audit":
        return importlib.import_module("ieg_core.audit")  # a package that can be called
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ieg_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
