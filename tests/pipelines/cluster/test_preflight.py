# SPDX-License-Identifier: Apache-2.0
"""What is looked at before a sweep, through the real Kubernetes client."""

import time
from dataclasses import replace

import pytest

from ieg_core.errors import UserError
from pipelines import profiles
from pipelines.cluster import preflight
from pipelines.site import GpuPool, Site, Toleration
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kubernetes_api import kubernetes_api, node, write_kubeconfig

INPUTS = {
    "dataset": {"parameterType": "STRING", "defaultValue": "digits"},
    "seeds": {"parameterType": "LIST", "defaultValue": [0]},
    "steps": {"parameterType": "NUMBER_INTEGER"},
    "tolerance": {"parameterType": "NUMBER_DOUBLE", "isOptional": True},
    "accelerator": {"parameterType": "BOOLEAN", "defaultValue": False},
}
SPEC = {"root": {"inputDefinitions": {"parameters": INPUTS}}}
TAINT = ("nvidia.com/gpu", "present", "NoSchedule")


def test_arguments_that_fit():
    preflight.check_arguments(SPEC, {"steps": 3, "seeds": [1, 2], "accelerator": True})
    preflight.check_arguments(SPEC, {"steps": 3, "tolerance": 1, "dataset": ""})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"steps": 3, "datset": "a"},
            "unknown pipeline parameter 'datset': did you mean 'dataset'",
        ),
        ({"steps": "3"}, "pipeline parameter steps: expected a whole number, got '3'"),
        ({"steps": 3.5}, "steps: expected a whole number, got 3.5"),
        ({"steps": True}, "steps: expected a whole number, got True"),
        ({"steps": 3, "seeds": "0,1"}, "seeds: expected a list, got '0,1'"),
        ({"steps": 3, "accelerator": 1}, "accelerator: expected true or false, got 1"),
        ({"steps": 3, "tolerance": "1"}, "tolerance: expected a number"),
        ({}, "steps has no value and no default"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(UserError, match=message):
        preflight.check_arguments(SPEC, arguments)


@pytest.fixture
def cluster(no_cluster, tmp_path):
    with kubernetes_api(token="t") as stub:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", stub)
        yield stub


def look(site=None):
    site = site or Site()
    return preflight.look(site, profiles.gpu(site).placements["train"], preflight.reach(site))


def policy(text):
    return [{"metadata": {"name": preflight.CONTROLLER}, "data": {"workflowDefaults": text}}]


ALWAYS = "spec: {templateDefaults: {retryStrategy: {limit: 2, retryPolicy: Always}}}"


def test_without_access_the_sweep_goes_on(no_cluster):
    (line,) = look()
    assert "No access to the Kubernetes API" in line


def test_a_context_that_is_not_there_is_no_access(cluster):
    assert preflight.reach(Site(kube_context="stub")) is not None
    assert preflight.reach(Site(kube_context="elsewhere")) is None


def test_nodes_that_are_ready_are_counted(cluster):
    cluster.nodes = [
        node("a", gpus=4, taints=[TAINT]),
        node("b", gpus=2),
        node("c", gpus=8, ready=False),
        node("cpu", gpus=0),
    ]
    cluster.configmaps["kubeflow"] = policy(ALWAYS)
    assert look() == [
        "GPU nodes: 2 ready, 6 nvidia.com/gpu in all",
        "Retries: killed, evicted and pre-empted pods are tried again (Always)",
    ]


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        ([], "no node offers nvidia.com/gpu now"),
        ([node(gpus=0)], "no node offers nvidia.com/gpu now"),
        ([node(ready=False)], "gpu-1 is not ready"),
        ([node(unschedulable=True)], "gpu-1 is cordoned"),
        ([node(taints=[("team", "a", "NoSchedule")])], "has the taint team=a:NoSchedule"),
        ([node(taints=[("team", "", "NoExecute")])], "has the taint team=:NoExecute"),
    ],
)
def test_no_node_for_a_training_is_a_warning_where_nodes_come_on_demand(cluster, offered, words):
    cluster.nodes = offered
    line = look()[0]
    assert line.startswith("warning: ")
    assert words in line
    with pytest.raises(UserError, match=words.replace("=", ".")):
        look(Site(gpu=GpuPool(autoscaled=False)))


def test_a_soft_taint_keeps_no_training_away(cluster):
    cluster.nodes = [node(taints=[("team", "a", "PreferNoSchedule")])]
    assert look()[0] == "GPU nodes: 1 ready, 1 nvidia.com/gpu in all"


def test_selector_and_number_of_gpus_count(cluster):
    cluster.nodes = [node(gpus=1, labels={"pool": "a"})]
    fits = Site(gpu=GpuPool(node_selector={"pool": "a"}))
    assert "1 ready" in look(fits)[0]
    other = Site(gpu=GpuPool(node_selector={"pool": "b"}))
    assert "has not the label pool=b" in look(other)[0]
    two = replace(fits, gpu=replace(fits.gpu, count=2))
    assert "offers 1 GPUs where a training wants 2" in look(two)[0]


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Toleration("team", "Equal", "a", "NoSchedule"), True),
        (Toleration("team", "Equal", "a"), True),
        (Toleration("team"), True),
        (Toleration(), True),
        (Toleration("team", "Equal", "b", "NoSchedule"), False),
        (Toleration("team", effect="NoExecute"), False),
        (Toleration("other"), False),
    ],
)
def test_tolerations_follow_kubernetes_rules(cluster, toleration, tolerated):
    cluster.nodes = [node(taints=[("team", "a", "NoSchedule")])]
    found = look(Site(gpu=GpuPool(tolerations=(toleration,))))[0]
    assert found.startswith("GPU nodes: 1") is tolerated


def test_a_missing_right_is_said_and_costs_nothing_more(cluster):
    cluster.rights = frozenset()
    assert look() == [
        "GPU nodes not looked at: you may not list nodes (HTTP 403)",
        "Retry policy not looked at: you may not read workflow-controller-configmap (HTTP 403)",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "spec: {templateDefaults: {retryStrategy: {retryPolicy: OnError}}}",
            "is OnError: pods that run out",
        ),
        ("spec: {retryStrategy: {limit: 2, retryPolicy: OnTransientError}}", "OnTransientError"),
        ("spec: {templateDefaults: {retryStrategy: {limit: 2}}}", "OnFailure (its default)"),
        ("", "OnFailure (its default)"),
        ("[not, an, object]", "OnFailure (its default)"),
    ],
)
def test_a_policy_that_does_not_retry_lost_pods_is_a_warning(cluster, text, words):
    cluster.configmaps["kubeflow"] = policy(text)
    line = look()[1]
    assert line.startswith("warning: retries")
    assert words in line


def test_the_policy_is_found_in_a_single_configuration_too():
    data = {"config": f"workflowDefaults: {{{ALWAYS}}}"}
    assert preflight.retry_policy(data) == "Always"


def test_rights_are_asked_for_in_a_profile_namespace(cluster):
    site = Site(namespace="team")
    assert not any("create runs" in line for line in look(site))
    cluster.reviews = frozenset()
    assert any("may not create runs in team" in line for line in look(site))


def test_a_cluster_that_does_not_answer_costs_seconds_and_a_line(cluster):
    cluster.faults.append(Fault(delay=6.0))
    began = time.monotonic()
    (line,) = look()
    assert time.monotonic() - began < 5
    assert "does not answer" in line


def test_no_nodes_are_looked_at_for_trainings_on_cpus(cluster):
    site = Site()
    train = profiles.cpu(site).placements["train"]
    preflight.look(site, train, preflight.reach(site))
    assert cluster.seen("GET", "/nodes") == []
