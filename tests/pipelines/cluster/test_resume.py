# SPDX-License-Identifier: Apache-2.0
"""Going on with runs that did not come to their end."""

import pytest

from ieg_core.errors import UserError
from ieg_core.sweep.request import SweepRequest
from pipelines.cluster import client as clients
from pipelines.cluster import resume, submit
from pipelines.cluster.options import Order
from pipelines.cluster_files import ClusterFile
from tests.clock import FakeClock
from tests.pipelines.cluster.test_follow import IMAGE, created
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kfp_api import KfpApi


def ended(stub: KfpApi, run, state="FAILED"):
    stub.set_state(run.run_id, state)
    clients.connect(ClusterFile(endpoint=stub.url)).get_run(run.run_id)


def test_resume_submits_the_same_pipeline_with_the_same_arguments(kfp_stub):
    lines = []
    request = SweepRequest("digits_uniform", methods=("supervised",), accelerator=True)
    cluster_file = ClusterFile(endpoint=kfp_stub.url, image=IMAGE)
    (old,) = submit.submit(Order(request, cluster_file, "gpu", 24.0, {}), lines.append)
    ended(kfp_stub, old)
    other = ClusterFile(endpoint=kfp_stub.url, image="registry.example.org/ieg-python:new")
    (new,) = resume.resume(other, old.label, lines.append)
    assert new.label == old.label
    before, after = kfp_stub.runs[old.run_id], kfp_stub.runs[new.run_id]
    for key in ("pipeline_spec", "runtime_config", "experiment_id", "service_account"):
        assert after[key] == before[key], key
    assert after["display_name"].startswith(f"{old.label} resumed ")
    ended(kfp_stub, new)
    (third,) = resume.resume(cluster_file, old.label, lines.append)  # the newest of that label
    assert third.label == old.label
    (again,) = resume.resume(cluster_file, old.run_id, lines.append)
    assert again.label == old.label


def test_resume_keeps_the_first_runs_namespace(kfp_stub):
    cluster_file, run = created(kfp_stub, results_namespace="weekly/{run}")
    ended(kfp_stub, run, "CANCELED")
    (new,) = resume.resume(cluster_file, "digits-1", lambda line: None)
    given = kfp_stub.runs[new.run_id]["runtime_config"]["parameters"]
    assert given["results_namespace"] == f"weekly/{run.run_id}"


def test_resume_goes_on_with_the_parts_that_did_not_succeed(kfp_stub):
    made = [created(kfp_stub, run_label=f"d-part{part}", part=part, parts=3) for part in (1, 2, 3)]
    for (_, run), state in zip(made, ("SUCCEEDED", "FAILED", "CANCELED"), strict=True):
        ended(kfp_stub, run, state)
    new = resume.resume(made[0][0], "d", lambda line: None)
    assert [run.label for run in new] == ["d-part2", "d-part3"]


def test_resume_submits_the_parts_that_were_never_created(kfp_stub):
    """KFP stopped answering between the parts of a sweep: part 1 runs, part 2 is not there."""
    lines = []

    def say(line):
        lines.append(line)
        if line.startswith("Run 1 of 2 "):
            kfp_stub.faults.append(Fault(503, "POST", "/runs$", "busy", times=9))

    noise = tuple(i / 20 for i in range(17))
    methods = ("supervised", "l2r", "fsr", "ieg", "mixup", "probe_only")
    request = SweepRequest("digits_uniform", noise, methods, accelerator=True)
    cluster_file = ClusterFile(endpoint=kfp_stub.url, image=IMAGE)
    with pytest.raises(UserError, match="1 of 2 runs were created: RESUME=digits_uniform-") as told:
        submit.submit(Order(request, cluster_file, "gpu", 24.0, {}), say, FakeClock())
    kfp_stub.faults.clear()
    (first,) = kfp_stub.runs.values()
    name = str(told.value).rpartition("RESUME=")[2].partition(" ")[0]
    assert first["display_name"] == f"{name}-part1"

    kfp_stub.set_state(first["run_id"], "RUNNING")
    (new,) = resume.resume(cluster_file, name, lines.append)
    assert new.label == f"{name}-part2"
    second = kfp_stub.runs[new.run_id]
    given = first["runtime_config"]["parameters"] | {"part": 2, "run_label": new.label}
    assert second["runtime_config"]["parameters"] == given
    assert second["display_name"] == new.label
    for key in ("pipeline_spec", "experiment_id", "service_account"):
        assert second[key] == first[key], key
    kfp_stub.set_state(new.run_id, "RUNNING")
    with pytest.raises(UserError, match="follow it with WATCH"):
        resume.resume(cluster_file, name, lines.append)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("RUNNING", "digits-1 is RUNNING: follow it with WATCH=digits-1; http"),
        ("SUCCEEDED", "digits-1 has finished: there is nothing to resume"),
    ],
)
def test_resume_refuses_what_needs_none(kfp_stub, state, words):
    cluster_file, run = created(kfp_stub)
    ended(kfp_stub, run, state)
    with pytest.raises(UserError, match=words):
        resume.resume(cluster_file, "digits-1", lambda line: None)
    assert len(kfp_stub.runs) == 1


def test_a_run_that_is_not_there(kfp_stub):
    cluster_file, _ = created(kfp_stub)
    with pytest.raises(UserError, match="there is no run 'digits'"):
        resume.resume(cluster_file, "digits", lambda line: None)
    unknown = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(UserError, match=f"could not find the run {unknown}"):
        resume.resume(cluster_file, unknown, lambda line: None)
