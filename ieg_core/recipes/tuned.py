# SPDX-License-Identifier: Apache-2.0
"""Recipes whose settings were chosen by `make tune`: the tables in `tuned_tables/` are the recipes.

A table lists every point that was tried, what it reached on the validation set, and which one was
chosen for each method. `RECIPE=digits_tuned` is the recipe `digits` with the chosen settings of the
data set and method. It has no settings for what was not tuned, and refuses it: a comparison with
untuned methods would not be fair.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ieg_core.errors import UserError
from ieg_core.recipes.family import Family

SUFFIX: Final = "_tuned"
TABLES: Final = Path(__file__).parent / "tuned_tables"
_COLUMNS: Final = (
    "recipe",
    "dataset",
    "method",
    "conditions",
    "settings",
    "seeds",
    "agreements",
    "mean",
    "chosen",
)


@dataclass(frozen=True)
class TunedRow:
    """One point that was tried.

    Attributes:
      recipe: The recipe that it changes.
      dataset: Data-set spec.
      method: Name of the method.
      conditions: What the trials of every point change in the recipe, "key=value" each: a shorter
        training, another network, the share of the validation set. The choice does not take them
        over.
      settings: What it changes, "key=value" each.
      seeds: The seeds of its trials.
      agreements: What each trial reached on the validation set, in percent; empty if one of them
        has no result.
      chosen: Whether it is the method's choice.
    """

    recipe: str
    dataset: str
    method: str
    conditions: tuple[str, ...]
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    agreements: tuple[float, ...]
    chosen: bool

    @property
    def mean(self) -> float:
        """The mean of the agreements, in percent."""
        return statistics.fmean(self.agreements)

    @property
    def cells(self) -> list[str]:
        """The row as texts, in the order of the table's columns."""
        return [
            self.recipe,
            self.dataset,
            self.method,
            " ".join(self.conditions),
            " ".join(self.settings),
            " ".join(map(str, self.seeds)),
            " ".join(f"{value:.2f}" for value in self.agreements),
            f"{self.mean:.2f}" if self.agreements else "",
            "chosen" if self.chosen else "",
        ]


def to_csv(rows: Iterable[TunedRow]) -> str:
    """Writes a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *(row.cells for row in rows)])
    return text.getvalue()


def to_markdown(rows: Sequence[TunedRow]) -> str:
    """Writes a table as Markdown, the choices in bold, without what all points have in common."""
    lines = ["| data set | method | settings | agreement, % | mean |", "|---|---|---|---|---|"]
    for row in rows:
        _, dataset, method, _, settings, _, agreements, mean, chosen = row.cells
        cells = [dataset, method, settings or "the recipe's", agreements, mean or "failed"]
        if chosen:
            cells[2:] = [f"**{cell}**" for cell in cells[2:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def from_csv(text: str) -> list[TunedRow]:
    """Reads a table that `to_csv` wrote."""
    return [
        TunedRow(
            recipe=row["recipe"],
            dataset=row["dataset"],
            method=row["method"],
            conditions=tuple(row["conditions"].split()),
            settings=tuple(row["settings"].split()),
            seeds=tuple(map(int, row["seeds"].split())),
            agreements=tuple(map(float, row["agreements"].split())),
            chosen=row["chosen"] == "chosen",
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def tuned_families(families: Sequence[Family], tables: Path = TABLES) -> list[Family]:
    """Returns a family for each one of which there are tables, with the chosen settings.

    Args:
      families: The families that may have been tuned.
      tables: The folder of the tables.
    """
    rows = [
        row for path in sorted(tables.glob("*.csv")) for row in from_csv(path.read_text("utf-8"))
    ]
    tuned = []
    for family in families:
        choices: dict[str, dict[str, tuple[str, ...]]] = {}
        for row in rows:
            if row.chosen and row.recipe == family.name:
                choices.setdefault(row.dataset, {})[row.method] = row.settings
        if choices:
            tuned.append(
                replace(
                    family,
                    name=family.name + SUFFIX,
                    data=f"{family.data}, with settings chosen by make tune",
                    example=next(iter(choices)),
                    choices=choices,
                )
            )
    return tuned


def chosen_settings(family: Family, dataset: str, method: str) -> tuple[str, ...]:
    """Returns the settings of a method in a tuned family; none in another family.

    Raises:
      UserError: When the family is tuned, but not for this data set and method.
    """
    choices: Mapping[str, Mapping[str, tuple[str, ...]]] = family.choices
    if not choices:
        return ()
    if method not in choices.get(dataset, {}):
        known = "; ".join(f"{name} with {', '.join(of)}" for name, of in choices.items())
        raise UserError(
            f"recipe {family.name!r} has no settings for {method!r} on {dataset!r}: expected "
            f"{known}; run make tune for it, or use RECIPE={family.name.removesuffix(SUFFIX)}"
        )
    return choices[dataset][method]
