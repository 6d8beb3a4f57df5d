# SPDX-License-Identifier: Apache-2.0
"""The figures that a stage takes of a step, whichever framework runs it."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ieg_core.host.clock import CLOCK, Clock
from scripts.bench import paired_times
from scripts.gpu_check.sizes import Sizes

LIMITS = {"float32": 1e-3, "bfloat16": 5e-2}
"""Greatest relative distance of two gradients of the same step, by precision. A bfloat16 has 8 bits
of mantissa: two orders of summation of the same step differ by a percent."""


def compare(
    arrays: Iterable[np.ndarray], expected: Iterable[np.ndarray], precision: str
) -> dict[str, Any]:
    """Returns "distance" ‖a − b‖ / ‖b‖ over all arrays together, its "limit", and "equal"."""
    difference = total = 0.0
    for one, other in zip(arrays, expected, strict=True):
        exact = np.asarray(other, np.float64)
        difference += float(np.square(np.asarray(one, np.float64) - exact).sum())
        total += float(np.square(exact).sum())
    distance = (difference / total) ** 0.5
    limit = LIMITS[precision]
    return {"distance": distance, "limit": limit, "equal": distance <= limit}


def time_call(run: Callable[[int], None], sizes: Sizes, clock: Clock = CLOCK) -> dict[str, Any]:
    """Times a function that runs steps to their end, the first call of which compiles.

    Args:
      run: Runs a number of steps, at most `sizes.steps`.
      sizes: Steps of a call and number of calls.
      clock: The time of the first call.

    Returns:
      "steps" of a call, "step_seconds", the median, and "compile_seconds", what the first step took
      longer.
    """
    began = clock.monotonic()
    run(1)
    first_seconds = clock.monotonic() - began
    rounds = paired_times({"step": run}, sizes.rounds, sizes.steps)
    step_seconds = statistics.median(each["step"] for each in rounds)
    return {
        "steps": sizes.steps,
        "step_seconds": step_seconds,
        "compile_seconds": first_seconds - step_seconds,
    }


def busy_share(spans: Iterable[tuple[float, float]]) -> float | None:
    """Returns the share of the time from the first start to the last end in which a span is open.

    Args:
      spans: (start, end) of each kernel; they may overlap.

    Returns:
      The share in [0, 1]; None without spans.
    """
    ordered = sorted(spans)
    if not ordered:
        return None
    busy, reached = 0.0, ordered[0][0]
    for start, end in ordered:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / (reached - ordered[0][0]) if reached > ordered[0][0] else None
