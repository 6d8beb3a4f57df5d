# SPDX-License-Identifier: Apache-2.0
"""`ieg report RUN_DIR...`: joins sweeps in one report."""

import argparse
from pathlib import Path

from ieg_core.cli.output import open_console
from ieg_core.report import join
from ieg_core.report.terminal import print_report
from ieg_core.report.write import write_joined
from ieg_core.store.layout import LATEST_EXAMPLE, REPORT_PAGE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg report`."""
    parser.add_argument(
        "run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help=f"for example {LATEST_EXAMPLE}"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (reports/joined-…)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes one report on several sweeps and prints what it says."""
    places = arguments.run_dirs
    folder = arguments.out or Path("reports") / join.folder_name(places)
    print_report(write_joined(places, folder), open_console())
    print(f"\nReport: {folder / REPORT_PAGE}")
    return 0
