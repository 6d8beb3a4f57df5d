# SPDX-License-Identifier: Apache-2.0
"""A results root in a bucket, worked on through a local copy of the part that a step needs.

Everything else knows results roots that are folders. Each step of a pipeline opens its root here:
a folder is handed on as it is; of gs://… a scratch folder gets what the step reads, and what the
step writes goes back while it runs (the trial's checkpoint, curves and progress) and at its end.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store import gcs, layout, leases, trial_copy
from ieg_core.store.gcs import StaleWriterError, Stored
from ieg_core.store.layout import AUDIT_PAGE, EXAMPLES, LOG, MODEL, relative_trial
from ieg_core.store.records import AuditRecord, LatestRecord, LeaseRecord, PlanRecord, TrialRecord

TRIES = 5
HEAVY = (
    *("checkpoint/", "leases/", "tensorboard/", MODEL, LOG, "lock"),
    *("audit/audit.", EXAMPLES, "evaluations/"),
)
"""What of a trial no report reads."""


@contextlib.contextmanager
def planning(root: str) -> Iterator[Path]:
    """Opens a results root to plan a sweep in.

    Label sets and trials' settings that are there already stay as they are: their names say their
    content. Nothing is uploaded if the body fails.

    Yields:
      The folder to plan in.

    Raises:
      UserError: The bucket cannot be reached, or no permission.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        _download(
            root,
            lambda: _only(gcs.list_files(root, "sweeps/"), f"/{PlanRecord.NAME}"),
            local,
        )
        yield local
        there = gcs.list_files(root, "label_sets/").keys()
        names = trial_copy.files_under(local)
        kept = [n for n in names if n.startswith(("label_sets/", "trials/")) and n not in there]
        gcs.side_by_side(lambda name: _create(root, local, name), kept)
        replaced = [name for name in names if name.startswith(("sweeps/", "runs/"))]
        gcs.upload(root, local, replaced, dict.fromkeys(replaced))


@contextlib.contextmanager
def trial(root: str, name: str) -> Iterator[Path]:
    """Opens a results root to work on one trial, alone.

    Waits for another pod that works on the trial. What the step writes is uploaded each minute and
    at the end, also if it fails; what a superseded pod writes is not. A trial that has its result
    is not leased: what a step adds to it goes up at the step's end.

    Args:
      root: The results root.
      name: The trial's name.

    Yields:
      A folder with that trial and its label set, as a results root.

    Raises:
      UserError: The bucket cannot be reached, or no permission.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        url = gcs.join(root, relative_trial(name))
        folder = layout.trial_folder(local, name)
        lease = trial_copy.take_lease(url)
        if lease is None:  # it has its result: nothing to be alone for
            _download(url, lambda: _finished(gcs.list_files(url)), folder)
            _download_label_set(root, local, folder)
            before = trial_copy.fresh_copy(url, folder, 0).sent
            yield local
            files = {
                file: trial_copy.stamp(folder / file) for file in trial_copy.files_under(folder)
            }
            written = [file for file in files if files[file] != before.get(file)]
            gcs.upload(url, folder, written, dict.fromkeys(written))
            return
        attempt, record, generation = lease
        try:
            _download(url, lambda: _needed(gcs.list_files(url), attempt), folder)
            _download_label_set(root, local, folder)
            with trial_copy.kept_up(trial_copy.fresh_copy(url, folder, attempt)):
                yield local
        finally:
            # So that the next pod need not wait until this one's heartbeat is old.
            ended = replace(record, ended=time.time()).encode()
            with contextlib.suppress(StaleWriterError, UserError):
                gcs.write(gcs.join(url, LeaseRecord.name(attempt)), ended, generation)


@contextlib.contextmanager
def sweep(root: str, name: str) -> Iterator[Path]:
    """Opens a results root to report on a sweep.

    Yields:
      A folder with the sweep's plan and the small files of its trials, as a results root. The
      report written there goes up if the body succeeds; then, if the body called
      `results.set_latest`, the pointer to the newest sweep is moved.

    Raises:
      UserError: The bucket cannot be reached, or no permission.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        plan = f"sweeps/{name}/{PlanRecord.NAME}"
        _download(root, lambda: gcs.list_files(root, plan), local)
        trials = layout.planned_trials(layout.sweep_folder(local, name)) or []

        def small_files(trial: str) -> dict[str, Stored]:
            below = relative_trial(trial)
            listed = _light(gcs.list_files(gcs.join(root, below)))
            return {f"{below}/{file}": stored for file, stored in listed.items()}

        def small() -> dict[str, Stored]:
            listed = _only(gcs.list_files(root, "label_sets/"), ".json")
            for found in gcs.side_by_side(small_files, trials):
                listed |= found
            return listed

        _download(root, small, local)
        yield local
        written = [
            n
            for n in trial_copy.files_under(local)
            if n.startswith(f"sweeps/{name}/") and n != plan
        ]
        gcs.upload(root, local, written, dict.fromkeys(written))
        if (local / "latest").is_symlink():
            newest = (local / "latest").readlink().name
            LatestRecord(sweep=newest).write(root)


def latest(root: str) -> str:
    """Returns the name of the sweep that was reported on last; "" before the first."""
    if gcs.is_url(root):
        found = LatestRecord.read(root)
        return found.sweep if found else ""
    link = Path(root) / "latest"
    return link.readlink().name if link.is_symlink() else ""


def fetch(root: str, name: str, folder: Path) -> list[Path]:
    """Copies what lies under a name in a results root, such as "sweeps/<sweep>/report".

    Args:
      root: A folder or gs://….
      name: Relative to it.
      folder: Where to, for a root in a bucket.

    Returns:
      The files, where they lie now; for a root that is a folder, those in it.
    """
    if not gcs.is_url(root):
        return [path for path in sorted((Path(root) / name).rglob("*")) if path.is_file()]
    url = gcs.join(root, name)
    listed = gcs.list_files(url)
    gcs.download(url, listed, folder)
    return [folder / name for name in sorted(listed)]


def _download(url: str, list_wanted: Callable[[], dict[str, Stored]], folder: Path) -> None:
    """Downloads what a listing names; lists again where something was replaced meanwhile."""
    for left in reversed(range(TRIES)):
        try:
            gcs.download(url, list_wanted(), folder)
        except FileNotFoundError:
            if not left:
                raise
        else:
            return


def _download_label_set(root: str, local: Path, folder: Path) -> None:
    record, _ = TrialRecord.look(folder)  # a damaged one fails its trial, later
    if record:
        _download(root, lambda: gcs.list_files(root, f"label_sets/{record.label_set}/"), local)


def _only(listed: dict[str, Stored], suffix: str) -> dict[str, Stored]:
    return {name: stored for name, stored in listed.items() if name.endswith(suffix)}


def _light(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Picks what a report reads of a trial."""
    return {name: stored for name, stored in listed.items() if not name.startswith(HEAVY)}


def _finished(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Picks what is shown of a finished trial: its audit too, or what one is made of."""
    audited = {AUDIT_PAGE, AuditRecord.NAME} <= listed.keys()
    wanted = AUDIT_PAGE if audited else EXAMPLES
    return _light(listed) | {name: listed[name] for name in listed.keys() & {wanted}}


def _needed(listed: dict[str, Stored], attempt: int) -> dict[str, Stored]:
    """Picks what a trial's next attempt reads.

    Not its own lease, which the worker in the scratch folder makes there as if it were alone.
    """
    saved = sorted(name for name in listed if name.startswith("checkpoint/"))
    earlier = [LeaseRecord.name(number) for number in leases.attempts(listed) if number < attempt]
    logs = [name for name in listed if name == LOG]
    return _finished(listed) | {name: listed[name] for name in [*saved[-1:], *earlier, *logs]}


def _create(root: str, local: Path, name: str) -> None:
    with contextlib.suppress(StaleWriterError):  # another plan was faster with the same
        gcs.upload(root, local, [name], {name: 0})


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ieg-results-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
