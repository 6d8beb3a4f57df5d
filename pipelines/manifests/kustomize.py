# SPDX-License-Identifier: Apache-2.0
"""Renders the kustomizations in k8s/: by kubectl or kustomize, else by itself.

Itself it knows just what they use (resources, labels, patches of one object merged into it, images,
a namespace) and refuses everything else; a test compares it with the real ones.
"""

import copy
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
Renderer = Callable[[Path], list[Document]]
CLUSTER_SCOPED = ("ClusterRole", "ClusterRoleBinding")
KNOWN = ("apiVersion", "kind", "resources", "labels", "patches", "images", "namespace")
POD_OWNERS = ("Job", "Deployment", "StatefulSet", "DaemonSet")


def renderers() -> dict[str, Renderer]:
    """Returns what can render here, the best first."""
    found: dict[str, Renderer] = {}
    if shutil.which("kubectl"):
        found["kubectl"] = lambda folder: _by_command("kubectl", "kustomize", str(folder))
    if shutil.which("kustomize"):
        found["kustomize"] = lambda folder: _by_command("kustomize", "build", str(folder))
    return found | {"itself": render}


def _by_command(*command: str) -> list[Document]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"manifests: `{' '.join(command)}` failed: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


def render(folder: Path) -> list[Document]:
    """Renders a kustomization.

    Raises:
      SystemExit: It uses something that is not known here, or patches what is not there.
    """
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(plan) - set(KNOWN):
        raise SystemExit(f"manifests: {folder}: {sorted(unknown)} takes kubectl or kustomize")
    documents: list[Document] = []
    for name in plan.get("resources", []):
        path = folder / name
        if path.is_dir():
            documents += render(path)
        else:
            documents += list(yaml.safe_load_all(path.read_text()))
    for each in plan.get("patches", []):
        _patch(documents, yaml.safe_load((folder / each["path"]).read_text()), folder)
    for each in plan.get("labels", []):
        for document in documents:
            _label(document, each["pairs"], each.get("includeTemplates", False))
    for each in plan.get("images", []):
        for document in documents:
            _set_image(document, each)
    if "namespace" in plan:
        for document in documents:
            _set_namespace(document, plan["namespace"])
    return documents


def merge(target: Any, patch: Any) -> Any:
    """Merges a patch into a value: mappings key by key, None removes, all else replaces."""
    if not isinstance(patch, Mapping) or not isinstance(target, Mapping):
        return copy.deepcopy(patch)
    merged = {key: value for key, value in target.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if value is not None:
            merged[key] = merge(merged.get(key), value)
    return merged


def identity(document: Document) -> tuple[str, str, str]:
    """Returns what tells an object from the others."""
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _patch(documents: list[Document], patch: Document, folder: Path) -> None:
    for number, document in enumerate(documents):
        if identity(document) == identity(patch):
            documents[number] = merge(document, patch)
            return
    raise SystemExit(f"manifests: {folder} patches {identity(patch)}, which is not there")


def _label(document: Document, pairs: Mapping[str, str], templates: bool) -> None:
    places = [document]
    if templates and document["kind"] in POD_OWNERS:
        places.append(document["spec"]["template"])
    for place in places:
        metadata = place.setdefault("metadata", {})
        metadata["labels"] = {**metadata.get("labels", {}), **pairs}


def containers(document: Document) -> list[Document]:
    """Returns an object's containers, init containers included."""
    pod = pod_spec(document)
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def pod_spec(document: Document) -> Document:
    """Returns the specification of the pods that an object makes; empty if it makes none."""
    spec: Document = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: Document = spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
    return pod


def _set_image(document: Document, image: Mapping[str, str]) -> None:
    for container in containers(document):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            new = image.get("newName", name)
            container["image"] = f"{new}:{image.get('newTag', tag)}"


def _set_namespace(document: Document, namespace: str) -> None:
    if document["kind"] not in CLUSTER_SCOPED:
        document["metadata"]["namespace"] = namespace
    for subject in document.get("subjects", []):
        if subject["kind"] == "ServiceAccount":
            subject["namespace"] = namespace
