# SPDX-License-Identifier: Apache-2.0
"""The figures that a stage takes of a step, whichever framework runs it."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ieg_core.host.clock import CLOCK, Clock
from scripts.bench import paired_times
from scripts.gpu_check.sizes import Sizes

TOLERANCES = {
    "float32": {"tensor": 1e-3, "loss": 1e-4, "weight": 1e-3, "label_coefficient": 0.0},
    "bfloat16": {"tensor": 4e-3, "loss": 4e-3, "weight": 4e-3, "label_coefficient": 0.05},
}
"""The greatest distances of a step from its reference that count as equal, by precision: of the
gradient of any one tensor, of the loss, of the example weights of a batch, and the share of
examples whose λ differs. docs/PERFORMANCE.md justifies them."""
ROUNDING = 2.0
"""How many times as far from a float32 step a bfloat16 step may be as the CPU's bfloat16 step."""


@dataclass(frozen=True)
class FirstStep:
    """What a training computes in its first step.

    Attributes:
      gradients: The gradient of each trainable tensor, by its path.
      loss: The loss.
      examples: The method's outputs for each example, by name.
    """

    gradients: Mapping[str, np.ndarray]
    loss: float
    examples: Mapping[str, np.ndarray]


def compare(
    found: FirstStep, reference: FirstStep, precision: str, rounded: FirstStep | None = None
) -> dict[str, Any]:
    """Compares a step with a reference, tensor by tensor.

    Args:
      found: The step.
      reference: The step without rounding errors.
      precision: A key of TOLERANCES.
      rounded: A step that has the rounding errors to expect; its own distances, times ROUNDING,
        add to the tolerances.

    Returns:
      "distances" and "limits" by figure: "tensor", ‖a − b‖ / ‖b‖ of the gradient of the tensor that
      is the farthest relative to its limit, "loss", and "weight" and "label_coefficient" if the
      method has them; "tensor", the path of that tensor; and "equal", whether all are within their
      limits.
    """
    distances = _distances(found, reference)
    own = _distances(rounded, reference) if rounded else dict.fromkeys(distances, 0.0)
    tolerances = TOLERANCES[precision]
    limits = {
        name: tolerances[name if name in tolerances else "tensor"] + ROUNDING * own[name]
        for name in distances
    }
    within = {name: distance <= limits[name] for name, distance in distances.items()}

    def excess(path: str) -> float:
        # What is not a number is the worst.
        return float(np.nan_to_num(distances[path] / limits[path], nan=np.inf))

    tensor = max(reference.gradients, key=excess)
    shown = {"tensor": tensor, **{name: name for name in distances if name in tolerances}}
    return {
        "distances": {name: distances[key] for name, key in shown.items()},
        "limits": {name: limits[key] for name, key in shown.items()},
        "tensor": tensor,
        "equal": all(within.values()),
    }


def _distances(found: FirstStep, reference: FirstStep) -> dict[str, float]:
    """Returns the distance of each tensor's gradient, by path, and of the other figures."""
    distances = {
        path: relative_distance(found.gradients[path], expected)
        for path, expected in reference.gradients.items()
    }
    distances["loss"] = relative_distance(np.array(found.loss), np.array(reference.loss))
    theirs = reference.examples
    if "weight" in theirs:
        distances["weight"] = relative_distance(found.examples["weight"], theirs["weight"])
    if "label_coefficient" in theirs:
        differs = found.examples["label_coefficient"] != theirs["label_coefficient"]
        distances["label_coefficient"] = float(differs.mean())
    return distances


def relative_distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns ‖a − b‖ / ‖b‖; 0 if both are 0."""
    exact = np.asarray(expected, np.float64)
    difference = float(np.linalg.norm(np.asarray(found, np.float64) - exact))
    scale = float(np.linalg.norm(exact))
    if not scale:
        return math.inf if difference else 0.0
    return difference / scale


def peak_memory() -> int:
    """Returns the most bytes that JAX has held on the GPU in this process; 0 on a CPU."""
    import jax

    return int((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def time_call(
    run: Callable[[int], None],
    sizes: Sizes,
    make_quiet: Callable[[], Any] = lambda: None,
    clock: Clock = CLOCK,
) -> dict[str, Any]:
    """Times a function that runs steps to their end, the first call of which compiles.

    Args:
      run: Runs a number of steps, at most `sizes.steps`.
      sizes: Steps of a call and number of calls.
      make_quiet: Waits for other work of this machine, after the first call.
      clock: The time of the first call.

    Returns:
      "steps" of a call, "step_seconds", the median, and "compile_seconds", what the first step took
      longer.
    """
    began = clock.monotonic()
    run(1)
    first_seconds = clock.monotonic() - began
    make_quiet()
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
