# SPDX-License-Identifier: Apache-2.0
"""Checks the size of a task's command-line arguments, which Linux limits to 128 KiB each.

A task receives all its inputs in one argument, `--executor_input`; KFP's driver receives the
specification of the task to start in others.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.checks.compiled import Spec, executors, parameters, tasks

OUTPUT_FILE = "/tmp/kfp_outputs/output_metadata.json"
MOST_BYTES = 64 * 1024
MOST_TRIALS = 100
LONGEST_TEXT = {"failures": 8000}
"""Inputs with longer texts than the others, by name (`ieg_core.report.acceptance`)."""
TEXT, ENTRY, TRIAL, URI = "x" * 512, "e" * 64, "c" * 200, "gs://bucket/" + "u" * 500


def large_argument(spec: Spec) -> list[str]:
    """Finds arguments that a large plan would make longer than half of Linux's limit."""
    sizes = {
        f"the inputs of {name} at {MOST_TRIALS} trials": len(text)
        for name, text in executor_inputs(spec).items()
    }
    for name, executor in executors(spec):
        container = executor.get("container", {})
        for part in (*container.get("command", []), *container.get("args", [])):
            key = f"the command of {name}"
            sizes[key] = max(sizes.get(key, 0), len(part.encode()))
        sizes[f"the driver's specification of {name}"] = len(json.dumps(executor))
    for name, component in {"root": spec["root"], **spec["components"]}.items():
        sizes[f"the driver's specification of {name}"] = len(json.dumps(component))
    return [
        f"{what} take {size} bytes in one argument, expected at most {MOST_BYTES}"
        for what, size in sizes.items()
        if size > MOST_BYTES
    ]


def executor_inputs(spec: Spec) -> dict[str, str]:
    """Returns the longest `--executor_input` of each component, that of a plan of 100 trials.

    Assumed are 512 characters for a text or a URI, 200 for a trial's name and 64 for an entry of a
    list that a user gives.
    """
    texts = {}
    for _, _, task in tasks(spec):
        name = task["componentRef"]["name"]
        component = spec["components"][name]
        if "executorLabel" not in component:
            continue
        made = {key for key, source in parameters(task) if "taskOutputParameter" in source}
        inputs = component.get("inputDefinitions", {})
        message = pipeline_spec_pb2.ExecutorInput()
        values = {
            key: _value(key, each.get("parameterType", ""), TRIAL if key in made else ENTRY)
            for key, each in inputs.get("parameters", {}).items()
        }
        artifacts = {
            key: _artifacts(key, each, MOST_TRIALS if each.get("isArtifactList") else 1)
            for key, each in inputs.get("artifacts", {}).items()
        }
        content = executor_input(component, values, artifacts, _artifacts)
        json_format.ParseDict(content, message)
        texts[name] = json_format.MessageToJson(message, indent=None)
    return texts


def executor_input(
    component: Spec,
    values: Mapping[str, Any],
    artifacts: Mapping[str, Any],
    output: Callable[[str, Spec], Spec],
) -> dict[str, Any]:
    """Builds the `--executor_input` that KFP's driver gives to a task's container.

    Source: kubeflow/pipelines 2.17, backend/src/v2/driver/driver.go, provisionOutputs.

    Args:
      component: The component's part of the specification.
      values: Its parameters.
      artifacts: Its input artifacts.
      output: (name, definition) -> an output artifact, as KFP describes it.

    Returns:
      The inputs, and the files of the outputs as the launcher creates them.
    """
    outputs = component.get("outputDefinitions", {})
    return {
        "inputs": {"parameterValues": values, "artifacts": artifacts},
        "outputs": {
            "parameters": {
                key: {"outputFile": f"/tmp/kfp/outputs/{key}"}
                for key in outputs.get("parameters", {})
            },
            "artifacts": {
                key: output(key, each) for key, each in outputs.get("artifacts", {}).items()
            },
            "outputFile": OUTPUT_FILE,
        },
    }


def _value(key: str, kind: str, entry: str) -> Any:
    match kind:
        case "LIST":
            return [entry] * MOST_TRIALS
        case "STRUCT":
            return {entry: TEXT}
        case "BOOLEAN":
            return True
        case "NUMBER_INTEGER" | "NUMBER_DOUBLE":
            return 123456.789
        case _:
            return "x" * LONGEST_TEXT.get(key, len(TEXT))


def _artifacts(key: str, definition: Spec, count: int = 1) -> Spec:
    artifact = {
        "name": ENTRY,
        "type": definition.get("artifactType", {}),
        "uri": f"{URI}/{key}",
        "metadata": {"sweep": TRIAL, "store_session_info": TEXT},
    }
    return {"artifacts": [artifact] * count}
