# SPDX-License-Identifier: Apache-2.0
"""Submits a sweep to KFP, after checks; nothing is created if a check fails."""

import contextlib
import functools
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api

from ieg_core.errors import UserError
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.store import gcs
from ieg_core.sweep.configurations import configs
from pipelines import compile as packages
from pipelines import parameters, profiles
from pipelines.cluster import client as clients
from pipelines.cluster import cost, preflight
from pipelines.cluster.options import Order
from pipelines.cluster.preflight import WARNING
from pipelines.cluster_files import ClusterFile
from pipelines.profiles import MAX_TRIALS, Profile
from pipelines.revision import is_dirty

Say = Callable[[str], None]
BUCKET_SECONDS = 4.0


@dataclass(frozen=True)
class Run:
    """A created run of a sweep.

    Attributes:
      run_id: KFP's id.
      label: The name under which prepare records the run in the results root.
    """

    run_id: str
    label: str


def submit(order: Order, say: Say, clock: Clock = CLOCK) -> list[Run]:
    """Submits a sweep.

    1. List its trials from names alone and compile the package.
    2. Estimate its cost; refuse a cost above the budget.
    3. Check KFP's health and the required read permissions.
    4. With access to Kubernetes: check GPU nodes, volume claims, permissions, retry policy.
    5. Get or create the experiment; create a run for each 100 trials.

    Args:
      order: The sweep.
      say: Prints a line.
      clock: Tells the time between two tries of a request.

    Returns:
      The runs.

    Raises:
      UserError: When a check fails, with nothing created; or when KFP refuses to create a run: then
        `resume` creates the missing parts.
    """
    wanted = configs(order.request)
    profile = compiled_for(order)
    spec, platform = packages.package(profile)
    sizes = split(len(wanted), profile.max_trials)
    label = new_label(order.request.dataset)
    sent = parameters.sent(order.request)
    if order.results_namespace:
        sent["results_namespace"] = order.results_namespace
    runs = [
        {**sent, "run_label": name, "part": part, "parts": len(sizes)}
        for part, name in enumerate(labels(label, len(sizes)), start=1)
    ]
    train = profile.pod_templates["train"]
    known = {**measured(order.cluster_file), **order.rates}
    estimated = cost.estimate(
        wanted,
        runs=sizes,
        gpus=train.count,
        at_once=profile.parallelism,
        rates=known,
        trials_per_pod=profile.trials_per_pod,
    )
    say(f"Sweep {order.request.dataset}: {estimated.line}")
    cost.accept(estimated, order.max_gpu_hours)
    client = clients.connect(order.cluster_file, clock=clock)
    experiment = look_at_kfp(client, order.cluster_file, clock)
    for line in preflight.look(order.cluster_file, profile, preflight.reach(order.cluster_file)):
        say(line)
    for line in image_lines(profile.image):
        say(line)
    body = {"pipeline_spec": whole(spec, platform), "description": order.request.command}
    experiment = experiment or create_experiment(client, order.cluster_file, clock)
    made: list[Run] = []
    for each in runs:
        try:
            name = each["run_label"]
            made.append(create_run(client, order.cluster_file, experiment, name, each, body, clock))
        except UserError as error:
            if not made:
                raise
            created = f"{len(made)} of {len(runs)} runs were created"
            raise UserError(f"{error}; {created}: RESUME={label} submits the rest") from None
        part = f" {each['part']} of {each['parts']}" if len(runs) > 1 else ""
        say(
            f"Run{part} {each['run_label']}: "
            f"{clients.run_link(order.cluster_file, made[-1].run_id)}"
        )
    return made


def compiled_for(order: Order) -> Profile:
    """Returns the profile of the package to submit.

    Raises:
      UserError: When its image cannot use the GPUs that it requests.
    """
    image = packages.image_of(order.cluster_file)
    make = {"cpu": profiles.cpu, "gpu": profiles.gpu}[order.profile]
    return packages.require_cuda(make(order.cluster_file, image))


def image_lines(image: str) -> list[str]:
    """Returns a line with the image, and warnings about what may keep it from starting."""
    lines = [f"Image: {image}"]
    if "/" not in image:
        lines.append(
            f"{WARNING}{image} names no registry: only nodes that already have it can start it; "
            "push it and set image in cluster.yaml"
        )
    if is_dirty(image):
        lines.append(
            f"{WARNING}{image} contains uncommitted changes: build it now (make image DIRTY=1), "
            "or commit first"
        )
    return lines


def split(trials: int, most: int = MAX_TRIALS) -> list[int]:
    """Returns the number of trials of each run: as few runs as possible, as equal as possible.

    Run p of P trains every P-th trial, starting from the p-th.
    """
    parts = -(-trials // most)
    return [len(range(part, trials, parts)) for part in range(parts)]


def new_label(dataset: str) -> str:
    """Names a submission: data set, time, and four random digits to make it unique."""
    return f"{dataset}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def labels(label: str, parts: int) -> list[str]:
    """Returns the label of each run."""
    return [label] if parts == 1 else [f"{label}-part{part}" for part in range(1, parts + 1)]


def whole(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a package in the form that a run's body needs."""
    return {"pipeline_spec": spec, "platform_spec": platform} if platform else dict(spec)


def measured(cluster_file: ClusterFile, seconds: float = BUCKET_SECONDS) -> cost.Rates:
    """Returns the step rates measured in the results root, if this machine can read it.

    For a bucket they come from the newest report, if it can be read in time: without credentials or
    network the client would retry for minutes.

    Args:
      cluster_file: The cluster file.
      seconds: How long to wait for a bucket.
    """
    if cluster_file.results_mount:
        return cost.measured_rates(Path(cluster_file.results_mount))
    rates: list[cost.Rates] = []

    def read() -> None:
        with contextlib.suppress(OSError, UserError):
            rates.append(cost.reported_rates(cluster_file.results))

    if gcs.is_url(cluster_file.results):
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(seconds)
    return rates[0] if rates else {}


def look_at_kfp(client: Any, cluster_file: ClusterFile, clock: Clock = CLOCK) -> str:
    """Reads what a submission needs, to detect missing permissions before anything is created.

    Returns:
      The id of the cluster's experiment; "" if there is none yet.

    Raises:
      UserError: When KFP refuses.
    """
    namespace = cluster_file.namespace or None
    clients.ask(
        cluster_file,
        "list runs",
        lambda: client.list_runs(page_size=1, namespace=namespace),
        clock,
    )
    find = functools.partial(_find_experiment, client, cluster_file)
    return clients.ask(cluster_file, "list experiments", find, clock)


def _find_experiment(client: Any, cluster_file: ClusterFile) -> str:
    try:
        found = client.get_experiment(experiment_name=cluster_file.experiment)
    except ValueError as error:
        if "No experiment is found" in str(error):
            return ""
        raise UserError(
            f"there are several experiments {cluster_file.experiment!r}: archive all but one "
            "in the KFP UI, or set another experiment in cluster.yaml"
        ) from None
    return str(found.experiment_id)


def create_experiment(client: Any, cluster_file: ClusterFile, clock: Clock = CLOCK) -> str:
    """Creates the cluster's experiment; returns its id."""
    return clients.create(
        cluster_file,
        f"create the experiment {cluster_file.experiment!r}",
        lambda: str(client.create_experiment(cluster_file.experiment).experiment_id),
        lambda: _find_experiment(client, cluster_file) or None,
        clock,
    )


def create_run(
    client: Any,
    cluster_file: ClusterFile,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    body: Mapping[str, Any],
    clock: Clock = CLOCK,
) -> Run:
    """Creates a run, once: if an answer is lost, looks for the run before it tries again.

    Args:
      client: KFP's client.
      cluster_file: The cluster file.
      experiment: The experiment's id.
      name: The run's name in the KFP UI, which no other run has.
      parameters: The pipeline's arguments.
      body: Other fields of the run: `pipeline_spec` or `pipeline_version_reference`.
      clock: Tells the time between two tries.

    Raises:
      UserError: When KFP refuses, or does not answer for two minutes.
    """
    config = {"parameters": dict(parameters)}
    given = {
        "service_account": cluster_file.service_account or None,
        "runtime_config": config,
        **body,
    }
    run = kfp_server_api.V2beta1Run(display_name=name, experiment_id=experiment, **given)
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}

    def find() -> Any | None:
        answer = client.list_runs(
            namespace=cluster_file.namespace or None,
            filter=json.dumps({"predicates": [predicate]}),
        )
        return next(iter(answer.runs or ()), None)

    made = clients.create(
        cluster_file,
        f"create the run {name}",
        lambda: client.runs.run_service_create_run(run=run),
        find,
        clock,
    )
    return Run(str(made.run_id), str(parameters.get("run_label", "")))


def follow_hint(runs: Sequence[Run]) -> str:
    """Returns a line with the command that follows the runs from another terminal or later."""
    return f"Follow it: make sweep WATCH={base_label(runs)}"


def base_label(runs: Sequence[Run]) -> str:
    """Returns the label that all parts of a sweep share."""
    label = runs[0].label or runs[0].run_id
    return label.removesuffix("-part1") if len(runs) > 1 else label
