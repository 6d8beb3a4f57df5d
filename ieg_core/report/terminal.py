# SPDX-License-Identifier: Apache-2.0
"""A report in a terminal: the table of results, the main finding and which method to use."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ieg_core.report.model import Report


def print_report(report: Report, console: Console) -> None:
    """Prints a report."""
    header, *lines = report.table
    grid = Table(*header, box=None, pad_edge=False, header_style="bold")
    for line in lines:
        grid.add_row(*map(Text, line))  # rich would read "ieg [batch_size=50]" as markup
    console.print(grid)
    for line in summary_lines(report):
        console.print(Text(line))


def summary_lines(report: Report) -> list[str]:
    """Returns what stands below the table, one paragraph a line."""
    main = report.headline
    lines = ["", " ".join((main.sentence, *main.notes, main.missing)).strip()]
    for advice in report.advice:
        name = f"{advice.family}: " if len(report.advice) > 1 else ""
        lines += [f"{name}{advice.sentence}", *(f"- {caveat}" for caveat in advice.caveats)]
    return lines
