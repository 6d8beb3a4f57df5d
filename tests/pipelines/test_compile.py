# SPDX-License-Identifier: Apache-2.0
"""The packages: the same bytes whenever compiled, and they run as they are."""

import dataclasses
import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import components

from components import IMAGE
from ieg_core.errors import UserError
from ieg_core.experiment.methods import DEFAULT_METHODS
from ieg_core.report.trials import load_sweep
from ieg_core.store.runs import AT_ONCE
from pipelines import __main__ as command_line
from pipelines import checks, noise_sweep, profiles
from pipelines import compile as packages
from pipelines.cluster_files import ClusterFile, GpuNodePool, NodePool, Resources, Toleration
from pipelines.local import runner
from scripts import image

ROOT = Path(__file__).parents[2]
CLUSTER = ClusterFile(
    image="registry.example.org/ieg-python:0a1b2c3",
    gpu=GpuNodePool(
        resource="amd.com/gpu",
        count=2,
        node_selector={"pool": "gpus"},
        tolerations=(Toleration("amd.com/gpu", "Exists", "", "NoSchedule"),),
        shared_memory="4Gi",
        spot=True,
    ),
    cpu=NodePool(
        node_selector={"pool": "cheap"}, tolerations=(Toleration("team", "Equal", "vision"),)
    ),
    parallelism=7,
    retries=2,
    time_limit=7200,
    checkpoint_minutes=2,
)


def digests(files):
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_another_process_compiles_the_same_bytes(tmp_path):
    """Python draws another seed of its hashes for each process."""
    cluster_file = tmp_path / "cluster.yaml"
    cluster_file.write_text(f"image: {CLUSTER.image}\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "compile", "--output", str(tmp_path / "there")],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "random", "IEG_CLUSTER": str(cluster_file)},
        capture_output=True,
        text=True,
        check=True,
        timeout=3600,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, for others may be busy here: three packages, compiled and checked.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5.0
    there = [Path(line) for line in done.stdout.splitlines()]
    assert [file.name for file in there] == [
        f"noise_sweep-{name}.yaml" for name in ("local", "cpu", "gpu")
    ]
    here = packages.write_packages(
        packages.all_profiles(ClusterFile(image=CLUSTER.image)), tmp_path / "here"
    )
    assert digests(here) == digests(there)


def documents(tmp_path, profile):
    (path,) = packages.write_packages([profile], tmp_path)
    return list(yaml.safe_load_all(path.read_text()))


def executors(spec):
    return spec["deploymentSpec"]["executors"]


def pods(platform):
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def documents_of(profile):
    """The pods' settings by executor, of a package that is compiled but not written."""
    return pods(packages.package(profile)[1])


def test_every_package_runs_the_clusters_image(tmp_path):
    for profile in packages.all_profiles(CLUSTER):
        spec, *platform = documents(tmp_path, profile)
        assert len(platform) == (0 if profile.name == "local" else 1)
        images = {each["container"]["image"] for each in executors(spec).values()}
        assert images == {CLUSTER.image}


def test_an_image_may_have_any_name(tmp_path):
    """kfp.local's warning about names without "python" is for runs here, which use another one."""
    cluster_file = dataclasses.replace(
        CLUSTER, image="registry.example.org/team/classifier:0a1b2c3"
    )
    spec, *_ = documents(tmp_path, packages.all_profiles(cluster_file)[0])
    assert {each["container"]["image"] for each in executors(spec).values()} == {cluster_file.image}


def test_the_description_explains_the_parameters(tmp_path):
    """The UI's form shows names, types and defaults, but no description of a parameter."""
    spec, _ = documents(tmp_path, profiles.gpu(CLUSTER))
    text = spec["pipelineInfo"]["description"]
    for name in spec["root"]["inputDefinitions"]["parameters"]:
        assert f"- **{name}** (`" in text


def test_the_platform_may_choose_the_user_and_kueue_the_moment(tmp_path):
    cluster_file = dataclasses.replace(CLUSTER, pod_user="", queue="team", priority_class="low")
    spec, platform = documents(tmp_path, profiles.gpu(cluster_file))
    for name, executor in executors(spec).items():
        pod = pods(platform)[name]
        assert pod["securityContext"] == {"runAsNonRoot": True}
        assert pod["podMetadata"]["labels"] == {
            **dict([profiles.POD_LABEL]),
            "kueue.x-k8s.io/queue-name": "team",
            "kueue.x-k8s.io/priority-class": "low",
        }
        assert "IEG_POD_USER" not in {each["name"] for each in executor["container"]["env"]}


def test_a_training_gets_what_the_cluster_says(tmp_path):
    spec, platform = documents(tmp_path, profiles.gpu(CLUSTER))
    container = executors(spec)["exec-train"]["container"]
    given = container["resources"]
    assert given["accelerator"]["resourceType"] == "amd.com/gpu"
    assert given["accelerator"]["resourceCount"] == "2"
    wanted = CLUSTER.resources.train
    assert wanted == Resources(
        given["resourceCpuRequest"],
        given["resourceCpuLimit"],
        given["resourceMemoryRequest"],
        given["resourceMemoryLimit"],
    )
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "HOME": "/tmp",
        "IEG_ATTEMPTS": "3",
        "IEG_CHECKPOINT_SECONDS": "120",
        "IEG_POD_USER": "1000:1000",
        "IEG_REQUIRE_GPU": "1",
        "IEG_TIME_LIMIT": "7200",
    }
    pod = pods(platform)["exec-train"]
    assert pod["nodeSelector"]["labels"] == {"pool": "gpus", "cloud.google.com/gke-spot": "true"}
    assert [each["key"] for each in pod["tolerations"]] == [
        "amd.com/gpu",
        "cloud.google.com/gke-spot",
    ]
    # The task ends its trials after two hours; only if it hangs does Kubernetes end the pod.
    assert pod["activeDeadlineSeconds"] == str(7200 + profiles.GRACE_SECONDS)
    assert pod["securityContext"] == {
        "runAsUser": "1000",
        "runAsGroup": "1000",
        "runAsNonRoot": True,
    }
    mounts = {each["mountPath"]: each for each in pod["emptyDirMounts"]}
    assert (mounts["/dev/shm"]["medium"], mounts["/dev/shm"]["sizeLimit"]) == ("Memory", "4Gi")
    assert "/tmp" in mounts
    claims = {each["constant"]: each["mountPath"] for each in pod["pvcMount"]}
    assert claims == {"ieg-data": "/data", "ieg-results": "/results"}
    loop = spec["components"]["comp-for-loop-1"]["dag"]["tasks"]
    # Three attempts and one to record their failure; 30, 60 and 120 s between them.
    assert loop["train"]["retryPolicy"]["maxRetryCount"] == 3
    assert loop["train"]["retryPolicy"]["backoffMaxDuration"] == f"{4 * (7200 + 1800) + 210}s"
    assert spec["root"]["dag"]["tasks"]["for-loop-1"]["iteratorPolicy"] == {"parallelismLimit": 7}


def test_autoscalers_leave_trainings_on_their_nodes_but_for_spot_ones():
    calm = dataclasses.replace(CLUSTER, gpu=dataclasses.replace(CLUSTER.gpu, spot=False))
    assert "annotations" not in str(documents_of(profiles.gpu(CLUSTER)))
    for make in (profiles.gpu, profiles.cpu):
        of_pods = documents_of(make(calm))
        training = of_pods.pop("exec-train")["podMetadata"]["annotations"]
        assert training == profiles.UNDISTURBED
        assert "annotations" not in str(of_pods)


def test_nodes_pull_an_image_anew_whose_tag_does_not_name_its_content():
    for tag, policy in {"1a2b": None, "1a2b-dirty": "Always", "1a2b-dirty-cpu": "Always"}.items():
        cluster_file = dataclasses.replace(CLUSTER, image=f"registry.example.org/ieg:{tag}")
        found = documents_of(profiles.cpu(cluster_file)).values()
        assert {pod.get("imagePullPolicy") for pod in found} == {policy}


def test_only_trainings_learn_how_many_share_their_gpu():
    packs = dataclasses.replace(CLUSTER, trials_per_pod=8, trials_at_once=4)
    for make in (profiles.gpu, profiles.cpu):
        templates = make(packs).pod_templates
        assert {kind: t.env.get(AT_ONCE) for kind, t in templates.items()} == {
            "train": "4", "evaluate": None, "small": None, "check_results": None,
        }  # fmt: skip


def test_an_evaluation_has_one_attempt_more_to_record_that_all_were_lost(tmp_path):
    spec, _ = documents(tmp_path, profiles.gpu(CLUSTER))
    env = executors(spec)["exec-evaluate"]["container"]["env"]
    assert {each["name"]: each["value"] for each in env}["IEG_ATTEMPTS"] == "3"
    loop = spec["components"]["comp-for-loop-1"]["dag"]["tasks"]
    assert loop["evaluate"]["retryPolicy"]["maxRetryCount"] == 3
    assert "IEG_ATTEMPTS" not in str(executors(spec)["exec-report"]["container"]["env"])


def test_no_task_reads_what_is_only_shown(tmp_path):
    """A confusion matrix of 100 classes in the inputs of a task is 110 KB in one argument."""
    spec, *_ = documents(tmp_path, profiles.gpu(CLUSTER))
    read = {
        name: set(component.get("inputDefinitions", {}).get("artifacts", {}))
        for name, component in spec["components"].items()
    }
    assert {name: keys for name, keys in read.items() if keys} == {"comp-report": {"plan"}}


@pytest.mark.parametrize(
    "profile", [profiles.cpu(CLUSTER), profiles.gpu(CLUSTER)], ids=["cpu", "gpu"]
)
def test_no_other_task_goes_near_a_gpu(tmp_path, profile):
    spec, platform = documents(tmp_path, profile)
    for name, executor in executors(spec).items():
        if profile.name == "gpu" and name == "exec-train":
            continue
        assert "accelerator" not in executor["container"]["resources"]
        assert "IEG_REQUIRE_GPU" not in str(executor["container"]["env"])
        pod = pods(platform)[name]
        assert [each["key"] for each in pod["tolerations"]] == ["team"]
        assert pod["nodeSelector"]["labels"] == {"pool": "cheap"}


def test_results_in_a_bucket_need_no_volume(tmp_path):
    cluster_file = dataclasses.replace(
        CLUSTER, results="gs://bucket/ieg", results_claim="", data_claim=""
    )
    spec, platform = documents(tmp_path, profiles.cpu(cluster_file))
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["results"]["defaultValue"] == "gs://bucket/ieg"
    assert all("pvcMount" not in pod for pod in pods(platform).values())


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (profiles.LOCAL, ("digits_uniform", False, "data", "runs")),
        (profiles.cpu(CLUSTER), ("digits_uniform", False, "/data", "/results")),
        (profiles.gpu(CLUSTER), ("cifar10_uniform", True, "/data", "/results")),
    ],
    ids=["local", "cpu", "gpu"],
)
def test_the_defaults_in_the_ui_fit_the_place(tmp_path, profile, expected):
    spec, *_ = documents(tmp_path, dataclasses.replace(profile, image=CLUSTER.image))
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    names = ("dataset", "accelerator", "data_dir", "results")
    assert tuple(inputs[name]["defaultValue"] for name in names) == expected
    assert inputs["methods"]["defaultValue"] == list(DEFAULT_METHODS)
    assert (inputs["part"]["defaultValue"], inputs["parts"]["defaultValue"]) == (1, 1)


def test_the_image_is_the_one_that_make_image_builds():
    assert packages.image_of_revision() == f"ieg-python:{image.revision(dirty=True)}"


def test_without_a_checkout_the_cluster_names_the_image(monkeypatch, capsys, tmp_path):
    def no_checkout(dirty):
        raise UserError("no checkout")

    monkeypatch.setattr(packages, "revision", no_checkout)
    assert command_line.main(["compile", "--output", str(tmp_path)]) == 2
    assert "not a git checkout" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="set `image` in the cluster file"):
        packages.image_of_revision()


def test_a_cluster_that_is_wrong_writes_nothing(tmp_path, capsys):
    (tmp_path / "cluster.yaml").write_text("image: ieg-python:latest\n")
    argv = [
        "compile",
        "--cluster",
        str(tmp_path / "cluster.yaml"),
        "--output",
        str(tmp_path / "build"),
    ]
    assert command_line.main(argv) == 2
    error = capsys.readouterr().err
    assert "image must be an image with a tag other than latest" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "build").exists()


def test_an_unsound_pipeline_is_not_written(tmp_path):
    broken = dataclasses.replace(profiles.cpu(CLUSTER), image=IMAGE)
    with pytest.raises(ValueError, match="image_of_no_revision"):
        packages.write_packages([profiles.LOCAL, broken], tmp_path / "build")
    assert not (tmp_path / "build").exists()


def test_the_package_is_what_was_checked(tmp_path):
    """What is written to YAML and read again is the specification, platform part included."""
    profile = profiles.gpu(CLUSTER)
    spec, platform = documents(tmp_path, profile)
    assert {**spec, "platforms": platform["platforms"]} == checks.compiled(
        noise_sweep.build(profile)
    )


def test_the_image_of_local_runs_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"image is 'ieg-python:0\.1\.0'.*`make image` prints it$"):
        packages.all_profiles(dataclasses.replace(CLUSTER, image=IMAGE))


def arguments(results):
    return {
        "noise_ratios": [0.4],
        "methods": ["supervised"],
        "steps": 3,
        "recipe": "digits",
        "data_dir": "data",
        "results": str(results),
        "results_namespace": "nightly/{run}",
        "run_label": "digits-1",
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*have no effect in the current local runner")
def test_the_cpu_package_itself_runs_here(tmp_path, monkeypatch):
    """The YAML that is uploaded, its platform part ignored: every step."""
    (path,) = packages.write_packages([profiles.cpu(CLUSTER)], tmp_path)
    pipeline = components.load_component_from_file(str(path))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    runner.run(
        pipeline,
        arguments(tmp_path / "runs"),
        scratch=tmp_path / "kfp",
        at_once=1,
        where=checks.CLUSTER,
    )
    (root,) = (tmp_path / "runs" / "nightly").iterdir()
    record = json.loads((root / "runs" / "digits-1.json").read_text())
    (row,) = load_sweep(root, record["sweep"]).rows
    assert (row["status"], row["method"], row["noise_rate"]) == ("finished", "supervised", 0.4)
    assert (root / "latest" / "report" / "report.html").exists()
    outputs = {file.parent.name: file for file in (tmp_path / "kfp").rglob("executor_output.json")}
    shown = json.loads(outputs["evaluate"].read_text())["artifacts"]
    matrix = shown["confusion"]["artifacts"][0]["metadata"]["confusionMatrix"]
    assert len(matrix["rows"]) == 10
    metrics = shown["metrics"]["artifacts"][0]["metadata"]
    assert metrics["accuracy_ema_last"] == row["accuracy_ema_last"]
    assert metrics["audit_examples"] == 1438
    (page,) = (tmp_path / "kfp").rglob("evaluate/audit")
    (made,) = root.glob("trials/*/audit/audit.html")
    assert page.read_text(encoding="utf-8") == made.read_text(encoding="utf-8")
    shown = json.loads(outputs["report"].read_text())["artifacts"]
    assert {"page", "table"} <= set(shown)
