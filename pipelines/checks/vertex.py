# SPDX-License-Identifier: Apache-2.0
"""Checks of a package for Vertex AI Pipelines, which takes a single document of KFP's format."""

import re

from pipelines.checks.compiled import Spec, executors, parameters, tasks
from pipelines.cluster_files import REGISTRY_IMAGE

SCHEMA = "2.1.0"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
PLACEHOLDERS = ("{{$.pipeline_job_uuid}}", "{{$.pipeline_job_name}}")


def platform_part(spec: Spec) -> list[str]:
    """Finds settings for Kubernetes, which would need a second document."""
    return [f"settings for {name} have no place in it" for name in spec.get("platforms", {})]


def unknown_version(spec: Spec) -> list[str]:
    """Finds a schema version or a pipeline name that Vertex AI refuses."""
    findings = []
    if spec["schemaVersion"] != SCHEMA:
        findings.append(f"schema version {spec['schemaVersion']}: expected {SCHEMA}")
    if not NAME.fullmatch(spec["pipelineInfo"]["name"]):
        findings.append(f"name {spec['pipelineInfo']['name']!r}: expected {NAME.pattern}")
    return findings


def kubernetes_resource(spec: Spec) -> list[str]:
    """Finds accelerators named as Kubernetes does; Vertex AI names models, NVIDIA_TESLA_T4."""
    findings = []
    for name, executor in executors(spec):
        resources = executor.get("container", {}).get("resources", {})
        kind = resources.get("accelerator", {}).get("resourceType", "")
        if kind and not re.fullmatch(r"(NVIDIA|TPU)_[A-Z0-9_]+", kind):
            findings.append(f"{name} requests {kind}: expected a model such as NVIDIA_TESLA_T4")
    return findings


def unreachable_place(spec: Spec) -> list[str]:
    """Finds data or results that a machine of Vertex AI cannot see: it has no volumes."""
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    expected = {"results": "gs://", "data_dir": "/gcs/"}
    return [
        f"{name} is {inputs[name].get('defaultValue')!r}: expected {start}…"
        for name, start in expected.items()
        if not str(inputs[name].get("defaultValue", "")).startswith(start)
    ]


def unreachable_image(spec: Spec) -> list[str]:
    """Finds images without a registry."""
    return [
        f"{name} runs {image}: expected an image in a registry, with a tag or digest"
        for name, executor in executors(spec)
        if not REGISTRY_IMAGE.fullmatch(image := executor["container"]["image"])
    ]


def unknown_placeholder(spec: Spec) -> list[str]:
    """Finds placeholders that Vertex AI does not fill in."""
    return [
        f"{name} takes {constant}"
        for _, name, task in tasks(spec)
        for _, value in parameters(task)
        for constant in re.findall(
            r"\{\{\$[^}]*\}\}", str(value.get("runtimeValue", {}).get("constant", ""))
        )
        if constant not in PLACEHOLDERS and not constant.startswith("{{$.inputs.")
    ]
