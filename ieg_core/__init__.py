# SPDX-License-Identifier: Apache-2.0
"""Training image classifiers on badly labelled data: data, methods, training, reports."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Brings `ieg_core.fit` when it is asked for: most programs import this package without it."""
    if name == "fit":
        import importlib

        return importlib.import_module("ieg_core.fitting").fit
    raise AttributeError(f"module 'ieg_core' has no attribute {name!r}")
