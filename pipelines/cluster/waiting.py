# SPDX-License-Identifier: Apache-2.0
"""Why a trial waits: what its pod, the pod's events and Argo's workflow say."""

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
TRIAL = re.compile(r'\\*"trial\\*":\s*\\*"([^"\\]+)')
STARTING = ("ContainerCreating", "PodInitializing")
TOLD_REASONS = 200


@dataclass(frozen=True)
class Pods:
    """What a run's pods do.

    Attributes:
      running: Number of pods that run.
      waiting: Why each trial, or each pod that belongs to none, waits.
      note: What could not be looked at; "" if all could.
    """

    running: int = 0
    waiting: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def look(kubernetes: Kubernetes, namespace: str, runs: Iterable[str]) -> Pods:
    """Looks at the pods of runs.

    Args:
      kubernetes: Access to the Kubernetes API.
      namespace: Where the pods are.
      runs: KFP's ids of the runs.

    Returns:
      What they do. A right that is missing is told in the note.
    """
    running = 0
    waiting: dict[str, str] = {}
    notes: list[str] = []
    for run in runs:
        named = {"label_selector": f"{RUN_LABEL}={run}", "_request_timeout": REQUEST_SECONDS}
        try:
            pods = kubernetes.core.list_namespaced_pod(namespace, **named).items
        except client.ApiException as error:
            return Pods(note=f"why trials wait cannot be seen: {_refusal(error, 'list pods')}")
        running += sum(pod.status.phase == "Running" for pod in pods)
        pending = [pod for pod in pods if pod.status.phase == "Pending"]
        events = _warnings(kubernetes, namespace, notes) if pending else {}
        for pod in pending:
            waiting[trial_of(pod)] = pod_reason(pod, events.get(pod.metadata.name, ""))
        present = {pod.metadata.name for pod in pods}
        waiting |= _podless(kubernetes, namespace, named, present, notes)
    return Pods(running, waiting, "; ".join(dict.fromkeys(notes)))


def pod_reason(pod: Any, event: str) -> str:
    """Says why a pending pod waits.

    Args:
      pod: The pod.
      event: The newest warning about it; "" if there is none.
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
    return "its node pulls the image or mounts the volumes"


def trial_of(pod: Any) -> str:
    """Returns the trial that a pod works on; the pod's own name if it is none's."""
    for container in pod.spec.containers or []:
        if found := TRIAL.search(" ".join(container.args or [])):
            return found[1]
    return str(pod.metadata.name)


def _warnings(kubernetes: Kubernetes, namespace: str, notes: list[str]) -> dict[str, str]:
    try:
        events = kubernetes.core.list_namespaced_event(
            namespace, _request_timeout=REQUEST_SECONDS
        ).items
    except client.ApiException as error:
        notes.append(f"events cannot be seen: {_refusal(error, 'list events')}")
        return {}
    found = {}
    for event in sorted(events, key=lambda each: str(each.last_timestamp or each.event_time or "")):
        if event.type == "Warning" and event.involved_object.kind == "Pod":
            found[event.involved_object.name] = f"{event.reason}: {event.message or ''}"
    return found


def _podless(
    kubernetes: Kubernetes,
    namespace: str,
    named: Mapping[str, Any],
    present: set[str],
    notes: list[str],
) -> dict[str, str]:
    """Finds what waits without a pod: a quota refuses the pod itself, which only Argo knows."""
    try:
        found = kubernetes.custom.list_namespaced_custom_object(
            *ARGO, namespace, "workflows", **named
        )
    except client.ApiException as error:
        notes.append(f"quota cannot be seen: {_refusal(error, 'list workflows')}")
        return {}
    waiting = {}
    for workflow in found.get("items", []):
        for node in _nodes(workflow.get("status") or {}):
            message = node.get("message") or ""
            refused = "quota" in message or "forbidden" in message
            if node.get("phase") == "Pending" and refused:
                trial = TRIAL.search(json.dumps(node.get("inputs") or {}))
                name = trial[1] if trial else node.get("displayName") or node.get("name", "")
                if node.get("id") not in present:
                    waiting[name] = _short(message)
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
    return " ".join(text.split())[:TOLD_REASONS].rstrip(": ")
