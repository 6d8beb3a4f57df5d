# SPDX-License-Identifier: Apache-2.0
"""`make data`, with a kubectl that does here what the real one does in a pod."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cluster_files import ClusterFile
from pipelines.manifests import render
from scripts import cluster_data

ROOT = Path(__file__).parents[2]

KUBECTL = """#!{python}
import json, os, pathlib, subprocess, sys
words = [word for word in sys.argv[1:]]
with open({log!r}, "a") as log:
    print(*words, file=log)
assert "--namespace=team-vision" in words, words
if "exec" in words:
    command = [word.replace("/data", {volume!r}) for word in words[words.index("--") + 1 :]]
    sys.exit(subprocess.run(command).returncode)
if "apply" in words or "delete" in words:
    assert pathlib.Path(words[words.index("-f") + 1]).exists(), words
if "wait" in words:
    sys.exit("error: no matching resources found")  # the job has not made its pod yet
if "get" in words:
    status = dict()
    if open({log!r}).read().count(" get ") > 1:  # the first look comes too early
        end = {fails!r} and "Failed" or "Complete"
        status["conditions"] = [dict(type=name, status="True") for name in ("FailureTarget", end)]
        if "job/ieg-receive-data" in words and not {fails!r}:
            status = dict(ready=1)
    print(json.dumps(dict(status=status)))
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The manifests of both jobs."""
    folder = tmp_path_factory.mktemp("k8s")
    cluster_file = ClusterFile(namespace="team-vision")
    for name in ("fill-data", "receive-data"):
        plan = render.write_plan(f"jobs/{name}", folder / "plans", cluster_file, "a-python:1")
        documents = render.kustomize.render(plan)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(documents))
    return folder


@pytest.fixture
def cluster(tmp_path, rendered):
    """Returns a function that runs the script against a folder that stands for the volume."""
    (tmp_path / "cluster.yaml").write_text("namespace: team-vision\n")
    (tmp_path / "volume").mkdir()
    (tmp_path / "bin").mkdir()

    def run(*arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        program = tmp_path / "bin" / "kubectl"
        program.write_text(
            KUBECTL.format(
                python=sys.executable,
                log=str(tmp_path / "log"),
                volume=str(tmp_path / "volume"),
                fails=fails,
            )
        )
        program.chmod(0o755)
        return subprocess.run(
            [
                *(sys.executable, ROOT / "scripts" / "cluster_data.py"),
                *(f"--cluster={tmp_path / 'cluster.yaml'}", f"--rendered={rendered}", *arguments),
            ],
            env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_data_sets_of_a_folder_arrive_whole(cluster, tmp_path):
    source = tmp_path / "my data"
    (source / "cifar-10-batches-bin").mkdir(parents=True)
    content = bytes(range(256)) * 1000
    (source / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(content)
    (source / "notes.txt").write_text("mine")
    done = cluster(f"--from={source}")
    assert done.returncode == 0, done.stderr
    volume = tmp_path / "volume"
    assert [path.name for path in volume.iterdir()] == ["cifar-10-batches-bin"]
    assert (volume / "cifar-10-batches-bin" / "data_batch_1.bin").read_bytes() == content
    assert "copied cifar-10-batches-bin" in done.stdout


def test_a_linked_folder_arrives_as_what_it_leads_to(cluster, tmp_path):
    (tmp_path / "disk" / "cifar10").mkdir(parents=True)
    (tmp_path / "disk" / "cifar10" / "info.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(tmp_path / "disk" / "cifar10")
    assert cluster(f"--from={tmp_path / 'data'}").returncode == 0
    arrived = tmp_path / "volume" / "cifar10"
    assert not arrived.is_symlink()
    assert (arrived / "info.json").read_text() == "{}"


def test_the_pod_that_takes_the_files_does_not_stay(cluster, tmp_path):
    (tmp_path / "a" / "cifar10").mkdir(parents=True)
    done = cluster(f"--from={tmp_path / 'a'}", fails=True)
    assert done.returncode == 1
    assert "no pod of job/ieg-receive-data became ready" in done.stderr
    assert "delete" in (tmp_path / "log").read_text().splitlines()[-1]


def test_a_folder_without_data_sets_is_refused_before_anything_is_asked(cluster, tmp_path):
    done = cluster(f"--from={tmp_path}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cifar-10-batches-bin" in done.stderr
    assert not (tmp_path / "log").exists()


def test_the_download_is_waited_for(cluster, tmp_path):
    assert cluster().returncode == 0
    calls = (tmp_path / "log").read_text()
    assert calls.count("get job/ieg-fill-data") == 2
    assert calls.splitlines()[-1].endswith("logs job/ieg-fill-data --tail=20")


def test_a_download_that_fails_is_told_as_soon_as_it_has(cluster, tmp_path):
    done = cluster(fails=True)
    assert done.returncode == 1
    assert "did not finish" in done.stderr
    assert "logs job/ieg-fill-data" in (tmp_path / "log").read_text()


def test_what_the_job_runs_is_a_command_of_ours():
    from ieg_core.cli.main import build_parser

    documents = render.kustomize.render(ROOT / "k8s/jobs/fill-data")
    (container,) = [each for job in documents for each in render.kustomize.containers(job)]
    program, *arguments = container["command"]
    assert program == "ieg"
    parsed = build_parser().parse_args(arguments)
    assert parsed.data_dir == "/data"
    assert [name.partition("_")[0] for name in parsed.dataset] == ["cifar10", "cifar100"]


def test_without_a_volume_there_is_nothing_to_fill(tmp_path, monkeypatch, capsys):
    cluster_file = tmp_path / "cluster.yaml"
    cluster_file.write_text('data_claim: ""\ndata_dir: /results/data\n')
    monkeypatch.setattr("sys.argv", ["cluster_data", f"--cluster={cluster_file}"])
    assert cluster_data.main() == 2
    assert "put the data sets into /results/data by hand" in capsys.readouterr().err


def test_a_folder_in_the_home_directory_is_found(tmp_path, monkeypatch):
    copied = []
    (tmp_path / "x" / cluster_data.KNOWN[0]).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["cluster_data", "--from=~/x", "--rendered=k8s"])
    monkeypatch.setattr(cluster_data, "kubectl", lambda context, namespace: ["kubectl"])
    monkeypatch.setattr(cluster_data, "copy", lambda call, rendered, folder: copied.append(folder))
    cluster_data.main()
    assert copied == [tmp_path / "x"]
