# SPDX-License-Identifier: Apache-2.0
"""`ieg`: the steps of a sweep as single commands, without Kubeflow Pipelines.

ieg prepare DATASET ...      write prepared data sets
ieg train --dataset SPEC     train one trial and evaluate it
ieg evaluate RUN_DIR         evaluate a trained trial
ieg status [RUN_DIR]         show the progress of a sweep
ieg audit FOLDER|RUN_DIR     list the labels that look wrong
ieg report RUN_DIR...        join sweeps in one report; of two, show what changed
ieg export RUN_DIR...        write trials as runs of MLflow
ieg predict MODEL IMAGES...  classify image files
ieg migrate RUNS             convert the results of an earlier version
ieg recipes                  list the recipes
ieg completion bash|zsh      print a script that completes commands and options

An invalid request prints one line and exits with 2; a diverged training exits with 3.
"""

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence

from ieg_core import __version__
from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import use_utf8

COMMANDS = {
    "prepare": "write prepared data sets",
    "train": "train one trial and evaluate it",
    "evaluate": "evaluate a trained trial",
    "audit": "list the labels that look wrong",
    "report": "join sweeps in one report",
    "export": "write trials as runs of MLflow",
    "status": "show the progress of a sweep",
    "predict": "classify image files",
    "migrate": "convert the results of an earlier version",
    "recipes": "list the recipes",
    "completion": "print a script that completes commands and options",
}
"""What each command does; the module of `ieg_core.cli` of its name declares its arguments."""


def build_parser(declared: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Builds the parser of the command line.

    Args:
      declared: The commands whose arguments it knows; it takes most of a second to import all.
    """
    parser = Parser(prog="ieg", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ieg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in declared:
            module = importlib.import_module(f"ieg_core.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run, parser=parser)
    return parser


def _needed(words: Sequence[str]) -> Collection[str]:
    """Returns the commands whose arguments a command line needs: its own, to complete them all."""
    given = next((word for word in words if not word.startswith("-")), "")
    return COMMANDS if given == "completion" else {given}


@program("ieg")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: The arguments; by default those of the process.

    Returns:
      The exit code: 0; 1 failed; 2 invalid request; 3 diverged; 130 interrupted; 141 the reader of
        the output closed the pipe.
    """
    if argv is None:
        use_utf8()
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser(_needed(words)).parse_args(words)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
