# SPDX-License-Identifier: Apache-2.0
"""Output that several commands share: tables, and the progress of one trial."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ieg_core.errors import EXIT_DIVERGED, EXIT_FAILED, EXIT_USER_ERROR
from ieg_core.store.layout import LOG, read_result, trial_folder
from ieg_core.store.records import FailureRecord
from ieg_core.sweep import progress, slots, worker

PIPED_COLUMNS = 160


def open_console(piped_columns: int = PIPED_COLUMNS) -> Console:
    """Returns a console for standard output, as wide as the terminal.

    Args:
      piped_columns: The width where standard output is not a terminal.
    """
    width = None if sys.stdout.isatty() else piped_columns
    return Console(width=width, highlight=False)


def run_steps(
    steps: Sequence[str], trial: str, root: Path, data_dir: Path, slot: slots.Slot
) -> int:
    """Runs steps of a trial, prints their progress and the test accuracy.

    Args:
      steps: Steps of `worker.run_step`; the first one that fails is the last one that runs.
      trial: The trial's name.
      root: The results root.
      data_dir: Folder of the base data sets.
      slot: What the trial may use.

    Returns:
      The exit code: 0, or that of the step that failed.
    """
    codes: list[int] = []

    def work() -> None:
        for step in steps:
            codes.append(worker.run_step(step, trial, root, data_dir, slot=slot, echo=False))
            if codes[-1]:
                return

    # A daemon, so that Ctrl-C ends this process at once; the trial's process ends with it.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    progress.watch(root, [trial], thread.is_alive)
    folder = trial_folder(root, trial)
    code = codes[-1] if codes else EXIT_FAILED
    if code:
        failure, _ = FailureRecord.look(folder)
        reason = failure.reason if failure else "no reason was recorded"
        kinds = {EXIT_USER_ERROR: "error", EXIT_DIVERGED: "diverged"}
        kind = kinds.get(code, "failed")
        print(f"ieg: {kind}: {reason} (log: {folder / LOG})", file=sys.stderr)
        return code if code > 0 else EXIT_FAILED
    result = read_result(root, trial)
    print(
        f"Test accuracy {100 * result.accuracy_ema_last:.1f} % after the last step (moving average "
        f"of the parameters; {100 * result.accuracy_last:.1f} % without), "
        f"{result.steps_per_second:.1f} steps/s"
    )
    print(folder)
    return 0
