# SPDX-License-Identifier: Apache-2.0
"""`ieg recipes`: lists the recipes."""

import argparse

from rich.table import Table

from ieg_core.cli.output import open_console
from ieg_core.recipes import listing
from ieg_core.recipes.literature import COMPARISONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Does nothing: `ieg recipes` has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Lists the recipe families, the methods, what was published, and the commands."""
    console = open_console()
    for header, *lines in (
        listing.family_lines(),
        listing.method_lines(),
        listing.expected_lines(),
    ):
        table = Table(*header, box=None)
        for line in lines:
            table.add_row(*line)
        console.print(table)
        console.print()
    for comparison in COMPARISONS:
        header, *lines = listing.comparison_lines(comparison)
        table = Table(
            *header, box=None, title=f"By others: {comparison.name}", title_justify="left"
        )
        for line in lines:
            table.add_row(*line)
        console.print(table)
        console.print()
    console.print("The command for each row of a recipe:")
    for command in listing.commands():
        console.print(f"  {command}", soft_wrap=True)
    return 0
