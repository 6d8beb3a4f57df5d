# SPDX-License-Identifier: Apache-2.0
"""The results root: one folder a trial, named by all that decides its outcome.

<root>/label_sets/<label set>/       prepared data (ieg_core.data)
<root>/trials/<trial>/             config.json, leases/, checkpoint/, progress.json, curves.json,
                                 matrices.safetensors, model.keras, result.json (last)
<root>/sweeps/<sweep>/           plan.json, report/
<root>/latest                    a link to the newest sweep
<root>/scheduled/<name>/<run>/   a scheduled run's namespace: a results root of its own
<root>/accepted/<name>.json      the rows that a schedule's next runs are held against
"""

import contextlib
import glob
import os
import re
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, from_dict
from ieg_core.host import files
from ieg_core.host.files import read_json, writable
from ieg_core.store import layout

SCHEDULED, ACCEPTED = "scheduled", "accepted"


def trial_folder(root: Path, trial: str) -> Path:
    """Returns a trial's folder."""
    return root / "trials" / trial


def find_run(place: Path) -> Path:
    """Returns the folder that people mean by a run's path, absolute.

    A name may lack the digest at its end, as in runs/trials/digits_uniform_0.4-ieg-seed0. Of
    several runs of that name, with other settings or by other code, the one that was planned last
    is meant.
    """
    folder = place.resolve()
    if folder.exists():
        return folder
    planned = [
        config
        for config in folder.parent.glob(f"{glob.escape(folder.name)}-*/config.json")
        if re.fullmatch("-[0-9a-f]{12}", config.parent.name.removeprefix(folder.name))
    ]
    newest = max(planned, key=lambda config: (config.stat().st_mtime_ns, config), default=None)
    return newest.parent if newest else folder


def label_sets_folder(root: Path) -> Path:
    """Returns the folder of the prepared data sets."""
    return root / "label_sets"


def sweep_folder(root: Path, sweep: str) -> Path:
    """Returns a sweep's folder."""
    return root / "sweeps" / sweep


def report_folder(root: Path, sweep: str) -> Path:
    """Returns the folder of a sweep's report."""
    return sweep_folder(root, sweep) / "report"


def planned_trials(folder: Path) -> list[str] | None:
    """Returns the names of the trials that a sweep's plan lists; None for a folder without a plan.

    Raises:
      UserError: The plan is damaged.
    """
    plan = read_json(folder / "plan.json")
    if plan is None:
        return None
    names = plan.get("trials") if isinstance(plan, dict) else None
    if not isinstance(names, list):
        raise UserError(
            f"{folder / 'plan.json'} is damaged (it has no list of trials): run the sweep again"
        )
    return [str(name) for name in names]


def set_latest(root: Path, sweep: str) -> None:
    """Points <root>/latest at a sweep, atomically."""
    temporary = root / f".latest.{os.getpid()}"
    with writable(root):
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(Path("sweeps") / sweep)
        temporary.replace(root / "latest")


def is_finished(root: Path, trial: str) -> bool:
    """Returns whether a trial has its result."""
    return (layout.trial_folder(root, trial) / "result.json").exists()


def read_config(root: Path, trial: str) -> Config:
    """Reads a planned trial's configuration."""
    record = files.read_json(layout.trial_folder(root, trial) / "config.json")
    if record is None:
        raise UserError(f"there is no trial {trial!r} under {root}")
    return from_dict(record["config"])
