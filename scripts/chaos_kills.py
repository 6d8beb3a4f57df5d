# SPDX-License-Identifier: Apache-2.0
"""Kills sweeps of each kind at random moments, and starts them again.

    python -m scripts.chaos_kills [--tries 20] [--seed 0]

One sweep runs undisturbed. Each try starts the same one in a folder of its own, ends a part of it
at a random moment of the first one's time, waits until nothing of it runs, and runs it to its end.
It survives if the second run exits with 0 and every trial has the undisturbed sweep's confusion
matrices and accuracies, to the bit. Prints how many tries survived, by kind; the exit code is 1 if
one did not.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ieg_core.host.clock import CLOCK
from ieg_core.store.layout import MATRICES, TRIALS
from ieg_core.store.leases import latest_attempt
from ieg_core.store.records import LeaseRecord, ResultRecord

ROOT: Final = Path(__file__).parents[1]
SWEEP: Final = (
    "DATASET=digits_uniform",
    "NOISE=0.4",
    "METHODS=supervised,l2r",
    "SEEDS=0",
    "STEPS=200",
)
KINDS: Final = ("Ctrl-C", "SIGTERM", "kill -9", "kill -9 of the pipeline", "kill -9 of a worker")
WAIT_SECONDS: Final = 60.0


def start(results: Path) -> subprocess.Popen[bytes]:
    """Starts the sweep in a process group of its own, as a terminal does."""
    command = [sys.executable, "-m", "pipelines", "run", "noise_sweep", "DEVICES=cpu", *SWEEP]
    return subprocess.Popen(
        [*command, f"OUT={results}"],
        cwd=ROOT,
        env=os.environ | {"IEG_CHECKPOINT_SECONDS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def outcome(results: Path) -> Mapping[str, Any]:
    """Returns what the trials computed: their matrices and accuracies."""
    outcomes: dict[str, Any] = {}
    for folder in sorted((results / TRIALS).iterdir()):
        record = ResultRecord.read(folder)
        if record is not None:
            figures = {k: v for k, v in record.to_value().items() if "accuracy" in k}
            outcomes[folder.name] = (figures, (folder / MATRICES).read_bytes())
    return outcomes


def kill(process: subprocess.Popen[bytes], results: Path, kind: str) -> None:
    """Ends a part of a running sweep; does nothing if that part does not run at the moment."""
    pids = [process.pid]
    if kind == "kill -9 of the pipeline":
        pids = _children(process.pid)
    elif kind == "kill -9 of a worker":
        pids = _workers(results)
    number = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(kind, signal.SIGKILL)
    for pid in pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(parent: int) -> list[int]:
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8")
    except FileNotFoundError:  # it has just ended
        return []
    return [int(pid) for pid in listed.split()]


def _workers(results: Path) -> list[int]:
    folders = (results / TRIALS).glob("*")
    records = [LeaseRecord.look(folder, latest_attempt(folder))[0] for folder in folders]
    return [record.pid for record in records if record and record.ended is None]


def attempt(results: Path, kind: str, moment: float, expected: Mapping[str, Any]) -> str:
    """Kills a sweep and starts it again.

    Args:
      results: Its results root.
      kind: One of `KINDS`.
      moment: Seconds after its start.
      expected: The outcome of an undisturbed sweep.

    Returns:
      What is wrong with its end; "" if nothing is.
    """
    process = start(results)
    CLOCK.sleep(moment)
    if process.poll() is None:
        kill(process, results, kind)
    process.wait()
    deadline = CLOCK.monotonic() + WAIT_SECONDS
    while left := [pid for pid in _workers(results) if Path(f"/proc/{pid}").exists()]:
        if CLOCK.monotonic() > deadline:
            return f"the workers {left} went on"
        CLOCK.sleep(0.1)
    code = start(results).wait()
    if code:
        return f"started again, it ended with exit code {code}"
    return "" if outcome(results) == expected else "its trials have other results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Kills sweeps; returns 1 if one did not survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    survived = dict.fromkeys(KINDS, 0)
    with tempfile.TemporaryDirectory(prefix="ieg-chaos-") as folder:
        began = CLOCK.monotonic()
        if code := start(Path(folder) / "whole").wait():
            raise SystemExit(f"the undisturbed sweep failed with exit code {code}")
        duration, expected = CLOCK.monotonic() - began, outcome(Path(folder) / "whole")
        for number in range(options.tries):
            kind, moment = KINDS[number % len(KINDS)], moments.uniform(0.0, duration)
            problem = attempt(Path(folder) / str(number), kind, moment, expected)
            survived[kind] += not problem
            when = f"{kind} after {moment:.1f} of {duration:.1f} s"
            print(f"{number + 1}/{options.tries} {when}: {problem or 'survived'}", flush=True)
    print(f"kills: {sum(survived.values())} of {options.tries} survived ({json.dumps(survived)})")
    return int(sum(survived.values()) < options.tries)


if __name__ == "__main__":
    sys.exit(main())
