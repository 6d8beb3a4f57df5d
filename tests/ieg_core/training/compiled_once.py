# SPDX-License-Identifier: Apache-2.0
"""For scripts that train the same configuration several times in one process."""

from collections.abc import Callable
from typing import Any

from ieg_core import backend
from ieg_core.experiment.config import Config
from ieg_core.models import zoo
from ieg_core.training import loop


def compile_once() -> None:
    """Lets runs of equal configurations share the network and what is compiled of it.

    All state is an argument of what is compiled, so the runs stay apart. That one compiled again,
    in another process, gives the same bits is what tests/integration/test_survival.py is for.
    """
    zoo.build = _once(zoo.build)
    backend.compile_loop = _once(backend.compile_loop)
    for name in ("build_network", "build_step", "build_predictor"):
        setattr(loop, name, _once(getattr(loop, name)))


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    results: dict[tuple, tuple[Any, Any]] = {}

    def call(*arguments: Any, **named: Any) -> Any:
        values = (*arguments, *sorted(named.items()))
        key = tuple(
            value if isinstance(value, str | int | float | tuple | Config) else id(value)
            for value in values
        )
        if key not in results:
            # The arguments are kept, or their ids would be given again.
            results[key] = (function(*arguments, **named), values)
        return results[key][0]

    return call
