# SPDX-License-Identifier: Apache-2.0
"""`ieg evaluate RUN_DIR`: evaluates a trained trial."""

import argparse
from pathlib import Path

from ieg_core.cli import options
from ieg_core.cli.output import run_steps
from ieg_core.errors import UserError
from ieg_core.host.machine import find_gpus
from ieg_core.store.layout import TRIAL_EXAMPLE, find_run, is_trial, root_of
from ieg_core.store.records import TrainingRecord, TrialRecord, remove_failure
from ieg_core.sweep import slots, worker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg evaluate`."""
    parser.add_argument("run_dir", type=Path, help=f"for example {TRIAL_EXAMPLE}")
    options.add_run_data_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates a trained trial from its checkpoint, even if it has a result.

    Raises:
      UserError: When the folder is not that of a trial, or the trial has not finished training.
    """
    folder = find_run(arguments.run_dir)
    if not is_trial(folder):
        raise UserError(
            f"{arguments.run_dir} is not a run: expected a folder such as {TRIAL_EXAMPLE}, "
            f"with a {TrialRecord.NAME} in it"
        )
    if not TrainingRecord.exists(folder):
        raise UserError(
            f"{arguments.run_dir} has not finished training: run ieg train or make sweep again"
        )
    remove_failure(folder)
    slot = slots.whole_machine(find_gpus("auto"))
    root, data_dir = root_of(folder), Path(options.data_dir_of(folder, arguments.data_dir))
    return run_steps((worker.AGAIN,), folder.name, root, data_dir, slot)
