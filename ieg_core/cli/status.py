# SPDX-License-Identifier: Apache-2.0
"""`ieg status [RUN_DIR]`: prints the progress of a sweep that another process runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ieg_core.cli import options
from ieg_core.cli.output import open_console
from ieg_core.errors import EXIT_FAILED
from ieg_core.host.clock import CLOCK
from ieg_core.report.provenance import differences
from ieg_core.store.layout import find_trials, trial_folder
from ieg_core.store.names import DEFAULT_ROOT
from ieg_core.store.records import ResultRecord
from ieg_core.sweep import progress
from ieg_core.sweep.progress import TrialProgress, read_trial


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg status`."""
    parser.add_argument(
        "run_dir",
        nargs="?",
        type=Path,
        default=Path(DEFAULT_ROOT),
        metavar="RUN_DIR",
        help=f"a results root, a sweep, or a trial ({DEFAULT_ROOT})",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--watch", action="store_true", help="repeat until no trial is running")
    options.add_json(form, "one JSON object: root, and for each trial its state, step, accuracy …")


def run(arguments: argparse.Namespace) -> int:
    """Prints the progress of a sweep; returns exit code 1 if one of its trials failed.

    With --json, prints {"root": …, "trials": [{"trial", "state", "step", "num_steps",
    "steps_per_second", "accuracy", "reason", "seconds_left"}, …]}, in the order in which they
    start, as `ieg_core.sweep.progress.TrialProgress` describes them; None is null.
    """
    root, _, names = find_trials(arguments.run_dir)
    console = open_console(progress.PIPED_WIDTH)

    def read() -> list[TrialProgress]:
        return [read_trial(root, name, 0.0, CLOCK.now()) for name in names]

    def is_running() -> bool:
        return any(trial.is_running for trial in read())

    trials = read()
    if arguments.json:
        rows = [{**vars(trial), "seconds_left": trial.seconds_left} for trial in trials]
        options.print_json({"root": root, "trials": rows})
        return _exit_code(trials)
    watched = arguments.watch and any(trial.is_running for trial in trials)
    if watched:
        trials = progress.watch(root, names, is_running, read=read)
    if not (watched and console.is_terminal):  # a terminal still shows the last table
        console.print(progress.table(trials, None, len(names) + 4, width=console.width))
    for trial in trials:
        if trial.reason:
            console.print(progress.line(trial), style="red", markup=False, soft_wrap=True)
    results = (ResultRecord.look(trial_folder(root, name))[0] for name in names)
    for line in differences(result.to_value() for result in results if result):
        print(f"Finished trials differ in {line}")
    idle = sum(trial.state in (progress.WAITING, progress.INTERRUPTED) for trial in trials)
    if idle and not any(trial.is_running for trial in trials):
        print(f"Nothing is running; {idle} to go: to continue, run the same command again.")
    return _exit_code(trials)


def _exit_code(trials: Sequence[TrialProgress]) -> int:
    failed = any(trial.state == progress.FAILED for trial in trials)
    return EXIT_FAILED if failed else 0
