# SPDX-License-Identifier: Apache-2.0
"""Checks of a compiled pipeline for pitfalls that KFP 2.17 compiles without an error.

Each check takes the pipeline's specification and returns its findings, one line each. `ALL` apply
everywhere, `LOCAL` only to kfp.local, `CLUSTER` only to a cluster, `VERTEX` only to Vertex AI
Pipelines. `PACKAGE` is the part of `LOCAL` that also applies to a package for upload, whose image
the cluster names.
"""

from collections.abc import Callable, Sequence

from pipelines.checks import arguments, cluster, everywhere, local, vertex
from pipelines.checks.compiled import Spec, compiled

__all__ = [
    "ALL",
    "CLUSTER",
    "LOCAL",
    "PACKAGE",
    "VERTEX",
    "Check",
    "Spec",
    "compiled",
    "require_sound",
]

Check = Callable[[Spec], list[str]]

ALL: tuple[Check, ...] = (
    everywhere.task_output_enters_loop,
    everywhere.undeclared_input,
    everywhere.caching,
    everywhere.installs_packages,
    everywhere.not_lightweight,
    everywhere.collects_artifacts,
    everywhere.nested_loop,
    everywhere.loops_over_named_output,
    everywhere.unused_item,
    everywhere.conditions,
    everywhere.exit_handler,
    everywhere.ignores_failure,
    everywhere.parameter_without_value,
    everywhere.floating_image,
    everywhere.name_from_module,
    everywhere.artifact_not_written,
    arguments.large_argument,
)
PACKAGE: tuple[Check, ...] = (
    local.waits_before_retry,
    local.ignored_setting,
    local.unknown_placeholder,
    local.one_of_artifacts,
    local.artifacts_alone,
)
LOCAL: tuple[Check, ...] = (*PACKAGE, local.warned_image)
CLUSTER: tuple[Check, ...] = (
    cluster.gpu_beside_training,
    cluster.short_patience,
    cluster.root_user,
    cluster.no_home,
    cluster.no_tmp,
    cluster.small_shared_memory,
    cluster.no_fan_out_limit,
    cluster.no_resources,
    cluster.image_of_no_revision,
    cluster.large_plan,
)
VERTEX: tuple[Check, ...] = (
    vertex.platform_part,
    vertex.unknown_version,
    vertex.kubernetes_resource,
    vertex.unreachable_place,
    vertex.unreachable_image,
    vertex.unknown_placeholder,
    cluster.no_home,
    cluster.no_fan_out_limit,
    cluster.image_of_no_revision,
    cluster.large_plan,
)


def require_sound(spec: Spec, checks: Sequence[Check]) -> None:
    """Raises a ValueError that lists all findings of the checks, if there are any."""
    findings = [f"{check.__name__}: {finding}" for check in checks for finding in check(spec)]
    if findings:
        raise ValueError("this pipeline would fail in KFP:\n" + "\n".join(findings))
