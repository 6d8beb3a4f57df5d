# SPDX-License-Identifier: Apache-2.0
"""Several small trainings at once on one GPU, each in a process of its own.

    python -m scripts.gpu_check.side_by_side SECONDS STEPS

is one of them: it compiles a call of so many steps, prints "ready", and trains for so long once it
has read a line. Then it prints its steps per second, and its peak memory in bytes on the GPU and on
the host, as JSON.
"""

import functools
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ieg_core.experiment.dataset_spec import parse
from ieg_core.host import processes
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.recipes import build
from scripts.gpu_check.sizes import Sizes

METHOD = "ieg"
SPEC = "digits_uniform_0.4"


def one_trial(seconds: float, length: int) -> None:
    """Trains the digits' network on random images of 8×8 pixels, see the module."""
    processes.die_with_parent()
    set_environment(Runtime())
    from ieg_core import backend
    from ieg_core.training.measure import synthetic_call
    from scripts.gpu_check.figures import peak_memory

    backend.start(Runtime())
    call = synthetic_call(build.build_config(parse(SPEC), METHOD), 10, (8, 8, 1), length)
    call(length)
    print("ready", flush=True)
    sys.stdin.readline()
    steps, began = 0, time.monotonic()
    while steps == 0 or time.monotonic() - began < seconds:
        call(length)
        steps += length
    rate = steps / (time.monotonic() - began)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([rate, peak_memory(), host]), flush=True)


def start_trial(seconds: float, length: int) -> subprocess.Popen[str]:
    """Starts the process of one trial."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.gpu_check.side_by_side", str(seconds), str(length)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | processes.children_environment(),
    )


def run_together(count: int, start: Callable[[], Any], patience: float) -> list[list[float]]:
    """Runs trials at the same time and returns what each of them measured.

    Args:
      count: Number of trials.
      start: Starts the process of one, with pipes.
      patience: Seconds after which all are killed.

    Raises:
      RuntimeError: When a process ends before it has been measured.
    """
    trials = [start() for _ in range(count)]

    def kill() -> None:
        for trial in trials:
            trial.kill()

    guard = threading.Timer(patience, kill)
    guard.start()
    try:
        for trial in trials:
            if trial.stdout.readline() != "ready\n":
                raise RuntimeError(f"one of {count} trials ended before it was ready")
        for trial in trials:
            trial.stdin.write("\n")
            trial.stdin.flush()
        answers = [trial.stdout.readline() for trial in trials]
    finally:
        guard.cancel()
        kill()
        for trial in trials:
            trial.wait()
    if not all(answers):
        raise RuntimeError(f"one of {count} trials ended before it was measured")
    return [json.loads(answer) for answer in answers]


def measure(sizes: Sizes, left: Callable[[], float]) -> dict[str, Any]:
    """Measures each number of trials.

    Args:
      sizes: The numbers, and how long they run.
      left: Returns the seconds left, after which a trial that hangs is killed.

    Returns:
      "trials", by their number what each measured: steps per second, bytes of memory on the GPU (0
      on a CPU) and on the host; "method" and "dataset".
    """
    speeds = {}
    for count in sizes.companions:
        start = functools.partial(start_trial, sizes.companion_seconds, sizes.companion_steps)
        speeds[str(count)] = run_together(count, start, left())
    return {"method": METHOD, "dataset": SPEC, "trials": speeds}


if __name__ == "__main__":
    one_trial(float(sys.argv[1]), int(sys.argv[2]))
