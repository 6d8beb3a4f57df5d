# SPDX-License-Identifier: Apache-2.0
"""Each check finds its trap in a small pipeline that has it, and nothing in one that has not."""

import functools

import pytest
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components import component
from pipelines import checks, noise_sweep, profiles

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
def text() -> str:
    return "a"


@component
def write(item: int, data: Output[Dataset]):
    with open(data.path, "w") as file:
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
def text_compared():
    found = plain(text())
    with dsl.If(found.output == "it's"):
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


@pipeline
def sound(items: list[int] = [1, 2], n: int = 3):  # noqa: B006
    listed = plain(numbers())
    with dsl.ParallelFor(listed.output) as item:
        plain(add(a=item, b=n))
        written = plain(write(item=item))
        done = plain(add(a=item, b=1))
    plain(total(items=dsl.Collected(done.output)))
    with dsl.If(n == 3):
        plain(one())
    del written


BAD = [
    (earlier_output_in_loop, checks.task_output_enters_loop, "from the task one"),
    (earlier_output_in_pipeline_in_loop, checks.task_output_enters_loop, "from the task one"),
    (earlier_output_in_loop_in_pipeline, checks.task_output_enters_loop, "from the task one"),
    (limit_from_parameter, checks.undeclared_input, "pipelinechannel--cpu"),
    (cached, checks.caching, "one may be cached"),
    (cached_in_loop, checks.caching, "add may be cached"),
    (pip_at_run_time, checks.installs_packages, "exec-installs runs pip"),
    (not_a_python_component, checks.not_lightweight, "exec-container is no lightweight"),
    (import_of_a_file, checks.not_lightweight, "exec-importer is no lightweight"),
    (artifacts_collected, checks.collects_artifacts, "comp-read-all collects the artifacts items"),
    (loop_in_loop, checks.nested_loop, "is a loop inside a loop"),
    (item_not_used, checks.unused_item, "does not use its item"),
    (text_compared, checks.compares_text, "decide in a component"),
    (exit_task, checks.exit_handler, "last is an exit task"),
    (image_that_floats, checks.floating_image, "name a fixed tag"),
    (name_of_the_module, checks.name_from_module, "uses OUTSIDE from its module"),
    (artifact_forgotten, checks.artifact_not_written, "exec-forget never writes data.path"),
    (retry_with_backoff, checks.waits_before_retry, "tried again after 60s"),
    (limits_here, checks.ignored_setting, "asks for resources"),
    (volume_here, checks.ignored_setting, "settings for kubernetes"),
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
                value["taskOutputParameter"]["outputParameterKey"] = "cells"
    assert checks.loops_over_named_output(spec) == ["for-loop-1 loops over cells: return the list"]


def test_every_check_has_a_pipeline_that_it_catches():
    tried = {check for _, check, _ in BAD} | {checks.loops_over_named_output}
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
