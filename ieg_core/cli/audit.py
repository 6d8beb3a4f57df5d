# SPDX-License-Identifier: Apache-2.0
"""`ieg audit WHAT`: which labels of images or of a training run look wrong."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from ieg_core.audit.cleaning import PRECISION
from ieg_core.audit.exports import EXPORTS
from ieg_core.audit.findings import THRESHOLD, is_available
from ieg_core.audit.write import TOP, audit_trial
from ieg_core.cli import audit_images, options
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec
from ieg_core.experiment.base_datasets import BASES
from ieg_core.experiment.feature_sources import EXPECTED
from ieg_core.features.extract import NETWORK
from ieg_core.host.files import is_inside
from ieg_core.recipes import build
from ieg_core.report.audits import MEASURES, measure_text
from ieg_core.store import layout
from ieg_core.store.records import AuditRecord, TrialRecord
from ieg_core.sweep.request import make_sweep

RUN, FILES, DATASET = "run", "files", "dataset"
OF_IMAGES = (
    *("out", "labels", "features", "mirrored", "annotators", "with_test", "decisions"),
    *("corrections", "precision", "export", "seed"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg audit`."""
    parser.add_argument(
        "places",
        nargs="+",
        metavar="WHAT",
        help="a folder of images, a table of them, a data set such as cifar10_human_worst (several "
        f"names are several annotators), or runs: {layout.TRIAL_EXAMPLE}, {layout.LATEST_EXAMPLE}",
    )
    options.add_run_data_dir(parser)
    options.add_json(parser, "one JSON object: for each audit its summary and the files written")
    parser.add_argument(
        "--top", type=int, help=f"images on the page ({audit_images.TOP}; for a run, {TOP})"
    )
    parser.add_argument(
        "--write-labels",
        type=Path,
        metavar="FILE",
        help="write the cleaned labels, .csv or .parquet, for DATASET=<base>_labels LABELS=FILE",
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (audits/<name>)"
    )
    images.add_argument("--labels", help="the label file of a data set <base>_labels")
    images.add_argument(
        "--features",
        action="append",
        metavar="NAME",
        help=f"{EXPECTED}; rows of a file that names no images are in the images' order; may be "
        f"repeated ({NETWORK})",
    )
    images.add_argument(
        "--mirrored", action="store_true", help="average with the features of the mirror images"
    )
    images.add_argument(
        "--annotators", metavar="A,B", help="the columns of a table that hold labels"
    )
    images.add_argument(
        "--with-test", action="store_true", help="also judge the labels of the test set"
    )
    images.add_argument(
        "--decisions", type=Path, metavar="FILE", help="decisions.csv, as review.html saves it"
    )
    images.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="corrections made in another tool: a Label Studio project exported as JSON, "
        "FiftyOne's labels.json, or a table with the columns path and corrected_label",
    )
    images.add_argument(
        "--precision",
        type=float,
        help="least probability that a label changed by --write-labels is then right, even if as "
        f"few labels are wrong as the data allow ({PRECISION})",
    )
    images.add_argument(
        "--export",
        action="append",
        default=[],
        metavar="TOOL=FILE",
        help=f"also write the audit for {', '.join(EXPORTS)}; may be repeated",
    )
    images.add_argument("--seed", type=int, help="seed of the folds and of drawn labels (0)")
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--threshold",
        type=float,
        help=f"least score of a label that is called wrong, in [0, 1] ({THRESHOLD})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Audits images or runs, whichever the arguments are, and says what was found.

    With --json, prints {"audits": [{"summary": …, "files": […]}, …]}: the content of each audit's
    summary.json, and the paths of the files that people open or continue with.

    Raises:
      UserError: When an option does not suit what is audited, or it cannot be audited.
    """
    kinds = {_kind(place) for place in arguments.places}
    if len(kinds) > 1 or (kinds == {FILES} and len(arguments.places) > 1):
        raise UserError(
            f"received {' '.join(arguments.places)}: expected one folder or table, or only runs, "
            "or only data sets; audit one after the other"
        )
    if kinds == {RUN}:
        if given := [name for name in OF_IMAGES if getattr(arguments, name)]:
            raise UserError(
                f"--{given[0].replace('_', '-')} is for images, but {arguments.places[0]} is a "
                "run: leave it out"
            )
        return _audit_runs(arguments)
    if arguments.threshold is not None:
        raise UserError(
            f"--threshold is for runs, but {arguments.places[0]} is not one: use --precision"
        )
    request = audit_images.parse_request(arguments, are_datasets=kinds == {DATASET})
    return audit_images.audit_images(request)


def _kind(place: str) -> str:
    """Returns what an argument is: an existing path before the name of a data set."""
    if not place:
        raise UserError("received no folder: expected one, as in make audit DATA_DIR=photos")
    if Path(place).is_file():
        return FILES
    folder = layout.find_run(Path(place))
    if (
        layout.is_trial(folder)
        or layout.planned_sweeps(folder)
        or layout.planned_trials(folder) is not None
    ):
        return RUN
    if folder.exists():
        return FILES
    if os.sep not in place and place.split("_")[0] in BASES:
        return DATASET
    raise UserError(
        f"there is no {place}: expected a folder of images, a table, a data set such as "
        f"cifar10_human_worst, or a run such as {layout.LATEST_EXAMPLE}"
    )


def _audit_runs(arguments: argparse.Namespace) -> int:
    places = [Path(place) for place in arguments.places]
    labels_file = arguments.write_labels
    folders = list(dict.fromkeys(folder for place in places for folder in auditable_trials(place)))
    if labels_file is not None and len(folders) > 1:
        raise UserError(
            f"--write-labels with {len(folders)} runs ({' '.join(map(str, places))}): expected one "
            f"run, such as {folders[0]}"
        )
    audits = []
    for folder in folders:
        data_dir = options.data_dir_of(folder, arguments.data_dir)
        if labels_file is not None:
            _refuse_overwriting(labels_file, folder, Path(data_dir))
        summary = audit_trial(
            folder,
            Path(data_dir),
            top=TOP if arguments.top is None else arguments.top,
            threshold=THRESHOLD if arguments.threshold is None else arguments.threshold,
            labels_file=labels_file,
        )
        page = folder / layout.AUDIT_PAGE
        files = [page, page.with_suffix(".csv"), *([labels_file] if labels_file else [])]
        audits.append({"summary": summary.to_value(), "files": files})
        if not arguments.json:
            print(describe(summary))
            print(page)
            if labels_file:
                command = next_command(folder, data_dir, labels_file)
                print(f"{labels_file}: cleaned labels, for {command}")
    if arguments.json:
        options.print_json({"audits": audits})
    return 0


def _refuse_overwriting(labels_file: Path, folder: Path, data_dir: Path) -> None:
    """Refuses to write labels into the folder of a run's images, where train.csv may be a table."""
    record, _ = TrialRecord.look(folder)
    if record and record.base == "folder" and is_inside(labels_file, data_dir):
        raise UserError(
            f"the results would go to {labels_file}, inside {data_dir}: choose another folder (its "
            "files are only read)"
        )


def auditable_trials(run_dir: Path) -> list[Path]:
    """Returns the folders of a run, or of the runs of a sweep that can be audited.

    Raises:
      UserError: When none of the sweep's runs can be audited.
    """
    root, sweep, names = layout.find_trials(run_dir)
    trials = [layout.trial_folder(root, name) for name in names]
    auditable = [trial for trial in trials if is_available(trial) or not sweep]
    if not auditable:
        raise UserError(
            f"none of the {len(trials)} runs of {run_dir} can be audited: expected a finished run "
            "of a method that trains on the noisy labels"
        )
    return auditable


def next_command(folder: Path, data_dir: str, labels_file: Path) -> str:
    """Returns the command that trains on cleaned labels of the audited run's data.

    The command repeats the run's image settings: a label file belongs to images read in one way.

    Args:
      folder: The audited run's folder.
      data_dir: Folder of the base data sets.
      labels_file: The file of cleaned labels.
    """
    config = layout.read_planned(layout.root_of(folder), folder.name).settings
    spec = dataset_spec.parse(f"{dataset_spec.parse(config.dataset).base}_{dataset_spec.LABELS}")
    words = {"DATASET": str(spec), "LABELS": str(labels_file)}
    if data_dir != options.DATA_DIR:
        words["DATA_DIR"] = data_dir
    usual = build.build_config(spec, config.method).images
    if config.images and config.images != usual:
        changed = [
            f"images.{key}={','.join(value) if isinstance(value, tuple) else value}"
            for key, value in asdict(config.images).items()
            if usual is None or getattr(usual, key) != value
        ]
        words["SET"] = " ".join(changed)
    return make_sweep(words)


def describe(summary: AuditRecord) -> str:
    """Formats an audit as one line, in the words of the report."""
    share = summary.flagged / summary.examples if summary.examples else None
    text = (
        f"{summary.dataset}, {summary.method}, seed {summary.seed}: "
        f"{summary.flagged} of {summary.examples} labels look wrong "
        f"({measure_text('flagged', share)})"
    )
    if summary.average_precision is None:
        return text
    measures = ", ".join(
        f"{shown} {measure_text(name, getattr(summary, name))}" for name, shown in MEASURES.items()
    )
    return f"{text}; {summary.wrong} are wrong: {measures}"
