# SPDX-License-Identifier: Apache-2.0
"""What plays KFP in `make image-test`: order, inputs, and its judgments, without an engine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from safetensors.numpy import save_file

from ieg_core.errors import FailedError
from ieg_core.store import runs
from pipelines import compile as packages
from pipelines import profiles
from pipelines.checks import arguments
from pipelines.cluster_files import ClusterFile
from scripts import containers, image_test, kfp_pods


def played(trials: list[str]) -> tuple[list[kfp_pods.Task], kfp_pods.Outputs]:
    """Plays the compiled sweep with pods that only answer; returns what was run."""
    tasks = []

    def pod(task: kfp_pods.Task) -> dict:
        tasks.append(task)
        given = inputs(task)
        answers = {"prepare": trials, "train": given.get("trials"), "evaluate": given.get("trials")}
        return {"parameterValues": {"Output": answers.get(task.component, "")}}

    spec, platform = packages.package(profiles.cpu(ClusterFile(), "ieg-python:1a2b3c4d"))
    arguments = {"dataset": "digits_uniform_0.4"}
    kubernetes = platform["platforms"]["kubernetes"]
    return tasks, kfp_pods.run(spec, kubernetes, arguments, pod)


def executor_input(task: kfp_pods.Task) -> dict:
    return json.loads(task.command[task.command.index("--executor_input") + 1])


def inputs(task: kfp_pods.Task) -> dict:
    return executor_input(task)["inputs"]["parameterValues"]


def test_it_runs_the_same_whatever_the_cluster_file_says(tmp_path, monkeypatch):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "results: gs://bucket/team\nretries: 0\nimage: registry.example.org/a-python:1\n"
    )
    monkeypatch.setenv("IEG_CLUSTER", str(mine))
    spec, platform = image_test.compiled_package()
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["results"]["defaultValue"] == "/results"
    for settings in platform["deploymentSpec"]["executors"].values():
        assert {each["mountPath"] for each in settings["pvcMount"]} == {"/data", "/results"}
    images = {each["container"]["image"] for each in spec["deploymentSpec"]["executors"].values()}
    assert not any("registry.example.org" in name for name in images)


def test_the_sweep_runs_in_order_with_a_container_a_task():
    tasks, _ = played(["a", "b"])
    found = [task.component for task in tasks]
    assert found[:5] == ["prepare", "train", "evaluate", "train", "evaluate"]
    assert found.index("report") < found.index("check-results")
    assert len({task.name for task in tasks}) == len(tasks)
    assert [inputs(task)["trials"] for task in tasks if task.component == "train"] == ["a", "b"]
    (report,) = [task for task in tasks if task.component == "report"]
    assert ["a", "b"] in inputs(report).values()


def test_a_hundred_trials_that_share_pods_take_fifty_eight():
    """Each container has a driver's pod besides, and so have the run, the loop and each pass."""
    pods = runs.share_pods([f"digits-{n}" for n in range(100)], 10)
    tasks, _ = played(pods)
    assert 2 * len(tasks) + 2 + len(pods) == 58
    trained = [inputs(task)["trials"].split() for task in tasks if task.component == "train"]
    assert len({trial for pod in trained for trial in pod}) == 100


def test_arguments_and_defaults_arrive():
    prepare = played(["a"])[0][0]
    assert inputs(prepare)["dataset"] == "digits_uniform_0.4"
    assert inputs(prepare)["results"] == "/results"
    assert prepare.env["HOME"] == "/tmp"
    assert prepare.settings["securityContext"]["runAsUser"] == "1000"


def test_kfp_takes_every_executor_input_as_its_own():
    for task in played(["a"])[0]:
        text = json.dumps(executor_input(task))
        message = json_format.Parse(text, pipeline_spec_pb2.ExecutorInput())
        assert message.outputs.output_file == arguments.OUTPUT_FILE
        assert "{{$}}" not in task.command


def test_numbers_are_written_as_go_writes_them():
    """The package's YAML has 1.0 for a whole number; a component's `int` must arrive as one."""
    assert kfp_pods.as_launcher({"a": 1.0, "b": [0.0, 0.5], "c": True}) == (
        '{"a": 1, "b": [0, 0.5], "c": true}'
    )


def test_an_argument_that_the_pipeline_does_not_have_is_refused():
    spec, _ = packages.package(profiles.LOCAL)
    with pytest.raises(ValueError, match="datasett"):
        kfp_pods.run(spec, {}, {"datasett": "a"}, lambda task: {})


def write(path: Path, step: int, last: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"w": np.array([1.0, last], np.float32), "n": np.array(3, np.int64)}
    save_file(tensors, path, {"ieg": json.dumps({"step": step, "train_seconds": last})})


def test_checkpoints_are_compared_by_every_bit(tmp_path, capsys):
    steps = image_test.STEPS
    tiny = float(np.nextafter(np.float32(2), np.float32(3)))
    write(tmp_path / "a" / "checkpoint" / "000001.safetensors", steps, 2.0)
    write(tmp_path / "b" / "checkpoint" / "000001.safetensors", steps // 2, 9.0)
    write(tmp_path / "b" / "checkpoint" / "000002.safetensors", steps, 2.0)
    image_test.compare(tmp_path / "a", tmp_path / "b")
    assert "2 tensors" in capsys.readouterr().out
    write(tmp_path / "b" / "checkpoint" / "000003.safetensors", steps, tiny)
    with pytest.raises(FailedError, match="1 differ"):
        image_test.compare(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "b" / "checkpoint" / "000004.safetensors", steps - 1, 2.0)
    with pytest.raises(FailedError, match="2 tensors"):
        image_test.compare(tmp_path / "a", tmp_path / "b")


def test_a_half_written_checkpoint_is_not_the_newest(tmp_path):
    write(tmp_path / "checkpoint" / "000001.safetensors", 1, 1.0)
    (tmp_path / "checkpoint" / ".000002.safetensors.x").touch()
    newest = image_test.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "000001.safetensors"


def alive(number: int) -> bool:
    try:
        state = (
            Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        )
    except FileNotFoundError:
        return False
    return state != "Z"


def test_process_1_signals_the_group_and_is_gone(tmp_path):
    told = tmp_path / "pid"
    child = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    command = ["-c", containers.FIRST_PROCESS, str(tmp_path / "peak"), sys.executable, "-c", child]
    with subprocess.Popen([sys.executable, *command]) as process:
        limit = time.monotonic() + 120
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == image_test.EXIT_TERMINATED
    while alive(int(told.read_text())):
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_process_1_hands_on_the_exit_code_and_the_memory(tmp_path):
    command = [sys.executable, "-c", containers.FIRST_PROCESS, str(tmp_path / "peak")]
    child = [sys.executable, "-c", "x = bytearray(50_000_000); raise SystemExit(7)"]
    assert subprocess.run([*command, *child], env=dict(os.environ)).returncode == 7
    assert int((tmp_path / "peak").read_text()) > 48_000
