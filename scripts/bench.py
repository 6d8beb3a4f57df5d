# SPDX-License-Identifier: Apache-2.0
"""Times a training step of each method in units of a supervised one, in one paired run.

    python -m scripts.bench [--network resnet29] [--rounds 7] [--steps 2] [--threads N]

All variants are compiled first; then each round times every one of them in turn, so that whatever
else the machine does falls on all alike. The figure is the median over rounds of the ratio to the
same round's supervised step. The images are noise: only the time matters.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence

from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.experiment.overrides import override
from ieg_core.host.machine import usable_cores
from ieg_core.host.runtime import Runtime, chosen_backend, set_environment
from ieg_core.recipes import build
from ieg_core.store import fingerprint

REFERENCE = "supervised"
SPEC = "cifar10_uniform_0.4"


def paired_times(calls: dict[str, Callable[[int], None]], rounds: int, steps: int) -> list[dict]:
    """Times `steps` steps of every variant in each of several rounds.

    Args:
      calls: Runs so many steps, by name of the variant; each has run before.
      rounds: How many rounds.
      steps: Steps of a variant in a round.

    Returns:
      For each round, seconds a step by variant.
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
    """Sums the rounds up: median seconds a step, and median and range of the ratio."""
    lines = ["| variant | seconds a step | in supervised steps | range over rounds |"]
    lines += ["|---|---|---|---|"]
    for name in measured[0]:
        ratios = [seconds[name] / seconds[REFERENCE] for seconds in measured]
        median = statistics.median(seconds[name] for seconds in measured)
        lines.append(
            f"| {name} | {median:.3f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return lines


def main() -> None:
    """Runs the benchmark and prints its table, ready for docs/PERFORMANCE.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--network", default="resnet29")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--precision", default="float32")
    asked = parser.parse_args()
    runtime = Runtime(threads=asked.threads)
    set_environment(runtime)
    from ieg_core import backend
    from ieg_core.training.measure import synthetic_call

    backend.start(runtime)
    calls = {}
    variants = [(method, method, "auto") for method in METHODS]
    variants.append((f"{REFERENCE}, Keras's BatchNorm", REFERENCE, "keras"))
    for name, method, batch_norm in variants:
        config = override(
            build.build_config(parse(SPEC), method, recipe="cifar", network=asked.network),
            [f"precision={asked.precision}"],
        )
        calls[name] = synthetic_call(config, 10, (32, 32, 3), asked.steps, batch_norm)
        calls[name](1)
    versions = fingerprint.library_versions()
    print(
        f"{asked.network}, batch {config.batch_size}, 32x32, {asked.precision}, "
        f"{chosen_backend()} {versions.get(chosen_backend(), '')}, "
        f"{backend.device_description()} ({platform.machine()}, {asked.threads} threads), "
        f"{time.strftime('%Y-%m-%d')}, {asked.rounds} rounds of {asked.steps} steps\n"
    )
    print("\n".join(table(paired_times(calls, asked.rounds, asked.steps))))


if __name__ == "__main__":
    main()
