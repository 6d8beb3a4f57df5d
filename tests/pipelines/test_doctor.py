# SPDX-License-Identifier: Apache-2.0
"""`make doctor`: for real by kfp.local, and by KFP's real client against the contract stub."""

import json

import pytest

from ieg_core.errors import UserError
from ieg_core.tasks.examine import Finding
from pipelines import checks, doctor, profiles
from pipelines.cluster_files import ClusterFile
from pipelines.doctor import Options
from tests.clock import FakeClock
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kubernetes_api import kubernetes_api, pod, write_kubeconfig
from tests.records import put_json

IMAGE = "registry.example.org/ieg-python:1a2b3c"
HERE = ("image", "gpu", "data", "checkpoint")
CHECKS = (*HERE, "artifact")


def run_here(tmp_path, **options):
    lines = []
    options = Options(runner="local", out=str(tmp_path / "runs"), **options)
    code = doctor.main(ClusterFile(), options, lines.append)
    return code, lines


def test_this_machine_is_examined_for_real(tmp_path):
    code, lines = run_here(tmp_path)
    assert code == 0, lines
    assert [line.split()[:2] for line in lines[1:5]] == [["ok", f"{check}:"] for check in HERE]
    assert "a matrix product is correct" in lines[2]
    assert lines[-1] == "4 of 4 checks passed"
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


def test_what_is_wrong_here_is_told_and_the_other_checks_go_on(
    tmp_path, monkeypatch, stand_in_tensorflow
):
    (tmp_path / "runs").write_text("a file")
    broken = stand_in_tensorflow("raise ImportError('libcuda is another one')")
    monkeypatch.setenv("PYTHONPATH", broken.environment["PYTHONPATH"])
    code, lines = run_here(tmp_path, base="cifar10", data_dir=str(tmp_path / "a" / "b"))
    assert code == 1
    assert lines[1].startswith("  ok   image: ieg ")
    assert any("FAIL data: " in line and "no data directory" in line for line in lines)
    assert any("FAIL checkpoint: " in line and "cannot write" in line for line in lines)
    assert any("FAIL gpu: the framework does not start: " in line for line in lines)
    assert any("libcuda is another one" in line for line in lines)
    assert lines[-1] == "1 of 4 checks passed; failed: gpu, data, checkpoint"


def hurried(clock):
    """Lets half a minute pass from look to look."""
    while True:
        clock.time += doctor.LOOK_SECONDS
        yield


def submit(stub, tmp_path, *, profile="gpu", mount=False, scenes=hurried, **cluster_file):
    place = ClusterFile(
        endpoint=stub.url,
        image=IMAGE,
        results_mount=str(tmp_path) if mount else "",
        **cluster_file,
    )
    lines, clock = [], FakeClock()
    clock.scenes = scenes(clock)
    code = doctor.on_cluster(
        place, Options(runner="cluster", profile=profile), lines.append,
        clock=clock,
    )  # fmt: skip
    return code, lines


def tasks(*states):
    return [(check, state, "") for check, state in zip(CHECKS, states, strict=True)]


def test_a_sound_cluster_has_a_line_a_check_as_they_end(kfp_stub, tmp_path):
    kfp_stub.task_states = {
        "RUNNING": tasks("SUCCEEDED", "PENDING", "SUCCEEDED", "RUNNING", "PENDING"),
        "SUCCEEDED": tasks(*["SUCCEEDED"] * 5),
    }
    code, lines = submit(kfp_stub, tmp_path)
    assert code == 0
    names = [line.split()[1] for line in lines[2:7]]
    assert names == ["image:", "data:", "gpu:", "checkpoint:", "artifact:"]
    assert all("cannot be read from here" in line for line in lines[2:7])
    assert lines[-1] == "5 of 5 checks passed"


def test_the_lines_come_from_the_results_root_where_it_can_be_read(kfp_stub, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_name", lambda: "doctor-1")
    folder = tmp_path / "doctor" / "doctor-1"
    folder.mkdir(parents=True)
    text = "sees no GPU in this pod"
    put_json(folder / "gpu.json", {"check": "gpu", "ok": False, "text": text})
    kfp_stub.script = ("FAILED",)
    kfp_stub.task_states = {"FAILED": tasks("SUCCEEDED", "FAILED", *["SUCCEEDED"] * 3)}
    code, lines = submit(kfp_stub, tmp_path, mount=True)
    assert code == 1
    assert "  FAIL gpu: sees no GPU in this pod" in lines
    assert lines[-1] == "4 of 5 checks passed; failed: gpu"


def test_a_task_that_never_started_fails_when_its_run_ends(kfp_stub, tmp_path):
    kfp_stub.script = ("FAILED",)
    code, lines = submit(kfp_stub, tmp_path, profile="cpu")
    assert code == 1
    assert any("FAIL image: did not start" in line for line in lines)


def test_a_run_that_waits_too_long_is_canceled(kfp_stub, tmp_path):
    kfp_stub.script = ("PENDING",)
    code, lines = submit(kfp_stub, tmp_path)
    assert code == 1
    assert any("FAIL gpu: did not end within" in line for line in lines)
    assert kfp_stub.seen("POST", ":terminate")


@pytest.mark.parametrize("breaks", ["before", "after"])
def test_an_answer_that_is_lost_when_it_cancels_costs_no_finding(kfp_stub, tmp_path, breaks):
    kfp_stub.script = ("PENDING",)
    kfp_stub.faults.append(Fault(path=":terminate$", breaks=breaks, times=1))
    code, lines = submit(kfp_stub, tmp_path)
    assert code == 1
    assert any("FAIL gpu: did not end within" in line for line in lines)
    assert len(kfp_stub.seen("POST", ":terminate$")) == (1 if breaks == "after" else 2)


def test_why_a_pod_waits_is_told(kfp_stub, tmp_path):
    kfp_stub.script = ("PENDING",)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    status = {"name": "main", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0}
    with kubernetes_api() as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)

        def scenes(clock):
            (run_id,) = kfp_stub.runs
            waits = pod(run_id, "", containerStatuses=[status | {"state": state}])
            cluster.pods["kubeflow"] = [waits]
            yield from hurried(clock)

        code, lines = submit(kfp_stub, tmp_path, scenes=scenes)
    assert code == 1
    assert "  waiting: ImagePullBackOff: no such image" in lines
    assert any("canceled; ImagePullBackOff: no such image" in line for line in lines)


def test_a_kubernetes_api_that_does_not_answer_does_not_end_the_examination(kfp_stub, tmp_path):
    kfp_stub.script = ("PENDING",)
    with kubernetes_api() as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
    code, lines = submit(kfp_stub, tmp_path)  # nothing listens there any more
    assert code == 1
    assert any("FAIL gpu: did not end within" in line for line in lines)


def test_the_gpus_check_is_made_like_a_training_and_the_others_small(kfp_stub, tmp_path):
    kfp_stub.script = ("FAILED",)
    submit(kfp_stub, tmp_path)
    (made,) = kfp_stub.runs.values()
    executors = made["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    with_gpu = {
        name for name, each in executors.items() if "accelerator" in each["container"]["resources"]
    }
    assert with_gpu == {"exec-examine-2"}
    assert {each["container"]["image"] for each in executors.values()} == {IMAGE}
    graph = made["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    shown = [graph[name]["taskInfo"]["name"] for name in sorted(graph)]
    assert shown == [*HERE, "artifact", "leave-artifact"]
    assert not any("retryPolicy" in task for task in graph.values())
    assert "enableCache" not in json.dumps(made["pipeline_spec"])


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_compiled_doctor_has_none_of_kfps_traps(name):
    profile = {"cpu": profiles.cpu, "gpu": profiles.gpu}[name](ClusterFile(), IMAGE)
    spec = checks.compiled(doctor.build(profile, CHECKS))
    checks.require_sound(spec, checks.ALL)


def test_what_one_task_leaves_another_fetches(tmp_path):
    arguments = {"results": str(tmp_path / "runs"), "run": "r1"}
    output = doctor._run_quietly("artifact", arguments, tmp_path / "scratch")
    found = doctor._read(str(tmp_path / "runs"), "r1", "artifact")
    assert found is not None, output
    assert found.ok, found
    assert "read by another" in found.text


def test_an_artifact_that_no_task_could_leave_fails_when_the_run_ends(kfp_stub, tmp_path):
    kfp_stub.script = ("FAILED",)
    done = [*zip(HERE, ["SUCCEEDED"] * 4, [""] * 4, strict=True), ("leave-artifact", "FAILED", "")]
    kfp_stub.task_states = {"FAILED": done}
    code, lines = submit(kfp_stub, tmp_path)
    assert code == 1
    assert any("FAIL artifact: did not start" in line for line in lines)
    assert lines[-1] == "4 of 5 checks passed; failed: artifact"


def test_a_refused_submission_is_one_line(kfp_stub, tmp_path):
    kfp_stub.faults.append(Fault(status=403, method="POST", path="/runs"))
    with pytest.raises(UserError, match="does not allow you to create the run doctor-"):
        submit(kfp_stub, tmp_path)


def test_without_an_endpoint_this_machine_is_examined_unless_told_otherwise(
    no_cluster, monkeypatch
):
    monkeypatch.setattr(doctor, "here", lambda options, say: 0)
    lines = []
    assert doctor.main(ClusterFile(), Options(), lines.append) == 0
    assert "for a cluster set endpoint" in lines[0]
    with pytest.raises(UserError, match="no cluster is configured"):
        doctor.main(ClusterFile(image=IMAGE), Options(runner="cluster"), lines.append)


@pytest.mark.parametrize("wrong", [{"runner": "cloud"}, {"profile": "tpu"}])
def test_unknown_options_are_refused(wrong):
    with pytest.raises(UserError, match="expected"):
        Options(**wrong)


def test_the_names_of_tasks_are_those_that_kfp_gives():
    graph = checks.compiled(doctor.build(profiles.LOCAL, CHECKS))["root"]["dag"]["tasks"]
    names = [doctor._task_name(check, i) for i, check in enumerate(CHECKS)]
    assert sorted(graph) == sorted([*names, "leave-artifact"])


def test_a_finding_in_another_shape_is_not_taken(tmp_path):
    folder = tmp_path / "doctor" / "r"
    folder.mkdir(parents=True)
    put_json(folder / "gpu.json", {"other": 1})
    assert doctor._read(str(tmp_path), "r", "gpu") is None
    put_json(folder / "gpu.json", {"check": "gpu", "ok": True, "text": "x"})
    assert doctor._read(str(tmp_path), "r", "gpu") == Finding("gpu", True, "x")
