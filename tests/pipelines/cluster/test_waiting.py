# SPDX-License-Identifier: Apache-2.0
"""Why a trial waits, through the real Kubernetes client."""

import base64
import gzip
import json

import pytest

from pipelines.cluster import preflight, waiting
from pipelines.cluster_files import ClusterFile
from tests.pipelines.stubs.kubernetes_api import event, kubernetes_api, pod, write_kubeconfig

RUN = "run-1"


@pytest.fixture
def cluster(no_cluster, tmp_path):
    with kubernetes_api() as stub:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", stub)
        yield stub


def look(*runs):
    return waiting.look(preflight.reach(ClusterFile()), "kubeflow", runs or (RUN,))


def unscheduled(message):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {"conditions": [{**condition, "message": message}]}


def container(reason, message=None):
    state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
    status = {"name": "main", "image": "r/ieg-python:1", "imageID": "", "ready": False}
    return {"containerStatuses": [{**status, "restartCount": 0, "state": state}]}


@pytest.mark.parametrize(
    ("status", "events", "reason"),
    [
        (
            unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            [],
            "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        ),
        (
            container("ImagePullBackOff", 'Back-off pulling image "r/ieg-python:1"'),
            [],
            'ImagePullBackOff: Back-off pulling image "r/ieg-python:1"',
        ),
        (container("ErrImagePull"), [], "ErrImagePull: r/ieg-python:1"),
        (container("CreateContainerConfigError", "secret not found"), [], "secret not found"),
        (
            container("ContainerCreating"),
            [event("train-1", "FailedMount", 'claim "ieg-data" not found')],
            'FailedMount: claim "ieg-data" not found',
        ),
        (
            container("PodInitializing"),
            [
                event("train-1", "Pulled", "done") | {"type": "Normal"},
                event("train-1", "Failed", "a") | {"involvedObject": {"kind": "Job", "name": "t"}},
            ],
            "its node is pulling the image or mounting the volumes",
        ),
        (container("PodInitializing"), [], "its node is pulling the image or mounting the volumes"),
    ],
)
def test_a_pending_pod_says_why(cluster, status, events, reason):
    cluster.pods["kubeflow"] = [pod(RUN, "digits-l2r-seed0-1", **status)]
    cluster.events["kubeflow"] = events
    found = look().waiting
    assert list(found) == ["digits-l2r-seed0-1"]
    assert reason in found["digits-l2r-seed0-1"]
    (asked,) = [each.query for each in cluster.requests if each.path.endswith("/events")]
    assert asked == {"fieldSelector": "involvedObject.kind=Pod,type=Warning"}


def test_only_this_runs_pods_count(cluster):
    cluster.pods["kubeflow"] = [
        pod(RUN, "a", "p1", phase="Running"),
        pod(RUN, "b", "p2", phase="Succeeded"),
        pod("other", "c", "p3"),
    ]
    assert look() == waiting.Pods(running=1)
    assert list(look(RUN, "other").waiting) == ["c"]


def test_a_pod_of_no_trial_goes_by_its_own_name(cluster):
    made = pod(RUN, "", "prepare-1", **unscheduled("0/1 nodes are available"))
    made["spec"]["containers"][1]["args"] = ["--executor_input", "{}"]
    cluster.pods["kubeflow"] = [made]
    assert list(look().waiting) == ["prepare-1"]


def quota(trial):
    executor = json.dumps({"inputs": {"parameterValues": {"trials": trial}}})
    return {
        "id": "node-1",
        "phase": "Pending",
        "displayName": "executor",
        "message": 'pods "x" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4',
        "inputs": {"parameters": [{"name": "executor-input", "value": executor}]},
    }


@pytest.mark.parametrize("packed", [False, True])
def test_a_quota_leaves_no_pod_but_argo_knows(cluster, packed):
    nodes = {"node-1": quota("trial-a"), "node-0": {"id": "node-0", "phase": "Succeeded"}}
    text = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    status = {"compressedNodes": text} if packed else {"nodes": nodes}
    cluster.workflows["kubeflow"] = [
        {"metadata": {"name": "w", "labels": {"pipeline/runid": RUN}}, "status": status}
    ]
    found = look().waiting
    assert list(found) == ["trial-a"]
    assert "exceeded quota: gpus" in found["trial-a"]


def test_missing_rights_are_told_once(cluster):
    cluster.rights = frozenset()
    assert look().note == "why trials wait cannot be seen: you may not list pods (HTTP 403)"
    cluster.rights = frozenset({("list", "pods")})
    cluster.pods["kubeflow"] = [pod(RUN, "a", **unscheduled("no room"))]
    found = look(RUN, RUN)
    assert found.waiting == {"a": "Unschedulable: no room"}
    assert found.note == (
        "events cannot be seen: you may not list events (HTTP 403); "
        "quota cannot be seen: you may not list workflows (HTTP 403)"
    )


def test_a_long_reason_is_cut(cluster):
    cluster.pods["kubeflow"] = [pod(RUN, "a", **unscheduled("no\nroom " * 100))]
    reason = look().waiting["a"]
    assert len(reason) <= waiting.MAX_REASON
    assert "\n" not in reason
