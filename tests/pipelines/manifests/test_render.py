# SPDX-License-Identifier: Apache-2.0
"""What k8s/ renders to, and that the schemas reject misspelled keys."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ieg_core.errors import UserError
from pipelines import profiles
from pipelines.cluster_files import ClusterFile
from pipelines.manifests import kustomize, policies, render

ROOT = Path(__file__).parents[3]
NAMES = render.kustomizations()
IMAGE = "registry.example:5000/team/ieg-python:1a2b3c4d"


CLUSTER_SCOPED = ("ClusterRole", "ClusterRoleBinding")
LABEL = ("app.kubernetes.io/part-of", "ieg")


def job_of(folder: Path) -> kustomize.Document:
    (job,) = [each for each in kustomize.render(folder) if each["kind"] == "Job"]
    return job


@pytest.mark.parametrize("name", NAMES)
def test_namespace_image_and_labels_are_set(name, tmp_path):
    cluster_file = ClusterFile(namespace="team-vision")
    documents = kustomize.render(render.write_plan(name, tmp_path, cluster_file, IMAGE))
    assert len({kustomize.identity(document) for document in documents}) == len(documents)
    for document in documents:
        namespace = None if document["kind"] in CLUSTER_SCOPED else "team-vision"
        assert document["metadata"].get("namespace") == namespace
        accounts = [each for each in document.get("subjects", []) if each["kind"] != "Group"]
        assert {each["namespace"] for each in accounts} <= {"team-vision"}
        assert {each["image"] for each in kustomize.containers(document)} <= {IMAGE}
        assert LABEL in document["metadata"]["labels"].items()
        if document["kind"] == "Job":
            assert LABEL in document["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_the_schemas(name, tmp_path):
    plan = render.write_plan(name, tmp_path, ClusterFile(pod_user="7:8"), IMAGE)
    # `make manifests`, below, goes through all releases.
    ends = [render.releases()[0], render.releases()[-1]]
    assert render.schema_errors(kustomize.render(plan), ends) == []


def test_the_schemas_checked_begin_with_1_29():
    assert render.releases()[0] == "1.29"
    assert len(render.releases()) >= 4


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("automountServiceAccountToken: false", "automountServiceAcountToken: false"),
        ("runAsUser: 1000", 'runAsUser: "1000"'),
        ("apiVersion: batch/v1", "apiVersion: batch/v2"),
    ],
)
def test_a_misspelled_key_or_wrong_type_is_found(line, wrong):
    text = (ROOT / "k8s/jobs/prepare-volumes/job.yaml").read_text()
    assert line in text
    found = render.schema_errors([yaml.safe_load(text.replace(line, wrong))])
    assert len(found) == len(render.releases())


def test_the_overlays_say_what_they_say():
    def claims(name: str) -> dict[str, list[str]]:
        return {
            document["metadata"]["name"]: document["spec"]["accessModes"]
            for document in kustomize.render(ROOT / "k8s" / name)
            if document["kind"] == "PersistentVolumeClaim"
        }

    def quotas(name: str) -> list[dict[str, str]]:
        documents = kustomize.render(ROOT / "k8s" / name)
        return [each["spec"]["hard"] for each in documents if each["kind"] == "ResourceQuota"]

    assert claims("overlays/gpu") == {
        "ieg-data": ["ReadWriteMany"],
        "ieg-results": ["ReadWriteMany"],
    }
    assert claims("overlays/single-node") == {
        "ieg-data": ["ReadWriteOnce"],
        "ieg-results": ["ReadWriteOnce"],
    }
    # What hits the namespace's other pods is applied on its own, or not at all.
    assert quotas("overlays/gpu") == [{"requests.nvidia.com/gpu": "8"}]
    assert quotas("overlays/spot") == [{"requests.nvidia.com/gpu": "16"}]
    assert quotas("overlays/single-node") == quotas("base") == []
    (ceilings,) = quotas("quota")
    assert "pods" in ceilings


def test_the_names_are_those_of_the_cluster_file():
    names = {
        (document["kind"], document["metadata"]["name"])
        for document in kustomize.render(ROOT / "k8s" / "base")
    }
    cluster_file = ClusterFile()
    assert ("ServiceAccount", cluster_file.service_account) in names
    assert ("PersistentVolumeClaim", cluster_file.data_claim) in names
    assert ("PersistentVolumeClaim", cluster_file.results_claim) in names


def test_the_volumes_are_prepared_for_the_pods_user():
    for name in ("prepare-volumes", "fill-data", "receive-data"):
        job = job_of(ROOT / "k8s" / "jobs" / name)
        security = kustomize.pod_spec(job)["securityContext"]
        user, group = ClusterFile().user_and_group
        assert security["runAsUser"] == user
        assert security["runAsGroup"] == security["fsGroup"] == group
    (job,) = kustomize.render(ROOT / "k8s/jobs/own-volumes")
    assert ClusterFile().pod_user in kustomize.containers(job)[0]["command"]


@pytest.mark.parametrize(("user", "keys"), [("2000:3000", (2000, 3000, 3000)), ("", (None,) * 3)])
@pytest.mark.parametrize("name", ["prepare-volumes", "fill-data", "receive-data"])
def test_the_jobs_run_as_the_cluster_files_user(name, user, keys, tmp_path):
    plan = render.write_plan(f"jobs/{name}", tmp_path, ClusterFile(pod_user=user), IMAGE)
    security = kustomize.pod_spec(job_of(plan))["securityContext"]
    assert tuple(map(security.get, ("runAsUser", "runAsGroup", "fsGroup"))) == keys
    assert security["runAsNonRoot"] is True
    assert policies.findings(kustomize.render(plan)) == []


JOBS = [name for name in NAMES if name.startswith("jobs/")]


@pytest.mark.parametrize("name", JOBS)
def test_a_mesh_gives_no_job_a_sidecar_that_never_ends(name):
    labels = job_of(ROOT / "k8s" / name)["spec"]["template"]["metadata"]["labels"]
    assert labels["sidecar.istio.io/inject"] == "false"


@pytest.mark.parametrize("account", ["mine", ""])
@pytest.mark.parametrize("name", JOBS)
def test_the_jobs_have_the_account_and_the_claims_of_the_sweeps_pods(name, account, tmp_path):
    """An image pull secret stands at the account."""
    cluster_file = ClusterFile(service_account=account, data_claim="d", results_claim="r")
    pod = kustomize.pod_spec(job_of(render.write_plan(name, tmp_path, cluster_file, IMAGE)))
    assert pod.get("serviceAccountName", "") == account
    claims = {
        v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]
    }
    assert claims.items() <= {"tmp": None, "data": "d", "results": "r"}.items()


@pytest.mark.parametrize("name", ["prepare-volumes", "own-volumes"])
def test_the_volumes_are_prepared_that_there_are(name, tmp_path):
    cluster_file = ClusterFile(results="gs://bucket/x")
    job = job_of(render.write_plan(f"jobs/{name}", tmp_path, cluster_file, IMAGE))
    (container,) = kustomize.containers(job)
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp", "/data"]
    assert [each["name"] for each in kustomize.pod_spec(job)["volumes"]] == ["tmp", "data"]
    words = [*container["command"], *container.get("args", [])]
    assert words[-1] == "/data"
    assert "/results" not in words


def test_the_job_that_prepares_volumes_tells_which_it_cannot_write(tmp_path, capsys, monkeypatch):
    (container,) = kustomize.containers(job_of(ROOT / "k8s/jobs/prepare-volumes"))
    script, *folders = container["args"]
    assert folders == ["/data", "/results"]
    (tmp_path / "file").write_text("no folder: even root cannot write into it")
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path), str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="1"):
        exec(script, {})
    written, not_written = capsys.readouterr().out.splitlines()
    assert written.startswith(f"{tmp_path} can be written by ")
    assert not_written.startswith(f"{tmp_path}/file cannot be written by ")


@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        ({}, {"ieg-data", "ieg-results"}),
        ({"results": "gs://bucket/x"}, {"ieg-data"}),
        ({"data_claim": ""}, {"ieg-results"}),
        ({"data_claim": "ours", "results_claim": "theirs"}, set()),
    ],
)
@pytest.mark.parametrize("name", ["overlays/gpu", "overlays/single-node"])
def test_no_volume_is_claimed_that_no_pod_mounts(name, settings, claims, tmp_path):
    plan = render.write_plan(name, tmp_path, ClusterFile(**settings), IMAGE)
    kind = "PersistentVolumeClaim"
    found = {d["metadata"]["name"] for d in kustomize.render(plan) if d["kind"] == kind}
    assert found == claims


def test_the_pods_reach_kfp_in_the_namespace_that_it_is_in(tmp_path):
    cluster_file = ClusterFile(kfp_namespace="ml")
    plan = render.write_plan("overlays/gpu", tmp_path, cluster_file, IMAGE)
    (policy,) = [each for each in kustomize.render(plan) if each["kind"] == "NetworkPolicy"]
    assert policy["metadata"]["namespace"] == "ml"
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", [])]
    names = [p["namespaceSelector"]["matchLabels"] for p in peers if "namespaceSelector" in p]
    assert names == [{"kubernetes.io/metadata.name": "ml"}]


def test_the_job_that_changes_owners_gives_the_volumes_to_the_pods_user(tmp_path):
    plan = render.write_plan("jobs/own-volumes", tmp_path, ClusterFile(pod_user="7:8"), IMAGE)
    job = job_of(plan)
    assert "7:8" in kustomize.containers(job)[0]["command"]


@pytest.mark.parametrize(
    ("cluster_file", "ports"),
    [
        (ClusterFile(), {443, 6443, 8443, 16443}),
        (ClusterFile(api_ports=(6443,)), {6443}),
        (ClusterFile(api_ports=(6443,), results="gs://bucket/x"), {443, 6443}),
    ],
)
def test_only_the_ports_that_are_needed_are_open_to_everywhere(cluster_file, ports, tmp_path):
    plan = render.write_plan("overlays/gpu", tmp_path, cluster_file, IMAGE)
    (policy,) = [each for each in kustomize.render(plan) if each["kind"] == "NetworkPolicy"]
    rules = [rule for rule in policy["spec"]["egress"] if "to" not in rule]
    assert {port["port"] for rule in rules for port in rule["ports"]} == {53, 5353, *ports}


def test_the_network_policy_is_for_the_pods_of_our_tasks():
    (policy,) = [
        document
        for document in kustomize.render(ROOT / "k8s/base")
        if document["kind"] == "NetworkPolicy"
    ]
    assert policy["spec"]["podSelector"]["matchLabels"] == dict([profiles.POD_LABEL])
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["ingress"] == []
    open_to_all = {
        port["port"]
        for rule in policy["spec"]["egress"]
        if "to" not in rule
        for port in rule["ports"]
    }
    assert open_to_all == {53, 5353, *ClusterFile().api_ports}


def test_a_quota_too_small_for_the_cluster_is_reported():
    documents = kustomize.render(ROOT / "k8s/overlays/gpu")
    cluster_file = dataclasses.replace(ClusterFile(), parallelism=9)
    (line,) = render.quota_warnings(documents, cluster_file, gpus=True)
    assert "8 requests.nvidia.com/gpu" in line
    assert "takes 9" in line
    assert render.quota_warnings(documents, cluster_file, gpus=False) == []


def test_a_broken_kustomization_is_one_line(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: []\npatches: [{path: p.yaml}]\n")
    (tmp_path / "p.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}")
    with pytest.raises(UserError, match=r"^cannot render .*no matches.*correct its") as error:
        kustomize.render(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_kubectl_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(kustomize.shutil, "which", lambda name, path: None)
    with pytest.raises(UserError, match="found no kubectl: run `make setup`"):
        kustomize.render(tmp_path)


def test_the_locked_kubectl_comes_before_the_one_on_path(tmp_path, monkeypatch):
    for place in ("locked", "path"):
        (tmp_path / place).mkdir()
        program = tmp_path / place / "kubectl"
        program.write_text(f"#!/bin/sh\necho 'from: {place}'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    monkeypatch.setattr(kustomize.sysconfig, "get_path", lambda name: str(tmp_path / "locked"))
    assert kustomize.render(tmp_path) == [{"from": "locked"}]
    (tmp_path / "locked" / "kubectl").unlink()
    assert kustomize.render(tmp_path) == [{"from": "path"}]


STOCK = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "workflow-controller-configmap"},
    "data": {
        "artifactRepository": "archiveLogs: true\n",
        "executor": "imagePullPolicy: IfNotPresent\n",
        "workflowDefaults": "spec:\n  templateDefaults:\n    retryStrategy:\n      limit: '2'\n"
        "      retryPolicy: OnError\n",
    },
}


def test_the_controllers_patch_changes_its_defaults_and_nothing_else(tmp_path):
    patch = yaml.safe_load((ROOT / "k8s/overlays/spot/workflow-controller-patch.yaml").read_text())
    (tmp_path / "patch.yaml").write_text(yaml.safe_dump({**STOCK, **patch}))
    plan = {"resources": ["stock.yaml"], "patches": [{"path": "patch.yaml"}]}
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(STOCK))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(plan))
    (merged,) = kustomize.render(tmp_path)
    assert merged["data"].keys() == STOCK["data"].keys()
    for key in ("artifactRepository", "executor"):
        assert merged["data"][key] == STOCK["data"][key]
    defaults = yaml.safe_load(merged["data"]["workflowDefaults"])
    retry = defaults["spec"]["templateDefaults"]["retryStrategy"]
    # No exit codes: a pod killed at its time limit has those of a lost one.
    assert retry == {"limit": "2", "retryPolicy": "OnTransientError"}


def test_make_manifests_writes_one_file_each_and_refuses_a_floating_image(tmp_path):
    def run(image: str) -> subprocess.CompletedProcess[str]:
        cluster_file = tmp_path / "cluster.yaml"
        cluster_file.write_text(f"namespace: team-vision\nimage: {image}\nparallelism: 2\n")
        command = [sys.executable, "-m", "pipelines.manifests.render", f"--cluster={cluster_file}"]
        return subprocess.run(
            [*command, f"--output={tmp_path / 'out'}"],
            cwd=ROOT,
            env={
                "PYTHONPATH": str(ROOT),
                "PATH": Path(shutil.which("git") or "").parent.as_posix(),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    done = run(IMAGE)
    assert done.returncode == 0, done.stderr
    written = sorted(path.stem for path in (tmp_path / "out").glob("*.yaml"))
    assert written == sorted(Path(name).name for name in NAMES)
    for job in yaml.safe_load_all((tmp_path / "out" / "fill-data.yaml").read_text()):
        assert job["metadata"]["namespace"] == "team-vision"
    done = run("ieg-python:latest")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("manifests: error: ")
