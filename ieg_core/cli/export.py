# SPDX-License-Identifier: Apache-2.0
"""`ieg export RUN_DIR... --mlflow FOLDER`: writes trials as runs of MLflow."""

import argparse
from pathlib import Path

from ieg_core.report import join
from ieg_core.report.mlflow import write_mlflow
from ieg_core.store.layout import LATEST_EXAMPLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg export`."""
    parser.add_argument(
        "run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help=f"for example {LATEST_EXAMPLE}"
    )
    parser.add_argument(
        "--mlflow", type=Path, required=True, metavar="FOLDER", help="MLflow's tracking folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the runs and says how to look at them."""
    sweeps = join.find_sweeps(arguments.run_dirs)
    count = write_mlflow(sweeps, arguments.mlflow)
    runs = "1 run" if count == 1 else f"{count} runs"
    # MLflow 3 reads such folders only if asked to, or moves them into a database.
    print(f"{runs} in {arguments.mlflow}. To view them:")
    print(f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {arguments.mlflow}")
    return 0
