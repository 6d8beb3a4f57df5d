# SPDX-License-Identifier: Apache-2.0
"""`ieg audit RUN_DIR`: the audit of one run, or of every run of a sweep."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ieg_core.audit.run import THRESHOLD, TOP, audit_cell, is_available
from ieg_core.errors import UserError
from ieg_core.results import cell_folder, read_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `ieg audit` takes."""
    parser.add_argument(
        "run_dir", type=Path, help="a run, runs/cells/…, or a sweep, such as runs/latest"
    )
    parser.add_argument("--data-dir", default="data", help="where base data sets lie (data)")
    parser.add_argument("--top", type=int, default=TOP, help=f"examples in the gallery ({TOP})")
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        help=f"score from which on a label is called wrong, in [0, 1] ({THRESHOLD})",
    )
    parser.add_argument(
        "--write-labels",
        type=Path,
        metavar="FILE",
        help="write the cleaned labels, .csv or .parquet, for DATASET=<base>_labels LABELS=FILE",
    )
    parser.set_defaults(run=run_audit)


def run_audit(arguments: argparse.Namespace) -> int:
    """Audits a run, or each audited run of a sweep, and says what was found."""
    folders = find_cells(arguments.run_dir)
    if arguments.write_labels is not None and len(folders) > 1:
        raise UserError(
            f"{arguments.run_dir} has {len(folders)} runs to audit: name one of them for "
            f"--write-labels, such as {folders[0]}"
        )
    for folder in folders:
        summary = audit_cell(
            folder,
            Path(arguments.data_dir),
            top=arguments.top,
            threshold=arguments.threshold,
            labels_file=arguments.write_labels,
        )
        print(describe(summary))
        print(folder / "audit" / "audit.html")
    if arguments.write_labels is not None:
        base = summary["dataset"].partition("_")[0]
        print(
            f"{arguments.write_labels}: cleaned labels, "
            f"for make sweep DATASET={base}_labels LABELS={arguments.write_labels}"
        )
    return 0


def find_cells(run_dir: Path) -> list[Path]:
    """Lists the runs that a folder stands for: itself, or those of a sweep that can be audited.

    Raises:
      UserError: It is neither, or none of the sweep's runs can be audited.
    """
    folder = run_dir.resolve()
    plan = read_json(folder / "plan.json")
    if plan is None:
        return [folder]
    root = folder.parent.parent
    cells = [cell_folder(root, str(name)) for name in plan.get("cells", ())]
    found = [cell for cell in cells if is_available(cell)]
    if not found:
        raise UserError(
            f"none of the {len(cells)} runs of {run_dir} can be audited: expected a finished run "
            "of a method that trains on the noisy labels"
        )
    return found


def describe(summary: Mapping[str, Any]) -> str:
    """Says in one line what an audit found."""
    text = (
        f"{summary['dataset']}, {summary['method']}, seed {summary['seed']}: "
        f"{summary['flagged']} of {summary['examples']} labels look wrong"
    )
    if summary.get("average_precision") is None:
        return text
    measures = {
        "average precision": f"{summary['average_precision']:.3f}",
        "AUROC": f"{summary['auroc']:.3f}",
        "precision": "-" if summary["precision"] is None else f"{summary['precision']:.3f}",
        "recall": f"{summary['recall']:.3f}",
    }
    told = ", ".join(f"{name} {value}" for name, value in measures.items())
    return f"{text}; {summary['wrong']} are ({told})"
