# SPDX-License-Identifier: Apache-2.0
"""Goes on with a run's unfinished trials: the same pipeline, image and arguments, once more.

The results root remembers what is finished; an unfinished trial goes on from its checkpoint. The
same image means the same code version, without which every trial would be another one.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ieg_core.errors import UserError
from pipelines.cluster import client as clients
from pipelines.cluster import submit
from pipelines.cluster.submit import Run, Say
from pipelines.cluster_files import ClusterFile

OVER = ("FAILED", "CANCELED", "SKIPPED")
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find(client: Any, cluster_file: ClusterFile, name: str) -> list[Any]:
    """Finds the runs that a name stands for.

    Args:
      client: KFP's client.
      cluster_file: The cluster file.
      name: A run's id, a run's label, or the label that the parts of a sweep share.

    Returns:
      The runs, the newest of each label: a resumed run has the label of the one before it.

    Raises:
      UserError: There is no such run.
    """
    if ID.fullmatch(name):
        with clients.plain_errors(cluster_file, f"find the run {name}"):
            return [client.get_run(name)]
    found = _newest(client, cluster_file, name)
    if found is None:
        first = _newest(client, cluster_file, f"{name}-part1")
        if first is None:
            raise UserError(
                f"there is no run {name!r} at {clients.ui_address(cluster_file)}: give a run's "
                "id, or its "
                "label as `make sweep` printed it"
            )
        parts = int(parameters(first).get("parts", 1))
        others = [
            _newest(client, cluster_file, f"{name}-part{part}") for part in range(2, parts + 1)
        ]
        return [first, *(run for run in others if run is not None)]
    return [found]


def _newest(client: Any, cluster_file: ClusterFile, label: str) -> Any | None:
    """Returns the newest run of a label; later ones are named `<label> resumed <time>`."""
    wanted = {"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": label}
    with clients.plain_errors(cluster_file, f"find the run {label}"):
        answer = client.list_runs(
            page_size=100,
            sort_by="created_at desc",
            namespace=cluster_file.namespace or None,
            filter=json.dumps({"predicates": [wanted]}),
        )
    for run in answer.runs or []:
        if run.display_name == label or run.display_name.startswith(f"{label} resumed "):
            return run
    return None


def parameters(run: Any) -> dict[str, Any]:
    """Returns the arguments that a run was created with."""
    config = run.runtime_config
    return dict(config.parameters or {}) if config else {}


def resume(cluster_file: ClusterFile, name: str, say: Say) -> list[Run]:
    """Submits a run, or all parts of a sweep, again; parts that were never created too.

    Args:
      cluster_file: The cluster file.
      name: See `find`.
      say: Prints a line.

    Returns:
      The new runs; runs that succeeded are left out.

    Raises:
      UserError: No such run, or nothing left of it to do, or it still runs.
    """
    client = clients.connect(cluster_file)
    old = find(client, cluster_file, name)
    absent = absent_parts(old, name)
    running = [run for run in old if run.state not in (*OVER, "SUCCEEDED")]
    if running and not absent:
        link = clients.run_link(cluster_file, running[0].run_id)
        raise UserError(f"{name} is {running[0].state}: follow it by WATCH={name}; {link}")
    unfinished = [run for run in old if run.state in OVER]
    if not unfinished and not absent:
        raise UserError(f"{name} has finished: nothing is left to do, its report is in the results")
    made = []
    for run in unfinished:
        again = parameters_again(parameters(run), run.run_id)
        label = again.get("run_label") or run.display_name
        title = f"{label} resumed {time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        made.append(
            submit.create_run(
                client, cluster_file, run.experiment_id, title, again, _pipeline_of(run)
            )
        )
        say(f"Run {label} goes on: {clients.run_link(cluster_file, made[-1].run_id)}")
    for each in absent:
        label, pipeline = each["run_label"], _pipeline_of(old[0])
        made.append(
            submit.create_run(client, cluster_file, old[0].experiment_id, label, each, pipeline)
        )
        say(f"Run {label}: {clients.run_link(cluster_file, made[-1].run_id)}")
    return made


def absent_parts(found: Sequence[Any], name: str) -> list[dict[str, Any]]:
    """Returns the arguments of the parts of a sweep of which there is no run.

    Args:
      found: The runs that `find` returned.
      name: What it was asked for; only the label that all parts share stands for all of them.
    """
    given = parameters(found[0])
    if given.get("run_label") != f"{name}-part1":
        return []
    there = {int(parameters(run).get("part", 1)) for run in found}
    return [
        {**given, "part": part, "run_label": f"{name}-part{part}"}
        for part in range(1, int(given.get("parts", 1)) + 1)
        if part not in there
    ]


def parameters_again(given: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Returns a run's arguments for its continuation.

    A namespace of results that is named after the run stays the first run's.
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
        raise UserError(f"KFP no longer knows the pipeline of the run {run.run_id}: submit anew")
    return {**body, "pipeline_spec": run.pipeline_spec}
