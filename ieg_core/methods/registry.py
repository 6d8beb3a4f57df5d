# SPDX-License-Identifier: Apache-2.0
"""Loads a method's implementation by the name in its registry entry, `experiment.methods`."""

import importlib

from ieg_core.experiment.methods import method_spec
from ieg_core.methods.method import Method


def find(name: str) -> Method:
    """Returns the implementation of a method and imports its module on first use.

    Args:
      name: A key of `ieg_core.experiment.methods.METHODS`.

    Returns:
      The `Method` that the entry names.

    Raises:
      UserError: When the method is unknown.
      TypeError: When the entry does not name a `Method`.
    """
    implementation = method_spec(name).implementation
    module, _, attribute = implementation.partition(":")
    method = getattr(importlib.import_module(f"ieg_core.methods.{module}"), attribute)
    if not isinstance(method, Method):
        raise TypeError(f"{implementation}: expected a Method, got {type(method).__name__}")
    return method
