# SPDX-License-Identifier: Apache-2.0
"""Resumes a run's unfinished trials by submitting its pipeline, image and arguments again.

The results root knows which trials are finished; an unfinished one resumes from its checkpoint.
Trials are identified by their code version among others, so the image must be the same.
"""

import functools
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.clock import CLOCK, Clock
from pipelines.cluster import client as clients
from pipelines.cluster import submit
from pipelines.cluster.submit import Run, Say
from pipelines.cluster_files import ClusterFile

OVER = ("FAILED", "CANCELED", "SKIPPED")
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find(client: Any, cluster_file: ClusterFile, name: str, clock: Clock = CLOCK) -> list[Any]:
    """Finds runs by name.

    Args:
      client: KFP's client.
      cluster_file: The cluster file.
      name: A run's id, a run's label, or the label that the parts of a sweep share.
      clock: Tells the time between two tries of a request.

    Returns:
      The newest run of each label: a resumed run keeps the label.

    Raises:
      UserError: When there is no such run.
    """
    if ID.fullmatch(name):
        doing = f"find the run {name}"
        return [clients.ask(cluster_file, doing, lambda: client.get_run(name), clock)]
    newest = functools.partial(_newest, client, cluster_file, clock)
    run = newest(name)
    if run is None:
        first = newest(f"{name}-part1")
        if first is None:
            raise UserError(
                f"there is no run {name!r} at {clients.ui_address(cluster_file)}: expected a run's "
                "id, or its label as `make sweep` printed it"
            )
        parts = int(parameters(first).get("parts", 1))
        others = [newest(f"{name}-part{part}") for part in range(2, parts + 1)]
        return [first, *(other for other in others if other is not None)]
    return [run]


def _newest(client: Any, cluster_file: ClusterFile, clock: Clock, label: str) -> Any | None:
    """Returns the newest run of a label; later ones are named `<label> resumed <time>`."""
    wanted = {"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": label}
    list_runs = functools.partial(
        client.list_runs,
        page_size=100,
        sort_by="created_at desc",
        namespace=cluster_file.namespace or None,
        filter=json.dumps({"predicates": [wanted]}),
    )
    answer = clients.ask(cluster_file, f"find the run {label}", list_runs, clock)
    for run in answer.runs or []:
        if run.display_name == label or run.display_name.startswith(f"{label} resumed "):
            return run
    return None


def parameters(run: Any) -> dict[str, Any]:
    """Returns the arguments that a run was created with."""
    config = run.runtime_config
    return dict(config.parameters or {}) if config else {}


def resume(cluster_file: ClusterFile, name: str, say: Say, clock: Clock = CLOCK) -> list[Run]:
    """Submits a run, or all parts of a sweep, again, including parts that were never created.

    Args:
      cluster_file: The cluster file.
      name: See `find`.
      say: Prints a line.
      clock: Tells the time between two tries of a request.

    Returns:
      The new runs; runs that succeeded are left out.

    Raises:
      UserError: When there is no such run, it has finished, or it is still running.
    """
    client = clients.connect(cluster_file, clock=clock)
    old = find(client, cluster_file, name, clock)
    absent = absent_parts(old, name)
    running = [run for run in old if run.state not in (*OVER, "SUCCEEDED")]
    if running and not absent:
        link = clients.run_link(cluster_file, running[0].run_id)
        raise UserError(f"{name} is {running[0].state}: follow it with WATCH={name}; {link}")
    unfinished = [run for run in old if run.state in OVER]
    if not unfinished and not absent:
        raise UserError(
            f"{name} has finished: there is nothing to resume, its report is in the results"
        )
    create_run = functools.partial(submit.create_run, client, cluster_file, clock=clock)
    made = []
    for run in unfinished:
        again = parameters_again(parameters(run), run.run_id)
        label = again.get("run_label") or run.display_name
        title = f"{label} resumed {time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        made.append(create_run(run.experiment_id, title, again, _pipeline_of(run)))
        say(f"Run {label} continues: {clients.run_link(cluster_file, made[-1].run_id)}")
    for each in absent:
        label, pipeline = each["run_label"], _pipeline_of(old[0])
        made.append(create_run(old[0].experiment_id, label, each, pipeline))
        say(f"Run {label}: {clients.run_link(cluster_file, made[-1].run_id)}")
    return made


def absent_parts(runs: Sequence[Any], name: str) -> list[dict[str, Any]]:
    """Returns the arguments of those parts of a sweep that have no run.

    Args:
      runs: The runs that `find` returned.
      name: The name that it searched for; all parts are meant only if it is their shared label.
    """
    given = parameters(runs[0])
    if given.get("run_label") != f"{name}-part1":
        return []
    present = {int(parameters(run).get("part", 1)) for run in runs}
    return [
        {**given, "part": part, "run_label": f"{name}-part{part}"}
        for part in range(1, int(given.get("parts", 1)) + 1)
        if part not in present
    ]


def parameters_again(given: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Returns a run's arguments for its continuation.

    A results namespace named after the run keeps the name of the first run.
    """
    again = dict(given)
    if "results_namespace" in again:
        again["results_namespace"] = again["results_namespace"].replace("{run}", run_id)
    return again


def _pipeline_of(run: Any) -> dict[str, Any]:
    body = {"service_account": run.service_account or None}
    if run.pipeline_version_reference:
        return {**body, "pipeline_version_reference": run.pipeline_version_reference}
    if not run.pipeline_spec:
        raise UserError(
            f"KFP no longer has the pipeline of the run {run.run_id}: submit the sweep again"
        )
    return {**body, "pipeline_spec": run.pipeline_spec}
