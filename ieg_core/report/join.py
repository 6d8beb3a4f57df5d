# SPDX-License-Identifier: Apache-2.0
"""Joins several sweeps into one report, and says what changed between two of them."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.report.cells import (
    Cell,
    Sweep,
    family,
    load_cell,
    load_sweep,
    sort_key,
    with_same_keys,
)
from ieg_core.report.protocol import tell_apart
from ieg_core.report.summary import Group, Statistic, group_rows
from ieg_core.results import find_run, short_digest

NO_CHANGE = ("seed", "cell", "run_directory")


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
        cell.

    Returns:
      The sweep; a single cell is a sweep of its own.

    Raises:
      UserError: The folder is none of these.
    """
    folder = find_run(place)
    if folder.name == "report":
        folder = folder.parent
    if (folder / "latest").exists():
        folder = (folder / "latest").resolve()
    if folder.parent.name == "sweeps" and (folder / "plan.json").exists():
        return load_sweep(folder.parent.parent, folder.name)
    if folder.parent.name == "cells" and (folder / "config.json").exists():
        cell = load_cell(folder.parent.parent, folder.name)
        return Sweep(folder.name, "", "", (cell,))
    raise UserError(
        f"{place} holds no results: expected a sweep's folder (runs/latest, runs/sweeps/…), a "
        "results root (runs) or a cell's folder (runs/cells/…)"
    )


def join(places: Sequence[Path]) -> Sweep:
    """Puts the cells of several sweeps together.

    A cell that several of them have comes once. Cells of one data set and method that differ in
    more than their seed are told apart by what differs (`protocol.tell_apart`).

    Args:
      places: What `find_sweep` takes, at least one.

    Returns:
      One sweep of all the cells.

    Raises:
      UserError: See `find_sweep`.
    """
    sweeps = [find_sweep(place) for place in places]
    if len(sweeps) == 1:
        return sweeps[0]
    letters = [_letter(index) for index in range(len(sweeps))]
    owners: dict[str, str] = {}
    cells: dict[str, Cell] = {}
    for letter, sweep in zip(letters, sweeps, strict=True):
        for cell in sweep.cells:
            owners.setdefault(cell.row["cell"], letter)
            cells.setdefault(cell.row["cell"], cell)
    families = {name: family(cell.row) for name, cell in cells.items()}
    told = tell_apart(list(cells.values()), families, owners)
    rows = with_same_keys([cell.row for cell in told])
    joined = [replace(cell, row=row) for cell, row in zip(told, rows, strict=True)]
    names = [sweep.name for sweep in sweeps]
    title = ", ".join(f"{letter} = {name}" for letter, name in zip(letters, names, strict=True))
    return Sweep(
        name=title,
        command=" ".join(["ieg", "report", *(shlex.quote(str(place)) for place in places)]),
        created=max(sweep.created for sweep in sweeps),
        cells=tuple(sorted(joined, key=lambda cell: sort_key(cell.row))),
    )


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
    """Returns every setting with all the values that a sweep's cells have of it.

    Of methods that the other sweep has not, only that they are there: their settings changed in
    nothing. Where no method is in both, all settings are told.
    """
    common = {cell.row["method"] for cell in sweep.cells}
    common &= {cell.row["method"] for cell in other.cells}
    found: dict[str, dict[str, None]] = {}
    for cell in sweep.cells:
        for key, value in _told(cell):
            if key == "method" or not common or cell.row["method"] in common:
                found.setdefault(key, {})[value] = None
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


def _told(cell: Cell) -> Iterator[tuple[str, str]]:
    method = cell.row["method"]
    for key, value in cell.settings.items():
        if isinstance(value, dict):
            prefix = f"method ({method})" if key == "method_settings" else key
            yield from ((f"{prefix}.{name}", str(each)) for name, each in value.items())
        elif key not in NO_CHANGE:
            yield key, str(value)
    for key, value in cell.surroundings.items():
        yield "code that decides outcomes" if key == "code" else key, value
    for name, version in (cell.row["versions"] or {}).items():
        yield f"version of {name}", str(version)
