# SPDX-License-Identifier: Apache-2.0
"""Joins several sweeps into one report, and compares two of them."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ieg_core.experiment.config import LENGTH_KEYS
from ieg_core.report.provenance import environment, flat_settings
from ieg_core.report.summary import Statistic, group_trials
from ieg_core.report.trials import (
    Loader,
    Sweep,
    Trial,
    cached_loader,
    family,
    load_sweep,
    sort_key,
    with_same_keys,
)
from ieg_core.store.fingerprint import short_digest
from ieg_core.store.layout import find_trials

MOST_NAMED = 3
"""The most differences that a row's label names; with more, it has the sweep's letter."""
NO_CHANGE = ("seed", "trial", "run_directory")


@dataclass(frozen=True)
class Difference:
    """One data set and method in two sweeps.

    Attributes:
      dataset: The data set.
      label: The method.
      before: Accuracy in the first sweep, a fraction of 1; None without a result.
      after: Accuracy in the second sweep, likewise.
    """

    dataset: str
    label: str
    before: Statistic | None
    after: Statistic | None

    @property
    def points(self) -> float | None:
        """The second minus the first, in percentage points; None if one is missing."""
        if self.before is None or self.after is None:
            return None
        return 100 * (self.after.mean - self.before.mean)


@dataclass(frozen=True)
class Changes:
    """The differences between two sweeps.

    Attributes:
      accuracy: One for each data set and method that is in either sweep.
      settings: (setting, values before, values after) where these differ.
    """

    accuracy: tuple[Difference, ...]
    settings: tuple[tuple[str, str, str], ...]


def find_sweep(place: Path, load: Loader | None = None) -> Sweep:
    """Opens the sweep that a folder of results stands for.

    Args:
      place: A folder that `ieg_core.store.layout.find_trials` takes.
      load: The reader of trials; None for a new `cached_loader`.

    Returns:
      The sweep; for a trial, a sweep of that trial alone.

    Raises:
      UserError: When the folder is none of these.
    """
    root, sweep, trials = find_trials(place)
    if sweep:
        return load_sweep(root, sweep, load)
    return Sweep(trials[0], "", "", ((load or cached_loader())(root, trials[0]),))


def find_sweeps(places: Sequence[Path]) -> list[Sweep]:
    """Opens several places like `find_sweep`; a trial that several of them have is read once."""
    load = cached_loader()
    return [find_sweep(place, load) for place in places]


def join(places: Sequence[Path], sweeps: Sequence[Sweep]) -> Sweep:
    """Combines the trials of several sweeps; a trial that several of them have comes once.

    Trials of one data set and method that differ in more than their seed are labeled with the
    difference (`mark_variants`).

    Args:
      places: Where the sweeps are, for the command that repeats the report.
      sweeps: What `find_sweeps` opened there, at least one.

    Returns:
      One sweep with all the trials.
    """
    if len(sweeps) == 1:
        return sweeps[0]
    letters = [_letter(index) for index in range(len(sweeps))]
    owners: dict[str, str] = {}
    trials: dict[str, Trial] = {}
    for letter, sweep in zip(letters, sweeps, strict=True):
        for trial in sweep.trials:
            owners.setdefault(trial.row["trial"], letter)
            trials.setdefault(trial.row["trial"], trial)
    marked = mark_variants(list(trials.values()), owners)
    rows = with_same_keys([trial.row for trial in marked])
    joined = [replace(trial, row=row) for trial, row in zip(marked, rows, strict=True)]
    names = zip(letters, (sweep.name for sweep in sweeps), strict=True)
    return Sweep(
        name=", ".join(f"{letter} = {name}" for letter, name in names),
        command=" ".join(["ieg", "report", *(shlex.quote(str(place)) for place in places)]),
        created=max(sweep.created for sweep in sweeps),
        trials=tuple(sorted(joined, key=lambda trial: sort_key(trial.row))),
    )


def mark_variants(trials: Sequence[Trial], letters: Mapping[str, str]) -> list[Trial]:
    """Adds to each row what distinguishes its trial from others of its data set and method.

    Network and number of steps are left out: `summary.group_trials` names them.

    Args:
      trials: Trials of several sweeps.
      letters: The letter of each trial's sweep, by the trial's name.

    Returns:
      The trials in their order. A row that differs from others has "variant": "key=value, …", or,
      with more than `MOST_NAMED` differences, the letter of the first sweep with its values.
    """
    settings = {trial.row["trial"]: flat_settings(trial.settings) | dict(trial.surroundings)
                for trial in trials}  # fmt: skip
    alike: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        key = tuple(trial.row[name] for name in ("dataset", "method", "network", "steps"))
        alike.setdefault(key, []).append(trial)
    differing: dict[tuple[str, object], dict[str, None]] = {}
    for members in alike.values():
        each = [settings[trial.row["trial"]] for trial in members]
        # A row names its number of steps, however it was requested.
        keys = dict.fromkeys(key for values in each for key in values if key not in LENGTH_KEYS)
        varied = differing.setdefault((family(members[0].row), members[0].row["method"]), {})
        varied |= {key: None for key in keys if len({values.get(key) for values in each}) > 1}
    first: dict[tuple[object, ...], str] = {}
    marked = []
    for trial in trials:
        name, line = trial.row["trial"], (family(trial.row), trial.row["method"])
        values = {key: settings[name].get(key, "-") for key in differing[line]}
        letter = first.setdefault((line, *values.items()), letters[name])
        text = ", ".join(f"{key}={value}" for key, value in values.items())
        variant = text if len(values) <= MOST_NAMED else letter
        marked.append(replace(trial, row=trial.row | {"variant": variant}) if variant else trial)
    return marked


def changes(before: Sweep, after: Sweep) -> Changes:
    """Returns the accuracies of two sweeps side by side, and what differs between them."""
    old, new = (
        {(group.dataset, group.label): group.accuracy_ema_last
         for group in group_trials(sweep.trials)}
        for sweep in (before, after)
    )  # fmt: skip
    accuracy = [Difference(*key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new])]
    first, second = _values(before, after), _values(after, before)
    settings = [
        (key, first.get(key, "-"), second.get(key, "-"))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]
    return Changes(tuple(accuracy), tuple(settings))


def folder_name(places: Sequence[Path]) -> str:
    """Names the folder of a joined report: the same for the same sweeps."""
    return f"joined-{short_digest(os.path.realpath(place) for place in places)}"


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"A{index}"


def _values(sweep: Sweep, other: Sweep) -> dict[str, str]:
    """Returns every setting with all values that a sweep's trials have of it.

    For a method that the other sweep lacks, only its name: its settings have not changed. If the
    sweeps have no method in common, all settings.
    """
    common = {trial.row["method"] for trial in sweep.trials}
    common &= {trial.row["method"] for trial in other.trials}
    values: dict[str, dict[str, None]] = {}
    for trial in sweep.trials:
        for key, value in _named_settings(trial):
            if key == "method" or not common or trial.row["method"] in common:
                values.setdefault(key, {})[value] = None
    return {key: ", ".join(sorted(texts)) for key, texts in values.items()}


def _named_settings(trial: Trial) -> Iterator[tuple[str, str]]:
    method = trial.row["method"]
    for key, value in trial.settings.items():
        if isinstance(value, dict):
            prefix = f"method ({method})" if key == "method_settings" else key
            yield from ((f"{prefix}.{name}", str(each)) for name, each in value.items())
        elif key not in NO_CHANGE:
            yield key, str(value)
    for key, value in trial.surroundings.items():
        yield "code that determines outcomes" if key == "code" else key, value
    yield from environment(trial.row).items()
