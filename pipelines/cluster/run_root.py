# SPDX-License-Identifier: Apache-2.0
"""A run's part of the results root, in a folder or a bucket that this machine can read."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.files import writable
from ieg_core.store import gcs, mirror, runs
from ieg_core.store.layout import REPORT_PAGE, SWEEPS, relative_report
from ieg_core.store.records import LatestRecord, RunRecord
from ieg_core.sweep import progress
from ieg_core.sweep.progress import TrialProgress
from ieg_core.tasks import late_report
from pipelines.cluster_files import ClusterFile

READERS = 16
BUCKET_SECONDS = 20.0
"""How long a bucket that does not answer is asked again, each time the runs are looked at."""


@dataclass
class Root:
    """The place of a run's results.

    Attributes:
      place: A folder, or gs://bucket/prefix.
      label: The run's label, under which prepare records its trials.
      sweep: The sweep's name, once prepare has recorded it.
      names: The run's trials, likewise.
      finished: Progress of the finished trials, which are not read again.
      last: What `progress` returned last.
      problem: Why the last attempt to read the root failed; "" if it did not.
    """

    place: str
    label: str
    sweep: str = ""
    names: tuple[str, ...] = ()
    finished: dict[str, TrialProgress] = field(default_factory=dict)
    last: list[TrialProgress] = field(default_factory=list)
    problem: str = ""

    def progress(self, since: float, now: float) -> tuple[list[TrialProgress], bool]:
        """Reads the progress of the run's trials.

        Args:
          since: Unix time; older progress belongs to an earlier run.
          now: Unix time, to which heartbeats are compared.

        Returns:
          The trials, none before prepare has listed them; and whether one has a recent heartbeat.
          While the root cannot be read, both as they were last.
        """
        self.problem = self._unreadable()
        if self.problem:
            return self.last, any(trial.is_running for trial in self.last)
        if not self.names:
            record = self._record()
            if not record:
                return [], False
            self.sweep, self.names = record.sweep, tuple(record.trials)
        open_trials = [name for name in self.names if name not in self.finished]

        def read(name: str) -> TrialProgress:
            return progress.read_trial(self.place, name, since, now)

        with ThreadPoolExecutor(READERS) as pool:
            read_now = dict(zip(open_trials, pool.map(read, open_trials), strict=True))
        self.finished |= {n: t for n, t in read_now.items() if t.state == progress.FINISHED}
        trials = [self.finished.get(name) or read_now[name] for name in self.names]
        self.last = trials
        return trials, any(trial.is_running for trial in read_now.values())

    def _unreadable(self) -> str:
        """Returns why the root cannot be read, in which case no trial is read; "" if it can.

        The records do not distinguish a missing file from an unreachable one.
        """
        if not gcs.is_url(self.place):
            is_lost = self.names and not Path(self.place).is_dir()
            return f"{self.place} is no longer there" if is_lost else ""
        try:
            with gcs.deadline(BUCKET_SECONDS):
                gcs.list_files(self.place, LatestRecord.NAME)
        except UserError as error:
            return str(error)
        return ""

    def _record(self) -> RunRecord | None:
        """Reads the run's record; None before prepare has written it, or if it is unreadable."""
        if not self.label:
            return None
        record, self.problem = RunRecord.look(self.place, self.label)
        return record

    def fetch_report(self, target: Path) -> str:
        """Copies the report to this machine if possible; returns where it is."""
        if not self.sweep and not self.label:
            return f"below {self.place}/{SWEEPS}: the run has no run_label to find it by"
        if not self.sweep and self.problem:
            return f"below {self.place}/{SWEEPS}, which cannot be read from here ({self.problem})"
        if not self.sweep:
            return f"none, the run ended before it listed its trials ({self.place})"
        name = relative_report(self.sweep)
        report = f"{self.place.rstrip('/')}/{name}"
        try:
            with writable(target):
                target.mkdir(parents=True, exist_ok=True)
            files = mirror.fetch(self.place, name, target)
        except UserError as error:
            return f"{report}/{REPORT_PAGE}, which cannot be read from here ({error})"
        if not any(path.name == REPORT_PAGE for path in files):
            return f"none, the run ended before it ({report})"
        with writable(target):
            for path in files:
                if path.parent != target:
                    shutil.copy(path, target)
        return str(target / REPORT_PAGE)

    def write_report(self) -> str:
        """Writes the sweep's report, for a run that ended before it; returns why it could not."""
        if not self.sweep:
            return ""
        try:
            late_report.report_sweep(self.place, self.sweep)
        except (UserError, OSError) as error:
            return str(error)
        return ""


def root_of(cluster_file: ClusterFile, run: Any) -> Root | None:
    """Returns the place of a run's results, or None if this machine cannot read it.

    Args:
      cluster_file: The cluster file.
      run: The run, as KFP describes it.

    Raises:
      UserError: When the run's results namespace is invalid.
    """
    given = (run.runtime_config.parameters or {}) if run.runtime_config else {}
    place = seen_here(cluster_file, str(given.get("results") or cluster_file.results))
    if not place:
        return None
    namespace = str(given.get("results_namespace") or "")
    return Root(
        runs.results_root(place, namespace, str(run.run_id)), str(given.get("run_label") or "")
    )


def seen_here(cluster_file: ClusterFile, place: str) -> str:
    """Returns a place of the results root as this machine sees it; "" if it cannot."""
    if place.startswith("gs://"):
        return place
    if cluster_file.results_mount and not cluster_file.results.startswith("gs://"):
        path, root = PurePosixPath(place), PurePosixPath(cluster_file.results)
        if path.is_relative_to(root):
            return str(Path(cluster_file.results_mount) / path.relative_to(root))
    return place if Path(place).is_dir() else ""
