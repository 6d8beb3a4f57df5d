# SPDX-License-Identifier: Apache-2.0
"""Runs of which nothing works are canceled."""

import pytest

from ieg_core.errors import UserError
from pipelines.cluster import client as clients
from pipelines.cluster import follow
from tests.clock import FakeClock
from tests.pipelines.cluster.test_follow import TRIALS, created, followed
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kubernetes_api import kubernetes_api, pod, write_kubeconfig


@pytest.mark.parametrize("seen", [True, False])
def test_runs_that_only_wait_are_canceled(kfp_stub, tmp_path, seen):
    kfp_stub.script = ("PENDING",)
    cluster_file, run = created(kfp_stub)
    status = {
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "full",
            }
        ]
    }
    with kubernetes_api() as cluster:
        if seen:
            write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
            cluster.pods["kubeflow"] = [pod(run.run_id, TRIALS[1], **status)]
        code, said = followed(cluster_file, run, max_pending=1)
    assert code == 1
    assert len(kfp_stub.seen("POST", ":terminate$")) == 1
    assert "Canceled: no pod has run for MAX_PENDING=1 minutes" in said
    assert ("minutes: Unschedulable: full" in said) is seen
    assert said.index("CANCELING") < said.index("FAILED (canceled): digits-1")


def test_a_run_that_cannot_be_canceled_keeps_no_other_from_it(kfp_stub):
    kfp_stub.script = ("PENDING",)
    cluster_file, one = created(kfp_stub)
    _, other = created(kfp_stub, run_label="digits-2")
    kfp_stub.faults.append(Fault(status=403, path=f"{one.run_id}:terminate$"))
    with pytest.raises(UserError, match="cancel the run"):
        followed(cluster_file, one, other, max_pending=1)
    assert kfp_stub.seen("POST", f"{other.run_id}:terminate$")


def test_a_run_that_has_just_ended_needs_no_canceling(kfp_stub):
    kfp_stub.script = ("SUCCEEDED",)
    cluster_file, run = created(kfp_stub)
    client = clients.connect(cluster_file)
    client.get_run(run.run_id)
    follow.cancel(client, cluster_file, run.run_id)
    kfp_stub.set_state(run.run_id, "RUNNING")
    with pytest.raises(UserError, match=r"could not cancel the run: .* Row not found"):
        follow.cancel(client, cluster_file, run.run_id)


def test_a_run_that_works_is_not_canceled(kfp_stub, tmp_path):
    kfp_stub.script = ("RUNNING",) * 12 + ("SUCCEEDED",)
    cluster_file, run = created(kfp_stub)
    with kubernetes_api() as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
        cluster.pods["kubeflow"] = [
            pod(run.run_id, TRIALS[0], "p1", phase="Running"),
            pod(run.run_id, TRIALS[1], "p2"),
        ]
        code, _ = followed(cluster_file, run, max_pending=1)
    assert code == 0
    assert kfp_stub.seen("POST", ":terminate$") == []


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_run_whose_pods_can_no_longer_be_seen_is_not_canceled(kfp_stub, tmp_path, seen_before):
    """The token of the kubeconfig has expired; the pods run on."""
    kfp_stub.script = ("RUNNING",) * 12 + ("SUCCEEDED",)
    cluster_file, run = created(kfp_stub)
    with kubernetes_api() as cluster:
        path = tmp_path / "home" / "kubeconfig"
        write_kubeconfig(path, cluster)
        cluster.pods["kubeflow"] = [pod(run.run_id, TRIALS[0], "p1", phase="Running")]
        expired = Fault(status=401, path="/pods", body='{"message": "Unauthorized"}')

        def scenes():
            yield
            cluster.faults.append(expired)
            for _ in range(9):
                yield
            cluster.faults.clear()
            yield

        if not seen_before:
            cluster.faults.append(expired)
        clock = FakeClock(scenes() if seen_before else ())
        code, said = followed(cluster_file, run, max_pending=1, clock=clock)
    assert code == 0
    assert "why trials wait cannot be seen: you may not list pods (HTTP 401)" in said
    assert kfp_stub.seen("POST", ":terminate$") == []
