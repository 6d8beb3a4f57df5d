# SPDX-License-Identifier: Apache-2.0
"""Reads the variables of `make sweep` for a sweep on a cluster."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.sweep.request import SweepRequest
from pipelines import cluster_files, options, variables
from pipelines.cluster import cost
from pipelines.cluster_files import ClusterFile
from pipelines.variables import DATA_DIR


@dataclass(frozen=True)
class Order:
    """A sweep to submit.

    Attributes:
      request: The sweep; its data_dir and results are the cluster's.
      cluster_file: The cluster file.
      profile: "gpu" or "cpu".
      max_gpu_hours: Largest accepted estimate.
      rates: The user's step rates.
      results_namespace: Part of the results root for this sweep alone; "" for the whole root.
    """

    request: SweepRequest
    cluster_file: ClusterFile
    profile: str
    max_gpu_hours: float
    rates: cost.Rates
    results_namespace: str = ""


@dataclass(frozen=True)
class ClusterOptions:
    """The request of `make sweep` on a cluster.

    Attributes:
      order: The sweep.
      follow: Whether to follow what is submitted to its end.
      watch: An earlier run to follow instead of submitting anything; empty: none.
      resume: An earlier run to continue; empty: none.
      max_pending: Minutes after which runs that only wait are canceled; 0: never.
      out: Folder on this machine under which the report is copied.
    """

    order: Order
    follow: bool
    watch: str
    resume: str
    max_pending: float
    out: Path


def read(arguments: argparse.Namespace, cluster_file: ClusterFile) -> ClusterOptions:
    """Turns the texts into values, for a sweep on a cluster.

    Raises:
      UserError: When a text is not acceptable, or a variable of this machine's sweeps was given.
    """
    own_data = arguments.data_dir != cluster_file.data_dir
    if here := options.given(
        arguments, lambda each: each.scope == "here" and (each is not DATA_DIR or own_data)
    ):
        raise UserError(
            f"{here}: only for a sweep on this machine, but this one goes to "
            f"{cluster_files.endpoint(cluster_file) or 'a cluster'}: leave it out, see "
            "cluster.yaml, or RUNNER=local"
        )
    if not arguments.out.strip():
        raise UserError("OUT is empty: expected a folder")
    options.check_choice(variables.PROFILE, arguments.profile)
    hours = arguments.max_gpu_hours or str(cluster_file.max_gpu_hours)
    watch = arguments.watch.strip()
    earlier = "" if watch in ("", "0", "1") else watch
    if earlier and arguments.resume:
        raise UserError(f"WATCH={watch!r} with RESUME: expected WATCH=1 to follow what is resumed")
    new = options.given(arguments, lambda each: each.new_run)
    if new and (earlier or arguments.resume):
        repeats = "RESUME, which repeats the run as it was submitted"
        why = f"WATCH={earlier!r}, which submits nothing" if earlier else repeats
        raise UserError(f"{new}: not with {why}: leave it out")
    max_pending = 0.0
    if arguments.max_pending:
        max_pending = options.positive("MAX_PENDING", arguments.max_pending)
        if watch in ("", "0"):
            raise UserError(f"MAX_PENDING={arguments.max_pending!r}: only with WATCH=1")
    order = Order(
        request=options.request(
            arguments,
            accelerator=arguments.profile == "gpu",
            data_dir=cluster_file.data_dir,
            results=cluster_file.results,
        ),
        cluster_file=cluster_file,
        profile=arguments.profile,
        max_gpu_hours=options.positive("MAX_GPU_HOURS", hours),
        rates=cost.read_rates(arguments.rates),
    )
    return ClusterOptions(
        order=order,
        follow=watch == "1",
        watch=earlier,
        resume=arguments.resume.strip(),
        max_pending=max_pending,
        out=Path(arguments.out),
    )
