# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import argparse

from ieg_core.sweep.request import REQUEST_OPTIONS

DATA_DIR = "data"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir."""
    parser.add_argument(
        "--data-dir", default=DATA_DIR, help=f"folder of the base data sets ({DATA_DIR})"
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir, --out and --labels."""
    add_data_dir(parser)
    parser.add_argument("--out", default="runs", help="the results root (runs)")
    parser.add_argument("--labels", default="", help=REQUEST_OPTIONS["labels"].meaning)


def add_settings(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Adds --set, which can be given more than once."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_text)
