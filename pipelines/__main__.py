# SPDX-License-Identifier: Apache-2.0
"""`python -m pipelines run | compile | schedule | …`, from the repository's root."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    from ieg_core.cli import Parser
    from pipelines import operations, options

    parser = Parser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a pipeline, on this machine or a cluster")
    run.add_argument("pipeline", choices=["noise_sweep"])
    options.add_arguments(run)
    compiling = commands.add_parser("compile", help="write and check the pipeline packages")
    compiling.add_argument("--site", default="", help="site file; else IEG_SITE, else site.yaml")
    compiling.add_argument("--output", type=Path, default=Path("build"), help="their folder")
    operations.add_parsers(commands)
    child = commands.add_parser("child")  # what `run` starts; not for people
    child.add_argument("scratch", type=Path)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    # An end by SIGTERM or by a closed terminal cleans up as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        arguments = build_parser().parse_args(argv)
        if arguments.command == "run":
            return _run(arguments)
        if arguments.command == "compile":
            from pipelines.compile import main as compile_packages

            return compile_packages(arguments.site, arguments.output)
        if arguments.command != "child":
            from pipelines import operations

            return operations.run(arguments)
        from pipelines import run

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        run.run_child(arguments.scratch)
    except UserError as error:
        print(f"ieg: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\nieg: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from pipelines import options

    site = options.cluster_site(arguments)
    if site is None:
        from pipelines import run

        return run.run_sweep(options.read(arguments))
    asked = options.read_cluster(arguments, site)
    from pipelines.cluster.run import run_sweep

    return run_sweep(asked)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
