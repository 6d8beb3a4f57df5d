# SPDX-License-Identifier: Apache-2.0
"""`python -m pipelines run | compile | schedule | …`, from the repository's root."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import use_utf8


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    from pipelines import commands, variables

    parser = Parser(prog="python -m pipelines", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    run = subparsers.add_parser("run", help="run a pipeline, on this machine or a cluster")
    run.add_argument("pipeline", choices=["noise_sweep"])
    variables.add_arguments(run, "sweep")
    compiling = subparsers.add_parser("compile", help="write and check the pipeline packages")
    variables.add_arguments(compiling, "compile")
    compiling.add_argument("--output", type=Path, default=Path("build"), help="folder to write to")
    commands.add_parsers(subparsers)
    child = subparsers.add_parser("child")  # internal: started by `run`
    child.add_argument("scratch", type=Path)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line, which takes variables of `make` as NAME=value too."""
    from pipelines import variables

    target = "sweep" if argv[:1] == ["run"] else "".join(argv[:1])
    if target in variables.TARGETS:
        argv = variables.as_flags(target, argv)
    return build_parser().parse_args(argv)


@program("ieg")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    if argv is None:
        use_utf8()
    # SIGTERM and a closed terminal must clean up just as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    arguments = parse(sys.argv[1:] if argv is None else argv)
    if arguments.command == "run":
        return _run(arguments)
    if arguments.command == "compile":
        from pipelines.compile import main as compile_packages

        return compile_packages(arguments.cluster, arguments.output)
    if arguments.command != "child":
        from pipelines import commands

        return commands.run(arguments)
    from pipelines.local import sweep

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sweep.run_child(arguments.scratch)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from pipelines import options

    cluster_file = options.choose_cluster(arguments)
    if cluster_file is None:
        from pipelines.local import sweep

        return sweep.run_sweep(options.read(arguments))
    from pipelines.cluster import options as cluster_options

    wanted = cluster_options.read(arguments, cluster_file)
    from pipelines.cluster.sweep import run_sweep

    return run_sweep(wanted)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
