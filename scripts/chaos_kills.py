# SPDX-License-Identifier: Apache-2.0
"""Ends sweeps and their processes at random moments, and continues them.

    python -m scripts.chaos_kills [--tries 21] [--seed 0]

One sweep runs undisturbed; it shows when each kind of process runs, and for how long. Another one,
in a folder of its own, is then started again and again. Each time a process of one kind is ended at
a random moment of its life: by Ctrl-C, SIGTERM or `kill -9`, until every kind had its turn. Then
the sweep runs to its end. Its kills survive if

* nothing of the sweep runs on after a kill,
* the last run exits with 0,
* each trial has the undisturbed sweep's confusion matrices and accuracies, to the bit.

The last two are known of all kills of a sweep together: they survive together or not at all. A kill
that comes too late, because its process has just ended, is made again in another sweep. Prints how
many kills survived, by kind; the exit code is 1 if one did not.
"""

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ieg_core.errors import FailedError
from ieg_core.host.clock import CLOCK
from ieg_core.host.program import Parser, program
from ieg_core.store.layout import MATRICES, TRIALS
from ieg_core.store.records import ResultRecord

ROOT: Final = Path(__file__).parents[1]
SWEEP: Final = (
    "DATASET=digits_uniform",
    "NOISE=0.4",
    "METHODS=supervised",
    "SEEDS=0,1",
    "NETWORK=docs.examples.small_network:build",
    "STEPS=4000",
    "SET=batch_size=10 evaluations=4",
)
MARK: Final = "IEG_CHAOS"
"""An environment variable that a sweep's processes share, also those whose parent is gone."""
PATTERNS: Final = {
    "driver": "pipelines\0run\0",
    "pipeline": "pipelines\0child\0",
    "prepare": "--function_to_execute\0prepare\0",
    "train": "--function_to_execute\0train\0",
    "trial": "ieg_core.sweep.worker\0train\0",
    "report": "--function_to_execute\0report\0",
}
"""What the command line of each kind of process has."""
KILLS: Final = (
    ("driver", signal.SIGINT),
    ("driver", signal.SIGTERM),
    *((kind, signal.SIGKILL) for kind in PATTERNS),
)
LATER_SHARE: Final = 0.4
MOST_LATE: Final = 5
"""Sweeps in turn in which the first kill came too late."""
POLL_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 60.0


@dataclass
class Sweep:
    """A running sweep.

    Attributes:
      process: Its driver.
      mark: The value of `MARK`.
    """

    process: subprocess.Popen[bytes]
    mark: str

    @classmethod
    def start(cls, results: Path, cwd: Path = ROOT) -> "Sweep":
        """Starts the small sweep.

        Args:
          results: Its results root.
          cwd: The clone to run.
        """
        command = [sys.executable, "-m", "pipelines", "run", "noise_sweep", "DEVICES=cpu", *SWEEP]
        return cls.of([*command, f"OUT={results}"], results, {"IEG_CHECKPOINT_SECONDS": "0"}, cwd)

    @classmethod
    def of(
        cls, command: Sequence[str], results: Path, variables: Mapping[str, str], cwd: Path = ROOT
    ) -> "Sweep":
        """Starts a command in a process group of its own, as a terminal does.

        Args:
          command: The command.
          results: Where its output is written, to output.txt.
          variables: Environment variables to set.
          cwd: The clone to run.
        """
        mark = secrets.token_hex(8)
        results.mkdir(parents=True, exist_ok=True)
        with (results / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=os.environ | {"PYTHONPATH": str(cwd), MARK: mark} | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, mark)

    def processes(self) -> Mapping[int, str]:
        """Returns the command lines of all its processes, by their ids."""
        found, mark = {}, f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        words = (folder / "cmdline").read_bytes()
                        if words:  # not a zombie
                            found[int(folder.name)] = words.decode(errors="replace")
        return found

    def of_kind(self, kind: str) -> list[int]:
        """Returns the ids of its processes of a kind."""
        return [pid for pid, words in self.processes().items() if PATTERNS[kind] in words]


def outcome(results: Path) -> Mapping[str, Any]:
    """Returns what the trials computed: their matrices and accuracies."""
    found: dict[str, Any] = {}
    for folder in sorted((results / TRIALS).iterdir()):
        record = ResultRecord.read(folder)
        if record is not None:
            figures = {k: v for k, v in record.to_value().items() if "accuracy" in k}
            found[folder.name] = (figures, (folder / MATRICES).read_bytes())
    return found


def lives(results: Path) -> Mapping[str, float]:
    """Runs a sweep undisturbed; returns how long a process of each kind was seen, in seconds."""
    sweep = Sweep.start(results)
    seconds: Counter[str] = Counter()
    before = CLOCK.monotonic()
    while sweep.process.poll() is None:
        CLOCK.sleep(POLL_SECONDS)
        now = CLOCK.monotonic()
        lines = sweep.processes().values()
        for kind, pattern in PATTERNS.items():
            if any(pattern in line for line in lines):
                seconds[kind] += now - before  # type: ignore[assignment]
        before = now
    if sweep.process.returncode:
        raise FailedError(f"the undisturbed sweep failed: {last_line(results)}")
    return dict(seconds)


def kill(results: Path, kind: str, number: signal.Signals, delay: float) -> tuple[bool, str]:
    """Starts a sweep and ends one of its processes.

    Args:
      results: Its results root.
      kind: The kind of the process.
      number: The signal.
      delay: Seconds after the process is seen.

    Returns:
      Whether the process was ended, and what runs on; "" if nothing does.
    """
    sweep = Sweep.start(results)
    victims: list[int] = []
    while sweep.process.poll() is None and not (victims := sweep.of_kind(kind)):
        CLOCK.sleep(POLL_SECONDS)
    CLOCK.sleep(delay if victims else 0.0)
    has_ended = False
    for pid in victims[:1]:
        if pid in sweep.of_kind(kind):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                has_ended = True
    sweep.process.wait()
    deadline = CLOCK.monotonic() + WAIT_SECONDS
    while left := sweep.processes():
        if CLOCK.monotonic() > deadline:
            return has_ended, f"{sorted(left.values())} went on after {number.name} of the {kind}"
        CLOCK.sleep(POLL_SECONDS)
    return has_ended, ""


def end_in_turn(
    results: Path,
    kills: Sequence[tuple[str, signal.Signals]],
    lived: Mapping[str, float],
    rng: random.Random,
) -> tuple[list[str], str]:
    """Starts a sweep and ends one of its processes, for each kill in turn.

    Args:
      results: Its results root.
      kills: The kinds of process, and the signals.
      lived: Seconds for which a process of each kind lives.
      rng: Draws the moments.

    Returns:
      The kills that were made, the first ones: the rest comes too late once the sweep has ended.
      And what runs on after the last one; "" if nothing does.
    """
    made: list[str] = []
    for kind, number in kills:
        # A sweep that continues has less to do than one that begins.
        share = LATER_SHARE if made else 1.0
        delay = rng.uniform(0.0, lived.get(kind, 1.0) * share)
        has_ended, problem = kill(results, kind, number, delay)
        if has_ended:
            made.append(f"{number.name} of the {kind}")
            print(f"  {made[-1]} after {delay:.1f} s", flush=True)
        if problem or not has_ended:
            return made, problem
    return made, ""


def last_line(results: Path) -> str:
    """Returns the last line that a command printed."""
    lines = (results / "output.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "no output")


@program("chaos-kills")
def main(arguments: Sequence[str] | None = None) -> int:
    """Kills sweeps; returns 1 if one did not survive."""
    parser = Parser(description=__doc__)
    parser.add_argument("--tries", type=int, default=2 * len(KILLS), help="number of kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    wanted = [KILLS[number % len(KILLS)] for number in range(options.tries)]
    with tempfile.TemporaryDirectory(prefix="ieg-chaos-") as folder:
        began = CLOCK.monotonic()
        lived = lives(Path(folder) / "whole")
        expected = outcome(Path(folder) / "whole")
        whole = ", ".join(f"{kind} {seconds:.0f} s" for kind, seconds in lived.items())
        print(f"undisturbed: {CLOCK.monotonic() - began:.0f} s ({whole})", flush=True)
        number = late = 0
        while wanted and late < MOST_LATE:
            number += 1
            results = Path(folder) / str(number)
            batch, wanted = wanted[: len(KILLS)], wanted[len(KILLS) :]
            rng.shuffle(batch)
            # Late kills leave little to end: those whose moments are spread most come first.
            batch.sort(key=lambda each: -lived.get(each[0], 0.0))
            made, problem = end_in_turn(results, batch, lived, rng)
            wanted += batch[len(made) :]
            late = 0 if made else late + 1
            if not problem and (code := Sweep.start(results).process.wait()):
                problem = f"exit code {code}: {last_line(results)}"
            elif not problem and outcome(results) != expected:
                problem = "its trials have other results"
            tried.update(made)
            survived.update([] if problem else made)
            print(f"sweep {number}, {len(made)} kills: {problem or 'survived'}", flush=True)
    by_kind = json.dumps({name: f"{survived[name]}/{tried[name]}" for name in sorted(tried)})
    print(f"kills: {survived.total()} of {tried.total()} survived ({by_kind})")
    for kind, signal_number in wanted:
        print(f"not made, {MOST_LATE} sweeps were too fast: {signal_number.name} of the {kind}")
    return int(survived.total() < tried.total() or bool(wanted))


if __name__ == "__main__":
    sys.exit(main())
