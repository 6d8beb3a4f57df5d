# SPDX-License-Identifier: Apache-2.0
"""Scheduled reproductions as schedules.yaml names them, read strictly.

Each run works in a results namespace of its own. KFP's macros for that ([[ScheduledTime]],
[[Index]], ...) are not expanded for v2 pipelines (kubeflow/pipelines #12494), so the run's id is
taken, which KFP's driver puts in (`{run}`, see `ieg_core.store.runs`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ieg_core.errors import UserError, require
from ieg_core.store.layout import SCHEDULED
from ieg_core.store.runs import RUN
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from pipelines import cluster_files
from pipelines.cluster_files import ClusterFile
from pipelines.scheduling import cron as crons

FILE = "schedules.yaml"
PROFILES = ("cpu", "gpu")


@dataclass(frozen=True)
class Schedule:
    """One scheduled reproduction.

    Attributes:
      name: Its name in KFP, and of its folder in the results root.
      cron: When: second, minute, hour, day of the month, month, day of the week.
      dataset: Data set, complete or to be completed by the noise ratios.
      methods: Names of methods.
      seeds: Seeds; the mean over them is what is judged.
      tolerance: Points of accuracy, per cent.
      noise_ratios: Empty for the data set's usual ones.
      recipe: Recipe family; empty chooses by data set and profile.
      network: Another network than the recipe's.
      steps: Another length than the recipe's; 0 keeps it.
      profile: "gpu" or "cpu".
      time_zone: The zone that `cron` was written for; it has to be the cluster's.
    """

    name: str
    cron: str
    dataset: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    tolerance: float
    noise_ratios: tuple[float, ...] = ()
    recipe: str = ""
    network: str = ""
    steps: int = 0
    profile: str = "gpu"
    time_zone: str = ""

    def __post_init__(self) -> None:
        label = re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", self.name)
        require(bool(label), "name", self.name, "at most 40 of a-z, 0-9 and - (KFP and a folder)")
        crons.check(self.cron)
        require(0 <= self.tolerance <= 100, "tolerance", self.tolerance, "points from 0 to 100")
        require(self.profile in PROFILES, "profile", self.profile, "'gpu' or 'cpu'")
        require(self.steps >= 0, "steps", self.steps, "at least 1, or 0 for the recipe's")

    @property
    def request(self) -> SweepRequest:
        """What each run trains."""
        return SweepRequest(
            dataset=self.dataset,
            noise_ratios=self.noise_ratios,
            methods=self.methods,
            seeds=self.seeds,
            recipe=self.recipe,
            network=self.network,
            steps=self.steps,
            accelerator=self.profile == "gpu",
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The pipeline's parameters; those left out are the profile's own."""
        return {
            "dataset": self.dataset,
            "noise_ratios": list(self.noise_ratios),
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "recipe": self.recipe,
            "network": self.network,
            "steps": self.steps,
            "results_namespace": f"{SCHEDULED}/{self.name}/{RUN}",
            "schedule": self.name,
            "tolerance": self.tolerance,
        }


@dataclass(frozen=True)
class _File:
    schedules: tuple[Schedule, ...]


def read(path: Path, cluster_file: ClusterFile, *, max_trials: int) -> list[Schedule]:
    """Reads schedules.yaml.

    Args:
      path: The file.
      cluster_file: The installation, for its time zone.
      max_trials: Most trials that one run may have.

    Raises:
      UserError: No such file, no YAML, an unknown key, a wrong value, another time zone, a cron of
        5 fields, or what no sweep could do; it names the schedule.
    """
    try:
        text = path.read_text(encoding="utf-8")
        cluster_files.refuse_doubles(yaml.compose(text, yaml.SafeLoader))
        content = yaml.safe_load(text)
        found: _File = cluster_files.build(_File, {} if content is None else content, "")
        names = [schedule.name for schedule in found.schedules]
        for schedule in found.schedules:
            if names.count(schedule.name) > 1:
                raise UserError(f"two schedules are named {schedule.name!r}: rename one")
            _check(schedule, cluster_file, max_trials)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None
    return list(found.schedules)


def _check(schedule: Schedule, cluster_file: ClusterFile, max_trials: int) -> None:
    try:
        if schedule.time_zone and schedule.time_zone != cluster_file.time_zone:
            raise UserError(
                f"time_zone {schedule.time_zone!r} is not the cluster's: KFP reads all schedules "
                f"in one zone, {cluster_file.time_zone}; write the cron for it, or change the "
                "controller's "
                "CRON_SCHEDULE_TIMEZONE and time_zone in the cluster file"
            )
        trials = len(plan.configs(schedule.request))
        if trials > max_trials:
            raise UserError(
                f"its {trials} trials are more than the {max_trials} of one run: split it in two"
            )
    except UserError as error:
        raise UserError(f"schedule {schedule.name!r}: {error}") from None
