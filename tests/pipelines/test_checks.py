# SPDX-License-Identifier: Apache-2.0
"""Each check finds its trap in a small pipeline that has it, and nothing in one that has not."""

import functools
from typing import Optional

import pytest
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components import component
from pipelines import checks, noise_sweep, profiles
from pipelines.checks import arguments, everywhere, local

OUTSIDE = 3


@component
def numbers() -> list[int]:
    return [1, 2]


@component
def one() -> int:
    return 1


@component
def add(a: int, b: int) -> int:
    return a + b


@component
def write(item: int, data: Output[Dataset]):
    with open(data.path, "w", encoding="utf-8") as file:
        file.write(str(item))


@component
def forget(data: Output[Dataset]):
    pass


@component
def read_all(items: Input[list[Dataset]]):
    pass


@component
def total(items: list[int]) -> int:
    return sum(items)


@component
def from_module() -> int:
    return OUTSIDE


@component
def last(status: dsl.PipelineTaskFinalStatus):
    pass


@component
def named() -> dict:
    return {}


@dsl.component(base_image="ieg-python:1")
def installs():
    pass


@dsl.component(base_image="ieg:latest", install_kfp_package=False)
def floating():
    pass


@dsl.container_component
def container():
    return dsl.ContainerSpec(image="ieg-python:1", command=["echo"])


def plain(task):
    return task.set_caching_options(False)


def pipeline(function):
    return dsl.pipeline(name=function.__name__.replace("_", "-"))(function)


@pipeline
def earlier_output_in_loop():
    n = plain(one())
    with dsl.ParallelFor([1, 2]) as item:
        plain(add(a=item, b=n.output))


@pipeline
def inner(a: int, b: int):
    plain(add(a=a, b=b))


@pipeline
def earlier_output_in_pipeline_in_loop():
    n = plain(one())
    with dsl.ParallelFor([1, 2]) as item:
        inner(a=item, b=n.output)


@pipeline
def looping(m: int = 1):
    n = plain(one())
    with dsl.ParallelFor([1, 2]) as item:
        plain(add(a=item, b=n.output))


@pipeline
def earlier_output_in_loop_in_pipeline():
    looping(m=1)


@pipeline
def limit_from_parameter(cpu: str = "2"):
    with dsl.ParallelFor([1, 2]) as item:
        plain(add(a=item, b=1)).set_cpu_limit(cpu)


@pipeline
def cached():
    one()


@pipeline
def cached_in_loop():
    with dsl.ParallelFor([1, 2]) as item:
        add(a=item, b=1)


@pipeline
def pip_at_run_time():
    plain(installs())


@pipeline
def not_a_python_component():
    plain(container())


@pipeline
def import_of_a_file():
    plain(dsl.importer(artifact_uri="data.csv", artifact_class=Dataset))


@pipeline
def artifacts_collected():
    with dsl.ParallelFor([1, 2]) as item:
        written = plain(write(item=item))
    plain(read_all(items=dsl.Collected(written.outputs["data"])))


@pipeline
def loop_in_loop():
    with dsl.ParallelFor([1, 2]) as a, dsl.ParallelFor([3, 4]) as b:
        plain(add(a=a, b=b))


@pipeline
def item_not_used(items: list[int] = [1, 2]):  # noqa: B006
    with dsl.ParallelFor(items):
        plain(one())


@pipeline
def output_decides():
    found = plain(one())
    with dsl.If(found.output == 1):
        plain(one())


@pipeline
def exit_task():
    with dsl.ExitHandler(plain(last())):
        plain(one())


@pipeline
def image_that_floats():
    plain(floating())


@pipeline
def name_of_the_module():
    plain(from_module())


@pipeline
def artifact_forgotten():
    plain(forget())


@pipeline
def retry_with_backoff():
    plain(one()).set_retry(3, backoff_duration="60s")


@pipeline
def limits_here():
    plain(one()).set_memory_limit("2G")


@pipeline
def volume_here():
    from kfp import kubernetes

    kubernetes.mount_pvc(plain(one()), pvc_name="data", mount_path="/data")


@dsl.component(base_image="registry.example.org/ieg:1", install_kfp_package=False)
def unusual_name():
    pass


@component
def speak(words: str):
    pass


@component
def text_of(item: str) -> str:
    return item


@component
def read(data: Input[Dataset], again: str = ""):
    pass


@pipeline
def image_that_kfp_local_warns_about():
    plain(unusual_name())


@pipeline
def placeholder_of_clusters():
    plain(speak(words=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER))


@pipeline
def time_placeholder_of_clusters():
    plain(speak(words=f"at {dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER}"))


@pipeline
def goes_on_after_failure(items: list[int] = [1, 2]):  # noqa: B006
    with dsl.ParallelFor(items) as item:
        done = plain(add(a=item, b=1))
    plain(one()).after(done).ignore_upstream_failure()


@pipeline
def no_value(text: Optional[str] = None):  # noqa: UP045  the form that people write
    plain(speak(words=text))


@dsl.pipeline(name="inner-reader")
def inner_reader(data: Input[Dataset]):
    plain(read(data=data))


@pipeline
def artifacts_into_a_pipeline():
    inner_reader(data=plain(write(item=1)).outputs["data"])


@dsl.pipeline(name="branches")
def branches(n: int = 1) -> Dataset:
    with dsl.If(n == 1):
        first = plain(write(item=1))
    with dsl.Else():
        second = plain(write(item=2))
    return dsl.OneOf(first.outputs["data"], second.outputs["data"])


@pipeline
def one_of_two_artifacts():
    plain(read(data=branches(n=1).output))


@component
def tell(a: list[str], b: list[str], c: list[str], d: list[str]):
    pass


@pipeline
def four_lists_for_each_trial(items: list[str] = ["a"]):  # noqa: B006
    with dsl.ParallelFor(items) as item:
        said = plain(text_of(item=item))
    several = {key: dsl.Collected(said.output) for key in "abcd"}
    plain(tell(**several))


@pipeline
def sound(items: list[int] = [1, 2], n: int = 3):  # noqa: B006
    listed = plain(numbers())
    with dsl.ParallelFor(listed.output) as item:
        plain(add(a=item, b=n))
        written = plain(write(item=item))
        done = plain(add(a=item, b=1))
    plain(total(items=dsl.Collected(done.output)))
    del written


BAD = [
    (earlier_output_in_loop, everywhere.task_output_enters_loop, "from the task one"),
    (earlier_output_in_pipeline_in_loop, everywhere.task_output_enters_loop, "from the task one"),
    (earlier_output_in_loop_in_pipeline, everywhere.task_output_enters_loop, "from the task one"),
    (limit_from_parameter, everywhere.undeclared_input, "pipelinechannel--cpu"),
    (cached, everywhere.caching, "one may be cached"),
    (cached_in_loop, everywhere.caching, "add may be cached"),
    (pip_at_run_time, everywhere.installs_packages, "exec-installs runs pip"),
    (not_a_python_component, everywhere.not_lightweight, "exec-container is not a lightweight"),
    (import_of_a_file, everywhere.not_lightweight, "exec-importer is not a lightweight"),
    (
        artifacts_collected,
        everywhere.collects_artifacts,
        "comp-read-all collects the artifacts items",
    ),
    (loop_in_loop, everywhere.nested_loop, "is a loop inside a loop"),
    (item_not_used, everywhere.unused_item, "does not use its item"),
    (output_decides, everywhere.conditions, "decide in a component"),
    (exit_task, everywhere.exit_handler, "last is an exit task"),
    (image_that_floats, everywhere.floating_image, "use a fixed tag"),
    (name_of_the_module, everywhere.name_from_module, "uses OUTSIDE from its module"),
    (artifact_forgotten, everywhere.artifact_not_written, "exec-forget never writes data.path"),
    (retry_with_backoff, local.waits_before_retry, "retried after 60s"),
    (limits_here, local.ignored_setting, "requests resources"),
    (volume_here, local.ignored_setting, "settings for kubernetes"),
    (image_that_kfp_local_warns_about, local.warned_image, "unless its name contains 'python'"),
    (placeholder_of_clusters, local.unknown_placeholder, "speak takes {{$.pipeline_job_resource"),
    (time_placeholder_of_clusters, local.unknown_placeholder, "which kfp.local does not support"),
    (one_of_two_artifacts, local.one_of_artifacts, "from one of several tasks"),
    (artifacts_into_a_pipeline, local.artifacts_alone, "comp-inner-reader takes artifacts and no"),
    (goes_on_after_failure, everywhere.ignores_failure, "ignores the failure of for-loop-1"),
    (no_value, everywhere.parameter_without_value, "text has no default value"),
    (four_lists_for_each_trial, arguments.large_argument, "the inputs of comp-tell at 100 trials"),
]


@pytest.mark.parametrize(("bad", "check", "finding"), BAD, ids=[bad.name for bad, _, _ in BAD])
def test_a_trap_is_found_by_its_check(bad, check, finding):
    spec = checks.compiled(bad)
    assert any(finding in found for found in check(spec)), check(spec)
    with pytest.raises(ValueError, match=check.__name__):
        checks.require_sound(spec, checks.ALL + checks.LOCAL)


def test_a_loop_over_a_named_output_is_found():
    """kfp has such an output only from a NamedTuple, which a test module's globals would hide."""
    spec = checks.compiled(sound)
    for task in spec["root"]["dag"]["tasks"].values():
        for value in task.get("inputs", {}).get("parameters", {}).values():
            if "parameterIterator" in task and "taskOutputParameter" in value:
                value["taskOutputParameter"]["outputParameterKey"] = "trials"
    assert everywhere.loops_over_named_output(spec) == [
        "for-loop-1 loops over trials: return the list"
    ]


def test_every_check_has_a_pipeline_that_it_catches():
    tried = {check for _, check, _ in BAD} | {everywhere.loops_over_named_output}
    assert tried == {*checks.ALL, *checks.LOCAL}


@pytest.mark.parametrize("good", [sound, noise_sweep.build(profiles.LOCAL)])
def test_a_sound_pipeline_passes_every_check(good):
    spec = checks.compiled(good)
    assert [found for check in checks.ALL + checks.LOCAL for found in check(spec)] == []
    checks.require_sound(spec, checks.ALL + checks.LOCAL)


def test_every_finding_is_listed():
    @functools.partial(dsl.pipeline, name="two-faults")
    def two_faults():
        one()
        forget()

    with pytest.raises(ValueError, match=r"(?s)caching: .*caching: .*artifact_not_written: "):
        checks.require_sound(checks.compiled(two_faults), checks.ALL)
