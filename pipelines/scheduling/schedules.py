# SPDX-License-Identifier: Apache-2.0
"""Scheduled reproductions as schedules.yaml names them, read strictly.

Each run works in a results namespace of its own. KFP's macros for that ([[ScheduledTime]],
[[Index]], ...) are not expanded for v2 pipelines (kubeflow/pipelines #12494), so the run's id is
taken, which KFP's driver puts in (`{run}`, see `ieg_core.store.runs`).
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError, require, unknown_name
from ieg_core.store.layout import SCHEDULED
from ieg_core.store.runs import RUN
from ieg_core.sweep.configurations import configs
from ieg_core.sweep.request import REQUEST_OPTIONS, SweepRequest
from pipelines import parameters, strict_yaml
from pipelines.cluster_files import ClusterFile
from pipelines.scheduling import cron as crons
from pipelines.variables import PROFILES

FILE = "schedules.yaml"


@dataclass(frozen=True)
class Terms:
    """When and how a scheduled reproduction runs; what it trains is a `SweepRequest`.

    Attributes:
      name: Its name in KFP, and of its folder in the results root.
      cron: When: second, minute, hour, day of the month, month, day of the week.
      tolerance: Points of accuracy, percent.
      profile: "gpu" or "cpu".
      time_zone: The zone that `cron` was written for; it has to be the cluster's.
      max_gpu_hours: Largest estimate of one run, in GPU-hours; 0 for the cluster file's.
    """

    name: str
    cron: str
    tolerance: float
    profile: str = "gpu"
    time_zone: str = ""
    max_gpu_hours: float = 0.0

    def __post_init__(self) -> None:
        label = re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", self.name)
        require(bool(label), "name", self.name, "at most 40 of a-z, 0-9 and - (KFP and a folder)")
        crons.check(self.cron)
        fires = crons.runs_a_month(self.cron) > 0
        require(fires, "cron", self.cron, "an expression that fires on some date")
        require(0 <= self.tolerance <= 100, "tolerance", self.tolerance, "points from 0 to 100")
        require(self.profile in PROFILES, "profile", self.profile, "'gpu' or 'cpu'")
        hours = self.max_gpu_hours
        require(0 <= hours < 1e9, "max_gpu_hours", hours, "GPU-hours, or 0 for the cluster file's")


@dataclass(frozen=True, kw_only=True)
class Schedule(Terms):
    """One scheduled reproduction.

    Attributes:
      request: What each run trains.
    """

    request: SweepRequest

    @property
    def arguments(self) -> dict[str, Any]:
        """The pipeline's parameters; those left out are the profile's own."""
        return {
            **parameters.sent(self.request),
            "results_namespace": f"{SCHEDULED}/{self.name}/{RUN}",
            "schedule": self.name,
            "tolerance": self.tolerance,
        }


def request_keys() -> list[str]:
    """Lists the keys of schedules.yaml that say what to train: a request's, but for the place's."""
    return [name for name in REQUEST_OPTIONS if name not in parameters.OF_THE_PLACE]


def _entries(content: object) -> list[Any]:
    """Returns what stands under the file's only key."""
    if not isinstance(content, dict):
        raise UserError(f"expected the key schedules with a list, got {content!r}")
    for key in content:
        if key != "schedules":
            raise unknown_name("key", str(key), ["schedules"])
    entries = content.get("schedules")
    if not isinstance(entries, list):
        raise UserError(f"schedules: expected a list, got {entries!r}")
    return entries


def _build(content: object, where: str) -> Schedule:
    """Builds a schedule from a YAML mapping, which holds its terms and its request side by side."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected keys with values, got {content!r}")
    keys = request_keys()
    known = [*keys, *(each.name for each in fields(Terms))]
    for key in content:
        if key not in known:
            raise unknown_name(f"key in {where}", str(key), known)
    if missing := [key for key in ("methods", "seeds") if key not in content]:
        raise UserError(f"{where}: {', '.join(missing)} missing: expected a value for each")
    trained = {key: value for key, value in content.items() if key in keys}
    others = {key: value for key, value in content.items() if key not in keys}
    terms: Terms = strict_yaml.build(Terms, others, where)
    trained["accelerator"] = terms.profile == "gpu"
    request: SweepRequest = strict_yaml.build(SweepRequest, trained, where)
    return Schedule(**vars(terms), request=request)


def read(path: Path, cluster_file: ClusterFile, *, max_trials: int) -> list[Schedule]:
    """Reads schedules.yaml.

    Args:
      path: The file.
      cluster_file: The installation, for its time zone.
      max_trials: Most trials that one run may have.

    Raises:
      UserError: When the file is missing or not valid YAML, a key is unknown, a value wrong, the
        time zone another, a cron has 5 fields, or no sweep could do it; it names the schedule.
    """
    try:
        content = strict_yaml.read(path)
        schedules = [_build(each, f"schedules[{i}]") for i, each in enumerate(_entries(content))]
        names = [schedule.name for schedule in schedules]
        for schedule in schedules:
            if names.count(schedule.name) > 1:
                raise UserError(f"two schedules are named {schedule.name!r}: rename one")
            _check(schedule, cluster_file, max_trials)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None
    return schedules


def _check(schedule: Schedule, cluster_file: ClusterFile, max_trials: int) -> None:
    try:
        if schedule.time_zone and schedule.time_zone != cluster_file.time_zone:
            raise UserError(
                f"time_zone {schedule.time_zone!r} is not the cluster's: KFP reads all schedules "
                f"in one zone, {cluster_file.time_zone}; write the cron for it, or change the "
                "controller's "
                "CRON_SCHEDULE_TIMEZONE and time_zone in the cluster file"
            )
        trials = len(configs(schedule.request))
        if trials > max_trials:
            raise UserError(
                f"its {trials} trials are more than the {max_trials} of one run: split it in two"
            )
    except UserError as error:
        raise UserError(f"schedule {schedule.name!r}: {error}") from None
