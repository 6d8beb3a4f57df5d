# SPDX-License-Identifier: Apache-2.0
"""Long trainings, large sweeps, and several sweeps at once in one results root.

    python -m scripts.chaos_long [steps] [trials] [together]

* `steps`: one trial of 20,000 steps of a small network. Its process is sampled twice a second:
  memory, open files and threads must not grow after the first quarter, nor the trial's folder
  beyond a bound.
* `trials`: a sweep of 200 trials that are finished already, each of which still has its tasks. The
  same holds of the sweep's driver and of its pipeline, and of the folder for temporary files.
* `together`: the same sweep twice, and once of another revision, at the same time in one root. All
  must end with 0, each revision must have its own trials, and the results of both must be those of
  a sweep that was alone, to the bit.

Prints the figures; the exit code is 1 if something grew or differs.
"""

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ieg_core.host.clock import CLOCK
from ieg_core.host.program import Parser, program
from ieg_core.store import layout
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from scripts.chaos_kills import ROOT, Sweep, last_line, outcome
from tests.records import finish

STEPS, TRIALS = 20_000, 200
NETWORK: Final = "docs.examples.small_network:build"
SMALL: Final = ("batch_size=10", "evaluations=4")
SAMPLE_SECONDS: Final = 0.5
WARM_UP: Final = 0.25
"""Share of a process's samples that do not count: imports, compilation, first buffers."""
GROWTH: Final = {"memory": 0.04, "files": 0.0, "threads": 0.0}
"""Largest growth of each figure from the second quarter to the last, as a share."""
TRIAL_BYTES: Final = 4 * 2**20
OTHER_REVISION: Final = "ieg_core/training/loop.py"


@dataclass
class Samples:
    """The figures of one process over its life.

    Attributes:
      memory: Resident memory, bytes.
      files: Number of open files.
      threads: Number of threads.
    """

    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def add(self, pid: int) -> None:
        """Looks at a process; does nothing if it has ended."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
            files = len(os.listdir(f"/proc/{pid}/fd"))
            threads = len(os.listdir(f"/proc/{pid}/task"))
        except (OSError, IndexError):
            return
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.files.append(files)
        self.threads.append(threads)

    def grown(self) -> Mapping[str, tuple[float, float]]:
        """Returns the medians of the second and of the last quarter, by figure."""
        quarter = max(1, len(self.memory) // 4)
        return {
            name: (
                statistics.median(values[quarter : 2 * quarter] or values),
                statistics.median(values[-quarter:]),
            )
            for name, values in vars(self).items()
        }

    def problems(self, who: str) -> list[str]:
        """Prints the figures of a process; returns a line for each that grew."""
        print(f"  {who}: {len(self.memory)} samples", flush=True)
        lines = []
        for name, (before, after) in self.grown().items():
            scale, unit = (2**20, " MiB") if name == "memory" else (1, "")
            text = f"{name} {before / scale:.0f}{unit}, at the end {after / scale:.0f}{unit}"
            print(f"    {text}", flush=True)
            if after > before * (1 + GROWTH[name]) + (0 if name == "memory" else 1):
                lines.append(f"{who}: {text}")
        return lines


def size_of(folder: Path) -> int:
    """Returns the bytes of the files under a folder."""
    total = 0
    for owner, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # being replaced
                total += (Path(owner) / name).lstat().st_size
    return total


def many_steps(folder: Path) -> list[str]:
    """Trains one trial for `STEPS` steps; returns what grew."""
    command = [sys.executable, "-m", "ieg_core.cli.main", "train", "--dataset=digits_uniform_0.4"]
    command += ["--method=supervised", f"--network={NETWORK}", f"--steps={STEPS}", "--devices=cpu"]
    command += [*(f"--set={setting}" for setting in SMALL), f"--out={folder}"]
    sweep = Sweep.of(command, folder, {"IEG_CHECKPOINT_SECONDS": "1"})
    worker, parent = Samples(), Samples()
    sizes = [0]
    while sweep.process.poll() is None:
        CLOCK.sleep(SAMPLE_SECONDS)
        parent.add(sweep.process.pid)
        for pid in sweep.of_kind("trial"):
            worker.add(pid)
        sizes.append(size_of(folder / layout.TRIALS))
    if sweep.process.returncode:
        return [f"the training of {STEPS} steps failed: {last_line(folder)}"]
    (trial,) = (folder / layout.TRIALS).iterdir()
    log = (trial / layout.LOG).stat().st_size
    print(f"steps: {STEPS:,} steps, {max(sizes) / 2**20:.1f} MiB at most, log of {log:,} bytes")
    problems = worker.problems("the trial") + parent.problems("ieg train")
    if max(sizes) > TRIAL_BYTES:
        problems.append(f"the trial's folder has {max(sizes):,} bytes")
    return problems


def many_trials(folder: Path) -> list[str]:
    """Runs a sweep of `TRIALS` finished trials; returns what grew."""
    seeds = ",".join(str(seed) for seed in range(TRIALS // 2))
    request = SweepRequest(
        "digits_uniform",
        (0.4,),
        ("supervised", "l2r"),
        seeds=tuple(range(TRIALS // 2)),
        steps=50,
        results=str(folder),
    )
    planned = plan.plan(request)
    for number, trial in enumerate(planned.trials):
        finish(folder, layout.read_planned(folder, trial), 0.5 + number / 1000)
    before = size_of(folder)
    options = ["DATASET=digits_uniform", "NOISE=0.4", "METHODS=supervised,l2r", f"SEEDS={seeds}"]
    scratch = folder.parent / "tmp"
    scratch.mkdir()
    command = [sys.executable, "-m", "pipelines", "run", "noise_sweep", "DEVICES=cpu", *options]
    command += ["STEPS=50", f"OUT={folder}"]
    sweep = Sweep.of(command, folder, {"TMPDIR": str(scratch)})
    driver, pipeline, largest, began = Samples(), Samples(), 0, CLOCK.monotonic()
    while sweep.process.poll() is None:
        CLOCK.sleep(SAMPLE_SECONDS)
        driver.add(sweep.process.pid)
        for pid in sweep.of_kind("pipeline"):
            pipeline.add(pid)
        largest = max(largest, size_of(scratch))
    if sweep.process.returncode:
        return [f"the sweep of {TRIALS} trials failed: {last_line(folder)}"]
    log = (layout.latest_folder(folder) / layout.LOG).stat().st_size
    print(
        f"trials: {len(planned.trials)} trials in {CLOCK.monotonic() - began:.0f} s; at most "
        f"{largest / 2**20:.1f} MiB of temporary files, {size_of(scratch):,} bytes left; log of "
        f"{log:,} bytes, report of {size_of(folder) - before - log:,} bytes"
    )
    problems = driver.problems("the driver") + pipeline.problems("the pipeline")
    if left := sorted(path.name for path in scratch.iterdir()):
        problems.append(f"left in the folder for temporary files: {left}")
    return problems


def sweeps_together(folder: Path) -> list[str]:
    """Runs sweeps at once in one root; returns what is wrong with them."""
    alone = Sweep.start(folder / "alone")
    if alone.process.wait():
        return [f"the sweep that was alone failed: {last_line(folder / 'alone')}"]
    expected = outcome(folder / "alone")
    other = folder / "revision"
    for name in ("ieg_core", "components", "pipelines", "docs"):
        shutil.copytree(ROOT / name, other / name)
    with (other / OTHER_REVISION).open("a", encoding="utf-8") as file:
        file.write("# another revision\n")
    root = folder / "shared"
    sweeps = [Sweep.start(root, cwd=each) for each in (ROOT, ROOT, other)]
    codes = [sweep.process.wait() for sweep in sweeps]
    found = outcome(root)
    others = {name: figures for name, figures in found.items() if name not in expected}
    print(f"together: exit codes {codes}; {len(found) - len(others)} and {len(others)} trials")
    problems = [f"a sweep ended with {code}: {last_line(root)}" for code in codes if code]
    if {name: found.get(name) for name in expected} != expected:
        problems.append("a trial has other results than alone")
    if sorted(others.values(), key=repr) != sorted(expected.values(), key=repr):
        problems.append("a trial of the other revision has other results than alone")
    return problems


STAGES: Final[Mapping[str, Callable[[Path], list[str]]]] = {
    "steps": many_steps,
    "trials": many_trials,
    "together": sweeps_together,
}


@program("chaos-long")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages; returns 1 if something grew or differs."""
    parser = Parser(description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="all by default")
    chosen = parser.parse_args(arguments).stages or list(STAGES)
    problems = []
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="ieg-chaos-") as folder:
            place = Path(folder) / "root"
            place.mkdir()
            found = STAGES[name](place)
        problems += found
        for line in found:
            print(f"{name}: {line}", flush=True)
    print(f"long: {len(chosen)} stages, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
