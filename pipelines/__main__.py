# SPDX-License-Identifier: Apache-2.0
"""`python -m pipelines run | compile`, from the repository's root."""

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
    from pipelines import options

    parser = Parser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a pipeline on this machine")
    run.add_argument("pipeline", choices=["noise_sweep"])
    options.add_arguments(run)
    compiling = commands.add_parser("compile", help="compile a pipeline to YAML and check it")
    compiling.add_argument("pipeline", choices=["noise_sweep"])
    compiling.add_argument("--output", type=Path, required=True)
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
            from pipelines import options, run

            return run.run_sweep(options.read(arguments))
        if arguments.command == "compile":
            compile_pipeline(arguments.output)
            return 0
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


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def compile_pipeline(output: Path) -> None:
    """Compiles the noise sweep to YAML, if it has none of KFP's traps in it."""
    from kfp import compiler

    from pipelines import checks, noise_sweep, profiles

    pipeline = noise_sweep.build(profiles.LOCAL)
    checks.require_sound(checks.compiled(pipeline), checks.ALL)
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(output))
    print(output)


if __name__ == "__main__":
    sys.exit(main())
