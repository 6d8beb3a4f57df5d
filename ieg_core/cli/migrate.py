# SPDX-License-Identifier: Apache-2.0
"""`ieg migrate RUNS`: converts a results root that an earlier version wrote."""

import argparse
from pathlib import Path

from ieg_core.store.migrate import migrate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `ieg migrate` takes."""
    parser.add_argument("results", type=Path, metavar="RUNS", help="a results root, such as runs")
    parser.set_defaults(run=run_migrate)


def run_migrate(arguments: argparse.Namespace) -> int:
    """Converts a results root in place and says how much there was to convert."""
    count = migrate(arguments.results)
    print(
        f"{arguments.results}: {count} trials converted; `ieg report` and `ieg status` read it now"
    )
    return 0
