# SPDX-License-Identifier: Apache-2.0
"""What is looked at before a sweep, through the real Kubernetes client."""

import time
from dataclasses import replace

import pytest

from ieg_core.errors import UserError
from pipelines import profiles
from pipelines.cluster import preflight
from pipelines.cluster_files import ClusterFile, GpuNodePool, Toleration
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kubernetes_api import claim, kubernetes_api, node, write_kubeconfig

TAINT = ("nvidia.com/gpu", "present", "NoSchedule")


@pytest.fixture
def cluster(no_cluster, tmp_path):
    with kubernetes_api(token="t") as stub:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", stub)
        yield stub


def look(cluster_file=None):
    cluster_file = cluster_file or ClusterFile()
    return preflight.look(cluster_file, profiles.gpu(cluster_file), preflight.reach(cluster_file))


def policy(text):
    return [{"metadata": {"name": preflight.CONTROLLER}, "data": {"workflowDefaults": text}}]


ALWAYS = "spec: {templateDefaults: {retryStrategy: {limit: 2, retryPolicy: Always}}}"


def test_without_access_the_sweep_goes_on(no_cluster):
    (line,) = look()
    assert line.startswith("No access to the Kubernetes API: ")
    assert line.endswith("No configuration found; see `kubectl config view`")


CONTEXT = b"{current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- a\n", "list indices"),
        (b"hello\n", "item assignment"),
        (b"a: [\n", "while parsing a flow node"),
        (b"\xff\xfea\x00", "can't decode"),
        (b"{current-context: a, contexts: [1]}", "not iterable"),
        (CONTEXT + b"clusters: [{name: a, cluster: {server: 5}}], users: []}", "'int' object"),
        (
            CONTEXT + b"clusters: [{name: a, cluster: {server: 'http://a'}}],"
            b"users: [{name: a, user: {username: a, password: 5}}]}",
            "can only concatenate str",
        ),
        (
            b"{current-context: a, contexts: [{name: a, token: secret}]}",
            "Expected key context in ",
        ),
    ],
)
def test_a_kubeconfig_that_is_none_is_no_access_and_said(no_cluster, tmp_path, content, words):
    (tmp_path / "home" / "kubeconfig").write_bytes(content)
    (line,) = look()
    assert line.startswith("No access to the Kubernetes API: ")
    assert words in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "body", ["<html>Log in</html>", "", "null", "[]", '{"kind": "Status", "status": "Failure"}']
)
def test_what_is_no_answer_of_the_api_ends_the_checks_with_a_line(cluster, body):
    cluster.faults.append(Fault(status=200, body=body))
    (line,) = look()
    assert "does not answer, remaining checks skipped: its answer is" in line


def test_a_token_that_is_no_header_ends_the_checks_with_a_line(cluster, tmp_path):
    cluster.token = "t\nu"
    write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
    (line,) = look()
    assert "remaining checks skipped: Invalid header value" in line


def test_a_context_that_is_not_there_is_no_access(cluster):
    assert preflight.reach(ClusterFile(kube_context="stub")) is not None
    assert preflight.reach(ClusterFile(kube_context="elsewhere")) is None
    (line,) = look(ClusterFile(kube_context="elsewhere"))
    assert "elsewhere" in line


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
        "Retries: killed, evicted and preempted pods are retried (Always)",
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
        ([node(cpu="2930m")], "offers 2930m of cpu, resources.train requests 3"),
        ([node(memory="7Gi")], "offers 7Gi of memory, resources.train requests 8Gi"),
    ],
)
def test_no_node_for_a_training_is_a_warning_where_nodes_come_on_demand(cluster, offered, words):
    cluster.nodes = offered
    line = look()[0]
    assert line.startswith("warning: ")
    assert words in line
    with pytest.raises(UserError, match=words.replace("=", ".")):
        look(ClusterFile(gpu=GpuNodePool(autoscaled=False)))


def test_a_soft_taint_keeps_no_training_away(cluster):
    cluster.nodes = [node(taints=[("team", "a", "PreferNoSchedule")])]
    assert look()[0] == "GPU nodes: 1 ready, 1 nvidia.com/gpu in all"


def test_selector_and_number_of_gpus_count(cluster):
    cluster.nodes = [node(gpus=1, labels={"pool": "a"})]
    fits = ClusterFile(gpu=GpuNodePool(node_selector={"pool": "a"}))
    assert "1 ready" in look(fits)[0]
    other = ClusterFile(gpu=GpuNodePool(node_selector={"pool": "b"}))
    assert "lacks the label pool=b" in look(other)[0]
    two = replace(fits, gpu=replace(fits.gpu, count=2))
    assert "offers 1 GPUs, a training needs 2" in look(two)[0]


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
    found = look(ClusterFile(gpu=GpuNodePool(tolerations=(toleration,))))[0]
    assert found.startswith("GPU nodes: 1") is tolerated


def test_a_missing_right_is_said_and_costs_nothing_more(cluster):
    cluster.rights = frozenset()
    assert look() == [
        "GPU nodes not checked: you may not list nodes (HTTP 403)",
        "warning: volume claim not checked: you may not read ieg-data (HTTP 403)",
        "warning: volume claim not checked: you may not read ieg-results (HTTP 403)",
        "Retry policy not checked: you may not read workflow-controller-configmap (HTTP 403)",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "spec: {templateDefaults: {retryStrategy: {retryPolicy: OnError}}}",
            "is OnError: pods that are preempted or evicted are not retried",
        ),
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
    assert "costs the run its report" in line


def test_a_policy_that_retries_preempted_pods_is_none(cluster):
    text = "spec: {retryStrategy: {limit: 2, retryPolicy: OnTransientError}}"
    cluster.configmaps["kubeflow"] = policy(text)
    assert look()[1].startswith("Retries: preempted and evicted pods are retried")


def test_the_policy_is_found_in_a_single_configuration_too():
    data = {"config": f"workflowDefaults: {{{ALWAYS}}}"}
    assert preflight.retry_policy(data) == "Always"


def test_rights_are_asked_for_in_a_profile_namespace(cluster):
    cluster_file = ClusterFile(namespace="team")
    cluster.claims["team"] = cluster.claims["kubeflow"]
    assert not any("create runs" in line for line in look(cluster_file))
    cluster.reviews = frozenset()
    assert any("may not create runs in team" in line for line in look(cluster_file))


def test_a_cluster_that_does_not_answer_costs_seconds_and_a_line(cluster):
    cluster.faults.append(Fault(delay=300.0))
    began = time.monotonic()
    (line,) = look()
    assert time.monotonic() - began < 60  # five, but of a machine that may be busy
    assert "does not answer" in line


def test_no_nodes_are_looked_at_for_trainings_on_cpus(cluster):
    cluster_file = ClusterFile()
    preflight.look(cluster_file, profiles.cpu(cluster_file), preflight.reach(cluster_file))
    assert cluster.seen("GET", "/nodes") == []


ONCE, MANY, READ_MANY = "ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"


@pytest.fixture
def two_nodes(cluster):
    cluster.nodes = [node("cpu", gpus=0), node("gpu", taints=[TAINT])]
    return cluster


def refusal(cluster_file=None):
    with pytest.raises(UserError) as error:
        look(cluster_file)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "results", "refused"),
    [
        ([MANY], [MANY], ""),
        ([ONCE, MANY], [MANY], ""),
        ([ONCE], [MANY], "ieg-data"),
        ([MANY], [ONCE], "ieg-results"),
        ([MANY], [READ_MANY], "ieg-results"),
        (["ReadWriteOncePod"], [MANY], "ieg-data"),
    ],
)
def test_a_claim_for_one_node_is_refused_on_two(two_nodes, data, results, refused):
    two_nodes.claims["kubeflow"] = [claim("ieg-data", *data), claim("ieg-results", *results)]
    if not refused:
        assert not any("claim" in line for line in look())
        return
    message = refusal()
    mode = (data if refused == "ieg-data" else results)[0]
    assert message.startswith(
        f"the volume claim {refused} is {mode}, but 4 concurrent trials are spread over 2 nodes: "
        "use a storage class with ReadWriteMany"
    )
    assert "build/k8s/single-node.yaml on a cluster of one node" in message
    # Data sets are read from a folder, whatever the results root is.
    assert ("results: gs://" in message) is (refused == "ieg-results")


def test_a_claim_that_is_only_read_may_not_attach_twice(two_nodes):
    two_nodes.claims["kubeflow"] = [claim("ieg-data", READ_MANY), claim("ieg-results", MANY)]
    (line,) = (line for line in look() if "claim" in line)
    assert line.startswith("warning: the volume claim ieg-data is ReadOnlyMany: ")
    assert not any("claim" in line for line in look(ClusterFile(parallelism=1)))


def once(cluster, namespace="kubeflow"):
    cluster.claims[namespace] = [claim("ieg-data", ONCE), claim("ieg-results", ONCE)]


def test_a_claim_for_one_node_is_enough_for_one_trial_at_once(two_nodes):
    once(two_nodes)
    assert not any("claim" in line for line in look(ClusterFile(parallelism=1)))


@pytest.mark.parametrize(
    "other",
    [
        node(
            "control", gpus=0, taints=[("node-role.kubernetes.io/control-plane", "", "NoSchedule")]
        ),
        node("theirs", gpus=0, labels={"team": "other"}, taints=[("team", "other", "NoExecute")]),
    ],
)
def test_nodes_that_no_pod_of_ours_can_use_do_not_count(cluster, other):
    once(cluster)
    cluster.nodes = [node("kind", gpus=1), other]
    assert not any("claim" in line for line in look())
    cluster.nodes[1]["spec"]["taints"] = []
    assert "ieg-data is ReadWriteOnce" in refusal()


def test_a_claim_for_one_pod_is_refused_on_one_node_too(cluster):
    cluster.nodes = [node()]
    cluster.claims["kubeflow"][1] = claim("ieg-results", "ReadWriteOncePod")
    assert "ieg-results is ReadWriteOncePod, but 4 concurrent trials" in refusal()


def test_only_the_claims_that_are_mounted_are_looked_at(two_nodes):
    two_nodes.claims["kubeflow"] = [claim("ieg-data")]
    assert not any("claim" in line for line in look(ClusterFile(results="gs://bucket/ieg")))
    assert len(two_nodes.seen("GET", "/persistentvolumeclaims/")) == 1
    look(ClusterFile(results="gs://bucket/ieg", data_claim=""))
    assert len(two_nodes.seen("GET", "/persistentvolumeclaims/")) == 1


def test_a_claim_that_is_not_there_is_refused(cluster):
    cluster.claims["team"] = [claim("ieg-data")]
    message = refusal(ClusterFile(namespace="team", parallelism=1))
    place = f"in the namespace team of {cluster.url}"
    assert message.startswith(f"there is no volume claim ieg-results {place}: apply")
    assert "results_claim in cluster.yaml" in message


def test_claims_that_may_not_be_read_and_nodes_that_may_not_be_counted_are_a_warning(two_nodes):
    once(two_nodes)
    two_nodes.rights = two_nodes.rights - {("list", "nodes")}
    (line,) = [line for line in look() if "ieg-data" in line]
    assert line == (
        "warning: ieg-data (ReadWriteOnce) and ieg-results (ReadWriteOnce) can be mounted on one "
        "node only; nodes not checked: you may not list nodes (HTTP 403)"
    )
    two_nodes.rights = two_nodes.rights - {("get", "persistentvolumeclaims")}
    lines = [line for line in look() if "claim" in line]
    assert all(line.startswith("warning: volume claim not checked") for line in lines)
    assert len(lines) == 2
