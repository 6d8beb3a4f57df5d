# SPDX-License-Identifier: Apache-2.0
"""Reads a compiled pipeline's specification as nested plain values."""

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

Spec = dict[str, Any]


def compiled(pipeline: Any) -> Spec:
    """Returns a pipeline's specification, including its platform part."""
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    platforms = json_format.MessageToDict(pipeline.platform_spec)
    return {**spec, "platforms": platforms.get("platforms", {})}


def tasks(spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    """Yields (component that owns the graph or "root", the task's name, the task)."""
    graphs = {"root": spec["root"], **spec["components"]}
    for owner, component in graphs.items():
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            yield owner, name, task


def parameters(task: Spec) -> list[tuple[str, Spec]]:
    """Returns the names and sources of a task's parameters."""
    return list(task.get("inputs", {}).get("parameters", {}).items())


def inputs(spec: Spec, owner: str) -> set[str]:
    """Returns the names of the parameters of a graph."""
    component = spec["root"] if owner == "root" else spec["components"][owner]
    return set(component.get("inputDefinitions", {}).get("parameters", {}))


def executors(spec: Spec) -> list[tuple[str, Spec]]:
    """Returns the components' executors with their labels."""
    return list(spec.get("deploymentSpec", {}).get("executors", {}).items())


def command(executor: Spec) -> list[str]:
    """Returns an executor's command; its last part is a lightweight component's source."""
    return executor.get("container", {}).get("command") or [""]


def below_loops(spec: Spec) -> set[str]:
    """Returns the components that run inside a loop, at any depth."""
    below: set[str] = set()
    size = -1
    while len(below) > size:
        size = len(below)
        for owner, _, task in tasks(spec):
            if "parameterIterator" in task or owner in below:
                below.add(task["componentRef"]["name"])
    return below
