# SPDX-License-Identifier: Apache-2.0
"""Paths in the results root: one folder per trial, named by everything that decides its outcome.

<root>/label_sets/<label set>/   prepared data (ieg_core.data.label_set)
<root>/trials/<trial>/           config.json, leases/, checkpoint/, progress.json, curves.json,
                                 matrices.safetensors, model.keras, result.json (last)
<root>/sweeps/<sweep>/           plan.json, report/
<root>/latest                    a link to the newest sweep; where links fail, a file with its path
<root>/scheduled/<name>/<run>/   the namespace of a scheduled run, itself a results root
<root>/accepted/<name>.json      the rows that later runs of a schedule are compared with

`ieg_core.store.records` defines the names and contents of the JSON files.
"""

import glob
import os
import re
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host.files import writable
from ieg_core.store import fingerprint
from ieg_core.store.names import DEFAULT_ROOT, LABEL_SETS, SWEEPS, TRIALS
from ieg_core.store.records import (
    PlanRecord,
    ReportRecord,
    ResultRecord,
    TrialRecord,
    earlier_version,
)
from ieg_core.store.seal import DIGEST, parse_json, read_file

SCHEDULED, ACCEPTED = "scheduled", "accepted"
REPORT = "report"
CHECKPOINTS, TENSORBOARD = "checkpoint", "tensorboard"
LABEL_ARRAYS = "arrays.safetensors"
"""The labels and index sets of a label set."""
EXAMPLES = "examples.safetensors"
"""The per-example outputs of a trial's training (`ieg_core.training.history`)."""
MATRICES = "matrices.safetensors"
"""A trial's confusion matrices."""
MODEL = "model.keras"
"""A trial's exported network."""
HEAD = "head.safetensors"
"""The layers of a trial's head on features, and the reduction of its features."""
LOG = "log.txt"
"""The output of a trial's processes, or of a sweep's pipeline on this machine."""
AUDIT_PAGE = "audit/audit.html"
REPORT_PAGE, REPORT_TABLE, REPORT_ROWS = "report.html", "results.md", "results.csv"
REPORT_JSON = Path(ReportRecord.NAME).name
"""The files of a report: for reading, for pasting, for spreadsheets, for programs."""
_LATEST = "latest"
LATEST_EXAMPLE = f"{DEFAULT_ROOT}/{_LATEST}"
SWEEP_EXAMPLE, TRIAL_EXAMPLE = f"{DEFAULT_ROOT}/{SWEEPS}/…", f"{DEFAULT_ROOT}/{TRIALS}/…"
"""Folders as messages and help texts name them."""


def checkpoint_name(attempt: int) -> str:
    """Returns the name of an attempt's checkpoint, relative to its trial."""
    return f"{CHECKPOINTS}/{attempt:06d}.safetensors"


def relative_trial(trial: str) -> str:
    """Returns a trial's folder, relative to the results root."""
    return f"{TRIALS}/{trial}"


def relative_sweep(sweep: str) -> str:
    """Returns a sweep's folder, relative to the results root."""
    return f"{SWEEPS}/{sweep}"


def relative_report(sweep: str) -> str:
    """Returns the folder of a sweep's report, relative to the results root."""
    return f"{relative_sweep(sweep)}/{REPORT}"


def require_this_version(root: Path) -> None:
    """Checks that this version can read a results root.

    Raises:
      UserError: When an earlier version wrote it.
    """
    if (root / "cells").is_dir():
        raise earlier_version(root, "cells/")
    configs = list(root.glob(f"{relative_trial('*')}/{TrialRecord.NAME}"))
    if configs and all(map(_lacks_digest, configs)):
        raise earlier_version(root, "files without digests")


def _lacks_digest(config: Path) -> bool:
    try:
        value = parse_json(read_file(config))
    except (OSError, ValueError):
        return False  # damage says nothing about the version
    return isinstance(value, dict) and "trial" in value and DIGEST not in value


def root_of(folder: Path) -> Path:
    """Returns the results root of the folder of a trial or a sweep."""
    return folder.parent.parent


def trial_folder(root: Path, trial: str) -> Path:
    """Returns a trial's folder."""
    return root / relative_trial(trial)


def find_run(place: Path) -> Path:
    """Returns the absolute folder of a run, given its path with or without the digest.

    A path without the digest, such as runs/trials/digits_uniform_0.4-ieg-seed0, stands for the run
    of that name that was planned last, whatever its settings and code.

    Raises:
      UserError: When the run is in a results root of an earlier version.
    """
    folder = Path(os.path.realpath(place))  # unlike `resolve`, does not raise for a loop of links
    if folder.name == _LATEST and folder.is_file():
        folder = sweep_folder(folder.parent, latest_sweep(folder.parent))
    require_this_version(folder)
    if folder.parent.name in ("cells", SWEEPS):
        require_this_version(root_of(folder))
    if folder.exists():
        return folder
    planned = [
        config
        for config in folder.parent.glob(f"{glob.escape(folder.name)}-*/{TrialRecord.NAME}")
        if re.fullmatch("-[0-9a-f]{12}", config.parent.name.removeprefix(folder.name))
    ]
    newest = max(planned, key=_age, default=None)
    return newest.parent if newest else folder


def label_sets_folder(root: Path) -> Path:
    """Returns the folder of the label sets."""
    return root / LABEL_SETS


def sweep_folder(root: Path, sweep: str) -> Path:
    """Returns a sweep's folder."""
    return root / relative_sweep(sweep)


def tuning_table(root: Path, name: str) -> Path:
    """Returns the file of the points that a tuning tried."""
    return root / "tunings" / f"{name}.csv"


def report_folder(root: Path, sweep: str) -> Path:
    """Returns the folder of a sweep's report."""
    return root / relative_report(sweep)


def planned_trials(folder: Path) -> list[str] | None:
    """Returns the names of the trials in a sweep's plan; None if the folder has no plan.

    Raises:
      UserError: When the plan is damaged.
    """
    plan = PlanRecord.read(folder)
    return list(plan.trials) if plan else None


def set_latest(root: Path, sweep: str) -> None:
    """Points <root>/latest to a sweep, atomically.

    It is a link, or on a file system without links a text file with the sweep's path.

    Raises:
      UserError: When the root cannot be written.
    """
    target, temporary = Path(relative_sweep(sweep)), root / f".latest.{os.getpid()}"
    with writable(root):
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target)
        except OSError:
            temporary.write_text(f"{target.as_posix()}\n")
        temporary.replace(root / _LATEST)


def latest_sweep(root: Path) -> str:
    """Returns the name of the sweep that <root>/latest points to; "" if there is none."""
    place = root / _LATEST
    if place.is_symlink():
        return place.readlink().name
    return Path(place.read_text(errors="replace").strip()).name if place.is_file() else ""


def latest_folder(root: Path) -> Path:
    """Returns a path of the newest sweep's folder to show to people."""
    place = root / _LATEST
    return place if place.is_symlink() else sweep_folder(root, latest_sweep(root))


def is_finished(root: Path, trial: str) -> bool:
    """Returns whether a trial has its result."""
    return ResultRecord.exists(trial_folder(root, trial))


def is_trial(folder: Path) -> bool:
    """Returns whether a folder belongs to a planned trial."""
    return folder.parent.name == TRIALS and TrialRecord.path(folder).exists()


def planned_sweeps(root: Path) -> list[str]:
    """Returns the names of the sweeps that have a plan, in the order in which they were planned."""
    plans = root.glob(f"{relative_sweep('*')}/{PlanRecord.NAME}")
    return [plan.parent.name for plan in sorted(plans, key=_age)]


def _age(path: Path) -> tuple[int, Path]:
    """Returns a key that sorts files by their age, unreadable ones first."""
    try:
        return path.stat().st_mtime_ns, path
    except OSError:  # such as a link to nothing, which `glob` lists
        return 0, path


def find_trials(place: Path) -> tuple[Path, str, list[str]]:
    """Finds the trials that a folder stands for.

    Args:
      place: A results root, which stands for the sweep that was planned last; the folder of a
        sweep, of its report, or of a trial.

    Returns:
      The results root; the sweep's name, "" for a single trial; and the names of the trials in the
      order in which they start.

    Raises:
      UserError: When the folder is none of these, or the sweep's plan is damaged.
    """
    folder = find_run(place)
    if folder.name == REPORT:
        folder = folder.parent
    if sweeps := planned_sweeps(folder):
        folder = sweep_folder(folder, sweeps[-1])
    root = root_of(folder)
    planned = planned_trials(folder) if folder.parent.name == SWEEPS else None
    if planned is not None:
        return root, folder.name, planned
    if is_trial(folder):
        return root, "", [folder.name]
    raise UserError(
        f"{place} contains no results: expected the folder of a sweep ({LATEST_EXAMPLE}, "
        f"{SWEEP_EXAMPLE}), a results root ({DEFAULT_ROOT}) or the folder of a trial "
        f"({TRIAL_EXAMPLE})"
    )


def read_planned(root: Path, trial: str) -> TrialRecord:
    """Reads the record of a planned trial.

    Raises:
      UserError: When there is no such trial, its record is damaged, or its settings are not those
        that the trial is named by.
    """
    folder = trial_folder(root, trial)
    record = TrialRecord.read(folder)
    if record is None:
        raise UserError(f"there is no trial {trial!r} under {root}: plan it first (make sweep)")
    if not fingerprint.is_named(record, trial):
        raise UserError(
            f"{TrialRecord.path(folder)} has other settings than those that {trial} is named by: "
            "plan it again (make sweep), which restores the file, or plan the other settings as a "
            "trial of their own (SET=…)"
        )
    return record


def read_result(root: Path, trial: str) -> ResultRecord:
    """Reads the result of a finished trial.

    Raises:
      UserError: When there is no result or it is damaged.
    """
    result = ResultRecord.read(trial_folder(root, trial))
    if result is None:
        raise UserError(f"{trial} under {root} has no result: finish its training (make sweep)")
    return result
