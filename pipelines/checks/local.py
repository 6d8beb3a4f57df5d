# SPDX-License-Identifier: Apache-2.0
"""Checks for pitfalls of kfp.local, and for settings that it ignores."""

from pipelines.checks.compiled import Spec, executors, parameters, tasks


def waits_before_retry(spec: Spec) -> list[str]:
    """Finds retries: kfp.local sleeps for their backoff, which delays a failure by minutes."""
    return [
        f"{name} is retried after {policy.get('backoffDuration', '0s')}: only on a cluster"
        for _, name, task in tasks(spec)
        if (policy := task.get("retryPolicy"))
    ]


def ignored_setting(spec: Spec) -> list[str]:
    """Finds settings that kfp.local ignores: volumes, secrets, selectors, limits."""
    findings = [f"settings for {name} have no effect here" for name in spec.get("platforms", {})]
    findings += [
        f"{name} requests resources, which have no effect here"
        for name, executor in executors(spec)
        if executor.get("container", {}).get("resources")
    ]
    return findings


def warned_image(spec: Spec) -> list[str]:
    """Finds images that kfp.local warns about, since their names do not contain "python"."""
    return [
        f"{name} runs {image}: kfp.local warns unless its name contains 'python'"
        for name, executor in executors(spec)
        if "python" not in (image := executor.get("container", {}).get("image", ""))
    ]


def unknown_placeholder(spec: Spec) -> list[str]:
    """Finds placeholders on which kfp.local fails with an IndexError."""
    return [
        f"{name} takes {value['runtimeValue']['constant']}, which kfp.local does not support"
        for _, name, task in tasks(spec)
        for _, value in parameters(task)
        if any(
            each in str(value.get("runtimeValue", {}).get("constant", ""))
            for each in ("{{$.pipeline_job_resource_name", "time_utc}}")
        )
    ]


def one_of_artifacts(spec: Spec) -> list[str]:
    """Finds artifacts taken from one of several branches, which kfp.local cannot do."""
    return [
        f"{name} takes {key} from one of several tasks: branch inside a component"
        for name, component in spec["components"].items()
        for key, value in component.get("dag", {}).get("outputs", {}).get("artifacts", {}).items()
        if len(value.get("artifactSelectors", [])) > 1
    ]


def artifacts_alone(spec: Spec) -> list[str]:
    """Finds nested pipelines whose inputs are all artifacts: kfp.local loses them."""
    return [
        f"{name} takes artifacts and no parameter: add one"
        for name, component in spec["components"].items()
        if "dag" in component
        and component.get("inputDefinitions", {}).get("artifacts")
        and not component["inputDefinitions"].get("parameters")
    ]
