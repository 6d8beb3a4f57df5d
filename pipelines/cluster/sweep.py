# SPDX-License-Identifier: Apache-2.0
"""`make sweep` on a cluster: submits, resumes or follows a sweep."""

import sys

from ieg_core.errors import EXIT_INTERRUPTED, EXIT_OK
from pipelines.cluster import client as clients
from pipelines.cluster import follow, resume, submit
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.submit import Run


def run_sweep(options: ClusterOptions) -> int:
    """Submits a sweep, resumes an earlier one, or only follows one.

    Returns:
      The exit code: of the followed runs, else 0.

    Raises:
      UserError: When a check fails, with nothing created, or KFP refuses.
    """
    try:
        return _run(options)
    except KeyboardInterrupt:
        say(
            f"\nInterrupted; submitted runs continue: "
            f"{clients.ui_address(options.order.cluster_file)}/#/runs"
        )
        return EXIT_INTERRUPTED


def _run(options: ClusterOptions) -> int:
    if options.watch:
        runs = _earlier(options)
    elif options.resume:
        runs = resume.resume(options.order.cluster_file, options.resume, say)
    else:
        runs = submit.submit(options.order, say)
    if not (options.follow or options.watch):
        say(submit.follow_hint(runs))
        return EXIT_OK
    return follow.follow(
        options.order.cluster_file, runs, max_pending=options.max_pending, out=options.out
    )


def _earlier(options: ClusterOptions) -> list[Run]:
    cluster_file = options.order.cluster_file
    client = clients.connect(cluster_file)
    runs = [
        Run(run.run_id, str(resume.parameters(run).get("run_label", "")))
        for run in resume.find(client, cluster_file, options.watch)
    ]
    for run in runs:
        say(f"Run {run.label or run.run_id}: {clients.run_link(cluster_file, run.run_id)}")
    return runs


def say(line: str) -> None:
    """Prints a line; warnings go to standard error."""
    warns = line.startswith("warning: ")
    print(line, file=sys.stderr if warns else sys.stdout, flush=True)
