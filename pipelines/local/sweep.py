# SPDX-License-Identifier: Apache-2.0
"""`make sweep` on this machine: plan, estimate, run the pipeline in a child, show its progress."""

import contextlib
import heapq
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ieg_core.cli.output import open_console
from ieg_core.errors import EXIT_FAILED, EXIT_OK, UserError
from ieg_core.host import machine, processes
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.files import writable
from ieg_core.host.locks import lock, open_lock
from ieg_core.report.model import summarize
from ieg_core.report.terminal import print_report
from ieg_core.report.trials import Stamp, file_stamp, load_sweep
from ieg_core.store import layout
from ieg_core.store.layout import sweep_folder
from ieg_core.store.records import ReportRecord
from ieg_core.sweep import estimate, plan, progress, slots
from ieg_core.sweep.live_report import LiveReport
from pipelines.options import Options

SCRATCH = "ieg-sweep-"
STOP_SECONDS = 10.0


def run_sweep(options: Options) -> int:
    """Runs the noise sweep on this machine.

    1. Plan it here, so that a mistake is one line before anything starts.
    2. Share the machine out among the trials that are not finished.
    3. Estimate how long they take; refuse what takes too long.
    4. Run the pipeline in a child process with its output in a log, and show the trials' progress
       here and on the page that will be the report.
    5. Print the results.

    Returns:
      The exit code: 0, or 1 if a trial failed.

    Raises:
      UserError: When the request is wrong, or would take longer than MAX_HOURS.
    """
    planned = plan.plan(options.request)
    root = options.results
    pending = [trial for trial in planned.trials if not layout.is_finished(root, trial)]
    cores, memory = machine.usable_cores(), machine.usable_memory()
    shares = slots.plan_slots(
        len(pending),
        options.gpus,
        options.gpus_per_trial,
        cores,
        memory,
        required=options.gpus_required,
    )
    for note in planned.notes:
        print(f"Note: {note}")
    print(f"Sweep {planned.sweep}: {_count(planned.trials, pending)}", flush=True)
    estimates = accept_estimate(options, pending, shares) if pending else {}
    at_once = len(shares) if pending else cores
    layout.set_latest(root, planned.sweep)
    if pending:
        print(f"Live report: {_page(root)}", flush=True)
    code, has_reported = _run_pipeline(options, planned, shares, at_once, estimates)
    return _conclude(root, planned, code, has_reported)


def _count(trials: Sequence[str], pending: Sequence[str]) -> str:
    done = len(trials) - len(pending)
    return _several(len(trials), "trial") + (f", {done} of them finished already" if done else "")


def _several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def accept_estimate(
    options: Options, pending: Sequence[str], shares: Sequence[slots.Slot]
) -> Mapping[str, float]:
    """Prints how long the trials will take, and returns the seconds of each.

    Raises:
      UserError: When they take longer than MAX_HOURS.
    """
    share = shares[0]
    seconds = estimate.seconds_per_trial(options.results, pending, share)
    total = side_by_side(seconds.values(), len(shares))
    device = _several(len(share.gpus), "GPU") if share.gpus else _several(share.threads, "thread")
    print(
        f"Estimate: {progress.duration(total)} from measured steps; "
        f"{len(shares)} at once, {device} each",
        flush=True,
    )
    if total > options.max_hours * 3600:
        raise UserError(
            f"the sweep would take about {total / 3600:.1f} hours, more than "
            f"MAX_HOURS={options.max_hours:g}: allow more, or lower STEPS, METHODS, NOISE or SEEDS"
        )
    return seconds


def side_by_side(seconds: Iterable[float], at_once: int) -> float:
    """Returns how long jobs take in their order, each starting as soon as a slot is free.

    Args:
      seconds: How long each job takes.
      at_once: Number of slots.

    Returns:
      When the last one ends, in seconds.
    """
    ends = [0.0] * at_once
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _run_pipeline(
    options: Options,
    planned: plan.Plan,
    shares: Sequence[slots.Slot],
    at_once: int,
    estimates: Mapping[str, float],
) -> tuple[int, bool]:
    """Runs the pipeline in a child process while showing the trials' progress.

    Returns its exit code, and whether it has written its report.

    The child has a process group of its own: Ctrl-C reaches this process alone, which then stops
    the child and all that it started. If this one is killed, they end themselves.
    """
    log = log_path(options.results, planned)
    results = ReportRecord.path(sweep_folder(options.results, planned.sweep))
    before = file_stamp(results)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch_folder())
        slots.write_slots(scratch / "slots", shares)
        (scratch / "tmp").mkdir()
        job = {"arguments": options.request.parameters, "at_once": at_once}
        (scratch / "job.json").write_text(json.dumps(job))
        environment = os.environ | processes.children_environment()
        environment |= {slots.DIRECTORY: str(scratch / "slots"), "TMPDIR": str(scratch / "tmp")}
        with writable(log.parent):
            output = stack.enter_context(log.open("w", encoding="utf-8"))

        def write_log(line: str) -> None:
            print(line, file=output, flush=True)

        live = LiveReport(options.results, planned.sweep, estimates, write_log)
        stack.callback(live.close)
        command = [sys.executable, "-m", "pipelines", "child", str(scratch)]
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        stack.callback(_stop, child)
        progress.watch(
            options.results,
            planned.trials,
            lambda: child.poll() is None,
            expected=side_by_side(estimates.values(), len(shares)),
            estimates=estimates,
            on_look=live.update,
        )
        return child.wait(), _is_new(results, before)


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Makes a folder for temporary files of kfp and its tasks; removes those of killed sweeps.

    Each folder has a file lock that is held as long as its process lives.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*/lock"):
        with contextlib.suppress(OSError):  # another user's
            handle = open_lock(path, own=True, create=False)
            if lock(handle):
                shutil.rmtree(path.parent, ignore_errors=True)
            os.close(handle)
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        handle = open_lock(folder / ".lock")
        stack.callback(os.close, handle)
        if lock(handle) is None:
            raise UserError(
                f"the folder for temporary files, {tempfile.gettempdir()}, does not support file "
                "locks: set TMPDIR to a folder on a local disk"
            )
        (folder / ".lock").rename(folder / "lock")  # nobody sees it before it is held
        yield folder


def log_path(root: Path, planned: plan.Plan) -> Path:
    """Returns where the pipeline's output goes."""
    return sweep_folder(root, planned.sweep) / layout.LOG


def _stop(child: subprocess.Popen[bytes], clock: Clock = CLOCK) -> None:
    """Stops the child and everything in its process group."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        deadline = clock.monotonic() + patience
        while clock.monotonic() < deadline:
            child.poll()
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return
            clock.sleep(0.05)


def run_child(scratch: Path) -> None:
    """Runs the pipeline; what `_run_pipeline` starts."""
    from pipelines import noise_sweep, profiles
    from pipelines.local import runner

    processes.die_with_parent()
    os.environ.update(processes.children_environment())
    job: Mapping[str, Any] = json.loads((scratch / "job.json").read_text(encoding="utf-8"))
    runner.log_to_stdout()
    pipeline = noise_sweep.build(profiles.LOCAL)
    runner.run(pipeline, job["arguments"], scratch=scratch / "kfp", at_once=job["at_once"])


def _page(root: Path) -> Path:
    return layout.latest_folder(root) / layout.REPORT / layout.REPORT_PAGE


def _is_new(path: Path, before: Stamp) -> bool:
    """Returns whether a file was written since, whatever its file system's clock shows."""
    return file_stamp(path) not in (None, before)


def _conclude(root: Path, planned: plan.Plan, code: int, has_reported: bool) -> int:
    """Prints the results table and where everything is; returns the exit code."""
    if not has_reported:
        log = log_path(root, planned)
        last_line = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
        print(f"the pipeline failed before its report: {last_line} ({log})", file=sys.stderr)
        return EXIT_FAILED
    report = summarize(load_sweep(root, planned.sweep))
    print()
    print_report(report, open_console())
    print(f"Report: {_page(root)}", flush=True)
    for row in (trial.row for trial in report.missing):
        log = root / row["run_directory"] / layout.LOG
        print(f"{row['status']}: {row['trial']}: {row['reason']} ({log})", file=sys.stderr)
    if code and not report.missing:
        print(f"the pipeline failed, see {log_path(root, planned)}", file=sys.stderr)
    return EXIT_FAILED if code or report.missing else EXIT_OK
