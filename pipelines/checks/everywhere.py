# SPDX-License-Identifier: Apache-2.0
"""Checks that apply wherever a pipeline runs."""

import builtins
import dis
import types
import typing
from collections.abc import Iterator

from kfp import dsl

from pipelines.checks.compiled import (
    Spec,
    below_loops,
    command,
    executors,
    inputs,
    parameters,
    tasks,
)


def task_output_enters_loop(spec: Spec) -> list[str]:
    """Finds outputs of earlier tasks used inside a loop.

    kfp.local silently replaces such a parameter with the loop's item. Pass an artifact or a
    pipeline parameter instead.
    """
    return [
        f"{name} takes {key} from the task {value['taskOutputParameter']['producerTask']}"
        for _, name, task in tasks(spec)
        if "parameterIterator" in task
        for key, value in parameters(task)
        if "taskOutputParameter" in value
        and key != task["parameterIterator"]["items"].get("inputParameter")
    ]


def undeclared_input(spec: Spec) -> list[str]:
    """Finds inputs lost at a loop's boundary: they fail on a cluster, but not under kfp.local.

    The known case is a resource limit inside a loop that is a pipeline parameter.
    """
    return [
        f"{name} takes {value['componentInputParameter']} undeclared"
        for owner, name, task in tasks(spec)
        for _, value in parameters(task)
        if value.get("componentInputParameter", "") not in inputs(spec, owner) | {""}
    ]


def caching(spec: Spec) -> list[str]:
    """Finds tasks that KFP may answer from its cache, which ignores changes of our code."""
    return [
        f"{name} may be cached: call set_caching_options(False)"
        for _, name, task in tasks(spec)
        if task.get("cachingOptions", {}).get("enableCache")
    ]


def installs_packages(spec: Spec) -> list[str]:
    """Finds components that would install packages when they run; here, into this environment."""
    return [
        f"{name} runs pip: set install_kfp_package=False and no packages_to_install"
        for name, executor in executors(spec)
        if "pip install" in " ".join(command(executor)[:-1])
    ]


def not_lightweight(spec: Spec) -> list[str]:
    """Finds tasks that cannot run in a subprocess, or that lose their artifacts there."""
    return [
        f"{name} is not a lightweight Python component"
        for name, executor in executors(spec)
        if "ephemeral_component.py" not in " ".join(command(executor))
    ]


def collects_artifacts(spec: Spec) -> list[str]:
    """Finds lists of artifacts as input: a few large ones exceed an argument's 128 KiB."""
    return [
        f"{name} collects the artifacts {key}: collect short strings, read the results root"
        for name, component in spec["components"].items()
        for key, value in component.get("inputDefinitions", {}).get("artifacts", {}).items()
        if value.get("isArtifactList")
    ]


def nested_loop(spec: Spec) -> list[str]:
    """Finds nested loops: they collect a list of lists, and their threads multiply."""
    return [
        f"{name} is a loop inside a loop: list the combinations in one task"
        for owner, name, task in tasks(spec)
        if "parameterIterator" in task and owner in below_loops(spec)
    ]


def loops_over_named_output(spec: Spec) -> list[str]:
    """Finds loops over a named output, which kfp.local cannot resolve."""
    findings = []
    for _, name, task in tasks(spec):
        items = task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
        source = dict(parameters(task)).get(items, {}).get("taskOutputParameter", {})
        if source and source["outputParameterKey"] != "Output":
            findings.append(f"{name} loops over {source['outputParameterKey']}: return the list")
    return findings


def unused_item(spec: Spec) -> list[str]:
    """Finds loops whose tasks ignore the item: kfp.local then loses the loop's inputs."""
    findings = []
    for _, name, task in tasks(spec):
        item = task.get("parameterIterator", {}).get("itemInput")
        body = spec["components"][task["componentRef"]["name"]].get("dag", {}).get("tasks", {})
        used = {
            value.get("componentInputParameter", "")
            for inner in body.values()
            for _, value in parameters(inner)
        }
        if item and not any(text.startswith(item) for text in used):
            findings.append(f"{name} does not use its item")
    return findings


def conditions(spec: Spec) -> list[str]:
    """Finds conditions: kfp.local evaluates them as code, and a text with a quote as false."""
    return [
        f"{name} runs if {condition}: decide in a component"
        for _, name, task in tasks(spec)
        if (condition := task.get("triggerPolicy", {}).get("condition"))
    ]


def exit_handler(spec: Spec) -> list[str]:
    """Finds exit handlers: around a loop, clusters always report the run as failed."""
    return [
        f"{name} is an exit task: record failures and decide in a last task"
        for _, name, task in tasks(spec)
        if any("taskFinalStatus" in value for _, value in parameters(task))
    ]


def ignores_failure(spec: Spec) -> list[str]:
    """Finds tasks that are meant to run after a failure: after a loop, clusters never start them.

    KFP turns them into exit hooks, which loops do not have.
    """
    return [
        f"{name} ignores the failure of {', '.join(task.get('dependentTasks', ['nothing']))}: "
        "record failures and succeed"
        for _, name, task in tasks(spec)
        if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        and not any("taskFinalStatus" in value for _, value in parameters(task))
    ]


def parameter_without_value(spec: Spec) -> list[str]:
    """Finds pipeline parameters that default to None, on which kfp.local fails."""
    definitions = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return [
        f"{name} has no default value: give it an empty one"
        for name, value in definitions.items()
        if value.get("isOptional") and "defaultValue" not in value
    ]


def floating_image(spec: Spec) -> list[str]:
    """Finds images without a fixed tag: their content can change during a run."""
    findings = []
    for name, executor in executors(spec):
        image = executor.get("container", {}).get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest") and "@sha256:" not in image:
            findings.append(f"{name} runs {image or 'no image'}: use a fixed tag")
    return findings


def name_from_module(spec: Spec) -> list[str]:
    """Finds module-level names in a component's body, of which only the source is copied."""
    known = {*dir(builtins), *dir(typing), *dsl.__all__, "kfp", "dsl"}
    findings = []
    for name, executor in executors(spec):
        for function in _functions(executor):
            unknown = sorted(set(_global_names(function)) - known)
            findings += [
                f"{name} uses {each} from its module: import it inside" for each in unknown
            ]
    return findings


def artifact_not_written(spec: Spec) -> list[str]:
    """Finds declared artifacts that a component never writes: its task succeeds nevertheless."""
    labels = {c.get("executorLabel"): c for c in spec["components"].values()}
    return [
        f"{name} never writes {key}.path"
        for name, executor in executors(spec)
        for key in labels[name].get("outputDefinitions", {}).get("artifacts", {})
        if f"{key}.path" not in command(executor)[-1]
    ]


def _functions(executor: Spec) -> list[types.CodeType]:
    """Compiles the functions defined in a lightweight component's source."""
    source = command(executor)[-1]
    module = compile(source if "def " in source else "", "component", "exec")
    return [code for code in module.co_consts if isinstance(code, types.CodeType)]


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)
