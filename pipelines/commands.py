# SPDX-License-Identifier: Apache-2.0
"""The commands beside `run` and `compile`: schedule, accept, clean-runs and doctor."""

import argparse
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from pipelines import cluster_files
from pipelines.cluster_files import ROOT

RUNNERS = ("auto", "local", "cluster")
SCHEDULES = ROOT / "schedules.yaml"


def add_parsers(commands: Any) -> None:
    """Declares the commands; each option is a variable of `make`."""
    schedule = commands.add_parser("schedule", help="make the cluster match schedules.yaml")
    accept = commands.add_parser("accept", help="hold a schedule's next runs against this one")
    clean = commands.add_parser("clean-runs", help="remove old checkpoints, models and sweeps")
    doctor = commands.add_parser("doctor", help="prove what a sweep needs by a small run")
    for parser in (schedule, accept, clean, doctor):
        parser.add_argument(
            "--cluster", default="", help="cluster file; else IEG_CLUSTER, else cluster.yaml"
        )
    for parser in (schedule, clean):
        parser.add_argument("--plan", default="", metavar="1", help="only show what would be done")
    for parser in (accept, clean, doctor):
        parser.add_argument("--runner", default="", help="local or cluster; else as configured")
        parser.add_argument("--out", default="runs", help="the results root on this machine")
    schedule.add_argument("--rates", default="", help="step rates, network:method=steps per second")
    schedule.add_argument("--file", type=Path, default=SCHEDULES, help="the schedules")
    accept.add_argument("--schedule", default="", help="the schedule's name")
    accept.add_argument("--run", default="", help="the run's id; else the newest")
    clean.add_argument("--older", default="", help="such as 30d, 12h or 8w")
    doctor.add_argument("--profile", default="", help="gpu or cpu, on a cluster")
    doctor.add_argument("--data", default="", help="base data set to open, such as cifar100")
    doctor.add_argument("--data-dir", default="data", help="where base data sets lie, here")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the commands; returns the exit code.

    Raises:
      UserError: A mistake in what was asked for.
    """
    if arguments.command == "schedule":
        from pipelines.scheduling import recurring

        only_plan = _is_plan(arguments.plan)
        cluster_file = cluster_files.load(arguments.cluster_file or None)
        return recurring.main(
            cluster_file, only_plan=only_plan, path=arguments.file, rates=arguments.rates
        )
    if arguments.command == "accept":
        from ieg_core.report import acceptance

        print(acceptance.accept(results_root(arguments), arguments.schedule, arguments.run))
        return 0
    if arguments.command == "clean-runs":
        from pipelines import cleanup, stored_files

        only_plan = _is_plan(arguments.plan)
        older = cleanup.parse_age(arguments.older)
        root = stored_files.open_root(results_root(arguments))
        cleanup.clean(root, older, only_plan=only_plan)
        return 0
    from pipelines import doctor

    options = doctor.Options(
        runner=arguments.runner or "auto",
        profile=arguments.profile or "gpu",
        base=arguments.data,
        data_dir=arguments.data_dir,
        out=arguments.out,
    )
    return doctor.main(cluster_files.load(arguments.cluster_file or None), options)


def results_root(arguments: argparse.Namespace) -> str:
    """Returns the results root that is meant: the cluster's where one is configured, else OUT.

    Raises:
      UserError: RUNNER is none, or the cluster's root cannot be reached from this machine.
    """
    runner = arguments.runner or "auto"
    if runner not in RUNNERS:
        raise UserError(f"RUNNER={runner!r}: expected local, cluster or auto")
    cluster_file = cluster_files.load(arguments.cluster_file or None)
    if runner == "local" or (
        runner == "auto" and not cluster_files.endpoint_configured(cluster_file)
    ):
        return str(arguments.out)
    if cluster_file.results.startswith("gs://"):
        return cluster_file.results
    if not cluster_file.results_mount:
        raise UserError(
            f"the cluster's results root {cluster_file.results} is nowhere on this machine: set "
            "results_mount in the cluster file, or name a folder by RUNNER=local OUT=…"
        )
    return cluster_file.results_mount


def _is_plan(text: str) -> bool:
    if text not in ("", "0", "1"):
        raise UserError(f"PLAN={text!r}: expected 1 to look only, or nothing")
    return text == "1"
