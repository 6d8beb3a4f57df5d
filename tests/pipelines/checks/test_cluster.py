# SPDX-License-Identifier: Apache-2.0
"""Each check of what bites on clusters finds its trap in a package that has it."""

import dataclasses
import functools
import json

import pytest
from kfp import dsl, kubernetes

from components import IMAGE, component
from ieg_core.report import acceptance
from pipelines import checks, noise_sweep, profiles
from pipelines.checks import arguments, cluster
from pipelines.cluster_files import ClusterFile, Toleration

GPU = profiles.gpu(ClusterFile(), "ieg-python:0a1b2c3d4e5f")
CPU = profiles.cpu(ClusterFile(), "ieg-python:0a1b2c3d4e5f")


# What follows returns functions: KFP takes its time to build a pipeline; a test builds its own.
def changed(kind, **values):
    """The gpu profile with one kind of task placed in another way."""
    pod_template = dataclasses.replace(GPU.pod_templates[kind], **values)
    return built(pod_templates={**GPU.pod_templates, kind: pod_template})


def built(**values):
    return functools.partial(noise_sweep.build, dataclasses.replace(GPU, **values))


@component
def train() -> str:
    return "a"


@dsl.component(base_image="ieg-python:other", install_kfp_package=False)
def report():
    pass


def pipeline(function):
    decorator = dsl.pipeline(name=function.__name__.replace("_", "-"))
    return functools.partial(decorator, function)


@pipeline
def retries_for_an_hour():
    """Two attempts of up to an hour each, and a minute between them, in an hour."""
    task = train().set_caching_options(False).set_retry(1, backoff_duration="60s")
    kubernetes.set_timeout(task, 3600)


@pipeline
def as_root():
    kubernetes.set_security_context(train(), run_as_user=0, run_as_group=0)


@pipeline
def by_default():
    train()


@pipeline
def root_group():
    kubernetes.set_security_context(train(), run_as_user=1000, run_as_non_root=True)


@pipeline
def requests_alone():
    train().set_cpu_request("1").set_memory_request("1G").set_cpu_limit("1")


@pipeline
def two_images():
    train()
    report()


@pipeline
def loop_over_a_parameter(items: list[str] = ["a"]):  # noqa: B006
    with dsl.ParallelFor(items, parallelism=2):
        train()


def tolerating(key, operator="Exists"):
    return changed("evaluate", tolerations=(Toleration(key, operator),))


BAD = [
    (changed("evaluate", resource="nvidia.com/gpu", count=1), "gpu_beside_training", "requests"),
    (tolerating("nvidia.com/gpu"), "gpu_beside_training", "exec-evaluate tolerates nvidia.com/gpu"),
    (tolerating("our-gpus"), "gpu_beside_training", "exec-evaluate tolerates our-gpus"),
    (tolerating(""), "gpu_beside_training", "exec-evaluate tolerates every taint"),
    (retries_for_an_hour, "short_patience", "3600s for all attempts, which may take 7260s"),
    (by_default, "short_patience", "train has no time limit"),
    (as_root, "root_user", "exec-train may run as root"),
    (root_group, "root_user", "exec-train may run as root"),
    (by_default, "root_user", "exec-train may run as root"),
    (changed("small", env={}), "no_home", "exec-report has no HOME"),
    (by_default, "no_tmp", "exec-train has no emptyDir on /tmp"),
    (changed("train", shared_memory=""), "small_shared_memory", "no /dev/shm in memory"),
    (built(parallelism=0), "no_fan_out_limit", "for-loop-1 does not limit"),
    (requests_alone, "no_resources", "exec-train has no MemoryLimit"),
    (built(image=IMAGE), "image_of_no_revision", f"exec-train runs {IMAGE}, a name for local"),
    (two_images, "image_of_no_revision", "run different code: ieg-python:0.1.0, ieg-python:other"),
    (built(max_trials=101), "large_plan", "bound it by 100"),
    (loop_over_a_parameter, "large_plan", "bound it by 100"),
]


@pytest.mark.parametrize(
    ("bad", "name", "finding"), BAD, ids=[f"{name}-{finding}" for _, name, finding in BAD]
)
def test_a_trap_is_found_by_its_check(bad, name, finding):
    spec = checks.compiled(bad())
    found = getattr(cluster, name)(spec)
    assert any(finding in each for each in found), found
    with pytest.raises(ValueError, match=name):
        checks.require_sound(spec, checks.CLUSTER)


def test_every_check_has_a_package_that_it_catches():
    assert {name for _, name, _ in BAD} == {check.__name__ for check in checks.CLUSTER}


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_packages_pass_every_check(profile):
    spec = checks.compiled(noise_sweep.build(profile))
    assert [each for check in checks.ALL + checks.CLUSTER for each in check(spec)] == []


def test_a_retry_without_time_of_its_own_is_found_at_the_boundary():
    """Five attempts of a day and half an hour, and 30 + 60 + 120 + 240 s between them."""
    spec = checks.compiled(built()())
    policy = spec["components"]["comp-for-loop-1"]["dag"]["tasks"]["train"]["retryPolicy"]
    assert policy["backoffMaxDuration"] == "441450s"
    assert cluster.short_patience(spec) == []
    policy["backoffMaxDuration"] = "441449s"
    assert len(cluster.short_patience(spec)) == 1


def test_inputs_at_the_largest_plan_are_what_the_launcher_gets():
    """100 trials of 200 characters, quoted and separated by ", ", are 20,400 bytes."""
    found = arguments.executor_inputs(checks.compiled(built()()))
    report_input = json.loads(found["comp-report"])["inputs"]
    assert len(json.dumps(report_input["parameterValues"]["evaluated"])) == 20_400
    assert 20_400 < len(found["comp-report"]) < 64 * 1024
    assert report_input["artifacts"]["plan"]["artifacts"][0]["uri"].startswith("gs://")
    # The failures that check_results receives are cut at what the size is computed with.
    longest = acceptance.failures_text("x" * 10_000, ["y" * 10_000])
    assert arguments.LONGEST_TEXT["failures"] >= len(longest)


def test_a_long_command_is_found():
    spec = checks.compiled(built()())
    command = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["command"]
    command[-1] += "#" * 70_000
    found = arguments.large_argument(spec)
    assert any("the command of exec-train" in each for each in found)
    assert any("the driver's specification of exec-train" in each for each in found)
