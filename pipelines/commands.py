# SPDX-License-Identifier: Apache-2.0
"""The commands besides `run` and `compile`: tune, schedule, report, accept, clean-runs, doctor."""

import argparse
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from pipelines import cluster_files, options, variables
from pipelines.cluster_files import ROOT

SCHEDULES = ROOT / "schedules.yaml"


def add_parsers(commands: Any) -> None:
    """Declares the commands; each option is a variable of `make`."""
    helps = {
        "schedule": "make the cluster match schedules.yaml",
        "tune": "choose the settings of methods on a validation set",
        "report": "write the report of a run, also of one that ended without it",
        "accept": "make a run the reference for the later runs of its schedule",
        "clean-runs": "remove old checkpoints, models and sweeps",
        "doctor": "check by a small run that a sweep can work",
    }
    for target, text in helps.items():
        parser = commands.add_parser(target, help=text)
        variables.add_arguments(parser, target)
        if target == "schedule":
            parser.add_argument("--file", type=Path, default=SCHEDULES, help="the schedules")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the commands; returns the exit code.

    Raises:
      UserError: When the request is invalid.
    """
    if arguments.command == "schedule":
        from pipelines.scheduling import recurring

        only_plan = _is_plan(arguments.plan)
        cluster_file = cluster_files.load(arguments.cluster or None)
        return recurring.main(
            cluster_file, only_plan=only_plan, path=arguments.file, rates=arguments.rates
        )
    if arguments.command == "tune":
        from pipelines.local import tune

        number, share = options.read_tuning(arguments)
        return tune.run_tuning(options.read(arguments), number, share)
    if arguments.command == "accept":
        from ieg_core.report import acceptance

        print(acceptance.accept(results_root(arguments), arguments.schedule, arguments.run))
        return 0
    if arguments.command == "report":
        from ieg_core.store.layout import REPORT_PAGE, relative_report
        from ieg_core.store.record import below
        from ieg_core.tasks import late_report

        results = results_root(arguments)
        sweep = late_report.find_sweep(results, arguments.run)
        late_report.report_sweep(results, sweep)
        print(f"Report: {below(results, f'{relative_report(sweep)}/{REPORT_PAGE}')}")
        return 0
    if arguments.command == "clean-runs":
        from pipelines import cleanup, stored_files

        only_plan = _is_plan(arguments.plan)
        older = cleanup.parse_age(arguments.older)
        root = stored_files.open_root(results_root(arguments))
        cleanup.clean(root, older, only_plan=only_plan)
        return 0
    from pipelines import doctor

    wanted = doctor.Options(
        runner=arguments.runner,
        profile=arguments.profile,
        base=arguments.data,
        data_dir=arguments.data_dir,
        out=arguments.out,
    )
    return doctor.main(cluster_files.load(arguments.cluster or None), wanted)


def results_root(arguments: argparse.Namespace) -> str:
    """Returns the results root to use: the cluster's if one is configured, else OUT.

    Raises:
      UserError: When RUNNER is invalid, or the cluster's root cannot be reached from this machine.
    """
    runner = arguments.runner
    options.check_choice(variables.RUNNER, runner)
    cluster_file = cluster_files.load(arguments.cluster or None)
    if runner == "local" or (
        runner == "auto" and not cluster_files.endpoint_configured(cluster_file)
    ):
        return str(arguments.out)
    if cluster_file.results.startswith("gs://"):
        return cluster_file.results
    if not cluster_file.results_mount:
        raise UserError(
            f"the cluster's results root {cluster_file.results} cannot be read from this machine: "
            "set results_mount in the cluster file, or name a folder with RUNNER=local OUT=…"
        )
    return cluster_file.results_mount


def _is_plan(text: str) -> bool:
    if text not in variables.PLAN.choices:
        raise UserError(f"PLAN={text!r}: expected 1 to only show what would be done, or nothing")
    return text == "1"
