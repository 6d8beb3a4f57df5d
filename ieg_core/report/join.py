# SPDX-License-Identifier: Apache-2.0
"""Joins several sweeps into one report, and says what changed between two of them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.report.provenance import flat_settings
from ieg_core.report.summary import Group, Statistic, group_rows
from ieg_core.report.trials import (
    Sweep,
    Trial,
    family,
    load_sweep,
    load_trial,
    sort_key,
    with_same_keys,
)
from ieg_core.store.fingerprint import short_digest
from ieg_core.store.layout import find_run, is_trial
from ieg_core.store.records import PlanRecord

MOST_NAMED = 3
"""Differences up to which they themselves are a row's name; the sweep's letter is it beyond."""
# Rows are told apart by their numbers of steps, however these were asked for.
LENGTHS = ("schedule.num_steps", "schedule.num_epochs")
NO_CHANGE = ("seed", "trial", "run_directory")


@dataclass(frozen=True)
class Difference:
    """One data set and method in two sweeps.

    Attributes:
      dataset: The data set.
      label: The method.
      before: Accuracy in the first sweep, a fraction of 1; None if it has no result there.
      after: Accuracy in the second one.
    """

    dataset: str
    label: str
    before: Statistic | None
    after: Statistic | None

    @property
    def points(self) -> float | None:
        """The second less the first, in points of a per cent; None where one is missing."""
        if self.before is None or self.after is None:
            return None
        return 100 * (self.after.mean - self.before.mean)


@dataclass(frozen=True)
class Changes:
    """What is different between two sweeps.

    Attributes:
      accuracy: A line for each data set and method that is in either.
      settings: (setting, its values before, its values after) where they differ.
    """

    accuracy: tuple[Difference, ...]
    settings: tuple[tuple[str, str, str], ...]


def find_sweep(place: Path) -> Sweep:
    """Opens what a folder of results stands for.

    Args:
      place: The folder of a sweep, of its report, of a results root (its latest sweep) or of a
        trial.

    Returns:
      The sweep; a single trial is a sweep of its own.

    Raises:
      UserError: The folder is none of these.
    """
    folder = find_run(place)
    if folder.name == "report":
        folder = folder.parent
    if (folder / "latest").exists():
        folder = (folder / "latest").resolve()
    if folder.parent.name == "sweeps" and PlanRecord.exists(folder):
        return load_sweep(folder.parent.parent, folder.name)
    if is_trial(folder):
        trial = load_trial(folder.parent.parent, folder.name)
        return Sweep(folder.name, "", "", (trial,))
    raise UserError(
        f"{place} holds no results: expected a sweep's folder (runs/latest, runs/sweeps/…), a "
        "results root (runs) or a trial's folder (runs/trials/…)"
    )


def join(places: Sequence[Path]) -> Sweep:
    """Puts the trials of several sweeps together.

    A trial that several of them have comes once. Trials of one data set and method that differ in
    more than their seed are told apart by what differs (`tell_apart`).

    Args:
      places: What `find_sweep` takes, at least one.

    Returns:
      One sweep of all the trials.

    Raises:
      UserError: See `find_sweep`.
    """
    sweeps = [find_sweep(place) for place in places]
    if len(sweeps) == 1:
        return sweeps[0]
    letters = [_letter(index) for index in range(len(sweeps))]
    owners: dict[str, str] = {}
    trials: dict[str, Trial] = {}
    for letter, sweep in zip(letters, sweeps, strict=True):
        for trial in sweep.trials:
            owners.setdefault(trial.row["trial"], letter)
            trials.setdefault(trial.row["trial"], trial)
    families = {name: family(trial.row) for name, trial in trials.items()}
    told = tell_apart(list(trials.values()), families, owners)
    rows = with_same_keys([trial.row for trial in told])
    joined = [replace(trial, row=row) for trial, row in zip(told, rows, strict=True)]
    names = [sweep.name for sweep in sweeps]
    title = ", ".join(f"{letter} = {name}" for letter, name in zip(letters, names, strict=True))
    return Sweep(
        name=title,
        command=" ".join(["ieg", "report", *(shlex.quote(str(place)) for place in places)]),
        created=max(sweep.created for sweep in sweeps),
        trials=tuple(sorted(joined, key=lambda trial: sort_key(trial.row))),
    )


def tell_apart(
    trials: Sequence[Trial], family: Mapping[str, str], letters: Mapping[str, str]
) -> list[Trial]:
    """Names in each row what its trial has different from others of its data set and method.

    Network and number of steps are columns of a row, and named by `summary.group_rows`.

    Args:
      trials: Trials of several sweeps.
      family: The data-set family of each trial, by the trial's name.
      letters: The sweep of each trial, by the trial's name.

    Returns:
      The trials in their order, with "variant" in the rows of those that differ: "key=value, …", or
      the letter of the first sweep that has it where too much differs.
    """
    own = {trial.row["trial"]: flat_settings(trial.settings) | dict(trial.surroundings)
           for trial in trials}  # fmt: skip
    together: dict[tuple[object, ...], list[str]] = {}
    for trial in trials:
        key = tuple(trial.row[name] for name in ("dataset", "method", "network", "steps"))
        together.setdefault(key, []).append(trial.row["trial"])
    differing: dict[tuple[str, object], dict[str, None]] = {}
    for (_, method, *_), names in together.items():
        keys = dict.fromkeys(key for name in names for key in own[name] if key not in LENGTHS)
        varied = differing.setdefault((family[names[0]], method), {})
        varied |= {key: None for key in keys if len({own[name].get(key) for name in names}) > 1}
    first: dict[tuple[object, ...], str] = {}
    told = []
    for trial in trials:
        name, method = trial.row["trial"], trial.row["method"]
        keys = differing[family[name], method]
        values = {key: own[name].get(key, "-") for key in keys}
        letter = first.setdefault((family[name], method, *values.items()), letters[name])
        text = ", ".join(f"{key}={value}" for key, value in values.items())
        variant = text if len(keys) <= MOST_NAMED else letter
        told.append(replace(trial, row=trial.row | {"variant": variant}) if variant else trial)
    return told


def changes(before: Sweep, after: Sweep) -> Changes:
    """Compares two sweeps.

    Args:
      before: The first.
      after: The second.

    Returns:
      Accuracies side by side, and the settings, versions and code that differ.
    """
    old, new = (
        {(group.dataset, group.label): group for group in group_rows(sweep.rows)}
        for sweep in (before, after)
    )
    differences = [
        Difference(dataset, label, _accuracy(old, dataset, label), _accuracy(new, dataset, label))
        for dataset, label in dict.fromkeys([*old, *new])
    ]
    first, second = _values(before, after), _values(after, before)
    differing = [
        (key, first.get(key, "-"), second.get(key, "-"))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]
    return Changes(tuple(differences), tuple(differing))


def folder_name(places: Sequence[Path]) -> str:
    """Names the folder of a joined report: the same for the same sweeps."""
    return f"joined-{short_digest(str(place.resolve()) for place in places)}"


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"A{index}"


def _accuracy(groups: dict[tuple[str, str], Group], dataset: str, label: str) -> Statistic | None:
    group = groups.get((dataset, label))
    return group.accuracy_ema_last if group else None


def _values(sweep: Sweep, other: Sweep) -> dict[str, str]:
    """Returns every setting with all the values that a sweep's trials have of it.

    Of methods that the other sweep has not, only that they are there: their settings changed in
    nothing. Where no method is in both, all settings are told.
    """
    common = {trial.row["method"] for trial in sweep.trials}
    common &= {trial.row["method"] for trial in other.trials}
    found: dict[str, dict[str, None]] = {}
    for trial in sweep.trials:
        for key, value in _told(trial):
            if key == "method" or not common or trial.row["method"] in common:
                found.setdefault(key, {})[value] = None
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


def _told(trial: Trial) -> Iterator[tuple[str, str]]:
    method = trial.row["method"]
    for key, value in trial.settings.items():
        if isinstance(value, dict):
            prefix = f"method ({method})" if key == "method_settings" else key
            yield from ((f"{prefix}.{name}", str(each)) for name, each in value.items())
        elif key not in NO_CHANGE:
            yield key, str(value)
    for key, value in trial.surroundings.items():
        yield "code that decides outcomes" if key == "code" else key, value
    for name, version in (trial.row["versions"] or {}).items():
        yield f"version of {name}", str(version)
