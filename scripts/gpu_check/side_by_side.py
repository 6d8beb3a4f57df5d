# SPDX-License-Identifier: Apache-2.0
"""Several small trainings at once on one GPU, each in a process of its own.

    python -m scripts.gpu_check.side_by_side SECONDS

is one of them: it compiles, prints "ready", and trains for so long once it has read a line. Then it
prints its steps per second.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ieg_core.experiment.dataset_spec import parse
from ieg_core.host import processes
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.recipes import build

METHOD = "ieg"
SPEC = "digits_uniform_0.4"
STEPS = 25


def one_trial(seconds: float) -> None:
    """Trains the digits' network on random images of 8×8 pixels, see the module."""
    processes.die_with_parent()
    set_environment(Runtime())
    from ieg_core import backend
    from ieg_core.training.measure import synthetic_call

    backend.start(Runtime())
    call = synthetic_call(build.build_config(parse(SPEC), METHOD), 10, (8, 8, 1), STEPS)
    call(STEPS)
    print("ready", flush=True)
    sys.stdin.readline()
    steps, began = 0, time.monotonic()
    while steps == 0 or time.monotonic() - began < seconds:
        call(STEPS)
        steps += STEPS
    print(json.dumps(steps / (time.monotonic() - began)), flush=True)


def start_trial(seconds: float) -> subprocess.Popen[str]:
    """Starts the process of one trial."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.gpu_check.side_by_side", str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | processes.children_environment(),
    )


def run_together(count: int, start: Callable[[], Any]) -> list[float]:
    """Runs trials at the same time and returns the steps per second of each.

    Args:
      count: Number of trials.
      start: Starts the process of one, with pipes.

    Raises:
      RuntimeError: When a process ends before it has been measured.
    """
    trials = [start() for _ in range(count)]
    try:
        for trial in trials:
            if trial.stdout.readline() != "ready\n":
                raise RuntimeError(f"one of {count} trials ended before it was ready")
        for trial in trials:
            trial.stdin.write("\n")
            trial.stdin.flush()
        answers = [trial.stdout.readline() for trial in trials]
    finally:
        for trial in trials:
            trial.kill()
            trial.wait()
    if not all(answers):
        raise RuntimeError(f"one of {count} trials ended before it was measured")
    return [json.loads(answer) for answer in answers]


def measure(counts: Sequence[int], seconds: float) -> dict[str, Any]:
    """Measures each number of trials; returns "trials", the steps per second of each by number."""
    found = {}
    for count in counts:
        found[str(count)] = run_together(count, lambda: start_trial(seconds))
    return {"method": METHOD, "dataset": SPEC, "trials": found}


if __name__ == "__main__":
    one_trial(float(sys.argv[1]))
