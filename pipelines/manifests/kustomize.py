# SPDX-License-Identifier: Apache-2.0
"""Renders the kustomizations in k8s/ with kubectl, and reads the objects that it returns."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import yaml

from ieg_core.errors import UserError

Document = dict[str, Any]


def render(folder: Path) -> list[Document]:
    """Renders a kustomization with the kubectl that requirements.lock pins, else the one on PATH.

    Args:
      folder: Contains a kustomization.yaml.

    Returns:
      The objects, in kubectl's order.

    Raises:
      UserError: When there is no kubectl, or it rejects the kustomization.
    """
    places = [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    kubectl = shutil.which("kubectl", path=os.pathsep.join(places))
    if kubectl is None:
        raise UserError("found no kubectl: run `make setup`, which installs it")
    command = [kubectl, "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise UserError(f"cannot render {folder} ({reason}): correct its kustomization.yaml")
    return list(yaml.safe_load_all(done.stdout))


def identity(document: Document) -> tuple[str, str, str]:
    """Returns an object's API version, kind and name, which no other object of ours shares."""
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def containers(document: Document) -> list[Document]:
    """Returns an object's containers, including init containers."""
    pod = pod_spec(document)
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def pod_spec(document: Document) -> Document:
    """Returns the specification of the pods that an object creates; empty if it creates none."""
    spec: Document = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: Document = spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
    return pod
