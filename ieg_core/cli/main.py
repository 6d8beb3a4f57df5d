# SPDX-License-Identifier: Apache-2.0
"""`ieg`: the steps of a sweep by hand, for people without Kubeflow Pipelines.

ieg prepare DATASET ...      write prepared data sets
ieg train --dataset SPEC     train one trial, and evaluate it
ieg evaluate RUN_DIR         evaluate a trained trial
ieg status [RUN_DIR]         how far a running sweep is
ieg audit FOLDER|RUN_DIR     list the labels that look wrong
ieg report RUN_DIR...        join sweeps in one report; of two, what changed
ieg predict MODEL IMAGES...  say what is on image files
ieg migrate RUNS             convert the results of an earlier version
ieg recipes                  list the recipes

A mistake in what was asked for is one line and exit code 2; a diverged training ends with 3.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ieg_core import __version__
from ieg_core.cli import audit, migrate
from ieg_core.cli.predict import predict_files
from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_source
from ieg_core.errors import UserError, printable, require
from ieg_core.experiment import dataset_spec
from ieg_core.experiment.overrides import override
from ieg_core.host import machine
from ieg_core.host.files import writable
from ieg_core.recipes import build
from ieg_core.recipes import listing as recipe_list
from ieg_core.report import join
from ieg_core.report.write import write_joined
from ieg_core.store.layout import (
    LOG,
    MODEL,
    find_run,
    is_trial,
    label_sets_folder,
    read_result,
    trial_folder,
)
from ieg_core.store.records import FailureRecord, TrainingRecord, TrialRecord
from ieg_core.sweep import plan, progress, slots, status, worker
from ieg_core.sweep.request import REQUEST_OPTIONS, SweepRequest

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raises a UserError instead of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = Parser(
        prog="ieg", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"ieg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    folders = Parser(add_help=False)
    folders.add_argument("--data-dir", default="data", help="where base data sets lie (data)")
    folders.add_argument("--out", default="runs", help="the results root (runs)")
    folders.add_argument("--labels", default="", help=REQUEST_OPTIONS["labels"].meaning)

    prepare = commands.add_parser("prepare", parents=[folders], help="write prepared data sets")
    prepare.add_argument("dataset", nargs="+", help="for example digits_uniform_0.4")
    prepare.add_argument("--seed", type=int, default=0)
    prepare.add_argument("--image-size", type=int, default=0, help="of your own images")
    prepare.add_argument("--probe-per-class", type=int, default=build.DEFAULT_PROBE_PER_CLASS)
    prepare.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override how images are read, such as images.eval_sets=",
    )
    prepare.set_defaults(run=run_prepare)

    train = commands.add_parser("train", parents=[folders], help="train one trial and evaluate it")
    train.add_argument("--dataset", required=True, help="for example cifar10_uniform_0.4")
    train.add_argument("--method", default="l2r")
    train.add_argument("--network", default="", help=REQUEST_OPTIONS["network"].meaning)
    train.add_argument("--recipe", default="", help=REQUEST_OPTIONS["recipe"].meaning)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--steps", type=int, default=0, help="another length than the recipe's")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    train.add_argument("--devices", default="auto", help="auto, cpu, or GPU numbers: 0,1")
    train.set_defaults(run=run_train)

    evaluate = commands.add_parser("evaluate", help="evaluate a trained trial")
    evaluate.add_argument("run_dir", type=Path, help="for example runs/trials/digits_uniform_0.4-…")
    evaluate.add_argument("--data-dir", default="data", help="where base data sets lie (data)")
    evaluate.set_defaults(run=run_evaluate)

    auditing = commands.add_parser("audit", help="list the labels that look wrong")
    audit.add_arguments(auditing)

    reporting = commands.add_parser("report", help="join sweeps in one report")
    reporting.add_argument(
        "run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="for example runs/latest"
    )
    reporting.add_argument("--output", type=Path, help="a folder (reports/joined-…)")
    reporting.set_defaults(run=run_report)

    telling = commands.add_parser("status", help="how far a running sweep is")
    telling.add_argument("run_dir", nargs="?", type=Path, default=Path("runs"), metavar="RUN_DIR")
    telling.add_argument("--watch", action="store_true", help="go on until nothing of it runs")
    telling.set_defaults(run=run_status)

    predicting = commands.add_parser("predict", help="say what is on image files")
    predicting.add_argument(
        "model", type=Path, help=f"a run, runs/trials/…, or a file such as {MODEL}"
    )
    predicting.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="files, or folders of them"
    )
    predicting.add_argument("--top", type=int, default=3, help="classes to tell of each image (3)")
    predicting.add_argument(
        "--network",
        default="",
        metavar="MODULE:FUNCTION",
        help="import this module first, for a network with layers of your own",
    )
    predicting.set_defaults(run=run_predict)

    migrating = commands.add_parser("migrate", help="convert the results of an earlier version")
    migrate.add_arguments(migrating)

    listing = commands.add_parser("recipes", help="list the recipes")
    listing.set_defaults(run=run_recipes)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: The arguments; the process's own by default.

    Returns:
      The exit code: 0; 1 failed; 2 a mistake in what was asked for; 3 diverged; 130 interrupted;
        141 nobody reads the output any more.
    """
    try:
        arguments = build_parser().parse_args(argv)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"ieg: error: {error}", file=sys.stderr)
        return worker.EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\nieg: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # As of `ieg predict … | head`: nobody reads on, and nothing is to be said of it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def run_prepare(arguments: argparse.Namespace) -> int:
    """Writes the label set of each data set and says what is in it."""
    label_sets = label_sets_folder(Path(arguments.out))
    specs = [dataset_spec.parse(text) for text in arguments.dataset]
    require(arguments.seed >= 0, "seed", arguments.seed, "at least 0")
    for setting in arguments.set:
        reading = setting.strip().startswith("images.")
        require(reading, "--set", setting, "a setting of images, such as images.max_megapixels=50")
    with writable(label_sets):
        label_sets.mkdir(parents=True, exist_ok=True)
    data_dir = Path(arguments.data_dir)
    for wanted in specs:
        asked = override(
            build.build_config(wanted, "supervised", image_size=arguments.image_size),
            arguments.set,
        )
        source = open_source(wanted.base, data_dir, asked.images)
        label_set = prepare_label_set(
            wanted,
            seed=arguments.seed,
            probe_per_class=arguments.probe_per_class,
            source=source,
            label_sets_dir=label_sets,
            given=open_given(wanted, source, data_dir, arguments.labels),
        )
        for note in describe_notes(source.notes):
            print(f"Note: {note}")
        print(
            f"{label_sets / label_set.name}: {len(label_set.train_ids)} training examples, "
            f"{len(label_set.probe_ids)} clean ones, digest {label_set.digest[:12]}"
        )
    return 0


def run_train(arguments: argparse.Namespace) -> int:
    """Trains one trial in a process of its own, shows how far it is, and evaluates it."""
    gpus = machine.find_gpus(arguments.devices)
    request = SweepRequest(
        dataset=str(dataset_spec.parse(arguments.dataset)),
        methods=(arguments.method,),
        seeds=(arguments.seed,),
        recipe=arguments.recipe,
        network=arguments.network,
        steps=arguments.steps,
        settings=tuple(arguments.set),
        accelerator=bool(gpus),
        data_dir=arguments.data_dir,
        results=arguments.out,
        labels=arguments.labels,
    )
    planned = plan.plan(request)
    for note in planned.notes:
        print(f"Note: {note}")
    if len(planned.trials) != 1:
        raise UserError(
            f"{arguments.dataset!r} stands for {len(planned.trials)} data sets: give one noise "
            f"ratio, such as {arguments.dataset}_0.4, or use make sweep"
        )
    share = slots.Slot(machine.usable_cores(), gpus)
    return _run_shown(
        Path(arguments.out),
        planned.trials[0],
        Path(arguments.data_dir),
        ("train", "evaluate"),
        share,
    )


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Evaluates a trained trial from its checkpoint, also one that has its result."""
    folder = find_run(arguments.run_dir)
    if not is_trial(folder):
        raise UserError(
            f"{arguments.run_dir} is no run: expected a folder such as runs/trials/…, "
            f"with a {TrialRecord.NAME} in it"
        )
    if not TrainingRecord.exists(folder):
        raise UserError(
            f"{arguments.run_dir} is not trained to the end: run ieg train or make sweep again"
        )
    FailureRecord.path(folder).unlink(missing_ok=True)
    share = slots.Slot(machine.usable_cores(), machine.find_gpus("auto"))
    root = folder.parent.parent
    return _run_shown(root, folder.name, Path(arguments.data_dir), (worker.AGAIN,), share)


def _run_shown(
    root: Path, trial: str, data_dir: Path, steps: Sequence[str], share: slots.Slot
) -> int:
    """Runs a trial's steps in a thread that waits for their processes, and shows their progress."""
    codes: list[int] = []

    def work() -> None:
        for step in steps:
            codes.append(worker.run_step(step, trial, root, data_dir, slot=share, echo=False))
            if codes[-1]:
                return

    # A daemon: where this process ends by Ctrl-C, the trial's ends itself at once.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    progress.watch(root, [trial], thread.is_alive)
    folder = trial_folder(root, trial)
    if not codes or codes[-1]:
        failure, _ = FailureRecord.look(folder)
        reason = failure.reason if failure else "no reason was recorded"
        kind = {worker.EXIT_USER_ERROR: "error", worker.EXIT_DIVERGED: "diverged"}
        code = codes[-1] if codes else worker.EXIT_FAILED
        print(f"ieg: {kind.get(code, 'failed')}: {reason} (log: {folder / LOG})",
              file=sys.stderr)  # fmt: skip
        return code if code > 0 else worker.EXIT_FAILED
    result = read_result(root, trial)
    print(
        f"Test accuracy {100 * result.accuracy_ema_last:.1f} % after the last step (moving average "
        f"of the parameters; {100 * result.accuracy_last:.1f} % without), "
        f"{result.steps_per_second:.1f} steps/s"
    )
    print(folder)
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """Writes one report over several sweeps and prints its table."""
    places = arguments.run_dirs
    folder = arguments.output or Path("reports") / join.folder_name(places)
    table = write_joined(places, folder).table
    grid = Table(*table[0], box=None, pad_edge=False, header_style="bold")
    for line in table[1:]:
        grid.add_row(*map(Text, line))  # "ieg [batch_size=50]" is no mark-up
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(grid)
    print(f"\nReport: {folder / 'report.html'}")
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Shows how far the trials of a sweep are; exit code 1 if one has failed."""
    trials = status.show(arguments.run_dir, watch=arguments.watch)
    return worker.EXIT_FAILED if any(trial.state == progress.FAILED for trial in trials) else 0


def run_predict(arguments: argparse.Namespace) -> int:
    """Prints a line for each image: the likeliest classes with their probabilities."""
    if arguments.top < 1:
        raise UserError(f"--top must be at least 1, got {arguments.top}")
    model = arguments.model
    if not model.is_file() and (run := find_run(model)).is_dir():
        model = run / MODEL
    broken = read = 0
    for each in predict_files(model, arguments.images, arguments.top, arguments.network):
        name = printable(str(each.path))
        if each.problem:
            broken += 1
            print(f"ieg: {name} cannot be read: {each.problem}", file=sys.stderr)
            continue
        read += 1
        classes = ", ".join(f"{label} {100 * share:.1f} %" for label, share in each.classes)
        print(f"{name}: {printable(classes)}")
    if not broken + read:
        told = ", ".join(map(str, arguments.images))
        raise UserError(f"there is no file in {told}: expected JPEG, PNG or WebP files")
    return worker.EXIT_FAILED if broken else 0


def run_recipes(arguments: argparse.Namespace) -> int:
    """Lists the recipe families, the methods, what accuracy to expect, and the commands."""
    del arguments
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for header, *lines in (
        recipe_list.family_lines(),
        recipe_list.method_lines(),
        recipe_list.expected_lines(),
    ):
        table = Table(*header, box=None)
        for line in lines:
            table.add_row(*line)
        console.print(table)
        console.print()
    console.print("Every row of a recipe is asked for by name:")
    for command in recipe_list.commands():
        console.print(f"  {command}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
