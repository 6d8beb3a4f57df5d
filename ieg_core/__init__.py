# SPDX-License-Identifier: Apache-2.0
"""Trains image classifiers on data with wrong labels: data sets, methods, training, reports."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads `ieg_core.fit` on first use: most programs import this package without it."""
    if name == "fit":
        import importlib

        return importlib.import_module("ieg_core.fitting").fit
    raise AttributeError(f"module 'ieg_core' has no attribute {name!r}")
