# SPDX-License-Identifier: Apache-2.0
"""The variables of `make`: what each target takes, and the check of what was given.

`make` runs this module before anything else, with the system's Python where `.venv` does not exist
yet: it imports only the standard library and modules that do the same.
"""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ieg_core.errors import UserError, printable
from ieg_core.store.names import DEFAULT_ROOT, SWEEPS
from ieg_core.sweep.request import REQUEST_OPTIONS, Option

RUNNERS = ("auto", "local", "cluster")
PROFILES = ("gpu", "cpu")
OF_MAKE = ("PYTHON", "SHELL", "MAKEFLAGS")

CLUSTER = Option(
    "CLUSTER",
    "the cluster file, see `docs/cluster.example.yaml`",
    default_meaning="`cluster.yaml` if it exists",
)
RUNNER = Option(
    "RUNNER",
    "`auto` (the cluster if an endpoint is configured, else this machine), `local`, `cluster`",
    default="auto",
    choices=RUNNERS,
)
PROFILE = Option(
    "PROFILE",
    "on a cluster: train on `gpu` or `cpu` nodes",
    default="gpu",
    choices=PROFILES,
    new_run=True,
)
RATES = Option(
    "RATES",
    "on a cluster: known step rates for the estimate (also of `make schedule`), "
    "`wrn28-10:supervised=9.5,wrn28-10:ieg=1.4` in steps per second, or a JSON file",
    scope="cluster",
    new_run=True,
)
PLAN = Option("PLAN", "`1` only shows what would be done", choices=("", "0", "1"))
DATA_DIR, OUT = REQUEST_OPTIONS["data_dir"], REQUEST_OPTIONS["results"]

SWEEP = (
    *REQUEST_OPTIONS.values(),
    Option(
        "MAX_HOURS",
        "a longer estimate is refused",
        default="4",
        expected="hours above 0, such as 4",
        scope="here",
    ),
    Option(
        "DEVICES",
        "`auto` (every GPU, else the CPU), `cpu`, or GPU numbers `0,1`",
        default="auto",
        scope="here",
    ),
    Option(
        "GPUS_PER_TRIAL",
        "GPUs that share the batches of one trial",
        default="1",
        expected="a whole number of GPUs",
        scope="here",
    ),
    RUNNER,
    CLUSTER,
    PROFILE,
    Option(
        "WATCH",
        "on a cluster: `1` follows the sweep to its end; a run's label or id follows that run and "
        "submits nothing",
        scope="cluster",
    ),
    Option(
        "MAX_GPU_HOURS",
        "on a cluster: a larger estimate is refused",
        default_meaning="the cluster file's",
        expected="GPU-hours above 0, such as 24",
        scope="cluster",
        new_run=True,
    ),
    Option(
        "MAX_PENDING",
        "on a cluster, with `WATCH`: the runs are canceled after this many minutes without "
        "anything running",
        expected="minutes above 0, such as 30",
        scope="cluster",
    ),
    Option(
        "RESUME",
        "on a cluster: a run's label or id; its unfinished trials continue as they were submitted, "
        "and parts of a sweep that were never created are submitted",
        scope="cluster",
    ),
    RATES,
)
TUNE = (
    *(
        replace(each, meaning="seeds to choose with, not those of the results", default="100")
        if name == "seeds"
        else each
        for name, each in REQUEST_OPTIONS.items()
    ),
    *(each for each in SWEEP if each.variable in ("MAX_HOURS", "DEVICES", "GPUS_PER_TRIAL")),
    Option("POINTS", "settings to try of each method", default="9", expected="a whole number"),
    Option(
        "VALIDATION",
        "share of the training images that is held out to choose by",
        default="0.2",
        expected="a share above 0 and at most 0.5",
    ),
)
AUDIT = (
    Option("DATA_DIR", "the folder of images, or a table of them; with `DATASET`, as of a sweep"),
    Option("OUT", "folder of the results", default_meaning="`audits/<name>`"),
    Option("DATASET", "a data set such as `cifar10_human_worst` instead of a folder"),
    Option("LABELS", "the label file, CSV or Parquet, of a `<base>_labels` data set"),
    Option("FEATURES", "a network or a file of features", default_meaning="`efficientnet-lite0`"),
    Option("DECISIONS", "`decisions.csv`, as `review.html` saves it"),
    Option("CORRECTIONS", "corrections from Label Studio, FiftyOne or a table"),
    Option("WRITE_LABELS", "CSV or Parquet file for the cleaned labels"),
    Option("PRECISION", "least probability that a changed label becomes right", "0.95"),
)
IMAGE = (
    Option("IMAGE", "name of the image, without a tag", default="ieg-python"),
    Option("BASE", "base image", default_meaning="`python:3.11-slim`"),
    Option("DIRTY", "`1` tags a tree with uncommitted changes instead of refusing it"),
    Option("ENGINE", "`docker`, `podman` or `buildah`", default_meaning="the first one found"),
    Option("BUILD_FLAGS", "more flags for the build"),
)
TARGETS: Mapping[str, Sequence[Option]] = {
    "sweep": SWEEP,
    "tune": TUNE,
    "audit": AUDIT,
    "image": (Option("TARGET", "`cpu` or `gpu`", default="gpu"), *IMAGE),
    "image-test": (*IMAGE, Option("RUN_FLAGS", "more flags for each container")),
    "manifests": (CLUSTER,),
    "data": (CLUSTER, Option("FROM", "folder of this machine that is copied")),
    "compile": (CLUSTER,),
    "doctor": (
        CLUSTER,
        RUNNER,
        PROFILE,
        Option("DATA", "base data set to open, such as `cifar100`"),
        DATA_DIR,
        OUT,
    ),
    "cluster-test": (CLUSTER, PROFILE),
    "schedule": (CLUSTER, PLAN, RATES),
    "accept": (
        CLUSTER,
        RUNNER,
        OUT,
        Option("SCHEDULE", "the schedule's name"),
        Option("RUN", "the run's id", default_meaning="the newest"),
    ),
    "report": (
        CLUSTER,
        RUNNER,
        OUT,
        Option("RUN", f"a run's label, or a folder of `{SWEEPS}/`", default_meaning="the newest"),
    ),
    "clean-runs": (
        CLUSTER,
        RUNNER,
        OUT,
        Option("OLDER", "least age of what is removed, such as `30d`, `12h` or `8w`"),
        PLAN,
    ),
    "gpu-check": (
        Option("SECONDS", "time budget of this call", default="540"),
        Option("OUT", "the state folder", default="gpu-check"),
        Option("DATA_DIR", "CIFAR-10: the folder of data sets, or a packed file"),
        Option("WHEELS", "folder of wheels to install in the state folder"),
        Option("CPU", "`1` rehearses with tiny sizes on the CPU", choices=("", "0", "1")),
    ),
    "reproduce": (
        Option("FIGURE", "the figure's id or its table's", default_meaning="lists the figures"),
        DATA_DIR,
        Option("OUT", "the results root", default=f"{DEFAULT_ROOT}/reproduced"),
    ),
    "lock": (Option("UPGRADE", "`1` pins the newest versions"),),
}
"""What each target of the Makefile takes; the other targets take no variable."""


def add_arguments(parser: argparse.ArgumentParser, target: str) -> None:
    """Declares an option for each variable of a target; every value is a text."""
    for each in TARGETS[target]:
        default = each.default or each.default_meaning
        meaning = each.meaning + (f" (default: {default})" if default else "")
        parser.add_argument(
            f"--{each.flag}", default=each.default, metavar="TEXT", help=meaning.replace("%", "%%")
        )


def as_flags(target: str, arguments: Iterable[str]) -> list[str]:
    """Replaces each NAME=value that `make` forwards by the option of that variable.

    A variable that only other targets take is left out: `make` hands all of them to each command.

    Args:
      target: The target whose command runs.
      arguments: The command's arguments.

    Returns:
      The arguments, with options for variables.

    Raises:
      UserError: When no target takes a variable.
    """
    flags = {each.variable: each.flag for each in TARGETS[target]}
    everywhere = {each.variable for options in TARGETS.values() for each in options}
    replaced = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name.startswith("-"):
            replaced.append(argument)
        elif name in flags:
            replaced.append(f"--{flags[name]}={value}")
        elif name not in everywhere:
            raise UserError(find_problem([target], [name]))
    return replaced


def find_problem(targets: Sequence[str], given: Iterable[str]) -> str:
    """Checks the variables of a command line of `make`.

    Args:
      targets: The targets, at least one.
      given: The names of the variables.

    Returns:
      What is wrong with the first one that no target takes, in one line; "" if nothing is.
    """
    known = [each.variable for target in targets for each in TARGETS.get(target, ())]
    command = printable(" ".join(["make", *targets]))
    for target in targets:
        if "=" in target:  # make takes what is no variable's name for a target
            return f"{printable(target)}: expected NAME=value with a variable's name"
    for name in given:
        if name in (*known, *OF_MAKE):
            continue
        others = [
            f"make {target}"
            for target, options in TARGETS.items()
            if name in (each.variable for each in options)
        ]
        if others:
            return f"{command} does not take {name}, only {', '.join(others)}: leave it out"
        if not known:
            return f"{command} takes no variables, got {printable(name)}: leave it out"
        near = difflib.get_close_matches(name.upper(), known, n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        taken = ", ".join(dict.fromkeys(known))
        return f"{command}: unknown variable {printable(name)}: {hint}expected one of {taken}"
    return ""


def environment_hints(
    targets: Iterable[str], given: Iterable[str], environment: Mapping[str, str]
) -> list[str]:
    """Lists the variables of targets that only the environment sets, and that are thus ignored.

    Args:
      targets: The targets.
      given: The names on the command line of `make`.
      environment: The process's environment.

    Returns:
      A line for each variable whose value would have changed something.
    """
    taken = {each.variable: each for target in targets for each in TARGETS.get(target, ())}
    return [
        f"hint: {name} is set in the environment and ignored: to use it, add "
        f"{name}={printable(shlex.quote(environment[name]))} to the make command"
        for name, each in taken.items()
        if name not in given and environment.get(name, "") not in ("", each.default)
    ]


def main(arguments: Sequence[str]) -> None:
    """Checks a command line of `make`: prints what is wrong, and hints to standard error.

    Args:
      arguments: The targets, "--", and the names of the variables that were given.
    """
    end = arguments.index("--")
    targets, given = arguments[:end] or ["help"], arguments[end + 1 :]
    if problem := find_problem(targets, given):
        print(problem)
        return
    for line in environment_hints(targets, given, os.environ):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
