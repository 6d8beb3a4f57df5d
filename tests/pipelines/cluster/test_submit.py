# SPDX-License-Identifier: Apache-2.0
"""`make sweep` on a cluster: what is submitted, and that nothing is when a check fails."""

import os
import re
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ieg_core.errors import UserError
from ieg_core.experiment.methods import DEFAULT_METHODS
from ieg_core.sweep.request import SweepRequest
from pipelines import __main__ as command_line
from pipelines import options as read_options
from pipelines import parameters
from pipelines.cluster import options as cluster_options
from pipelines.cluster import submit
from pipelines.cluster.options import Order
from pipelines.cluster.submit import Run
from pipelines.cluster_files import ClusterFile
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kfp_api import kfp_api
from tests.pipelines.stubs.kubernetes_api import claim, kubernetes_api, node, write_kubeconfig

ROOT = Path(__file__).parents[3]
IMAGE = "registry.example.org/ieg-python:1a2b3c"


def sweep(*options, **environment):
    """Runs `python -m pipelines run noise_sweep`.

    Returns:
      The process and the seconds that it computed: on a busy machine those of the clock say little,
      and what waits for the network has its own limits (test_client.py).
    """
    began = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    answer = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", "noise_sweep", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return answer, sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - began


def read(*options):
    """Reads the command line; returns the cluster's options, or None for a sweep here."""
    arguments = command_line.build_parser().parse_args(["run", "noise_sweep", *options])
    cluster_file = read_options.choose_cluster(arguments)
    return None if cluster_file is None else cluster_options.read(arguments, cluster_file)


@pytest.fixture
def write_cluster_file(tmp_path):
    """Writes a cluster file."""

    def write(**values):
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump({"image": IMAGE, **values}))
        return f"--cluster={path}"

    return write


def order(stub, **request):
    asked = SweepRequest(**{"dataset": "digits_uniform", "accelerator": True, **request})
    return Order(asked, ClusterFile(endpoint=stub.url, image=IMAGE), "gpu", 24.0, {})


def test_a_configured_endpoint_makes_a_sweep_go_to_the_cluster(kfp_stub, write_cluster_file):
    answer, _ = sweep(
        "--dataset=cifar10_asymmetric",
        "--methods=supervised",
        "--noise=0.2,0.4",
        "--max-gpu-hours=50",
        write_cluster_file(service_account="ieg", ui_endpoint="https://ui.example.org"),
        KF_PIPELINES_ENDPOINT=kfp_stub.url,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    (run,) = kfp_stub.runs.values()
    assert re.fullmatch(r"cifar10_asymmetric-\d{8}-\d{6}-[0-9a-f]{4}", run["display_name"])
    assert run["runtime_config"]["parameters"] == {
        "dataset": "cifar10_asymmetric",
        "noise_ratios": [0.2, 0.4],
        "methods": ["supervised"],
        "seeds": [0],
        "accelerator": True,
        "run_label": run["display_name"],
        "part": 1,
        "parts": 1,
    }
    assert run["service_account"] == "ieg"
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {each["container"]["image"] for each in executors} == {IMAGE}
    (experiment,) = kfp_stub.experiments.values()
    assert experiment["display_name"] == "noise-sweep"
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("Sweep cifar10_asymmetric: 2 trials, 18 pods, about ")
    assert "assumed, not measured" in lines[0]
    assert f"https://ui.example.org/#/runs/details/{run['run_id']}" in answer.stdout
    assert lines[-1] == f"Follow it: make sweep WATCH={run['display_name']}"


def test_the_cpu_profile_asks_for_no_gpu(kfp_stub):
    lines = []
    asked = order(kfp_stub, methods=("supervised",), accelerator=False)
    submit.submit(replace(asked, profile="cpu"), lines.append)
    (run,) = kfp_stub.runs.values()
    assert run["runtime_config"]["parameters"]["accelerator"] is False
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert not any("accelerator" in each["container"]["resources"] for each in executors)
    assert lines[0] == "Sweep digits_uniform: 3 trials, 23 pods, no GPUs"


def test_two_hundred_trials_are_two_runs_within_half_a_minute(kfp_stub, write_cluster_file):
    answer, seconds = sweep(
        "--dataset=digits_uniform",
        "--noise=" + ",".join(f"{i / 20:g}" for i in range(20)),
        "--methods=supervised,l2r",
        "--seeds=0,1,2,3,4",
        write_cluster_file(endpoint=kfp_stub.url),
    )
    assert answer.returncode == 0, answer.stderr
    assert seconds < 20
    given = [run["runtime_config"]["parameters"] for run in kfp_stub.runs.values()]
    assert [(each["part"], each["parts"]) for each in given] == [(1, 2), (2, 2)]
    labels = [each.pop("run_label") for each in given]
    assert labels == [f"{labels[0].removesuffix('-part1')}-part{part}" for part in (1, 2)]
    assert "Sweep digits_uniform: 200 trials, 1016 pods" in answer.stdout  # 2·(5·100 + 8)
    assert "Run 1 of 2" in answer.stdout
    assert answer.stdout.rstrip().endswith(f"WATCH={labels[0].removesuffix('-part1')}")
    assert len(kfp_stub.experiments) == 1


@pytest.mark.parametrize(
    ("trials", "runs"),
    [(1, [1]), (100, [100]), (101, [51, 50]), (200, [100, 100]), (250, [84, 83, 83])],
)
def test_trials_are_split_as_evenly_as_prepare_deals_them_out(trials, runs):
    assert submit.split(trials) == runs


def check_refusal(code, error, seconds, stubs, words):
    """Holds what must hold of every refusal: one clear line, in seconds, nothing created."""
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert code == 2, error
    assert len(lines) == 1
    assert words in lines[0]
    assert seconds < 6
    for stub in stubs:
        assert stub.seen("POST") == []


@pytest.fixture
def refused(capsys):
    """Gives a command in this process, which has to be refused."""

    def give(options, stubs, words):
        began = time.process_time()
        code = command_line.main(["run", "noise_sweep", *options])
        check_refusal(code, capsys.readouterr().err, time.process_time() - began, stubs, words)

    return give


DIGITS = ("--methods=supervised",)
ALL_METHODS = "--methods=" + ",".join(DEFAULT_METHODS)


def test_a_wrong_endpoint(no_cluster, write_cluster_file):
    cluster_file = write_cluster_file(endpoint="https://kfp.invalid")
    brief = "attempts:1 timeout:1"  # a DNS that does not answer is given up, and knows no such host
    words = "endpoint https://kfp.invalid: no such host"
    answer, seconds = sweep(*DIGITS, cluster_file, RES_OPTIONS=brief)
    check_refusal(answer.returncode, answer.stderr, seconds, [], words)


def test_a_bad_token(kfp_stub, write_cluster_file, tmp_path, refused):
    kfp_stub.token = "right"
    (tmp_path / "token").write_text("wrong")
    cluster_file = write_cluster_file(endpoint=kfp_stub.url, token_file="token")
    refused([*DIGITS, cluster_file], [kfp_stub], "refuses the token in")


def test_a_missing_permission(multi_user_stub, write_cluster_file, refused):
    cluster_file = write_cluster_file(endpoint=multi_user_stub.url, namespace="others")
    refused(
        [*DIGITS, cluster_file],
        [multi_user_stub],
        "does not allow you to list runs in the namespace others",
    )


def test_no_gpu_node(kfp_stub, write_cluster_file, tmp_path, refused):
    with kubernetes_api(nodes=[node(gpus=0)]) as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
        cluster_file = write_cluster_file(endpoint=kfp_stub.url, gpu={"autoscaled": False})
        refused([*DIGITS, cluster_file], [kfp_stub, cluster], "no node offers nvidia.com/gpu now")


def test_volumes_for_one_node_on_several(kfp_stub, write_cluster_file, tmp_path, refused):
    once = [claim(name, "ReadWriteOnce") for name in ("ieg-data", "ieg-results")]
    with kubernetes_api(nodes=[node("a"), node("b")], claims={"kubeflow": once}) as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
        words = (
            "the volume claim ieg-data is ReadWriteOnce, but 4 concurrent trials are spread over 2"
        )
        refused([*DIGITS, write_cluster_file(endpoint=kfp_stub.url)], [kfp_stub, cluster], words)
        cluster.claims.clear()
        words = "there is no volume claim ieg-data in the namespace kubeflow"
        refused([*DIGITS, write_cluster_file(endpoint=kfp_stub.url)], [kfp_stub, cluster], words)


def test_an_unknown_parameter(kfp_stub, write_cluster_file, refused):
    cluster_file = write_cluster_file(endpoint=kfp_stub.url)
    refused(["--methods=l2x", cluster_file], [kfp_stub], "unknown method 'l2x': did you mean 'l2r'")


def test_an_image_without_cuda_for_gpus(kfp_stub, write_cluster_file, refused):
    cluster_file = write_cluster_file(endpoint=kfp_stub.url, image=f"{IMAGE}-cpu")
    refused([*DIGITS, cluster_file], [kfp_stub], "has no CUDA, but the profile is gpu: expected")
    assert kfp_stub.requests == []


def test_over_budget(kfp_stub, write_cluster_file, refused):
    cluster_file = write_cluster_file(endpoint=kfp_stub.url, max_gpu_hours=3)
    words = "GPU-hours, more than MAX_GPU_HOURS=3: raise it"
    refused(["--dataset=cifar10_asymmetric", cluster_file], [kfp_stub], words)
    assert kfp_stub.requests == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--runner=everywhere"], "RUNNER='everywhere': expected one of auto, local, cluster"),
        (["--profile=tpu"], "PROFILE='tpu': expected one of gpu, cpu"),
        (["--max-gpu-hours=lots"], "MAX_GPU_HOURS='lots': expected GPU-hours above 0"),
        (["--max-pending=-1"], "MAX_PENDING='-1': expected minutes above 0"),
        (["--rates=fast"], "RATES='fast': expected network:method"),
        (
            ["--devices=cpu", "--max-hours=1"],
            "MAX_HOURS, DEVICES: only for a sweep on this machine",
        ),
        (["--watch=a-run", "--resume=b-run"], "WATCH='a-run' with RESUME"),
        (["--out="], "OUT is empty"),
        (["--data-dir=/elsewhere"], "DATA_DIR: only for a sweep on this machine"),
        (["--max-pending=30"], "MAX_PENDING='30': only with WATCH"),
        (["--max-pending=30", "--resume=b", ALL_METHODS], "MAX_PENDING='30': only with WATCH=1"),
        (["--resume=b-run"], "METHODS: not with RESUME, which repeats the run as it was submitted"),
        (["--watch=b-run"], "METHODS: not with WATCH='b-run', which submits nothing"),
        (
            ["--resume=b-run", ALL_METHODS, "--steps=5", "--profile=cpu"],
            "STEPS, PROFILE: not with RESUME",
        ),
    ],
)
def test_a_variable_that_is_none(no_cluster, write_cluster_file, options, words):
    with pytest.raises(UserError) as caught:
        read(*DIGITS, *options, write_cluster_file(endpoint="http://127.0.0.1:1"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--watch=1"], "WATCH: only for a sweep on a cluster, but no endpoint is configured"),
        (
            ["--watch=1", "--max-gpu-hours=3", "--runner=local"],
            "WATCH, MAX_GPU_HOURS: only for a sweep on a cluster, but RUNNER=local",
        ),
        (["--cluster=/nowhere/cluster.yaml"], "/nowhere/cluster.yaml: cannot be read"),
    ],
)
def test_a_clusters_variables_without_a_cluster(no_cluster, write_cluster_file, options, words):
    with pytest.raises(UserError) as caught:
        read(write_cluster_file(), *options)
    assert words in str(caught.value)


def test_where_a_sweep_runs(no_cluster, write_cluster_file, monkeypatch):
    configured = write_cluster_file(endpoint="http://127.0.0.1:1")
    assert read(configured).order.profile == "gpu"
    assert read(configured, "--runner=local") is None
    assert read("--cluster=/nowhere/cluster.yaml", "--runner=local") is None
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:2")
    assert read(write_cluster_file()).order.cluster_file.endpoint == ""
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert read(write_cluster_file()) is None
    assert read(write_cluster_file(), "--runner=cluster").order.cluster_file.image == IMAGE


def test_the_variables_of_a_clusters_sweep(no_cluster, write_cluster_file):
    cluster_file = write_cluster_file(
        endpoint="http://127.0.0.1:1", results="/results/a", max_gpu_hours=7
    )
    plain = read(cluster_file)
    assert (plain.order.max_gpu_hours, plain.max_pending, plain.follow) == (7.0, 0.0, False)
    assert (plain.order.request.results, plain.order.request.data_dir) == ("/results/a", "/data")
    assert plain.order.request.accelerator
    asked = read(
        cluster_file, "--watch=1", "--max-pending=30", "--max-gpu-hours=9.5", "--profile=cpu"
    )
    assert (asked.follow, asked.watch, asked.max_pending, asked.order.max_gpu_hours) == (
        *(True, "", 30.0, 9.5),
    )
    assert not asked.order.request.accelerator
    assert read(cluster_file, "--watch=some-run").watch == "some-run"
    assert read(cluster_file, "--watch=some-run", "--max-pending=5").max_pending == 5
    resumed = read(cluster_file, "--resume=some-run", "--watch=1", "--max-pending=5")
    assert (resumed.resume, resumed.follow, resumed.max_pending) == ("some-run", True, 5)
    assert read(cluster_file, "--rates=resnet11:l2r=5").order.rates == {("resnet11", "l2r"): 5.0}


def test_the_command_that_a_report_names_is_taken(no_cluster, write_cluster_file):
    """A report made on a cluster says DATA_DIR as its pods saw it."""
    cluster_file = write_cluster_file(endpoint="http://127.0.0.1:1", data_dir="/data/vision")
    request = read(cluster_file, *DIGITS).order.request
    command = shlex.split(request.command)
    assert "DATA_DIR=/data/vision" in command
    given = [part.partition("=") for part in command[2:]]
    again = [f"--{name.lower().replace('_', '-')}={value}" for name, _, value in given]
    assert read(cluster_file, *again).order.request == request


def test_what_kfp_refuses_to_create_is_one_line(kfp_stub):
    lines = []
    kfp_stub.faults.append(Fault(403, "POST", "/runs$", '{"message": "not yours"}'))
    with pytest.raises(UserError, match="does not allow you to create the run digits_uniform-"):
        submit.submit(order(kfp_stub, methods=("supervised",)), lines.append)
    assert kfp_stub.runs == {}
    assert not any("Run " in line for line in lines)


def test_an_experiment_is_used_again(kfp_stub):
    for _ in range(2):
        submit.submit(order(kfp_stub, methods=("supervised",)), lambda line: None)
    assert len(kfp_stub.experiments) == 1
    assert len(kfp_stub.runs) == 2
    assert len({run["display_name"] for run in kfp_stub.runs.values()}) == 2


def test_it_works_in_a_profiles_namespace(no_cluster):
    with kfp_api(multi_user=True) as stub:
        asked = order(stub, methods=("supervised",))
        cluster_file = ClusterFile(endpoint=stub.url, image=IMAGE, namespace="team")
        submit.submit(Order(asked.request, cluster_file, "gpu", 24.0, {}), lambda line: None)
        (experiment,) = stub.experiments.values()
        assert experiment["namespace"] == "team"


def test_only_what_the_pipelines_defaults_do_not_say_is_sent():
    request = SweepRequest("digits_uniform", settings=("batch_size=50",), steps=7, results="x")
    assert parameters.sent(request) == {
        "dataset": "digits_uniform",
        "noise_ratios": [],
        "methods": ["supervised", "mixup", "probe_only", "l2r", "fsr", "ieg"],
        "seeds": [0],
        "accelerator": False,
        "settings": ["batch_size=50"],
        "steps": 7,
    }


def test_parts_share_the_label_before_their_number():
    runs = [Run("1", "a-part1"), Run("2", "a-part2")]
    assert submit.base_label(runs) == "a"
    assert submit.base_label(runs[:1]) == "a-part1"
    assert submit.base_label([Run("1", "")]) == "1"


@pytest.mark.parametrize(
    ("image", "warnings"),
    [
        (IMAGE, []),
        ("ieg-python:1a2b3c", ["names no registry"]),
        ("r.example.org/ieg-python:1a-dirty", ["uncommitted changes"]),
        ("r.example.org/ieg-python:1a-dirty-cpu", ["uncommitted changes"]),
        ("ieg-python:1a-dirty", ["names no registry", "uncommitted changes"]),
    ],
)
def test_an_image_that_may_not_start_is_a_warning(image, warnings):
    first, *rest = submit.image_lines(image)
    assert first == f"Image: {image}"
    assert len(rest) == len(warnings)
    for line, words in zip(rest, warnings, strict=True):
        assert line.startswith("warning: ")
        assert words in line
