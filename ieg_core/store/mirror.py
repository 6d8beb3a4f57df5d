# SPDX-License-Identifier: Apache-2.0
"""A results root in a bucket, accessed through a local copy of the part that a step needs.

All other code works on results roots that are folders. Each step of a pipeline opens its root here.
A folder is used directly. For gs://…, the files that the step reads are downloaded to a scratch
folder, and those that it writes are uploaded during the step (the trial's checkpoint, curves and
progress) and at its end.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.store import gcs, layout, leases, records, trial_copy
from ieg_core.store.gcs import StaleWriterError, Stored

TRIES = 5
HEAVY = (
    *(f"{layout.CHECKPOINTS}/", f"{layout.TENSORBOARD}/", layout.MODEL, layout.LOG),
    *("audit/audit.", layout.EXAMPLES, "leases/", "attempts/", "lock"),
)
"""Prefixes of a trial's files that reports do not read."""


@contextlib.contextmanager
def planning(root: str) -> Iterator[Path]:
    """Opens a results root for planning a sweep.

    Existing label sets and trial settings are not replaced: their names identify their contents.
    Nothing is uploaded if the body fails.

    Yields:
      The folder to plan in.

    Raises:
      UserError: When the bucket cannot be reached or access is denied.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        plans = f"/{records.PlanRecord.NAME}"
        _download(root, lambda: _only(gcs.list_files(root, f"{layout.SWEEPS}/"), plans), local)
        yield local
        there = gcs.list_files(root, f"{layout.LABEL_SETS}/").keys()
        names = trial_copy.files_under(local)
        once = (f"{layout.LABEL_SETS}/", f"{layout.TRIALS}/")
        kept = [name for name in names if name.startswith(once) and name not in there]
        gcs.side_by_side(lambda name: _create(root, local, name), kept)
        again = (f"{layout.SWEEPS}/", f"{records.RunRecord.FOLDER}/")
        replaced = [name for name in names if name.startswith(again)]
        gcs.upload(root, local, replaced, dict.fromkeys(replaced))


@contextlib.contextmanager
def trial(root: str, name: str, clock: Clock = CLOCK) -> Iterator[Path]:
    """Opens a results root for exclusive work on one trial.

    Waits until no other pod works on the trial. The step's files are uploaded every minute and at
    the end, even if the step fails, but not if the pod is superseded. A trial that has its result
    is not leased; files that a step adds to it are uploaded at the end.

    Args:
      root: The results root.
      name: The trial's name.
      clock: Tells the time between two uploads, and while another pod is waited for.

    Yields:
      A results root that holds the trial and its label set.

    Raises:
      UserError: When the bucket cannot be reached or access is denied.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        url = gcs.join(root, layout.relative_trial(name))
        folder = layout.trial_folder(local, name)
        lease = trial_copy.take_lease(url, clock)
        if lease is None:  # the trial has its result, so no lease is needed
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
            with trial_copy.kept_up(trial_copy.fresh_copy(url, folder, attempt), clock):
                yield local
        finally:
            # Lets the next pod start before this one's heartbeat expires.
            ended = replace(record, ended=clock.now()).encode()
            with contextlib.suppress(StaleWriterError, UserError):
                gcs.write(gcs.join(url, records.LeaseRecord.name(attempt)), ended, generation)


@contextlib.contextmanager
def sweep(root: str, name: str) -> Iterator[Path]:
    """Opens a results root for a report on a sweep.

    Args:
      root: The results root.
      name: The sweep's name.

    Yields:
      A results root that holds the sweep's plan and the small files of its trials. If the body
      succeeds, its report is uploaded and, if it called `layout.set_latest`, the pointer to the
      newest sweep is updated.

    Raises:
      UserError: When the bucket cannot be reached or access is denied.
    """
    if not gcs.is_url(root):
        yield Path(root)
        return
    with _scratch() as local:
        plan = f"{layout.relative_sweep(name)}/{records.PlanRecord.NAME}"
        _download(root, lambda: gcs.list_files(root, plan), local)
        trials = layout.planned_trials(layout.sweep_folder(local, name)) or []

        def small_files(trial: str) -> dict[str, Stored]:
            below = layout.relative_trial(trial)
            listed = _light(gcs.list_files(gcs.join(root, below)))
            return {f"{below}/{file}": stored for file, stored in listed.items()}

        def small() -> dict[str, Stored]:
            listed = _only(gcs.list_files(root, f"{layout.LABEL_SETS}/"), ".json")
            for files in gcs.side_by_side(small_files, trials):
                listed |= files
            return listed

        _download(root, small, local)
        yield local
        written = [
            n
            for n in trial_copy.files_under(local)
            if n.startswith(f"{layout.relative_sweep(name)}/") and n != plan
        ]
        gcs.upload(root, local, written, dict.fromkeys(written))
        if newest := layout.latest_sweep(local):
            records.LatestRecord(sweep=newest).write(root)


def latest(root: str) -> str:
    """Returns the name of the sweep with the newest report; "" if there is none."""
    if gcs.is_url(root):
        record = records.LatestRecord.read(root)
        return record.sweep if record else ""
    return layout.latest_sweep(Path(root))


def fetch(root: str, name: str, folder: Path) -> list[Path]:
    """Makes a folder of a results root, such as "sweeps/<sweep>/report", available locally.

    Args:
      root: The results root, a folder or gs://….
      name: Path of the folder, relative to `root`.
      folder: Destination of the download, if the root is in a bucket.

    Returns:
      The local paths of the files; if the root is a folder, the original files.
    """
    if not gcs.is_url(root):
        return [path for path in sorted((Path(root) / name).rglob("*")) if path.is_file()]
    url = gcs.join(root, name)
    listed = gcs.list_files(url)
    gcs.download(url, listed, folder)
    return [folder / name for name in sorted(listed)]


def _download(url: str, list_files: Callable[[], dict[str, Stored]], folder: Path) -> None:
    """Downloads the files of a listing; lists again if one was replaced in the meantime."""
    for left in reversed(range(TRIES)):
        try:
            gcs.download(url, list_files(), folder)
        except FileNotFoundError:
            if not left:
                raise
        else:
            return


def _download_label_set(root: str, local: Path, folder: Path) -> None:
    record, _ = records.TrialRecord.look(folder)  # a damaged record fails its trial later
    if record:
        _download(
            root, lambda: gcs.list_files(root, f"{layout.LABEL_SETS}/{record.label_set}/"), local
        )


def _only(listed: dict[str, Stored], suffix: str) -> dict[str, Stored]:
    return {name: stored for name, stored in listed.items() if name.endswith(suffix)}


def _light(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Selects the files of a trial that a report reads."""
    return {name: stored for name, stored in listed.items() if not name.startswith(HEAVY)}


def _finished(listed: dict[str, Stored]) -> dict[str, Stored]:
    """Selects the files of a finished trial: as `_light`, and its audit or what an audit needs."""
    audited = {layout.AUDIT_PAGE, records.AuditRecord.NAME} <= listed.keys()
    extra = layout.AUDIT_PAGE if audited else layout.EXAMPLES
    return _light(listed) | {name: listed[name] for name in listed.keys() & {extra}}


def _needed(listed: dict[str, Stored], attempt: int) -> dict[str, Stored]:
    """Selects the files that an attempt at a trial reads.

    Its own lease is left out: the worker creates it in the scratch folder.
    """
    saved = sorted(name for name in listed if name.startswith(f"{layout.CHECKPOINTS}/"))
    earlier = [
        records.LeaseRecord.name(number) for number in leases.attempts(listed) if number < attempt
    ]
    logs = [name for name in listed if name == layout.LOG]
    return _finished(listed) | {name: listed[name] for name in [*saved[-1:], *earlier, *logs]}


def _create(root: str, local: Path, name: str) -> None:
    with contextlib.suppress(StaleWriterError):  # another plan created the same file first
        gcs.upload(root, local, [name], {name: 0})


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ieg-results-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
