# SPDX-License-Identifier: Apache-2.0
"""Trains or evaluates one trial in a child process, so that a crash costs that trial only.

KFP components and the command line call `run_step`. It takes a slot of the machine, starts
`python -m ieg_core.sweep.worker`, copies its output to the trial's log.txt, and records why the
child died if the child could not (killed, out of memory). Only the child imports a deep-learning
framework.

A trial in a pod can die in two ways. If the whole pod is killed (preempted, evicted, its node
lost), so is the process that calls `run_step`, which records nothing: the task fails, and the
cluster's retry resumes from the checkpoint. If only the child is killed or fails, a retry would
fail in the same way: `run_step` records the failure and returns, because a failed task would
prevent the report of the whole run. A pod without memory would be killed whole, and again after
each retry; there a guard kills the child just before (`container_memory`), and a timer does before
the pod's time is over. There is no SIGTERM handler: the grace period may be too short to write a
checkpoint, so training relies on the regular ones.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from ieg_core.errors import (
    EXIT_DIVERGED,
    EXIT_FAILED,
    EXIT_SUPERSEDED,
    EXIT_USER_ERROR,
    DivergedError,
    UserError,
)
from ieg_core.host import container_memory, machine, processes
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.runtime import WARNING, Runtime, is_gpu_required
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
    remove_failure,
)
from ieg_core.store.runs import TIME_LIMIT
from ieg_core.sweep import slots

AGAIN = "evaluate again"
AUDIT = "audit"
PHASES = {"train": "training", "evaluate": "evaluating", AGAIN: "evaluating"}
BUSY_SECONDS = 1.0
LOG_LINES = 40
LOG_BYTES = 16 * 2**20
"""Largest size of a trial's log, over all attempts, and of what an attempt echoes."""
LINE_LENGTH = 2**16
_BEGAN = time.monotonic()


def run_step(
    step: str,
    trial: str,
    results: Path,
    data_dir: Path,
    *,
    slot: slots.Slot | None = None,
    echo: bool = True,
) -> int:
    """Trains or evaluates a trial, unless that is already done or impossible.

    A failure is recorded in the trial's failure.json, not raised. Training retries a failed trial;
    evaluation skips it.

    Args:
      step: "train", "evaluate", or `AGAIN`, which evaluates even a trial that has a result.
      trial: The trial's name, as planned.
      results: The results root.
      data_dir: Folder of the base data sets.
      slot: What the trial may use; by default one of the runner's free slots, or the whole
        machine.
      echo: Whether to print the worker's output too.

    Returns:
      0, or the worker's exit code: 1 failed, 2 invalid request, 3 diverged, 4 another machine has
      taken the trial over; negative: the signal that killed it.
    """
    processes.die_with_parent()
    folder = trial_folder(results, trial)
    try:
        return _run_step(step, trial, folder, results, data_dir, slot, echo)
    except (OSError, UserError) as error:
        # A task that fails would take the whole run's report with it.
        print(f"ieg: error: {error}")
        with contextlib.suppress(OSError, UserError):
            record_failure(folder, PHASES[step], str(error))
        return EXIT_USER_ERROR


def _run_step(
    step: str,
    trial: str,
    folder: Path,
    results: Path,
    data_dir: Path,
    slot: slots.Slot | None,
    echo: bool,
) -> int:
    failure = FailureRecord.path(folder)
    if ResultRecord.exists(folder) and step != AGAIN:
        return 0
    if step == "evaluate" and failure.exists():
        return EXIT_FAILED
    if not leases.is_live_elsewhere(folder):
        remove_failure(folder)
    if step == "train" and TrainingRecord.exists(folder):
        return 0
    with contextlib.nullcontext(slot) if slot else _acquire_slot() as held:
        _write_phase(folder, "starting" if step == "train" else PHASES[step])
        environment = _environment()
        # Without nvidia-smi no GPU is found here, but the framework may still see one.
        if held.gpus or not is_gpu_required():
            environment |= held.env
        command = _command(step, trial, results, data_dir, held)
        ended = _run(command, environment, folder / LOG, echo)
    lost = ended.code not in (0, EXIT_SUPERSEDED) and not failure.exists()
    if lost and leases.end_of(folder, ended.pid):
        _record_failure(folder, step, ended)
    return ended.code


def run_audit(trial: str, results: Path, data_dir: Path) -> str:
    """Audits a trained trial whose audit is missing; a failure does not fail the trial.

    Args:
      trial: The trial's name.
      results: The results root.
      data_dir: Folder of the base data sets.

    Returns:
      Why there is no audit; "" if there is one now.
    """
    log = trial_folder(results, trial) / LOG
    command = _command(AUDIT, trial, results, data_dir, slots.Slot(1))
    try:
        ended = _run(command, _environment(), log, echo=True)
        if ended.code == EXIT_USER_ERROR:
            return _last_lines(log, 1).removeprefix("ieg: error: ")
        return _reason(log, ended) if ended.code else ""
    except OSError as error:
        return str(error)


def _command(step: str, trial: str, results: Path, data_dir: Path, slot: slots.Slot) -> list[str]:
    arguments = (step, trial, results, data_dir, slot.threads, slot.num_replicas)
    return [sys.executable, "-m", "ieg_core.sweep.worker", *map(str, arguments)]


def _environment() -> dict[str, str]:
    unbuffered = {"PYTHONUNBUFFERED": "1"}  # a killed worker would lose its last lines
    return os.environ | processes.children_environment() | unbuffered


def _write_phase(folder: Path, phase: str) -> None:
    """Marks the trial as running while its process starts, unless another machine runs it."""
    if leases.is_live_elsewhere(folder):
        return
    now = time.time()
    progress = ProgressRecord.look(folder)[0] or ProgressRecord(phase=phase, updated=now)
    # attempt=0: otherwise this would count as a heartbeat of a dead attempt.
    replace(progress, phase=phase, updated=now, attempt=0).write(folder)


@contextlib.contextmanager
def _acquire_slot() -> Iterator[slots.Slot]:
    """Holds one of the runner's slots; without a runner, as in a pod, the whole machine."""
    directory = os.environ.get(slots.DIRECTORY)
    if directory:
        with slots.acquire(Path(directory)) as slot:
            yield slot
    else:
        yield slots.whole_machine(machine.find_gpus("auto"))


@dataclass(frozen=True)
class _Ended:
    """How a process ended: its exit code, its id, and why it was killed by us, if it was."""

    code: int
    pid: int
    reason: str


def _run(command: list[str], environment: dict[str, str], log: Path, echo: bool) -> _Ended:
    """Runs a process until it ends."""
    echoed = 0
    with (
        contextlib.closing(_Log(log)) as file,
        subprocess.Popen(
            command,
            env=environment,
            # Ctrl-C must reach only the processes that wait for this one: it ends with its parent.
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
        _guarded_if_alone(process) as memory,
        _ended_in_time(process) as timer,
    ):
        output = cast(IO[str], process.stdout)
        while line := output.readline(LINE_LENGTH):
            file.write(line)
            echoed += len(line)
            if echoed > LOG_BYTES:
                continue
            if echo:
                print(line, end="", flush=True)
            elif line.startswith(WARNING):
                print(line, end="", file=sys.stderr)
    return _Ended(process.returncode, process.pid, memory.reason or timer.reason)


class _Log:
    """A trial's log, to which each attempt appends; the older half is dropped if it is too long."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        """Appends a line, or a part of one."""
        self._file.write(line)
        self._file.flush()
        if os.fstat(self._file.fileno()).st_size > LOG_BYTES:
            self.close()
            kept = self._path.read_bytes()[-LOG_BYTES // 2 :]
            kept = kept[kept.find(b"\n") + 1 :]
            write_bytes_atomic(self._path, b"[earlier lines were dropped]\n" + kept)
            self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _guarded_if_alone(
    process: "subprocess.Popen[str]",
) -> contextlib.AbstractContextManager[container_memory.Guard]:
    """Guards the only trial of a container; with a runner's slots it may not be the one to end."""
    if os.environ.get(slots.DIRECTORY):
        return contextlib.nullcontext(container_memory.Guard())
    return container_memory.guarded(process)


@contextlib.contextmanager
def _ended_in_time(process: "subprocess.Popen[str]") -> Iterator[container_memory.Guard]:
    """Kills a process when the time of this task is over, so that the task itself can go on."""
    guard = container_memory.Guard()
    limit = float(os.environ.get(TIME_LIMIT) or 0)
    if not limit:
        yield guard
        return

    def end() -> None:
        guard.reason = (
            f"over the time limit of its pod, {limit / 3600:g} hours: raise time_limit in the "
            "cluster file, or lower trials_per_pod; RESUME continues from the last checkpoint"
        )
        process.kill()

    timer = threading.Timer(max(0.0, _BEGAN + limit - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield guard
    finally:
        timer.cancel()
        timer.join()


def _record_failure(folder: Path, step: str, ended: _Ended) -> None:
    """Records the failure of a worker that could not do so itself."""
    log = folder / LOG
    record_failure(folder, PHASES[step], _reason(log, ended), _last_lines(log, LOG_LINES))


def _reason(log: Path, ended: _Ended) -> str:
    if ended.reason:
        return ended.reason
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        hint = ", probably out of memory" if -ended.code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    return f"exit code {ended.code}: {_last_lines(log, 1) or 'no output'}"


def _last_lines(log: Path, count: int) -> str:
    return "\n".join(log.read_text(encoding="utf-8").strip().splitlines()[-count:])


def main(arguments: list[str], clock: Clock = CLOCK) -> int:
    """Runs the step in the child process, with the arguments that `run_step` passes."""
    processes.die_with_parent()
    from ieg_core.training import run_trial

    step, trial, results, data_dir, threads, num_replicas = arguments
    works: dict[str, Callable[..., object]] = {
        "train": run_trial.train_trial,
        "evaluate": run_trial.evaluate_trial,
        AGAIN: functools.partial(run_trial.evaluate_trial, again=True),
        AUDIT: _audit,
    }
    work = works[step]
    while True:
        try:
            runtime = Runtime(threads=int(threads), num_replicas=int(num_replicas))
            work(trial, Path(results), Path(data_dir), runtime)
        except TrialBusyError:
            # Another sweep is running this trial: wait for its result.
            clock.sleep(BUSY_SECONDS)
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
                _audit_after_training(trial, Path(results), Path(data_dir), runtime)
            return 0


def _audit(trial: str, root: Path, data_dir: Path, runtime: Runtime) -> None:
    from ieg_core.audit.write import audit_trial

    audit_trial(trial_folder(root, trial), data_dir)


def _audit_after_training(trial: str, root: Path, data_dir: Path, runtime: Runtime) -> None:
    """Audits a trial that was just trained; a failure of the audit does not fail the trial."""
    from ieg_core.audit.findings import is_available

    folder = trial_folder(root, trial)
    if not is_available(folder) or AuditRecord.exists(folder):
        return
    try:
        _audit(trial, root, data_dir, runtime)
    except UserError as error:
        print(f"ieg: no audit: {error}")
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
