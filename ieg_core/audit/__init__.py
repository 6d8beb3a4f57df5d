# SPDX-License-Identifier: Apache-2.0
"""Which labels look wrong, from features of the images or from what a training recorded.

The package itself can be called: `ieg_core.audit(data, labels)` is `ieg_core.auditing.audit`.
"""

import importlib
import inspect
import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    """Makes `ieg_core.audit(...)` a call, although importing this package sets the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `ieg_core.auditing.audit`, which is imported on first use."""
        return importlib.import_module("ieg_core.auditing").audit(*args, **kwargs)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """The text of the function: what a notebook shows of what it can call."""
        return importlib.import_module("ieg_core.auditing").audit.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(importlib.import_module("ieg_core.auditing").audit)


sys.modules[__name__].__class__ = _CallablePackage
