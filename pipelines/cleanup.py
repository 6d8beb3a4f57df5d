# SPDX-License-Identifier: Apache-2.0
"""`make clean-runs`: removes old data that nothing needs any more from a results root.

Removed if its newest file is older than OLDER, where a sweep's trials count as its files:

- the large files of a finished trial: checkpoint, exported model, TensorBoard files, log, partial
  copies of files. Its result, settings, curves, matrices and audit inputs stay, so that it does not
  run again and its sweep can still be reported;
- a trial without a result, entirely: the next run of it starts from step 0;
- a sweep's folder with its report, and the records of its runs;
- a scheduled run's namespace, entirely, and the doctor's findings.

Kept at any age: a running trial, all trials of a sweep that is kept, the sweep that `latest` names,
the newest run of every schedule, and the data of accepted runs. A sweep without a report may wait
for nodes, so it is kept for at least a week. Label sets are kept: they are small and every report
reads them. KFP's artifacts are in KFP's object store, not here.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from ieg_core.errors import UserError
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.liveness import is_recent
from ieg_core.store import layout, mirror, records
from ieg_core.store.record import below

LARGE = (layout.CHECKPOINTS, layout.MODEL, layout.TENSORBOARD, layout.LOG)
"""What a finished trial can do without. Everything else stays, including unknown files."""
UNITS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
UNREPORTED = UNITS["w"]
"""Least age of a removed sweep that has no report, in seconds."""


@dataclass(frozen=True)
class File:
    """A file or object of a results root.

    Attributes:
      name: Its path below the root, with "/".
      size: Bytes.
      modified: Unix time.
    """

    name: str
    size: int
    modified: float


class Root(Protocol):
    """A results root in a folder or a bucket."""

    place: str

    def files(self) -> list[File]:
        """Lists every file."""

    def remove(self, files: Sequence[File], trial: str) -> bool:
        """Removes files; False if another process is working on their trial."""


@dataclass(frozen=True)
class Removal:
    """A group of files to remove.

    Attributes:
      what: A description for the printed list.
      files: The files.
      trial: Their trial's folder, relative to the root; "" if they belong to no trial.
    """

    what: str
    files: tuple[File, ...]
    trial: str = ""

    @property
    def size(self) -> int:
        """Size of all files, in bytes."""
        return sum(file.size for file in self.files)

    @property
    def modified(self) -> float:
        """Modification time of the newest file, Unix time."""
        return max(file.modified for file in self.files)


def parse_age(text: str) -> float:
    """Returns an age such as "30d" in seconds.

    Raises:
      UserError: When the text is not an age, or less than an hour.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if seconds < UNITS["h"]:
        raise UserError(
            f"OLDER={text!r}: expected an age of at least an hour, such as 12h, 30d or 8w"
        )
    return seconds


def clean(
    root: Root,
    older: float,
    *,
    only_plan: bool,
    clock: Clock = CLOCK,
    say: Callable[[str], None] = print,
) -> int:
    """Removes old data that nothing needs, or lists it.

    Args:
      root: The results root.
      older: Minimum age, in seconds.
      only_plan: Whether to list without removing.
      clock: Tells the current time.
      say: Called with each line of output.

    Returns:
      The number of bytes removed, or that would be removed.
    """
    now = clock.now()
    removals = plan(root, older, now)
    say(f"Results root {root.place}: {'would remove' if only_plan else 'removing'}")
    done = 0
    for removal in removals:
        if only_plan or root.remove(removal.files, removal.trial):
            done += removal.size
            age = (now - removal.modified) / UNITS["d"]
            say(f"  {size_text(removal.size):>10}  {age:6.1f} days old  {removal.what}")
        else:
            say(f"  {'kept':>10}  in use by another process  {removal.what}")
    say(f"  {size_text(done):>10}  in {len(removals)} places" if removals else "  nothing that old")
    return done


def plan(root: Root, older: float, now: float) -> list[Removal]:
    """Lists what can be removed, largest first.

    Args:
      root: The results root.
      older: Minimum age, in seconds.
      now: The current Unix time.
    """
    by_namespace: dict[str, list[File]] = {}
    for file in root.files():
        by_namespace.setdefault(namespace_of(file.name), []).append(file)
    accepted = _accepted(root, by_namespace.get("", []))
    newest = _newest_runs(by_namespace)
    removals: list[Removal] = []
    for namespace, files in by_namespace.items():
        old = all(now - file.modified > older for file in files)
        if not namespace:
            removals += _plan_namespace(root, files, older, now, accepted)
        elif old and namespace not in newest | accepted and not _any_running(root, files, now):
            removals.append(Removal(f"scheduled run {namespace}", tuple(files)))
    return sorted(removals, key=lambda removal: (-removal.size, removal.what))


def namespace_of(name: str) -> str:
    """Returns the namespace of a scheduled run's file, "scheduled/<name>/<run>"; else ""."""
    parts = name.split("/")
    return "/".join(parts[:3]) if parts[0] == layout.SCHEDULED and len(parts) > 3 else ""


def _newest_runs(by_namespace: Mapping[str, Sequence[File]]) -> set[str]:
    newest: dict[str, tuple[float, str]] = {}
    for namespace, files in by_namespace.items():
        if namespace:
            schedule = namespace.rpartition("/")[0]
            last = max(file.modified for file in files)
            newest[schedule] = max(newest.get(schedule, (0.0, "")), (last, namespace))
    return {namespace for _, namespace in newest.values()}


def _accepted(root: Root, files: Iterable[File]) -> set[str]:
    """Returns the namespaces and sweeps of accepted runs."""
    kept = set()
    for file in files:
        if file.name.startswith(f"{layout.ACCEPTED}/"):
            accepted = records.AcceptedRecord.load(below(root.place, file.name))
            if accepted:
                kept |= {accepted.run.namespace, accepted.run.sweep}
    return kept


def _plan_namespace(
    root: Root, files: Sequence[File], older: float, now: float, accepted: set[str]
) -> list[Removal]:
    """Lists what can be removed outside the namespaces of scheduled runs."""
    sweeps, trials = _folders(files, layout.SWEEPS), _folders(files, layout.TRIALS)
    kept_sweeps = {mirror.latest(root.place), *accepted}
    for name, members in sweeps.items():
        planned, _ = records.PlanRecord.look(below(root.place, layout.relative_sweep(name)))
        of_trials = [trials.get(trial, ()) for trial in (planned.trials if planned else ())]
        if _is_in_use(root, name, [*members, *itertools.chain(*of_trials)], older, now):
            kept_sweeps.add(name)
    kept_trials: set[str] = set()
    for name in kept_sweeps & sweeps.keys():
        plan = records.PlanRecord.read(below(root.place, layout.relative_sweep(name)))
        kept_trials |= set(plan.trials if plan else ())
    removals = [
        Removal(f"sweep {name}", tuple(members))
        for name, members in sweeps.items()
        if name not in kept_sweeps
    ]
    for name, members in trials.items():
        recent = _age(members, now) <= older
        if name in kept_trials or recent or _any_running(root, members, now):
            continue
        folder = layout.relative_trial(name)
        finished = any(file.name == f"{folder}/{records.ResultRecord.NAME}" for file in members)
        large = [file for file in members if _is_large(file.name.split("/")[2])]
        if finished and large:
            removals.append(Removal(f"checkpoint and model of {name}", tuple(large), folder))
        elif not finished:
            removals.append(Removal(f"unfinished trial {name}", tuple(members), folder))
    for name, members in _folders(files, records.Finding.FOLDER).items():
        if _age(members, now) > older:
            removals.append(Removal(f"findings of {name}", tuple(members)))
    for file in files:
        if file.name.startswith(f"{records.RunRecord.FOLDER}/") and now - file.modified > older:
            run, _ = records.RunRecord.look(root.place, PurePosixPath(file.name).stem)
            if run is None or run.sweep not in kept_sweeps:
                removals.append(Removal(f"record {file.name}", (file,)))
    return removals


def _is_in_use(root: Root, sweep: str, files: Sequence[File], older: float, now: float) -> bool:
    """Returns whether a sweep is too young to go, or one of its trials runs.

    Args:
      root: The results root.
      sweep: The sweep's name.
      files: Its files and those of its trials.
      older: Minimum age, in seconds.
      now: The current Unix time.
    """
    is_reported = any(file.name.startswith(f"{layout.relative_report(sweep)}/") for file in files)
    least = older if is_reported else max(older, UNREPORTED)
    return _age(files, now) <= least or _any_running(root, files, now)


def _is_large(name: str) -> bool:
    # A file is written under a name that starts with a dot, then renamed.
    return name in LARGE or name.startswith(".")


def _folders(files: Iterable[File], kind: str) -> dict[str, list[File]]:
    """Groups the files below <kind>/<name>/ by name."""
    groups: dict[str, list[File]] = {}
    for file in files:
        parts = file.name.split("/")
        if parts[0] == kind and len(parts) > 2:
            groups.setdefault(parts[1], []).append(file)
    return groups


def _age(files: Iterable[File], now: float) -> float:
    return now - max(file.modified for file in files)


def _any_running(root: Root, files: Iterable[File], now: float) -> bool:
    """Returns whether one of the trials among these files has a recent heartbeat."""
    for file in files:
        if file.name.endswith(f"/{records.ProgressRecord.NAME}"):
            progress, _ = records.ProgressRecord.look(
                below(root.place, file.name.rpartition("/")[0])
            )
            beats = [file.modified, *([progress.updated] if progress else [])]
            if any(is_recent(beat, now) for beat in beats):
                return True
    return False


def size_text(size: float) -> str:
    """Formats a number of bytes, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
