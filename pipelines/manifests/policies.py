# SPDX-License-Identifier: Apache-2.0
"""What our manifests must keep to.

Each policy takes all objects of one rendering and returns what it found, one line a finding.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.manifests.kustomize import Document, containers, identity, pod_spec

Policy = Callable[[Sequence[Document]], list[str]]
OWNER = "ieg-own-volumes"
"""The one job that runs as root, with the right to change owners and no other."""
ONE_NODE = "ieg/nodes"


def floating_image(documents: Sequence[Document]) -> list[str]:
    """Images must be tagged, by something that does not move."""
    found = []
    for document, container in _containers(documents):
        image = container.get("image", "")
        tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
        if (tag in ("", "latest") and "@sha256:" not in image) or tag == "revision":
            found.append(f"{_name(document)} runs {image or 'no image'}: give it a fixed tag")
    return found


def root(documents: Sequence[Document]) -> list[str]:
    """Pods run as a numeric user other than root; one job changes owners and may do that alone."""
    found = []
    for document, container in _containers(documents):
        pod = pod_spec(document)
        security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        rights = security.get("capabilities", {})
        if document["metadata"]["name"] == OWNER:
            if rights.get("add", []) != ["CHOWN"]:
                found.append(f"{_name(document)} adds the rights {rights.get('add')}")
        else:
            if not security.get("runAsNonRoot") or security.get("runAsUser") in (None, 0):
                found.append(f"{_name(document)}: set runAsNonRoot and a numeric runAsUser")
            if rights.get("add"):
                found.append(f"{_name(document)} adds the rights {rights['add']}")
        if rights.get("drop") != ["ALL"]:
            found.append(f"{_name(document)} keeps rights: capabilities drop [ALL]")
        if security.get("allowPrivilegeEscalation") is not False:
            found.append(f"{_name(document)}: set allowPrivilegeEscalation: false")
        if security.get("readOnlyRootFilesystem") is not True:
            found.append(f"{_name(document)}: set readOnlyRootFilesystem: true")
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append(f"{_name(document)}: set seccompProfile RuntimeDefault")
    return found


def hosts(documents: Sequence[Document]) -> list[str]:
    """No pod sees its node, and none holds a token for the Kubernetes API that it does not need."""
    found = []
    for document in documents:
        pod = pod_spec(document)
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                found.append(f"{_name(document)} has {key}")
        found += [
            f"{_name(document)} mounts its node's {volume['hostPath'].get('path')}"
            for volume in pod.get("volumes", [])
            if "hostPath" in volume
        ]
        if pod and pod.get("automountServiceAccountToken") is not False:
            found.append(f"{_name(document)}: set automountServiceAccountToken: false")
    return found


def unbounded(documents: Sequence[Document]) -> list[str]:
    """Containers state requests and limits, of CPU and memory."""
    return [
        f"{_name(document)} states no {kind} of {what}"
        for document, container in _containers(documents)
        for kind in ("requests", "limits")
        for what in ("cpu", "memory")
        if what not in container.get("resources", {}).get(kind, {})
    ]


def wide_rights(documents: Sequence[Document]) -> list[str]:
    """Roles name what they give; secrets by their names; no right to hand out rights."""
    found = []
    for document in documents:
        for rule in document.get("rules", []) or []:
            words = [word for key in ("apiGroups", "resources", "verbs") for word in rule[key]]
            if "*" in words:
                found.append(f"{_name(document)} gives a right by '*'")
            if "secrets" in words and (not rule.get("resourceNames") or rule["verbs"] != ["get"]):
                found.append(f"{_name(document)}: secrets only by name, only to get")
            if {"escalate", "bind", "impersonate", "pods/exec"} & set(words):
                found.append(f"{_name(document)} gives rights that become others")
        reference = document.get("roleRef", {})
        if reference and ("Role", reference["name"]) not in {
            (other["kind"].removeprefix("Cluster"), other["metadata"]["name"])
            for other in documents
        }:
            found.append(f"{_name(document)} binds {reference['name']}, which is not from here")
    return found


def foreign(documents: Sequence[Document]) -> list[str]:
    """Everything goes into one namespace that exists; none is made, nothing goes elsewhere."""
    found = [f"{_name(d)} makes a namespace" for d in documents if d["kind"] == "Namespace"]
    names = {document["metadata"].get("namespace") for document in documents}
    if len(names - {None}) > 1:
        found.append(f"objects in several namespaces: {sorted(names - {None})}")
    return found


def quota_alone(documents: Sequence[Document]) -> list[str]:
    """A quota of CPU or memory needs defaults, or it rejects pods that Argo adds containers to."""
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
    """Pods on different nodes need ReadWriteMany; only a cluster of one node does without."""
    found = []
    for document in documents:
        if document["kind"] == "PersistentVolumeClaim":
            modes = document["spec"]["accessModes"]
            one_node = document["metadata"].get("annotations", {}).get(ONE_NODE) == "1"
            if "ReadWriteMany" not in modes and not (one_node and modes == ["ReadWriteOnce"]):
                found.append(
                    f"{_name(document)} is {', '.join(modes)}, but trials run on several nodes at "
                    "once: use ReadWriteMany, or the overlay single-node on a cluster of one node"
                )
    return found


ALL: tuple[Policy, ...] = (
    floating_image, root, hosts, unbounded, wide_rights, foreign, quota_alone, unshared_volume,
)  # fmt: skip


def findings(documents: Sequence[Document], parallelism: int = 2) -> list[str]:
    """Returns what all policies find.

    Args:
      documents: All objects of one rendering.
      parallelism: Trials at once; where it is one, a volume of one node will do.
    """
    chosen = [policy for policy in ALL if parallelism > 1 or policy is not unshared_volume]
    return [f"{policy.__name__}: {found}" for policy in chosen for found in policy(documents)]


def _containers(documents: Sequence[Document]) -> Iterator[tuple[Document, Any]]:
    for document in documents:
        for container in containers(document):
            yield document, container


def _name(document: Document) -> str:
    _, kind, name = identity(document)
    return f"{kind} {name}"
