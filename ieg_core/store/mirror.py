# SPDX-License-Identifier: Apache-2.0
"""A results root in a bucket, through a local copy of the part that a step needs.

All other modules require a results root that is a folder. Each step of a pipeline opens its root
here. A folder is returned unchanged. For gs://…, the files that the step reads are copied to a
scratch folder; the files that it writes are uploaded while it runs (the trial's checkpoint, curves
and progress) and when it ends.
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
"""The files of a trial that no report reads."""


@contextlib.contextmanager
def planning(root: str) -> Iterator[Path]:
    """Opens a results root to plan a sweep in.

    Existing label sets and trial records are not replaced: their names determine their content.
    Nothing is uploaded if the body fails.

    Yields:
      The folder to plan in.

    Raises:
      UserError: When the bucket cannot be reached or permission is missing.
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

    Waits while another pod works on the trial. Uploads what the step writes every minute and at the
    end, even if the step fails, but not if the pod was superseded. A trial that has a result is not
    leased: additions to it are uploaded at the end of the step.

    Args:
      root: The results root.
      name: The trial's name.

    Yields:
      A folder with that trial and its label set, as a results root.

    Raises:
      UserError: When the bucket cannot be reached or permission is missing.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        url = gcs.join(root, relative_trial(name))
        folder = layout.trial_folder(local, name)
        lease = trial_copy.take_lease(url)
        if lease is None:  # the trial has a result, so no other pod changes it
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
            # Otherwise the next pod would wait until this one's heartbeat is stale.
            ended = replace(record, ended=time.time()).encode()
            with contextlib.suppress(StaleWriterError, UserError):
                gcs.write(gcs.join(url, LeaseRecord.name(attempt)), ended, generation)


@contextlib.contextmanager
def sweep(root: str, name: str) -> Iterator[Path]:
    """Opens a results root to report on a sweep.

    Yields:
      A folder with the sweep's plan and the small files of its trials, as a results root. The
      report written there is uploaded if the body succeeds; then, if the body called
      `layout.set_latest`, the pointer to the latest sweep is moved.

    Raises:
      UserError: When the bucket cannot be reached or permission is missing.
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
            for files in gcs.side_by_side(small_files, trials):
                listed |= files
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
    """Returns the name of the sweep with the latest report; "" before the first."""
    if gcs.is_url(root):
        record = LatestRecord.read(root)
        return record.sweep if record else ""
    link = Path(root) / "latest"
    return link.readlink().name if link.is_symlink() else ""


def fetch(root: str, name: str, folder: Path) -> list[Path]:
    """Copies the files under a name in a results root, such as "sweeps/<sweep>/report".

    Args:
      root: A folder or gs://….
      name: The name, relative to the root.
      folder: The folder to copy to; not used if the root is a folder.

    Returns:
      The copies; if the root is a folder, the files themselves.
    """
    if not gcs.is_url(root):
        return [path for path in sorted((Path(root) / name).rglob("*")) if path.is_file()]
    url = gcs.join(root, name)
    listed = gcs.list_files(url)
    gcs.download(url, listed, folder)
    return [folder / name for name in sorted(listed)]


def _download(url: str, list_wanted: Callable[[], dict[str, Stored]], folder: Path) -> None:
    """Downloads the listed objects; lists them again if one was replaced meanwhile."""
    for left in reversed(range(TRIES)):
        try:
            gcs.download(url, list_wanted(), folder)
        except FileNotFoundError:
            if not left:
                raise
        else:
            return


def _download_label_set(root: str, local: Path, folder: Path) -> None:
    record, _ = TrialRecord.look(folder)  # a damaged one fails its trial later
    if record:
        _download(root, lambda: gcs.list_files(root, f"label_sets/{record.label_set}/"), local)


def _only(listed: dict[str, Stored], suffix: str) -> dict[str, Stored]:
    return {name: stored for name, stored in listed.items() if name.endswith(suffix)}


def _light(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Selects the files of a trial that a report reads."""
    return {name: stored for name, stored in listed.items() if not name.startswith(HEAVY)}


def _finished(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Selects the files for showing a finished trial, with its audit or the inputs of one."""
    audited = {AUDIT_PAGE, AuditRecord.NAME} <= listed.keys()
    wanted = AUDIT_PAGE if audited else EXAMPLES
    return _light(listed) | {name: listed[name] for name in listed.keys() & {wanted}}


def _needed(listed: dict[str, Stored], attempt: int) -> dict[str, Stored]:
    """Selects the files that a trial's next attempt reads.

    Its own lease is not among them: the worker in the scratch folder creates that lease again.
    """
    saved = sorted(name for name in listed if name.startswith("checkpoint/"))
    earlier = [LeaseRecord.name(number) for number in leases.attempts(listed) if number < attempt]
    logs = [name for name in listed if name == LOG]
    return _finished(listed) | {name: listed[name] for name in [*saved[-1:], *earlier, *logs]}


def _create(root: str, local: Path, name: str) -> None:
    with contextlib.suppress(StaleWriterError):  # another plan has uploaded the same content
        gcs.upload(root, local, [name], {name: 0})


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ieg-results-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
