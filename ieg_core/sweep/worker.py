# SPDX-License-Identifier: Apache-2.0
"""Trains or evaluates one trial in a process of its own: what ends it costs that trial only.

`run_step` is what a KFP component and the command line call: it takes a slot of the machine, starts
`python -m ieg_core.sweep.worker`, copies its output to the trial's log.txt, and where it dies
without a word (killed, out of memory) writes down why. Only the child imports a deep-learning
framework.

In a pod there are two ways to die. If the pod is killed (pre-empted, evicted, its node lost, the
container out of memory as one), then so is the process that calls `run_step`, with nothing written
down: the task has failed, and the cluster's retry goes on from the checkpoint. If the child alone
is killed, or ends with an error, the same would happen again: the failure is recorded and costs
this trial only, for a failed task would stop the whole run's report. Nobody handles SIGTERM: the
checkpoints are the guarantee, and a moment's notice is not enough to write one.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ieg_core.errors import DivergedError, UserError
from ieg_core.host import machine, processes
from ieg_core.host.runtime import Runtime, is_gpu_required
from ieg_core.store import leases
from ieg_core.store.layout import LOG, trial_folder
from ieg_core.store.leases import TrialBusyError
from ieg_core.store.records import (
    AuditRecord,
    FailureRecord,
    ProgressRecord,
    ResultRecord,
    TrainingRecord,
    record_failure,
)
from ieg_core.sweep import slots

AGAIN = "evaluate again"
PHASES = {"train": "training", "evaluate": "evaluating", AGAIN: "evaluating"}
BUSY_SECONDS = 1.0
LOG_LINES = 40
EXIT_FAILED, EXIT_USER_ERROR, EXIT_DIVERGED, EXIT_SUPERSEDED = 1, 2, 3, 4


def run_step(
    step: str,
    trial: str,
    results: Path,
    data_dir: Path,
    *,
    slot: slots.Slot | None = None,
    echo: bool = True,
) -> int:
    """Trains or evaluates a trial; does nothing where that is done or cannot be done.

    A failure is recorded in the trial's failure.json, not raised. Training tries a failed trial
    anew; evaluation leaves it alone.

    Args:
      step: "train", "evaluate", or `AGAIN`, which evaluates a trial that has its result.
      trial: The trial's name, as planned.
      results: The results root.
      data_dir: Where the base data sets lie.
      slot: What the trial may use; by default a free slot of the runner's, or the whole machine.
      echo: Whether to print the worker's output too.

    Returns:
      0; or the worker's exit code: 1 failed, 2 a mistake in what was asked for, 3 diverged, 4
      another machine has taken the trial over, negative for the signal that killed it.
    """
    processes.die_with_parent()
    folder = trial_folder(results, trial)
    failure = FailureRecord.path(folder)
    if ResultRecord.exists(folder) and step != AGAIN:
        return 0
    if step == "evaluate" and failure.exists():
        return EXIT_FAILED
    if not leases.is_live_elsewhere(folder):
        failure.unlink(missing_ok=True)
    if step == "train" and TrainingRecord.exists(folder):
        return 0
    with contextlib.nullcontext(slot) if slot else _slot() as share:
        _tell(folder, "starting" if step == "train" else PHASES[step])
        numbers = [str(share.threads), str(share.num_replicas)]
        command = [
            sys.executable,
            "-m",
            "ieg_core.sweep.worker",
            step,
            trial,
            str(results),
            str(data_dir),
        ]
        environment = os.environ | processes.children_environment()
        if share.gpus or not is_gpu_required():  # without nvidia-smi the framework may see one
            environment |= share.env
        environment["PYTHONUNBUFFERED"] = "1"  # or a killed worker's last words are lost
        code, pid = _run(command + numbers, environment, folder / LOG, echo)
    if code not in (0, EXIT_SUPERSEDED) and not failure.exists() and leases.end_of(folder, pid):
        _record_failure(folder, step, code)
    return code


def _tell(folder: Path, phase: str) -> None:
    """Shows the trial as running while its process still starts, unless another machine has it."""
    if leases.is_live_elsewhere(folder):
        return
    known, _ = ProgressRecord.look(folder)
    now = time.time()
    # Without an attempt: or a dead one would seem to have a heartbeat.
    shown = replace(known, phase=phase, updated=now, attempt=0) if known else None
    (shown or ProgressRecord(phase=phase, updated=now)).write(folder)


@contextlib.contextmanager
def _slot() -> Iterator[slots.Slot]:
    """Holds a slot where the runner laid some out; alone, as in a pod, the whole machine."""
    directory = os.environ.get(slots.DIRECTORY)
    if directory:
        with slots.acquire(Path(directory)) as slot:
            yield slot
    else:
        yield slots.Slot(machine.usable_cores(), machine.find_gpus("auto"))


def _run(command: list[str], environment: dict[str, str], log: Path, echo: bool) -> tuple[int, int]:
    """Runs a process to its end; returns its exit code and its id."""
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            env=environment,
            # Ctrl-C is for those who wait for it; it ends with them.
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            file.flush()
            if echo:
                print(line, end="", flush=True)
    return process.returncode, process.pid


def _record_failure(folder: Path, step: str, code: int) -> None:
    """Writes down the end of a worker that could not do so itself."""
    log = (folder / LOG).read_text(encoding="utf-8").strip().splitlines()
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", probably out of memory" if -code == signal.SIGKILL else ""
        reason = f"killed by {name}{hint}"
    else:
        reason = f"exit code {code}: {log[-1] if log else 'no output'}"
    record_failure(folder, PHASES[step], reason, "\n".join(log[-LOG_LINES:]))


def main(arguments: list[str]) -> int:
    """Runs in the child, with the arguments that `run_step` put there."""
    processes.die_with_parent()
    from ieg_core.training import run_trial

    step, trial, results, data_dir, threads, num_replicas = arguments
    works: dict[str, Callable[..., object]] = {
        "train": run_trial.train_trial,
        "evaluate": run_trial.evaluate_trial,
        AGAIN: functools.partial(run_trial.evaluate_trial, again=True),
    }
    work = works[step]
    while True:
        try:
            runtime = Runtime(threads=int(threads), num_replicas=int(num_replicas))
            work(trial, Path(results), Path(data_dir), runtime)
        except TrialBusyError:
            # Another sweep shares this trial: wait for its result.
            time.sleep(BUSY_SECONDS)
        except leases.SupersededError as error:
            print(f"ieg: {error}")
            return EXIT_SUPERSEDED
        except UserError as error:
            print(f"ieg: error: {error}")
            return EXIT_USER_ERROR
        except DivergedError as error:
            print(f"ieg: diverged: {error}")
            return EXIT_DIVERGED
        except Exception:
            traceback.print_exc()
            return EXIT_FAILED
        else:
            if step == "train":
                _audit(trial_folder(Path(results), trial), Path(data_dir))
            return 0


def _audit(folder: Path, data_dir: Path) -> None:
    """Audits a trial that was just trained, while its process is there; it may fail for itself."""
    from ieg_core.audit.findings import is_available
    from ieg_core.audit.write import audit_trial

    if not is_available(folder) or AuditRecord.exists(folder):
        return
    try:
        audit_trial(folder, data_dir)
    except UserError as error:
        print(f"ieg: no audit: {error}")
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
