# SPDX-License-Identifier: Apache-2.0
"""`ieg`: finds wrong labels, and runs the steps of a sweep one at a time.

`ieg COMMAND --help` explains a command. Exit codes: 0 done; 1 a trial failed, or an image cannot be
read; 2 invalid input, explained in one line; 3 a training diverged; 130 interrupted.
"""

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence

from ieg_core import __version__
from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import use_utf8

COMMANDS = {
    "audit": "list labels that look wrong, of images or of a run",
    "prepare": "prepare the label sets of data sets",
    "train": "train one trial and evaluate it",
    "evaluate": "evaluate a trained trial",
    "report": "join sweeps in one report; for two, show what changed",
    "export": "export trials as MLflow runs",
    "status": "show the progress of a sweep",
    "predict": "classify image files",
    "migrate": "convert a results root of an earlier version",
    "recipes": "list recipes, methods and published figures",
    "completion": "print a shell script that completes commands and options",
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
        title = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=title)
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
