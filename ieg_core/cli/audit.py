# SPDX-License-Identifier: Apache-2.0
"""`ieg audit RUN_DIR...`: audits a run, or every run of a sweep."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path

from ieg_core.audit.findings import THRESHOLD, is_available
from ieg_core.audit.write import TOP, audit_trial
from ieg_core.cli import options
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec
from ieg_core.recipes import build
from ieg_core.store.layout import (
    AUDIT_PAGE,
    find_run,
    planned_trials,
    read_planned,
    trial_folder,
)
from ieg_core.store.records import AuditRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg audit`."""
    parser.add_argument(
        "run_dirs",
        nargs="+",
        type=Path,
        metavar="RUN_DIR",
        help="a run, runs/trials/…, or a sweep, such as runs/latest",
    )
    options.add_data_dir(parser)
    parser.add_argument("--top", type=int, default=TOP, help=f"examples in the gallery ({TOP})")
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        help=f"flag labels whose score is at least this, in [0, 1] ({THRESHOLD})",
    )
    parser.add_argument(
        "--write-labels",
        type=Path,
        metavar="FILE",
        help="write the cleaned labels, .csv or .parquet, for DATASET=<base>_labels LABELS=FILE",
    )


def run(arguments: argparse.Namespace) -> int:
    """Audits runs, or the runs of sweeps, and prints a summary of each audit."""
    places = arguments.run_dirs
    folders = list(dict.fromkeys(folder for place in places for folder in find_trials(place)))
    if arguments.write_labels is not None and len(folders) > 1:
        raise UserError(
            f"--write-labels with {len(folders)} runs ({' '.join(map(str, places))}): expected one "
            f"run, such as {folders[0]}"
        )
    for folder in folders:
        summary = audit_trial(
            folder,
            Path(arguments.data_dir),
            top=arguments.top,
            threshold=arguments.threshold,
            labels_file=arguments.write_labels,
        )
        print(describe(summary))
        print(folder / AUDIT_PAGE)
    if arguments.write_labels is not None:
        command = next_command(folders[0], arguments.data_dir, arguments.write_labels)
        print(f"{arguments.write_labels}: cleaned labels, for {command}")
    return 0


def find_trials(run_dir: Path) -> list[Path]:
    """Returns the folders of a run, or of the runs of a sweep that can be audited.

    Raises:
      UserError: When none of the sweep's runs can be audited.
    """
    folder = find_run(run_dir)
    planned = planned_trials(folder)
    if planned is None:
        return [folder]
    root = folder.parent.parent
    trials = [trial_folder(root, name) for name in planned]
    auditable = [trial for trial in trials if is_available(trial)]
    if not auditable:
        raise UserError(
            f"none of the {len(trials)} runs of {run_dir} can be audited: expected a finished run "
            "of a method that trains on the noisy labels"
        )
    return auditable


def next_command(folder: Path, data_dir: str, labels_file: Path) -> str:
    """Returns the command that trains on cleaned labels of the audited run's data.

    The command repeats the run's image settings: a label file belongs to images read in one way.

    Args:
      folder: The audited run's folder.
      data_dir: Folder of the base data sets.
      labels_file: The file of cleaned labels.
    """
    config = read_planned(folder.parent.parent, folder.name).settings
    spec = dataset_spec.parse(f"{dataset_spec.parse(config.dataset).base}_{dataset_spec.LABELS}")
    words = {"DATASET": str(spec), "LABELS": str(labels_file)}
    if data_dir != options.DATA_DIR:
        words["DATA_DIR"] = data_dir
    usual = build.build_config(spec, config.method).images
    if config.images and config.images != usual:
        changed = [
            f"images.{key}={','.join(value) if isinstance(value, tuple) else value}"
            for key, value in asdict(config.images).items()
            if usual is None or getattr(usual, key) != value
        ]
        words["SET"] = " ".join(changed)
    return " ".join(["make sweep", *(f"{key}={shlex.quote(text)}" for key, text in words.items())])


def describe(summary: AuditRecord) -> str:
    """Formats an audit as one line."""
    text = (
        f"{summary.dataset}, {summary.method}, seed {summary.seed}: "
        f"{summary.flagged} of {summary.examples} labels look wrong"
    )
    if summary.average_precision is None:
        return text
    measures = {
        "average precision": summary.average_precision,
        "AUROC": summary.auroc,
        "precision": summary.precision,
        "recall": summary.recall,
    }
    listed = ", ".join(f"{name} {'-' if x is None else f'{x:.3f}'}" for name, x in measures.items())
    return f"{text}; {summary.wrong} are ({listed})"
