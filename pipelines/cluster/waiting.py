# SPDX-License-Identifier: Apache-2.0
"""Finds why a trial waits, from its pod, the pod's events and Argo's workflow."""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from pipelines.cluster.preflight import REQUEST_SECONDS, Kubernetes

RUN_LABEL = "pipeline/runid"
ARGO = ("argoproj.io", "v1alpha1")
TRIALS = re.compile(r'\\*"trials\\*":\s*\\*"([^"\\]+)')
STARTING = ("ContainerCreating", "PodInitializing")
MAX_REASON = 200


@dataclass(frozen=True)
class Pods:
    """The state of a run's pods.

    Attributes:
      running: Number of running pods.
      waiting: Why they wait, by trial, or by pod if it belongs to no trial.
      note: What could not be read; "" if everything could.
      are_known: Whether the pods could be listed.
    """

    running: int = 0
    waiting: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    are_known: bool = True


def look(kubernetes: Kubernetes, namespace: str, runs: Iterable[str]) -> Pods:
    """Reads the state of the pods of runs.

    Args:
      kubernetes: Access to the Kubernetes API.
      namespace: The pods' namespace.
      runs: KFP's ids of the runs.

    Returns:
      The state; its note names missing permissions.
    """
    running = 0
    waiting: dict[str, str] = {}
    notes: list[str] = []
    for run in runs:
        named = {"label_selector": f"{RUN_LABEL}={run}", "_request_timeout": REQUEST_SECONDS}
        try:
            pods = kubernetes.core.list_namespaced_pod(namespace, **named).items
        except client.ApiException as error:
            note = f"why trials wait cannot be seen: {_refusal(error, 'list pods')}"
            return Pods(note=note, are_known=False)
        running += sum(pod.status.phase == "Running" for pod in pods)
        pending = [pod for pod in pods if pod.status.phase == "Pending"]
        events = _warnings(kubernetes, namespace, notes) if pending else {}
        for pod in pending:
            reason = pod_reason(pod, events.get(pod.metadata.name, ""))
            waiting |= dict.fromkeys(trials_of(pod), reason)
        present = {pod.metadata.name for pod in pods}
        waiting |= _podless(kubernetes, namespace, named, present, notes)
    return Pods(running, waiting, "; ".join(dict.fromkeys(notes)))


def pod_reason(pod: Any, event: str) -> str:
    """Returns why a pending pod waits.

    Args:
      pod: The pod.
      event: The newest warning about the pod; "" if there is none.
    """
    status = pod.status
    for each in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
        waiting = each.state.waiting if each.state else None
        if waiting and waiting.reason not in STARTING:
            return _short(f"{waiting.reason}: {waiting.message or each.image or ''}")
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return _short(f"{condition.reason or 'Unschedulable'}: {condition.message or ''}")
    if event:
        return _short(event)
    return "its node is pulling the image or mounting the volumes"


def trials_of(pod: Any) -> list[str]:
    """Returns the trials of a pod; the pod's name if it belongs to none."""
    for container in pod.spec.containers or []:
        # KFP's driver puts the launcher and its --executor_input into `command`, a component's own
        # words into `args`; Argo puts its emissary before the command.
        words = [*(container.command or []), *(container.args or [])]
        if match := TRIALS.search(" ".join(words)):
            return match[1].split()
    return [str(pod.metadata.name)]


def _warnings(kubernetes: Kubernetes, namespace: str, notes: list[str]) -> dict[str, str]:
    try:
        # Not all: a namespace of a busy KFP has thousands.
        events = kubernetes.core.list_namespaced_event(
            namespace,
            field_selector="involvedObject.kind=Pod,type=Warning",
            _request_timeout=REQUEST_SECONDS,
        ).items
    except client.ApiException as error:
        notes.append(f"events cannot be seen: {_refusal(error, 'list events')}")
        return {}
    warnings = {}
    for event in sorted(events, key=lambda each: str(each.last_timestamp or each.event_time or "")):
        warnings[event.involved_object.name] = f"{event.reason}: {event.message or ''}"
    return warnings


def _podless(
    kubernetes: Kubernetes,
    namespace: str,
    named: Mapping[str, Any],
    present: set[str],
    notes: list[str],
) -> dict[str, str]:
    """Finds what waits without a pod: if a quota rejects the pod, only Argo knows about it."""
    try:
        workflows = kubernetes.custom.list_namespaced_custom_object(
            *ARGO, namespace, "workflows", **named
        )
    except client.ApiException as error:
        notes.append(f"quota cannot be seen: {_refusal(error, 'list workflows')}")
        return {}
    waiting: dict[str, str] = {}
    for workflow in workflows.get("items", []):
        for node in _nodes(workflow.get("status") or {}):
            message = node.get("message") or ""
            refused = "quota" in message or "forbidden" in message
            if node.get("phase") == "Pending" and refused:
                trials = TRIALS.search(json.dumps(node.get("inputs") or {}))
                other = [node.get("displayName") or node.get("name", "")]
                if node.get("id") not in present:
                    names = trials[1].split() if trials else other
                    waiting |= dict.fromkeys(names, _short(message))
    return waiting


def _nodes(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns a workflow's nodes; Argo compresses those of a large workflow."""
    if packed := status.get("compressedNodes"):
        return list(json.loads(gzip.decompress(base64.b64decode(packed))).values())
    return list((status.get("nodes") or {}).values())


def _refusal(error: Any, doing: str) -> str:
    verb = "may not" if error.status in (401, 403) else "could not"
    return f"you {verb} {doing} (HTTP {error.status})"


def _short(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON].rstrip(": ")
