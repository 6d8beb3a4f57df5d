# SPDX-License-Identifier: Apache-2.0
"""A run's part of the results root, where this machine can read it: a folder or a bucket."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.files import writable
from ieg_core.store import mirror, runs
from ieg_core.store.records import RunRecord
from ieg_core.sweep import progress
from ieg_core.sweep.progress import TrialProgress
from pipelines.cluster_files import ClusterFile

READERS = 16


@dataclass
class Root:
    """Where a run keeps its results.

    Attributes:
      place: A folder, or gs://bucket/prefix.
      label: The run's label; prepare writes its trials down under it.
      sweep: The sweep's name, once prepare has told it.
      names: The run's trials, likewise.
      finished: Progress of the trials that are finished, which are not read again.
      problem: Why this machine could not read the run's record when it last tried; or "".
    """

    place: str
    label: str
    sweep: str = ""
    names: tuple[str, ...] = ()
    finished: dict[str, TrialProgress] = field(default_factory=dict)
    problem: str = ""

    def progress(self, since: float) -> tuple[list[TrialProgress], bool]:
        """Reads how far the run's trials are.

        Args:
          since: Unix time before which progress is an earlier run's.

        Returns:
          The trials, none before prepare has listed them; and whether one has a fresh heartbeat.
        """
        if not self.names:
            record = self._record()
            if not record:
                return [], False
            self.sweep, self.names = record.sweep, tuple(record.trials)
        open_trials = [name for name in self.names if name not in self.finished]

        def read(name: str) -> TrialProgress:
            return progress.read_trial(self.place, name, since, time.time())

        with ThreadPoolExecutor(READERS) as pool:
            found = dict(zip(open_trials, pool.map(read, open_trials), strict=True))
        self.finished |= {name: c for name, c in found.items() if c.state == progress.FINISHED}
        trials = [self.finished.get(name) or found[name] for name in self.names]
        return trials, any(trial.is_running for trial in found.values())

    def _record(self) -> RunRecord | None:
        """Reads what prepare wrote down of the run; None before it has, or if it cannot be read."""
        if not self.label:
            return None
        record, self.problem = RunRecord.look(self.place, self.label)
        return record

    def fetch_report(self, target: Path) -> str:
        """Copies the report to this machine, if it can be read there; returns where it is."""
        if not self.sweep and not self.label:
            return f"below {self.place}/sweeps: the run has no run_label to find it by"
        if not self.sweep and self.problem:
            return f"below {self.place}/sweeps, which cannot be read from here ({self.problem})"
        if not self.sweep:
            return f"none, the run ended before it listed its trials ({self.place})"
        name = f"sweeps/{self.sweep}/report"
        report = f"{self.place.rstrip('/')}/{name}"
        try:
            with writable(target):
                target.mkdir(parents=True, exist_ok=True)
            files = mirror.fetch(self.place, name, target)
        except UserError as error:
            return f"{report}/report.html, which cannot be read from here ({error})"
        if not any(path.name == "report.html" for path in files):
            return f"none, the run ended before it ({report})"
        with writable(target):
            for path in files:
                if path.parent != target:
                    shutil.copy(path, target)
        return str(target / "report.html")


def root_of(cluster_file: ClusterFile, run: Any) -> Root | None:
    """Returns where a run keeps its results, or None if this machine cannot read that.

    Args:
      cluster_file: The cluster file.
      run: The run, as KFP describes it.

    Raises:
      UserError: The run's namespace of results is none.
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
    """Returns how this machine sees a place in the results root; "" if it does not."""
    if place.startswith("gs://"):
        return place
    if cluster_file.results_mount and not cluster_file.results.startswith("gs://"):
        path, root = PurePosixPath(place), PurePosixPath(cluster_file.results)
        if path.is_relative_to(root):
            return str(Path(cluster_file.results_mount) / path.relative_to(root))
    return place if Path(place).is_dir() else ""
