# SPDX-License-Identifier: Apache-2.0
"""Each policy holds for what k8s/ holds, and catches a manifest that breaks it."""

import copy
import functools
import tempfile
from pathlib import Path

import pytest

from pipelines.cluster_files import ClusterFile
from pipelines.manifests import kustomize, policies, render

ROOT = Path(__file__).parents[3]
OVERLAYS = render.kustomizations()


@functools.cache
def rendered(name: str) -> list[kustomize.Document]:
    with tempfile.TemporaryDirectory() as folder:
        image = "registry.example/ieg-python:1a2b3c4d"
        return kustomize.render(render.write_plan(name, Path(folder), ClusterFile(), image))


def changed(name: str, kind: str, path: str, value: object):
    """Returns a rendering in which one value of its first object of a kind is another, or gone."""
    documents = copy.deepcopy(rendered(name))
    place = next(document for document in documents if document["kind"] == kind)
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in way:
        place = place[key] if isinstance(place, list) else place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return documents


def test_there_is_something_to_hold_to():
    assert {"overlays/gpu", "overlays/spot", "overlays/single-node", "submitters"} < set(OVERLAYS)
    assert "base" not in OVERLAYS


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_we_ship_keeps_to_every_policy(name):
    assert policies.findings(rendered(name)) == []


POD = "spec/template/spec"
MAIN = f"{POD}/containers/0"
JOB = "jobs/prepare-volumes"
BROKEN = [
    (policies.floating_image, JOB, "Job", f"{MAIN}/image", "ieg-python:latest", "fixed tag"),
    (policies.floating_image, JOB, "Job", f"{MAIN}/image", "host:5000/ieg-python", "fixed tag"),
    (policies.floating_image, JOB, "Job", f"{MAIN}/image", "ieg-python:revision", "fixed tag"),
    (policies.root, JOB, "Job", f"{POD}/securityContext/runAsNonRoot", None, "runAsNonRoot"),
    (policies.root, JOB, "Job", f"{POD}/securityContext/runAsUser", 0, "runAsUser"),
    (policies.root, JOB, "Job", f"{MAIN}/securityContext/runAsUser", 0, "runAsUser"),
    (policies.root, JOB, "Job", f"{MAIN}/securityContext/capabilities/drop", [], "drop"),
    (policies.root, JOB, "Job", f"{MAIN}/securityContext/capabilities/add", ["CHOWN"], "adds"),
    (policies.root, JOB, "Job", f"{MAIN}/securityContext/allowPrivilegeEscalation", True, "false"),
    (policies.root, JOB, "Job", f"{MAIN}/securityContext/readOnlyRootFilesystem", None, "true"),
    (policies.root, JOB, "Job", f"{POD}/securityContext/seccompProfile", None, "RuntimeDefault"),
    (
        policies.root,
        "jobs/own-volumes",
        "Job",
        f"{MAIN}/securityContext/capabilities/add",
        ["CHOWN", "SYS_ADMIN"],
        "SYS_ADMIN",
    ),
    (policies.hosts, JOB, "Job", f"{POD}/hostNetwork", True, "hostNetwork"),
    (policies.hosts, JOB, "Job", f"{POD}/volumes/0/hostPath", {"path": "/etc"}, "/etc"),
    (policies.hosts, JOB, "Job", f"{POD}/automountServiceAccountToken", None, "Token"),
    (policies.unbounded, JOB, "Job", f"{MAIN}/resources/requests/cpu", None, "requests of cpu"),
    (policies.unbounded, JOB, "Job", f"{MAIN}/resources/limits/memory", None, "limits of memory"),
    (policies.wide_rights, "overlays/gpu", "Role", "rules/0/verbs", ["*"], "'*'"),
    (policies.wide_rights, "overlays/gpu", "Role", "rules/1/resources", ["pods", "*"], "'*'"),
    (policies.wide_rights, "overlays/gpu", "Role", "rules/3/resourceNames", None, "by name"),
    (policies.wide_rights, "overlays/gpu", "Role", "rules/3/verbs", ["get", "list"], "only get"),
    (
        policies.wide_rights,
        "overlays/gpu",
        "Role",
        "rules/1/resources",
        ["pods/exec"],
        "escalation",
    ),
    (policies.wide_rights, "overlays/gpu", "RoleBinding", "roleRef/name", "admin", "admin"),
    (policies.wide_rights, "submitters", "ClusterRole", "rules/0/verbs", ["*"], "'*'"),
    (policies.foreign, "overlays/gpu", "ServiceAccount", "kind", "Namespace", "namespace"),
    (
        policies.foreign,
        "overlays/gpu",
        "ServiceAccount",
        "metadata/namespace",
        "default",
        "['default', 'kubeflow']",
    ),
    (policies.quota_alone, "quota", "LimitRange", "spec/limits", [], "requests.cpu"),
    (
        policies.quota_alone,
        "quota",
        "LimitRange",
        "spec/limits/0/default/memory",
        None,
        "limits.memory",
    ),
    (
        policies.unshared_volume,
        "overlays/gpu",
        "PersistentVolumeClaim",
        "spec/accessModes",
        ["ReadWriteOnce"],
        "ReadWriteMany",
    ),
    (
        policies.unshared_volume,
        "overlays/single-node",
        "PersistentVolumeClaim",
        "spec/accessModes",
        ["ReadWriteOncePod"],
        "ReadWriteMany",
    ),
    (
        policies.unshared_volume,
        "overlays/single-node",
        "PersistentVolumeClaim",
        "metadata/annotations",
        None,
        "ReadWriteMany",
    ),
]


@pytest.mark.parametrize(("policy", "name", "kind", "path", "value", "told"), BROKEN)
def test_a_policy_catches_what_breaks_it(policy, name, kind, path, value, told):
    found = policy(changed(name, kind, path, value))
    assert found
    assert any(told in line for line in found), found


def test_every_policy_has_a_manifest_that_breaks_it():
    assert {case[0] for case in BROKEN} == set(policies.ALL)


def test_one_trial_at_a_time_may_have_a_volume_of_one_node():
    path, value = "spec/accessModes", ["ReadWriteOnce"]
    documents = changed("overlays/gpu", "PersistentVolumeClaim", path, value)
    assert policies.findings(documents, parallelism=1) == []
    (found,) = policies.findings(documents, parallelism=2)
    assert "ReadWriteOnce" in found


def test_only_one_job_runs_as_root():
    documents = [
        document
        for path in sorted((ROOT / "k8s" / "jobs").glob("*/kustomization.yaml"))
        for document in kustomize.render(path.parent)
    ]
    roots = [
        document["metadata"]["name"]
        for document in documents
        if kustomize.pod_spec(document).get("securityContext", {}).get("runAsUser") == 0
    ]
    assert roots == [policies.OWNER]
