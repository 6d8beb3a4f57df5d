# SPDX-License-Identifier: Apache-2.0
"""Checks for pitfalls of a cluster, where each task is a pod."""

import re

from components import IMAGE
from pipelines.checks.arguments import MOST_TRIALS
from pipelines.checks.compiled import Spec, executors, tasks

TRAINING = "exec-train"


def gpu_beside_training(spec: Spec) -> list[str]:
    """Finds tasks other than trainings that request a GPU or could run on a node with GPUs."""
    kinds = {kind for _, executor in executors(spec) if (kind := _accelerator(executor))}
    findings = []
    for name, executor in executors(spec):
        if name == TRAINING:
            continue
        if _accelerator(executor):
            findings.append(f"{name} requests {_accelerator(executor)}: only trainings may")
        for each in _pod(spec, name).get("tolerations", []):
            key = each.get("key", "")
            if key in kinds or "gpu" in key.lower() or not key:
                findings.append(f"{name} tolerates {key or 'every taint'}: only trainings may")
    return findings


def short_patience(spec: Spec) -> list[str]:
    """Finds retries that would end early: KFP counts their time from the first attempt's start.

    The rest of `backoff_max_duration` becomes the deadline of the next attempt.
    """
    findings = []
    for _, name, task in tasks(spec):
        label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
        if not label:
            continue
        limit = int(_pod(spec, label).get("activeDeadlineSeconds", 0))
        if not limit:
            findings.append(f"{name} has no time limit: a hanging pod blocks its node forever")
        policy = task.get("retryPolicy")
        if not policy:
            continue
        attempts = policy["maxRetryCount"]
        first, factor = _seconds(policy["backoffDuration"]), policy["backoffFactor"]
        waits = sum(first * factor**attempt for attempt in range(attempts))
        needed = (attempts + 1) * limit + waits
        if _seconds(policy["backoffMaxDuration"]) < needed:
            findings.append(
                f"{name} has {policy['backoffMaxDuration']} for all attempts, which may take "
                f"{needed:.0f}s: raise backoff_max_duration"
            )
    return findings


def root_user(spec: Spec) -> list[str]:
    """Finds pods that may run as root: Kubernetes can only check a numeric user and group.

    With neither, the image's user or one that the platform assigns counts, and is checked too.
    """
    findings = []
    for name, _ in executors(spec):
        context = _pod(spec, name).get("securityContext", {})
        given = [int(context[key]) for key in ("runAsUser", "runAsGroup") if key in context]
        if not (context.get("runAsNonRoot") and len(given) in (0, 2) and all(given)):
            findings.append(f"{name} may run as root: set user, group and run_as_non_root")
    return findings


def no_home(spec: Spec) -> list[str]:
    """Finds tasks without HOME: libraries write to it, and a numeric user has none by default."""
    return [
        f"{name} has no HOME"
        for name, executor in executors(spec)
        if not any(
            each["name"] == "HOME" and each.get("value")
            for each in executor.get("container", {}).get("env", [])
        )
    ]


def no_tmp(spec: Spec) -> list[str]:
    """Finds tasks without a volume on /tmp, where the launcher and Python write."""
    return [
        f"{name} has no emptyDir on /tmp"
        for name, _ in executors(spec)
        if not any(
            each["mountPath"] == "/tmp" for each in _pod(spec, name).get("emptyDirMounts", [])
        )
    ]


def small_shared_memory(spec: Spec) -> list[str]:
    """Finds tasks with GPUs and only the default /dev/shm of 64 MiB."""
    return [
        f"{name} has GPUs, but no /dev/shm in memory"
        for name, executor in executors(spec)
        if _accelerator(executor)
        and not any(
            each["mountPath"] == "/dev/shm" and each.get("medium") == "Memory"
            for each in _pod(spec, name).get("emptyDirMounts", [])
        )
    ]


def no_fan_out_limit(spec: Spec) -> list[str]:
    """Finds loops that would start all their pods at the same time."""
    return [
        f"{name} does not limit its concurrent pods: set parallelism"
        for _, name, task in tasks(spec)
        if "parameterIterator" in task
        and not task.get("iteratorPolicy", {}).get("parallelismLimit")
    ]


def no_resources(spec: Spec) -> list[str]:
    """Finds tasks without requests or limits, which a namespace with a quota rejects."""
    wanted = ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")
    return [
        f"{name} has no {key}"
        for name, executor in executors(spec)
        for key in wanted
        if not executor.get("container", {}).get("resources", {}).get(f"resource{key}")
    ]


def image_of_no_revision(spec: Spec) -> list[str]:
    """Finds images whose tag does not identify the code, and tasks with different images."""
    images = {name: each.get("container", {}).get("image", "") for name, each in executors(spec)}
    findings = [
        f"{name} runs {IMAGE}, a name for local runs: tag the image with the revision"
        for name, image in images.items()
        if image == IMAGE
    ]
    if len(set(images.values())) > 1:
        findings.append(f"the tasks run different code: {', '.join(sorted(set(images.values())))}")
    return findings


def large_plan(spec: Spec) -> list[str]:
    """Finds loops over an unbounded list: Kubernetes cannot store a workflow of over 100 trials.

    `prepare` takes the bound as `max_trials` and refuses a longer plan.
    """
    findings = []
    for owner, name, task in tasks(spec):
        items = task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
        source = task.get("inputs", {}).get("parameters", {}).get(items, {})
        producer = source.get("taskOutputParameter", {}).get("producerTask")
        if "parameterIterator" not in task:
            continue
        graph = spec["root"] if owner == "root" else spec["components"][owner]
        maker = graph["dag"]["tasks"].get(producer, {})
        bound = maker.get("inputs", {}).get("parameters", {}).get("max_trials", {})
        most = bound.get("runtimeValue", {}).get("constant")
        if most is None or most > MOST_TRIALS:
            findings.append(f"{name} loops over any number of trials: bound it by {MOST_TRIALS}")
    return findings


def _accelerator(executor: Spec) -> str:
    resources = executor.get("container", {}).get("resources", {})
    return resources.get("accelerator", {}).get("resourceType", "")


def _pod(spec: Spec, name: str) -> Spec:
    kubernetes = spec.get("platforms", {}).get("kubernetes", {})
    return kubernetes.get("deploymentSpec", {}).get("executors", {}).get(name, {})


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s", text)
    return float(match[1]) if match else 0.0
