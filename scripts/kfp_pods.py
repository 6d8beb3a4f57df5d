# SPDX-License-Identifier: Apache-2.0
"""Emulates KFP's driver and launcher for a compiled pipeline, with one container per task.

From the same specification as a cluster it derives the order of the tasks, their inputs, the loop,
and the argument `--executor_input`, in which a task receives its inputs and the places of its
outputs. The container runs the compiled command.

What it follows in kubeflow/pipelines 2.17, below backend/src/v2/: driver/resolve.go for inputs and
placeholders; driver/driver.go, provisionOutputs, for the places of outputs, whose URI has a run's
and a task's folder besides; component/launcher_v2.go, prepareOutputFolders, LocalPathForURI and
compileCmdAndArgs, for what the launcher does before it starts the command.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

from pipelines.checks.arguments import executor_input
from pipelines.checks.compiled import Spec

STORE = "minio"
RUN = "5f9c0a3e-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Task:
    """One container to run.

    Attributes:
      name: The task's name, unique in the run.
      component: The component's function.
      command: Program and arguments, including the executor input.
      env: Environment variables of the executor.
      folders: Folders that the launcher creates before it starts the command.
      settings: The executor's part of the package's Kubernetes settings.
    """

    name: str
    component: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    folders: tuple[str, ...]
    settings: Spec


@dataclass
class Outputs:
    """A task's outputs: parameters, and artifacts in the form of the next task's input."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)


Pod = Callable[[Task], Mapping[str, Any]]
"""Runs a task until it ends and returns its executor output as KFP's executor writes it."""


def run(spec: Spec, platform: Spec, parameters: Mapping[str, Any], pod: Pod) -> Outputs:
    """Runs a compiled pipeline.

    Args:
      spec: The pipeline's specification.
      platform: The Kubernetes part of the package; empty if it has none.
      parameters: The run's arguments; the others keep their defaults.
      pod: Runs one task.

    Returns:
      Output parameters by "task.name".

    Raises:
      ValueError: When the pipeline does not have an argument, or the specification uses more than
        tasks, loops over a list, parameters and artifacts.
    """
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    if unknown := set(parameters) - set(known):
        raise ValueError(f"the pipeline has no parameters {sorted(unknown)}")
    given = {name: known[name].get("defaultValue") for name in known} | dict(parameters)
    inner = _run_dag(spec, platform, spec["root"]["dag"], Outputs(given), "", pod)
    return Outputs({f"{t}.{k}": v for t, out in inner.items() for k, v in out.parameters.items()})


def _run_dag(
    spec: Spec, platform: Spec, dag: Spec, inputs: Outputs, prefix: str, pod: Pod
) -> dict[str, Outputs]:
    done: dict[str, Outputs] = {}
    before = {name: task.get("dependentTasks", ()) for name, task in dag["tasks"].items()}
    for name in TopologicalSorter(before).static_order():
        task = dag["tasks"][name]
        component = spec["components"][task["componentRef"]["name"]]
        given = _inputs(task, inputs, done)
        iterator = task.get("parameterIterator")
        if not iterator:
            done[name] = _run_task(spec, platform, component, given, prefix + name, pod)
            continue
        ends = []
        for number, item in enumerate(given.parameters[iterator["items"]["inputParameter"]]):
            each = Outputs(given.parameters | {iterator["itemInput"]: item}, given.artifacts)
            ends.append(_run_task(spec, platform, component, each, f"{number}-", pod))
        keys = ends[0].parameters if ends else ()
        done[name] = Outputs({key: [end.parameters[key] for end in ends] for key in keys})
    return done


def _run_task(
    spec: Spec, platform: Spec, component: Spec, given: Outputs, name: str, pod: Pod
) -> Outputs:
    if "dag" in component:
        inner = _run_dag(spec, platform, component["dag"], given, name, pod)
        wanted = component["dag"].get("outputs", {}).get("parameters", {})
        values = {key: value["valueFromParameter"] for key, value in wanted.items()}
        return Outputs(
            {
                key: inner[value["producerSubtask"]].parameters[value["outputParameterKey"]]
                for key, value in values.items()
            }
        )
    label = component["executorLabel"]
    container = spec["deploymentSpec"]["executors"][label]["container"]
    given_input = make_executor_input(component, given, name)
    words = [*container["command"], *container["args"]]
    task = Task(
        name=name,
        component=label.removeprefix("exec-"),
        command=tuple(as_launcher(given_input) if word == "{{$}}" else word for word in words),
        env={each["name"]: each["value"] for each in container.get("env", [])},
        folders=tuple(_folders(given_input)),
        settings=platform.get("deploymentSpec", {}).get("executors", {}).get(label, {}),
    )
    written = pod(task)
    artifacts = dict(given_input["outputs"]["artifacts"]) | dict(written.get("artifacts", {}))
    return Outputs(dict(written.get("parameterValues", {})), artifacts)


def as_launcher(value: Any) -> str:
    """Returns JSON as the launcher writes it: in Go, a whole number has no decimal point."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return json.dumps(plain(value))


def _inputs(task: Spec, outer: Outputs, done: Mapping[str, Outputs]) -> Outputs:
    inputs = task.get("inputs", {})
    resolved = Outputs()
    for key, value in inputs.get("parameters", {}).items():
        if "parameterExpressionSelector" in value:
            raise ValueError(f"{key} takes a part of a parameter, which is not emulated here")
        if "componentInputParameter" in value:
            resolved.parameters[key] = outer.parameters[value["componentInputParameter"]]
        elif "taskOutputParameter" in value:
            source = value["taskOutputParameter"]
            left = done[source["producerTask"]]
            resolved.parameters[key] = left.parameters[source["outputParameterKey"]]
        else:
            resolved.parameters[key] = _resolved(value["runtimeValue"]["constant"])
    for key, value in inputs.get("artifacts", {}).items():
        if "componentInputArtifact" in value:
            resolved.artifacts[key] = outer.artifacts[value["componentInputArtifact"]]
        else:
            source = value["taskOutputArtifact"]
            left = done[source["producerTask"]]
            resolved.artifacts[key] = left.artifacts[source["outputArtifactKey"]]
    return resolved


def _resolved(constant: Any) -> Any:
    """Replaces the placeholders whose values only a run knows."""
    if isinstance(constant, str):
        constant = constant.replace("{{$.pipeline_job_uuid}}", RUN)
        if "{{$." in constant:
            raise ValueError(f"{constant} has a placeholder that is not emulated here")
    return constant


def make_executor_input(component: Spec, given: Outputs, name: str) -> dict[str, Any]:
    """Builds the `--executor_input` of a task's container.

    Args:
      component: The component's part of the specification.
      given: Its inputs.
      name: The task's name, unique in the run.

    Returns:
      Inputs, and the places of outputs: the object store's paths as KFP mounts them.
    """

    def output(key: str, definition: Spec) -> Spec:
        uri, kind = f"{STORE}://mlpipeline/{name}/{key}", definition["artifactType"]
        return {"artifacts": [{"type": kind, "uri": uri, "metadata": {}}]}

    return executor_input(component, given.parameters, given.artifacts, output)


def _folders(given_input: Spec) -> Iterable[str]:
    outputs = given_input["outputs"]
    files = [each["outputFile"] for each in outputs["parameters"].values()]
    files.append(outputs["outputFile"])
    for each in outputs["artifacts"].values():
        files += [artifact["uri"].replace("://", "/", 1) for artifact in each["artifacts"]]
    return sorted({"/" + file.lstrip("/").rpartition("/")[0] for file in files})
