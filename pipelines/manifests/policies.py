# SPDX-License-Identifier: Apache-2.0
"""The policies of our manifests.

Each policy takes all objects of one rendering and returns its findings, one line each.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.manifests.kustomize import Document, containers, identity, pod_spec

Policy = Callable[[Sequence[Document]], list[str]]
OWNER = "ieg-own-volumes"
"""The only job that runs as root, with the capability to change owners and no other."""
ONE_NODE = "ieg/nodes"


def floating_image(documents: Sequence[Document]) -> list[str]:
    """Images must have a fixed tag."""
    problems = []
    for document, container in _containers(documents):
        image = container.get("image", "")
        tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
        if (tag in ("", "latest") and "@sha256:" not in image) or tag == "revision":
            problems.append(f"{_name(document)} runs {image or 'no image'}: use a fixed tag")
    return problems


def root(documents: Sequence[Document]) -> list[str]:
    """Pods run as a user other than root, except for the job that changes owners.

    Without a user the platform assigns one, or the image's counts: `runAsNonRoot` holds for both.
    """
    problems = []
    for document, container in _containers(documents):
        pod = pod_spec(document)
        security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        rights = security.get("capabilities", {})
        if document["metadata"]["name"] == OWNER:
            if rights.get("add", []) != ["CHOWN"]:
                problems.append(f"{_name(document)} adds the capabilities {rights.get('add')}")
        else:
            if not security.get("runAsNonRoot") or security.get("runAsUser", 1) == 0:
                problems.append(f"{_name(document)}: set runAsNonRoot and a runAsUser other than 0")
            if rights.get("add"):
                problems.append(f"{_name(document)} adds the capabilities {rights['add']}")
        if rights.get("drop") != ["ALL"]:
            problems.append(f"{_name(document)} keeps capabilities: set capabilities: drop [ALL]")
        if security.get("allowPrivilegeEscalation") is not False:
            problems.append(f"{_name(document)}: set allowPrivilegeEscalation: false")
        if security.get("readOnlyRootFilesystem") is not True:
            problems.append(f"{_name(document)}: set readOnlyRootFilesystem: true")
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            problems.append(f"{_name(document)}: set seccompProfile RuntimeDefault")
    return problems


def hosts(documents: Sequence[Document]) -> list[str]:
    """Pods must not access their node, nor hold a token for the Kubernetes API."""
    problems = []
    for document in documents:
        pod = pod_spec(document)
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                problems.append(f"{_name(document)} has {key}")
        problems += [
            f"{_name(document)} mounts its node's {volume['hostPath'].get('path')}"
            for volume in pod.get("volumes", [])
            if "hostPath" in volume
        ]
        if pod and pod.get("automountServiceAccountToken") is not False:
            problems.append(f"{_name(document)}: set automountServiceAccountToken: false")
    return problems


def unbounded(documents: Sequence[Document]) -> list[str]:
    """Containers must set requests and limits of CPU and memory."""
    return [
        f"{_name(document)} sets no {kind} of {what}"
        for document, container in _containers(documents)
        for kind in ("requests", "limits")
        for what in ("cpu", "memory")
        if what not in container.get("resources", {}).get(kind, {})
    ]


def wide_rights(documents: Sequence[Document]) -> list[str]:
    """Roles must list what they grant, name secrets, and not allow privilege escalation."""
    problems = []
    for document in documents:
        for rule in document.get("rules", []) or []:
            words = [word for key in ("apiGroups", "resources", "verbs") for word in rule[key]]
            if "*" in words:
                problems.append(f"{_name(document)} grants rights with '*'")
            if "secrets" in words and (not rule.get("resourceNames") or rule["verbs"] != ["get"]):
                problems.append(f"{_name(document)}: grant only get on secrets, by name")
            if {"escalate", "bind", "impersonate", "pods/exec"} & set(words):
                problems.append(f"{_name(document)} allows privilege escalation")
        reference = document.get("roleRef", {})
        if reference and ("Role", reference["name"]) not in {
            (other["kind"].removeprefix("Cluster"), other["metadata"]["name"])
            for other in documents
        }:
            problems.append(
                f"{_name(document)} binds {reference['name']}, which these manifests do not define"
            )
    return problems


def foreign(documents: Sequence[Document]) -> list[str]:
    """All objects must be in one namespace, which exists already."""
    problems = [f"{_name(d)} creates a namespace" for d in documents if d["kind"] == "Namespace"]
    names = {document["metadata"].get("namespace") for document in documents}
    if len(names - {None}) > 1:
        problems.append(f"objects in several namespaces: {sorted(names - {None})}")
    return problems


def quota_alone(documents: Sequence[Document]) -> list[str]:
    """A quota of CPU or memory needs defaults, or it rejects pods with containers from Argo."""
    defaults = {
        what
        for document in documents
        if document["kind"] == "LimitRange"
        for limit in document["spec"]["limits"]
        if limit["type"] == "Container"
        for key, prefix in (("default", "limits."), ("defaultRequest", "requests."))
        for what in (prefix + name for name in limit.get(key, {}))
    }
    return [
        f"{_name(document)} limits {what}, but no LimitRange has a default for it"
        for document in documents
        if document["kind"] == "ResourceQuota"
        for what in document["spec"]["hard"]
        if re.fullmatch(r"(requests|limits)\.(cpu|memory)", what) and what not in defaults
    ]


def unshared_volume(documents: Sequence[Document]) -> list[str]:
    """Volumes must be ReadWriteMany, except on a cluster of one node."""
    problems = []
    for document in documents:
        if document["kind"] == "PersistentVolumeClaim":
            modes = document["spec"]["accessModes"]
            one_node = document["metadata"].get("annotations", {}).get(ONE_NODE) == "1"
            if "ReadWriteMany" not in modes and not (one_node and modes == ["ReadWriteOnce"]):
                problems.append(
                    f"{_name(document)} is {', '.join(modes)}, but concurrent trials run on "
                    "several nodes: use ReadWriteMany, or the overlay single-node with one node"
                )
    return problems


ALL: tuple[Policy, ...] = (
    floating_image, root, hosts, unbounded, wide_rights, foreign, quota_alone, unshared_volume,
)  # fmt: skip


def findings(documents: Sequence[Document], parallelism: int = 2) -> list[str]:
    """Returns the findings of all policies.

    Args:
      documents: All objects of one rendering.
      parallelism: Number of concurrent trials; with one, a volume for one node is enough.
    """
    chosen = [policy for policy in ALL if parallelism > 1 or policy is not unshared_volume]
    return [f"{policy.__name__}: {problem}" for policy in chosen for problem in policy(documents)]


def _containers(documents: Sequence[Document]) -> Iterator[tuple[Document, Any]]:
    for document in documents:
        for container in containers(document):
            yield document, container


def _name(document: Document) -> str:
    _, kind, name = identity(document)
    return f"{kind} {name}"
