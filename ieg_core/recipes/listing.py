# SPDX-License-Identifier: Apache-2.0
"""What `ieg recipes` lists: families, methods, what accuracy to expect, how to ask for them."""

from collections.abc import Iterator

from ieg_core.experiment.config import ScheduleConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.recipes.build import FAMILIES, Family
from ieg_core.recipes.published import PUBLISHED, Published

Lines = list[list[str]]


def family_lines() -> Lines:
    """Lays out the families, header first."""
    table = [["recipe", "for", "network", "batch", "length", "source"]]
    for family in FAMILIES.values():
        network = " or ".join((family.network, *family.other_networks))
        batch, length = str(family.batch_size), length_text(family.schedule)
        if family.fsr_batch_size:
            batch += f"; fsr: {family.fsr_batch_size}"
        if family.fsr_schedule:
            length += f"; fsr: {length_text(family.fsr_schedule)}"
        table.append([family.name, family.data, network, batch, length, family.source])
    return table


def method_lines() -> Lines:
    """Lays out the methods, header first."""
    table = [["method", "probe", "what it is"]]
    for name, spec in METHODS.items():
        table.append([name, "yes" if spec.uses_probe else "no", spec.summary])
    return table


def expected(family: Family, method: str) -> list[Published]:
    """Finds the published accuracies of a recipe: its data, its method, one of its networks."""
    networks = (family.network, *family.other_networks)
    return [
        figure
        for figure in PUBLISHED
        if figure.method == method
        and figure.network in networks
        and parse(figure.dataset).base in family.bases
    ]


def expected_lines() -> Lines:
    """Lays out what to expect of each recipe and method, header first.

    Returns:
      A line for each published figure, and one a family for the methods that have none.
    """
    table = [["recipe", "method", "data set", "network", "clean", "expected %", "source"]]
    for family in FAMILIES.values():
        without = []
        for method in METHODS:
            figures = expected(family, method)
            for figure in figures:
                line = [family.name, method, figure.dataset, figure.network]
                table.append([*line, str(figure.clean_labels), figure.text, figure.source])
            if not figures:
                without.append(method)
        others = "every method" if len(without) == len(METHODS) else ", ".join(without)
        table.append([family.name, others, "", "", "", "-", "no published figure known"])
    return table


def commands() -> Iterator[str]:
    """Yields for each family the command that runs it with every method."""
    noise = {
        "longtail": "_imbal_0.02",
        "longtail_noise": "_imbal_0.02_0.2",
        "folder": "",  # as its labels are; the same with WebVision's
        "webvision": "",
    }
    for family in FAMILIES.values():
        dataset = family.bases[0] + noise.get(family.name, "_uniform_0.8")
        yield f"make sweep DATASET={dataset} RECIPE={family.name} METHODS={','.join(METHODS)}"


def length_text(schedule: ScheduleConfig) -> str:
    """Says how long a training is, for example "600 steps, cosine"."""
    if schedule.max_steps:
        return f"whole cycles in {schedule.max_steps:,} steps, {schedule.name}"
    for count, unit in (
        (schedule.num_steps, "steps"),
        (schedule.num_epochs, "epochs"),
        (schedule.num_cycles, "cycles"),
    ):
        if count:
            return f"{count} {unit}, {schedule.name}"
    return schedule.name
