# SPDX-License-Identifier: Apache-2.0
"""Checks before anything is created: GPU nodes, volume claims, permissions, retry policy.

Nodes, claims, permissions and the controller's configuration need access to the Kubernetes API,
with a kubeconfig or from inside a pod. Without it the sweep continues, and a line lists what was
not checked.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.utils.quantity import parse_quantity

from ieg_core.errors import UserError
from pipelines.cluster_files import DATA_MOUNT, ClusterFile, Toleration
from pipelines.profiles import PodTemplate, Profile

CONTROLLER = "workflow-controller-configmap"
REQUEST_SECONDS = (2, 3)
WARNING = "warning: "
MANY, READ_MANY, ONE_POD = "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod"


@dataclass(frozen=True)
class Kubernetes:
    """Access to the Kubernetes API.

    Attributes:
      core: Nodes, pods, events, config maps, volume claims.
      custom: Argo's workflows.
      authorization: The caller's permissions.
    """

    core: Any
    custom: Any
    authorization: Any


class _Client(client.ApiClient):
    """Takes an answer that is not the Kubernetes API's, such as a login page, for none."""

    def request(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().request(*arguments, **named)
        except ValueError as error:  # a token with a line break is no header
            raise urllib3.exceptions.HTTPError(str(error)) from error

    def deserialize(self, response: Any, response_type: Any) -> Any:
        try:
            found = super().deserialize(response, response_type)
        except (AttributeError, TypeError, ValueError):
            found = None
        if found is None or isinstance(found, str):
            text = " ".join(str(response.data).split())[:60]
            raise urllib3.exceptions.HTTPError(f"its answer is {text!r}, not the API's")
        return found


def reach(cluster_file: ClusterFile) -> Kubernetes | None:
    """Returns access to the Kubernetes API; None without a kubeconfig and outside a pod."""
    try:
        settings = _settings(cluster_file)
    except UserError:
        return None
    api = _Client(settings)
    return Kubernetes(
        client.CoreV1Api(api), client.CustomObjectsApi(api), client.AuthorizationV1Api(api)
    )


def _settings(cluster_file: ClusterFile) -> Any:
    """Reads the kubeconfig, or a pod's account where there is none.

    Raises:
      UserError: When there is neither, or the kubeconfig is not usable.
    """
    try:
        # The client reads KUBECONFIG only once, when it is imported.
        settings = config.new_client_from_config(
            os.environ.get("KUBECONFIG") or None, context=cluster_file.kube_context or None
        ).configuration
        settings.auth_settings()
    except Exception as error:  # the client checks little, and then raises what it meets
        settings = client.Configuration()
        try:
            config.load_incluster_config(settings)
        except config.ConfigException:
            # The rest of the message may quote a user with the token.
            words = " ".join(str(error).partition("{")[0].split())[:120].rstrip(". ")
            raise UserError(f"kubeconfig: {words}; see `kubectl config view`") from error
    settings.retries = False
    return settings


def look(cluster_file: ClusterFile, profile: Profile, kubernetes: Kubernetes | None) -> list[str]:
    """Checks the cluster before a sweep.

    Args:
      cluster_file: The cluster file.
      profile: The placement of the pods, their number and their volume claims.
      kubernetes: Access to the Kubernetes API, or None.

    Returns:
      Lines to print; a line that starts with "warning: " describes what may make the sweep fail.

    Raises:
      UserError: When no node can run a training and the GPU nodes are not autoscaled, or a volume
        claim is missing or cannot be mounted on all the nodes that the trials run on.
    """
    if kubernetes is None:
        unchecked = "nodes, volume claims, permissions and retry policy not checked"
        return [f"No access to the Kubernetes API: {unchecked}; {_no_access(cluster_file)}"]
    lines: list[str] = []
    try:
        train = profile.pod_templates["train"]
        if train.count:
            lines += _gpu_lines(kubernetes, train, cluster_file.gpu.autoscaled)
        lines += _claim_lines(cluster_file, profile, kubernetes)
        if cluster_file.namespace:
            lines += _right_lines(cluster_file, kubernetes)
        lines += _retry_lines(cluster_file.kfp_namespace, kubernetes)
    except urllib3.exceptions.HTTPError as error:
        words = " ".join(str(getattr(error, "reason", None) or error).split())[:120]
        lines.append(f"The Kubernetes API does not answer, remaining checks skipped: {words}")
    return lines


def _no_access(cluster_file: ClusterFile) -> str:
    try:
        _settings(cluster_file)
    except UserError as error:
        return str(error)
    return "try again"


def _gpu_lines(kubernetes: Kubernetes, train: PodTemplate, autoscaled: bool) -> list[str]:
    try:
        nodes = kubernetes.core.list_node(_request_timeout=REQUEST_SECONDS).items
    except client.ApiException as error:
        return [f"GPU nodes not checked: {_words(error, 'list nodes')}"]
    offers = [node for node in nodes if gpus(node, train.resource)]
    faults = {node.metadata.name: unfit(node, train) for node in offers}
    fit = [node for node in offers if not faults[node.metadata.name]]
    if fit:
        total = sum(gpus(node, train.resource) for node in fit)
        return [f"GPU nodes: {len(fit)} ready, {total} {train.resource} in all"]
    if offers:
        reasons = "; ".join(f"{name} {fault}" for name, fault in sorted(faults.items())[:3])
        words = f"no node can run a training now: {reasons}"
    else:
        words = f"no node offers {train.resource} now"
    if autoscaled:
        return [
            f"{WARNING}{words}; fine if the pool scales up from zero, else the trials will wait"
        ]
    raise UserError(
        f"{words}: add or repair GPU nodes, set gpu.node_selector and gpu.tolerations in "
        "cluster.yaml to match them, set gpu.autoscaled: true if they start on demand, or use "
        "PROFILE=cpu"
    )


def gpus(node: Any, resource: str) -> int:
    """Returns the number of accelerators of a kind that a node offers."""
    return int(parse_quantity((node.status.allocatable or {}).get(resource, 0)))


def unfit(node: Any, train: PodTemplate) -> str:
    """Returns why a node cannot run a training; "" if it can."""
    conditions = node.status.conditions or []
    if not any(each.type == "Ready" and each.status == "True" for each in conditions):
        return "is not ready"
    if node.spec.unschedulable:
        return "is cordoned"
    if fault := out_of_place(node, train):
        return fault
    if gpus(node, train.resource) < train.count:
        return f"offers {gpus(node, train.resource)} GPUs, a training needs {train.count}"
    wanted = {"cpu": train.resources.cpu_request, "memory": train.resources.memory_request}
    for what, request in wanted.items():
        offered = (node.status.allocatable or {}).get(what)
        if offered and parse_quantity(offered) < parse_quantity(request):
            return f"offers {offered} of {what}, resources.train requests {request}"
    return ""


def out_of_place(node: Any, pod_template: PodTemplate) -> str:
    """Returns which label or taint keeps a kind of pod off a node; "" if none does."""
    labels = node.metadata.labels or {}
    for key, value in pod_template.node_selector.items():
        if labels.get(key) != value:
            return f"lacks the label {key}={value} of the node selector"
    for taint in node.spec.taints or []:
        if taint.effect != "PreferNoSchedule" and not tolerates(pod_template.tolerations, taint):
            return f"has the taint {taint.key}={taint.value or ''}:{taint.effect}, not tolerated"
    return ""


def tolerates(tolerations: Sequence[Toleration], taint: Any) -> bool:
    """Returns whether a taint is tolerated, according to Kubernetes' rules."""
    return any(
        each.key in ("", taint.key)
        and each.effect in ("", taint.effect)
        and (each.operator == "Exists" or each.value == (taint.value or ""))
        for each in tolerations
    )


def _claim_lines(cluster_file: ClusterFile, profile: Profile, kubernetes: Kubernetes) -> list[str]:
    """Checks that the volume claims exist and can be mounted on all nodes that pods may use."""
    lines, narrow = [], []
    for name, mount in profile.volumes.items():
        try:
            claim = kubernetes.core.read_namespaced_persistent_volume_claim(
                name, cluster_file.kubernetes_namespace, _request_timeout=REQUEST_SECONDS
            )
        except client.ApiException as error:
            if error.status == 404:
                raise UserError(_missing(name, mount, cluster_file, kubernetes)) from None
            words = _words(error, f"read {name}")
            lines.append(f"{WARNING}volume claim not checked: {words}")
            continue
        modes = claim.spec.access_modes or []
        is_read = mount == DATA_MOUNT and READ_MANY in modes and MANY not in modes
        if is_read and profile.parallelism != 1:
            lines.append(
                f"{WARNING}the volume claim {name} is {READ_MANY}: KFP never mounts read-only, so "
                f"it may not attach on a second node; use {MANY} or a read-only volume"
            )
        if not set(modes) & ({MANY, READ_MANY} if mount == DATA_MOUNT else {MANY}):
            narrow.append((name, mount, ", ".join(modes)))
    if not narrow or profile.parallelism == 1:
        return lines
    try:
        nodes = kubernetes.core.list_node(_request_timeout=REQUEST_SECONDS).items
    except client.ApiException as error:
        names = " and ".join(f"{name} ({modes})" for name, _, modes in narrow)
        unchecked = f"nodes not checked: {_words(error, 'list nodes')}"
        return [*lines, f"{WARNING}{names} can be mounted on one node only; {unchecked}"]
    kinds = profile.pod_templates.values()
    usable = sum(not all(out_of_place(node, kind) for kind in kinds) for node in nodes)
    for name, mount, modes in narrow:
        if usable > 1 or modes == ONE_POD:
            raise UserError(_too_narrow(name, mount, modes, usable, profile.parallelism))
    return lines


def _missing(name: str, mount: str, cluster_file: ClusterFile, kubernetes: Kubernetes) -> str:
    key = "data_claim" if mount == DATA_MOUNT else "results_claim"
    # The kubeconfig's current context need not be the cluster that KFP is on.
    server = kubernetes.core.api_client.configuration.host
    return (
        f"there is no volume claim {name} in the namespace {cluster_file.kubernetes_namespace} of "
        f"{server}: apply build/k8s/gpu.yaml (docs/cluster.md, step 4), or set {key} in "
        "cluster.yaml to yours, or kube_context if that is another cluster"
    )


def _too_narrow(name: str, mount: str, modes: str, nodes: int, at_once: int) -> str:
    bucket = "" if mount == DATA_MOUNT else ", results: gs://… in cluster.yaml"
    where = f"over {nodes} nodes" if nodes > 1 else "over several pods"
    return (
        f"the volume claim {name} is {modes}, but {at_once} concurrent trials are spread {where}: "
        f"use a storage class with {MANY} (k8s/base/volumes.yaml){bucket}, parallelism: 1, or "
        "build/k8s/single-node.yaml on a cluster of one node"
    )


def _right_lines(cluster_file: ClusterFile, kubernetes: Kubernetes) -> list[str]:
    """Checks whether this Kubernetes user may create runs; KFP checks the same for its users."""
    attributes = client.V1ResourceAttributes(
        group="pipelines.kubeflow.org",
        resource="runs",
        verb="create",
        namespace=cluster_file.namespace,
    )
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    )
    try:
        answer = kubernetes.authorization.create_self_subject_access_review(
            review, _request_timeout=REQUEST_SECONDS
        )
    except client.ApiException as error:
        return [f"Permissions not checked: {_words(error, 'review your access')}"]
    if answer.status.allowed:
        return []
    where = cluster_file.namespace
    words = f"your Kubernetes user may not create runs in {where}; KFP will refuse the same user"
    return [WARNING + words]


def _retry_lines(namespace: str, kubernetes: Kubernetes) -> list[str]:
    try:
        config_map = kubernetes.core.read_namespaced_config_map(
            CONTROLLER, namespace, _request_timeout=REQUEST_SECONDS
        )
    except client.ApiException as error:
        return [f"Retry policy not checked: {_words(error, f'read {CONTROLLER}')}"]
    policy = retry_policy(config_map.data or {})
    if policy == "Always":
        return ["Retries: killed, evicted and preempted pods are retried (Always)"]
    if policy == "OnTransientError":
        words = "if its TRANSIENT_ERROR_PATTERN covers them as a stock KFP's does"
        return [f"Retries: preempted and evicted pods are retried (OnTransientError), {words}"]
    lost = "are preempted or evicted" if policy == "OnError" else "vanish with their node"
    words = f"the controller's policy is {policy or 'OnFailure (its default)'}: pods that {lost}"
    stake = "one such pod inside the loop costs the run its report (`make report` writes it later)"
    fix = f"set retryPolicy: OnTransientError in {namespace}/{CONTROLLER} (docs/cluster.md)"
    return [f"{WARNING}retries: {words} are not retried, and {stake}; {fix}"]


def retry_policy(data: Mapping[str, str]) -> str:
    """Reads the default retry policy of the workflow controller.

    Args:
      data: The controller's config map, with a key per setting or all below the key `config`.

    Returns:
      "Always", "OnError" …; "" if none is set.
    """
    texts = [data.get("workflowDefaults", "")]
    try:
        whole = yaml.safe_load(data.get("config", "")) or {}
        defaults = [yaml.safe_load(texts[0]) or {}, whole.get("workflowDefaults") or {}]
        for each in defaults:
            spec = each.get("spec") or {}
            for part in (spec.get("templateDefaults") or {}, spec):
                if policy := (part.get("retryStrategy") or {}).get("retryPolicy"):
                    return str(policy)
    except (yaml.YAMLError, AttributeError):
        return ""
    return ""


def _words(error: Any, doing: str) -> str:
    if error.status in (401, 403):
        return f"you may not {doing} (HTTP {error.status})"
    return f"could not {doing} (HTTP {error.status} {error.reason})"
