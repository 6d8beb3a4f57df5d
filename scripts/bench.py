# SPDX-License-Identifier: Apache-2.0
"""Times a training step of each method in units of a supervised one, in one paired run.

    python -m scripts.bench [--network resnet29] [--rounds 7] [--steps 2] [--threads N]

All variants are compiled first; then each round times them in turn, so that other load on the
machine affects all of them. The result is the median over rounds of the ratio to the supervised
step of the same round. The images are noise: only the time matters.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.experiment.overrides import override
from ieg_core.host.machine import usable_cores
from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import Runtime, chosen_backend, set_environment
from ieg_core.recipes import build
from ieg_core.store import fingerprint

REFERENCE = "supervised"
SPEC = "cifar10_uniform_0.4"


def paired_times(calls: dict[str, Callable[[int], None]], rounds: int, steps: int) -> list[dict]:
    """Times `steps` steps of every variant in each of several rounds.

    Args:
      calls: Functions that run a number of steps, by variant; each must have been called before.
      rounds: Number of rounds.
      steps: Steps of a variant per round.

    Returns:
      For each round, seconds per step by variant.
    """
    measured = []
    for _ in range(rounds):
        seconds = {}
        for name, call in calls.items():
            began = time.perf_counter()
            call(steps)
            seconds[name] = (time.perf_counter() - began) / steps
        measured.append(seconds)
    return measured


def table(measured: Sequence[dict[str, float]]) -> list[str]:
    """Summarizes the rounds: median seconds per step, and median and range of the ratio."""
    lines = ["| variant | seconds per step | in supervised steps | range over rounds |"]
    lines += ["|---|---|---|---|"]
    for name in measured[0]:
        ratios = [seconds[name] / seconds[REFERENCE] for seconds in measured]
        median = statistics.median(seconds[name] for seconds in measured)
        lines.append(
            f"| {name} | {median:.3f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return lines


@program("bench")
def main() -> None:
    """Runs the benchmark and prints its table, ready for docs/PERFORMANCE.md."""
    parser = Parser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--network", default="resnet29")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    runtime = Runtime(threads=options.threads)
    set_environment(runtime)
    from ieg_core import backend
    from ieg_core.training.measure import synthetic_call

    backend.start(runtime)
    calls = {}
    variants = [(method, method, "auto") for method in METHODS]
    variants.append((f"{REFERENCE}, Keras's BatchNorm", REFERENCE, "keras"))
    for name, method, batch_norm in variants:
        config = override(
            build.build_config(parse(SPEC), method, recipe="cifar", network=options.network),
            [f"precision={options.precision}"],
        )
        calls[name] = synthetic_call(config, 10, (32, 32, 3), options.steps, batch_norm)
        calls[name](1)
    versions = fingerprint.library_versions()
    print(
        f"{options.network}, batch {config.batch_size}, 32x32, {options.precision}, "
        f"{chosen_backend()} {versions.get(chosen_backend(), '')}, "
        f"{backend.device_description()} ({platform.machine()}, {options.threads} threads), "
        f"{time.strftime('%Y-%m-%d')}, {options.rounds} rounds of {options.steps} steps\n"
    )
    print("\n".join(table(paired_times(calls, options.rounds, options.steps))))


if __name__ == "__main__":
    sys.exit(main())
