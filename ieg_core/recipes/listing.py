# SPDX-License-Identifier: Apache-2.0
"""The tables of `ieg recipes`: families, methods, published accuracies and commands."""

from collections.abc import Iterator

from ieg_core.experiment.config import ScheduleConfig
from ieg_core.experiment.methods import METHODS
from ieg_core.recipes.build import FAMILIES
from ieg_core.recipes.family import Family, Published
from ieg_core.recipes.literature import Comparison

Lines = list[list[str]]


def family_lines() -> Lines:
    """Returns the table of families, header first."""
    table = [["recipe", "for", "network", "batch", "length", "source"]]
    for family in FAMILIES.values():
        network = " or ".join((family.network, *family.other_networks))
        batch, length = str(family.batch_size), length_text(family.schedule)
        for method, size in family.batch_sizes.items():
            batch += f"; {method}: {size}"
        for method, schedule in family.schedules.items():
            length += f"; {method}: {length_text(schedule)}"
        table.append([family.name, family.data, network, batch, length, family.source])
    return table


def method_lines() -> Lines:
    """Returns the table of methods, header first."""
    table = [["method", "probe", "what it is"]]
    for name, spec in METHODS.items():
        table.append([name, "yes" if spec.uses_probe else "no", spec.summary])
    return table


def expected(family: Family, method: str) -> list[Published]:
    """Returns the published accuracies of a method in a family."""
    return [figure for figure in family.figures if figure.method == method]


def expected_lines() -> Lines:
    """Returns the table of published accuracies, header first.

    Returns:
      A line for each published figure, and one line per family for the methods without one.
    """
    table = [["recipe", "method", "data set", "network", "clean", "expected %", "source"]]
    for family in FAMILIES.values():
        without = []
        for method in METHODS:
            if not _trains(family, method):
                continue
            figures = expected(family, method)
            for figure in figures:
                line = [family.name, method, figure.dataset, figure.network]
                table.append([*line, str(figure.clean_labels), figure.text, figure.source])
            if not figures:
                without.append(method)
        is_every = not family.figures and not family.choices
        others = "every method" if is_every else ", ".join(without)
        table.append([family.name, others, "", "", "", "-", "no published figure known"])
    return table


def comparison_lines(comparison: Comparison) -> Lines:
    """Returns what others published about one kind of data, header first."""
    table = [
        ["method", *comparison.columns, "network", "epochs", "clean labels", "models", "source"]
    ]
    for peer in comparison.peers:
        facts = [peer.network, peer.epochs, peer.clean_labels, peer.models, peer.source]
        table.append([peer.method, *peer.texts, *facts])
    return table


def commands() -> Iterator[str]:
    """Yields the command that runs every method, for each family; none that needs a teacher."""
    for family in FAMILIES.values():
        methods = ",".join(
            name
            for name, spec in METHODS.items()
            if _trains(family, name) and not (spec.needs_teacher and family.head is None)
        )
        yield f"make sweep DATASET={family.example} RECIPE={family.name} METHODS={methods}"


def _trains(family: Family, method: str) -> bool:
    """Tells whether a family has settings of a method, in a tuned family for its example."""
    return method in family.choices[family.example] if family.choices else family.takes(method)


def length_text(schedule: ScheduleConfig) -> str:
    """Returns the length of a training in words, for example "600 steps, cosine"."""
    for count, unit in (
        (schedule.num_steps, "steps"),
        (schedule.num_epochs, "epochs"),
        (schedule.num_cycles, "cycles"),
    ):
        if count:
            return f"{count} {unit}, {schedule.name}"
    return schedule.name
