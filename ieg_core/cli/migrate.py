# SPDX-License-Identifier: Apache-2.0
"""`ieg migrate RUNS`: converts a results root that an earlier version wrote."""

import argparse
from pathlib import Path

from ieg_core.store.migrate import migrate
from ieg_core.store.names import DEFAULT_ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg migrate`."""
    parser.add_argument(
        "results", type=Path, metavar="RUNS", help=f"a results root, such as {DEFAULT_ROOT}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Converts a results root in place and prints how many trials it converted."""
    count = migrate(arguments.results)
    print(
        f"{arguments.results}: {count} trials converted; `ieg report` and `ieg status` can read it"
    )
    return 0
