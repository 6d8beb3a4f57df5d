# SPDX-License-Identifier: Apache-2.0
"""Checks of a compiled pipeline for what KFP 2.17 compiles without a word and then gets wrong.

Each check takes the pipeline's specification and returns what it found, one line a finding.
`ALL` holds everywhere; `LOCAL` are those that bite under kfp.local only.
"""

import builtins
import dis
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from kfp import dsl

Spec = dict[str, Any]
Check = Callable[[Spec], list[str]]


def compiled(pipeline: Any) -> Spec:
    """Returns a pipeline's specification as nested plain values, its platform part included."""
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    platforms = json_format.MessageToDict(pipeline.platform_spec)
    return {**spec, "platforms": platforms.get("platforms", {})}


def require_sound(spec: Spec, checks: Sequence[Check]) -> None:
    """Raises a ValueError that lists every finding of the checks, if there is any."""
    findings = [f"{check.__name__}: {found}" for check in checks for found in check(spec)]
    if findings:
        raise ValueError("this pipeline would go wrong in KFP:\n" + "\n".join(findings))


def task_output_enters_loop(spec: Spec) -> list[str]:
    """Finds outputs of earlier tasks used inside a loop.

    kfp.local replaces such a parameter by the loop's item without a word. Pass an artifact or a
    pipeline parameter instead.
    """
    return [
        f"{name} takes {key} from the task {value['taskOutputParameter']['producerTask']}"
        for _, name, task in _tasks(spec)
        if "parameterIterator" in task
        for key, value in _parameters(task)
        if "taskOutputParameter" in value
        and key != task["parameterIterator"]["items"].get("inputParameter")
    ]


def undeclared_input(spec: Spec) -> list[str]:
    """Finds inputs lost at a loop's boundary: the cluster's driver fails on them, kfp.local not.

    Resource limits given as a pipeline parameter inside a loop are the known case.
    """
    return [
        f"{name} takes {value['componentInputParameter']} undeclared"
        for owner, name, task in _tasks(spec)
        for _, value in _parameters(task)
        if value.get("componentInputParameter", "") not in _inputs(spec, owner) | {""}
    ]


def caching(spec: Spec) -> list[str]:
    """Finds tasks that KFP may answer from its cache, which does not see our code."""
    return [
        f"{name} may be cached: set_caching_options(False)"
        for _, name, task in _tasks(spec)
        if task.get("cachingOptions", {}).get("enableCache")
    ]


def installs_packages(spec: Spec) -> list[str]:
    """Finds components that would install packages when they run, here into this environment."""
    return [
        f"{name} runs pip: install_kfp_package=False and no packages_to_install"
        for name, executor in _executors(spec)
        if "pip install" in " ".join(_command(executor)[:-1])
    ]


def not_lightweight(spec: Spec) -> list[str]:
    """Finds tasks that do not run in a subprocess, or whose artifacts get lost there."""
    return [
        f"{name} is no lightweight Python component"
        for name, executor in _executors(spec)
        if "ephemeral_component.py" not in " ".join(_command(executor))
    ]


def collects_artifacts(spec: Spec) -> list[str]:
    """Finds lists of artifacts as input: a few large ones exceed the 128 KiB of an argument."""
    return [
        f"{name} collects the artifacts {key}: collect short strings, read the results root"
        for name, component in spec["components"].items()
        for key, value in component.get("inputDefinitions", {}).get("artifacts", {}).items()
        if value.get("isArtifactList")
    ]


def nested_loop(spec: Spec) -> list[str]:
    """Finds loops in loops: what they collect is a list of lists, their threads multiply."""
    return [
        f"{name} is a loop inside a loop: list the combinations in one task"
        for owner, name, task in _tasks(spec)
        if "parameterIterator" in task and owner in _below_loops(spec)
    ]


def loops_over_named_output(spec: Spec) -> list[str]:
    """Finds loops over an output that has a name, which kfp.local does not find."""
    findings = []
    for _, name, task in _tasks(spec):
        items = task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
        source = dict(_parameters(task)).get(items, {}).get("taskOutputParameter", {})
        if source and source["outputParameterKey"] != "Output":
            findings.append(f"{name} loops over {source['outputParameterKey']}: return the list")
    return findings


def unused_item(spec: Spec) -> list[str]:
    """Finds loops whose tasks do not use the item: kfp.local then loses the loop's own inputs."""
    findings = []
    for _, name, task in _tasks(spec):
        item = task.get("parameterIterator", {}).get("itemInput")
        body = spec["components"][task["componentRef"]["name"]].get("dag", {}).get("tasks", {})
        used = {
            value.get("componentInputParameter", "")
            for inner in body.values()
            for _, value in _parameters(inner)
        }
        if item and not any(text.startswith(item) for text in used):
            findings.append(f"{name} does not use its item")
    return findings


def compares_text(spec: Spec) -> list[str]:
    """Finds conditions on text: with a quote in it, kfp.local takes the condition for false."""
    return [
        f"{name} runs if {condition}: decide in a component, pass a bool or a number"
        for owner, name, task in _tasks(spec)
        if (condition := task.get("triggerPolicy", {}).get("condition"))
        for channel in re.findall(r"parameter_values\['([^']+)'\]", condition)
        if _input_type(spec, task, channel) in ("STRING", None)
    ]


def exit_handler(spec: Spec) -> list[str]:
    """Finds exit handlers: around a loop, clusters report the run as failed whatever it did."""
    return [
        f"{name} is an exit task: record failures and decide in a last task"
        for _, name, task in _tasks(spec)
        if any("taskFinalStatus" in value for _, value in _parameters(task))
    ]


def floating_image(spec: Spec) -> list[str]:
    """Finds images without a fixed tag, and names that kfp.local warns about."""
    findings = []
    for name, executor in _executors(spec):
        image = executor.get("container", {}).get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest") and "@sha256:" not in image:
            findings.append(f"{name} runs {image or 'no image'}: name a fixed tag")
        if "python" not in image:
            findings.append(f"{name} runs {image}: kfp.local warns unless its name holds 'python'")
    return findings


def name_from_module(spec: Spec) -> list[str]:
    """Finds names that a component's body takes from its module: only its source is copied."""
    known = {*dir(builtins), *dir(typing), *dsl.__all__, "kfp", "dsl"}
    findings = []
    for name, executor in _executors(spec):
        for function in _functions(executor):
            found = sorted(set(_global_names(function)) - known)
            findings += [f"{name} uses {each} from its module: import it inside" for each in found]
    return findings


def artifact_not_written(spec: Spec) -> list[str]:
    """Finds declared artifacts that the component never writes: the task succeeds all the same."""
    labels = {c.get("executorLabel"): c for c in spec["components"].values()}
    return [
        f"{name} never writes {key}.path"
        for name, executor in _executors(spec)
        for key in labels[name].get("outputDefinitions", {}).get("artifacts", {})
        if f"{key}.path" not in _command(executor)[-1]
    ]


def waits_before_retry(spec: Spec) -> list[str]:
    """Finds retries: kfp.local sleeps through their backoff, minutes of a failing test."""
    return [
        f"{name} is tried again after {policy.get('backoffDuration', '0s')}: cluster profiles only"
        for _, name, task in _tasks(spec)
        if (policy := task.get("retryPolicy"))
    ]


def ignored_setting(spec: Spec) -> list[str]:
    """Finds what kfp.local ignores: volumes, secrets, selectors, limits are simply absent."""
    findings = [f"settings for {name} have no effect here" for name in spec.get("platforms", {})]
    findings += [
        f"{name} asks for resources, which have no effect here"
        for name, executor in _executors(spec)
        if executor.get("container", {}).get("resources")
    ]
    return findings


ALL: tuple[Check, ...] = (
    task_output_enters_loop,
    undeclared_input,
    caching,
    installs_packages,
    not_lightweight,
    collects_artifacts,
    nested_loop,
    loops_over_named_output,
    unused_item,
    compares_text,
    exit_handler,
    floating_image,
    name_from_module,
    artifact_not_written,
)
LOCAL: tuple[Check, ...] = (waits_before_retry, ignored_setting)
CLUSTER: tuple[Check, ...] = ()


def _tasks(spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    """Yields (component that owns the graph or "root", the task's name, the task)."""
    graphs = {"root": spec["root"], **spec["components"]}
    for owner, component in graphs.items():
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            yield owner, name, task


def _parameters(task: Spec) -> list[tuple[str, Spec]]:
    return list(task.get("inputs", {}).get("parameters", {}).items())


def _inputs(spec: Spec, owner: str) -> set[str]:
    component = spec["root"] if owner == "root" else spec["components"][owner]
    return set(component.get("inputDefinitions", {}).get("parameters", {}))


def _input_type(spec: Spec, task: Spec, channel: str) -> str | None:
    component = spec["components"][task["componentRef"]["name"]]
    inputs = component.get("inputDefinitions", {}).get("parameters", {})
    return inputs.get(channel, {}).get("parameterType")


def _executors(spec: Spec) -> list[tuple[str, Spec]]:
    return list(spec.get("deploymentSpec", {}).get("executors", {}).items())


def _command(executor: Spec) -> list[str]:
    return executor.get("container", {}).get("command") or [""]


def _below_loops(spec: Spec) -> set[str]:
    """Returns the components that run inside a loop, at any depth."""
    below: set[str] = set()
    size = -1
    while len(below) > size:
        size = len(below)
        for owner, _, task in _tasks(spec):
            if "parameterIterator" in task or owner in below:
                below.add(task["componentRef"]["name"])
    return below


def _functions(executor: Spec) -> list[types.CodeType]:
    """Compiles the functions that a lightweight component's source defines."""
    source = _command(executor)[-1]
    module = compile(source if "def " in source else "", "component", "exec")
    return [code for code in module.co_consts if isinstance(code, types.CodeType)]


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)
