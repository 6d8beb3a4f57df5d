# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import argparse
import json
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.store.names import DEFAULT_ROOT
from ieg_core.store.records import TrialRecord
from ieg_core.sweep.request import REQUEST_OPTIONS

DATA_DIR = "data"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir."""
    parser.add_argument(
        "--data-dir", default=DATA_DIR, help=f"folder of the base data sets ({DATA_DIR})"
    )


def add_run_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir to a command that takes runs, which know their data directory."""
    parser.add_argument(
        "--data-dir", help=f"folder of the base data sets (the run's, else {DATA_DIR})"
    )


def data_dir_of(folder: Path, given: str | None) -> str:
    """Returns the data directory of a run.

    Args:
      folder: The run's folder.
      given: The directory on the command line; None for the one that the run was planned with or,
        if that is not on this machine, `DATA_DIR`.

    Raises:
      UserError: When a run on a user's images has neither.
    """
    record, _ = TrialRecord.look(folder)
    known = record.data_dir if record else None
    if given or (known and Path(known).is_dir()):
        return given or str(known)
    if record and known and record.base == "folder" and not Path(DATA_DIR).is_dir():
        raise UserError(
            f"there is no folder {known}, whose images {folder.name} was trained on: expected it "
            "there; name the folder where it is now (--data-dir)"
        )
    return DATA_DIR


def add_json(parser: argparse._ActionsContainer, shape: str) -> None:
    """Adds --json, whose output has a shape that the help and docs/command-line.md describe."""
    parser.add_argument("--json", action="store_true", help=f"print {shape}")


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON; raises ValueError for NaN, which JSON does not have."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    # Bytes of a file's name that are not UTF-8 become JSON's escapes of surrogates.
    print(text.encode("utf-8", "backslashreplace").decode())


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir, --out and --labels."""
    add_data_dir(parser)
    parser.add_argument("--out", default=DEFAULT_ROOT, help=f"the results root ({DEFAULT_ROOT})")
    parser.add_argument("--labels", default="", help=REQUEST_OPTIONS["labels"].meaning)


def add_settings(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Adds --set, which can be given more than once."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_text)
