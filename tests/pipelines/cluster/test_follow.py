# SPDX-License-Identifier: Apache-2.0
"""Following runs to their true end."""

import io
import json
import signal
import time
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from ieg_core.host.liveness import STALE_SECONDS
from ieg_core.store.seal import seal
from pipelines import __main__ as command_line
from pipelines.cluster import client as clients
from pipelines.cluster import submit
from pipelines.cluster.follow import PATIENCE_SECONDS, cancel, follow
from pipelines.cluster.run_root import root_of
from pipelines.cluster_files import ClusterFile
from tests.clock import FakeClock
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kubernetes_api import kubernetes_api, pod, write_kubeconfig
from tests.records import KINDS, put

TRIALS = ("digits-l2r-seed0-aaaaaaaaaaaa", "digits-ieg-seed0-bbbbbbbbbbbb")
IMAGE = "registry.example.org/ieg-python:1a2b3c"


@pytest.fixture
def mounted(tmp_path):
    """A results root that this machine sees, and what writes into it."""
    root = tmp_path / "mounted"
    root.mkdir()
    return root


def write(root: Path, name: str, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name in KINDS:
        put(path, **content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(seal(content)))


def created(stub, root=None, **parameters):
    """Creates a run; returns the cluster and the run."""
    cluster_file = ClusterFile(endpoint=stub.url, image=IMAGE, results_mount=str(root or ""))
    client = clients.connect(cluster_file)
    body = {"pipeline_spec": SPEC}
    given = {"run_label": "digits-1"} | parameters
    return cluster_file, submit.create_run(
        client, cluster_file, "", given["run_label"], given, body
    )


SPEC = {
    "pipelineInfo": {"name": "tiny"},
    "root": {
        "inputDefinitions": {
            "parameters": {
                name: {"parameterType": kind, "isOptional": True}
                for name, kind in {
                    "run_label": "STRING",
                    "results": "STRING",
                    "results_namespace": "STRING",
                    "part": "NUMBER_INTEGER",
                    "parts": "NUMBER_INTEGER",
                }.items()
            }
        },
        "dag": {"tasks": {}},
    },
}


def planned(root, label="digits-1"):
    write(
        root,
        f"runs/{label}.json",
        {"schema": 1, "sweep": "digits-0a", "trials": list(TRIALS), "part": 1, "parts": 1},
    )


def result():
    return {"steps": 600, "steps_per_second": 5.0, "accuracy_ema_last": 0.9}


def followed(cluster_file, *runs, scenes=(), **settings):
    """Follows runs, with what happens from one look to the next; returns the code and the text."""
    settings = {"stream": io.StringIO(), "clock": FakeClock(scenes)} | settings
    return follow(cluster_file, runs, **settings), settings["stream"].getvalue()


def test_a_run_that_succeeds_brings_its_report(kfp_stub, mounted, tmp_path):
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    for trial in TRIALS:
        write(mounted, f"trials/{trial}/result.json", result())
    write(mounted, "sweeps/digits-0a/report/report.html", "<html>")
    code, said = followed(cluster_file, run, out=tmp_path / "out")
    assert code == 0
    report = tmp_path / "out" / "cluster" / "digits-1" / "report.html"
    assert report.read_text() == "<html>"
    assert f"Report: {report}" in said
    assert "SUCCEEDED: digits-1" in said
    assert f"{kfp_stub.url}/#/runs/details/{run.run_id}" in said
    states = [line.split(": ")[-1] for line in said.splitlines() if " run digits-1: " in line]
    assert states == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_a_run_that_broke_off_before_its_report_gets_one(kfp_stub, mounted, tmp_path):
    """KFP omits everything after a loop in which one pod ran out of memory."""
    kfp_stub.script = ("RUNNING", "FAILED")
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    write(mounted, "sweeps/digits-0a/plan.json", {"sweep": "digits-0a", "trials": list(TRIALS)})
    write(mounted, f"trials/{TRIALS[0]}/result.json", result())
    code, said = followed(cluster_file, run, out=tmp_path / "out")
    assert code == 1
    report = tmp_path / "out" / "cluster" / "digits-1" / "report.html"
    assert f"Report: {report}" in said
    assert TRIALS[1] in report.read_text()


@pytest.mark.parametrize("end", ["FAILED", "CANCELED", "SKIPPED"])
def test_every_other_end_is_an_end(kfp_stub, end):
    kfp_stub.script = ("PENDING", "PAUSED", "RUNNING", end)
    cluster_file, run = created(kfp_stub)
    code, said = followed(cluster_file, run)
    assert code == 1
    assert f"{end}: digits-1" in said
    assert "PAUSED" in said
    assert "Report: in the KFP UI" in said


def test_trials_are_followed_from_the_results_root(kfp_stub, mounted):
    kfp_stub.script = ("RUNNING",)
    cluster_file, run = created(kfp_stub, mounted)
    now = time.time()
    at = {"phase": "training", "step": 300, "num_steps": 600, "steps_per_second": 5.0}
    at |= {"updated": now, "accuracy_ema": 0.5}

    def scenes():
        planned(mounted)
        write(mounted, f"trials/{TRIALS[0]}/progress.json", at)
        yield
        write(mounted, f"trials/{TRIALS[0]}/result.json", result())
        write(mounted, f"trials/{TRIALS[1]}/progress.json", {"phase": "starting", "updated": now})
        write(mounted, f"trials/{TRIALS[1]}/failure.json", {"reason": "loss is NaN"})
        yield
        kfp_stub.set_state(run.run_id, "FAILED")

    code, said = followed(cluster_file, run, scenes=scenes())
    assert code == 1
    assert "digits-l2r-seed0: training step 300/600, 5.0 steps/s, 1:00 left, accuracy 50" in said
    assert "digits-ieg-seed0: failed: loss is NaN" in said
    assert "digits-l2r-seed0: finished, accuracy 90.0 %" in said
    assert f"failed: {TRIALS[1]}: loss is NaN" in said
    assert said.count("digits-l2r-seed0: training") == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(kfp_stub, mounted, tmp_path, monkeypatch):
    """A function that follows a run in a terminal; it returns what was said.

    The first trial trains, its last heartbeat so many seconds old; a pod of a trial waits.
    """
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    kfp_stub.script = ("RUNNING", "RUNNING", "SUCCEEDED")
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    at = {"phase": "training", "step": 300, "num_steps": 600, "steps_per_second": 5.0}

    def said(trial, status, silent):
        beat = at | {"updated": time.time() - silent}
        write(mounted, f"trials/{TRIALS[0]}/progress.json", beat)
        with kubernetes_api() as cluster:
            write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
            cluster.pods["kubeflow"] = [pod(run.run_id, trial, **status)]
            code, text = followed(cluster_file, run, stream=Terminal())
        assert code == 0
        return text

    return said


def test_a_terminal_shows_one_table(terminal):
    said = terminal(TRIALS[1], container_waits("ImagePullBackOff", "no such image"), silent=0)
    assert "300/600" in said
    assert "1 waiting: ImagePullBackOff: no such image" in said
    assert "run digits-1: RUNNING" in said


def test_a_trial_that_lost_its_pod_says_why_its_next_one_waits(terminal):
    """The lost pod's heartbeat is still young: the trial would seem to train."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    status = {"conditions": [condition | {"message": "no spot node"}]}
    said = terminal(TRIALS[0], status, silent=40)
    assert "1 waiting: Unschedulable: no spot node" in said
    assert "interrupted" in said
    assert "1:00" not in said  # it has no remaining time while nothing works on it


def test_a_trial_whose_heart_stopped_does_not_seem_to_train(kfp_stub, mounted):
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    root = root_of(cluster_file, clients.connect(cluster_file).get_run(run.run_id))
    beat = {"phase": "training", "step": 300, "num_steps": 600, "steps_per_second": 5.0}
    stale, young = time.time() - STALE_SECONDS - 10, time.time() - STALE_SECONDS / 2
    write(mounted, f"trials/{TRIALS[0]}/progress.json", beat | {"updated": stale})
    write(mounted, f"trials/{TRIALS[1]}/progress.json", beat | {"updated": young})
    (lost, alive), beats = root.progress(since=0.0, now=time.time())
    assert (lost.state, lost.step, lost.seconds_left) == ("interrupted", 300, None)
    assert (alive.state, beats) == ("training", True)


def container_waits(reason, message):
    state = {"waiting": {"reason": reason, "message": message}}
    status = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {"containerStatuses": [status | {"state": state}]}


def test_a_failure_of_an_earlier_run_is_none(kfp_stub, mounted):
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    write(mounted, f"trials/{TRIALS[0]}/progress.json", {"phase": "training", "updated": 5.0})
    write(mounted, f"trials/{TRIALS[0]}/failure.json", {"reason": "last week"})
    _, said = followed(cluster_file, run)
    assert "last week" not in said


def test_results_of_a_scheduled_run_lie_in_its_own_namespace(kfp_stub, mounted):
    cluster_file, run = created(
        kfp_stub, mounted, results="/results/x", results_namespace="weekly/{run}"
    )
    own = mounted / "x" / "weekly" / run.run_id
    planned(own)
    write(own, f"trials/{TRIALS[0]}/result.json", result())
    _, said = followed(cluster_file, run)
    assert "digits-l2r-seed0: finished" in said


def test_without_the_results_root_the_tasks_are_counted(kfp_stub):
    tasks = [("train", "RUNNING", "p1"), ("train-2", "PENDING", ""), ("prepare", "SUCCEEDED", "p")]
    kfp_stub.task_states = {"RUNNING": tasks}
    cluster_file, run = created(kfp_stub)
    code, said = followed(cluster_file, run)
    assert code == 0
    assert "tasks: 1 pending, 1 running, 1 succeeded" in said


def test_why_a_trial_waits_is_told(kfp_stub, mounted, tmp_path):
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    status = {"conditions": [condition | {"message": "0/2 nodes: Insufficient nvidia.com/gpu"}]}
    with kubernetes_api() as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
        cluster.pods["kubeflow"] = [pod(run.run_id, TRIALS[1], **status)]
        _, said = followed(cluster_file, run)
    assert "digits-ieg-seed0: waiting: Unschedulable: 0/2 nodes: Insufficient" in said


def test_a_login_page_instead_of_kubernetes_does_not_end_the_watching(kfp_stub, tmp_path):
    cluster_file, run = created(kfp_stub)
    with kubernetes_api() as cluster:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", cluster)
        cluster.faults.append(Fault(status=200, body="<html>Log in</html>", times=2))
        code, said = followed(cluster_file, run)
    assert code == 0
    assert "the Kubernetes API does not answer; retrying" in said


def test_a_trial_with_a_heartbeat_works(kfp_stub, mounted):
    kfp_stub.script = ("RUNNING",) * 12 + ("SUCCEEDED",)
    cluster_file, run = created(kfp_stub, mounted)
    planned(mounted)
    beat = {"phase": "training", "updated": time.time()}
    write(mounted, f"trials/{TRIALS[0]}/progress.json", beat)
    code, _ = followed(cluster_file, run, max_pending=1)
    assert code == 0


def test_a_short_silence_of_kfp_is_waited_for(kfp_stub):
    cluster_file, run = created(kfp_stub)
    kfp_stub.faults.append(Fault(status=503, method="GET", path="/runs/", body="busy", times=2))
    code, said = followed(cluster_file, run)
    assert code == 0
    assert "could not read the run: busy (HTTP 503); retrying" in said


def test_a_renewed_cookie_is_picked_up(kfp_stub, tmp_path):
    cookie = tmp_path / "cookie"
    cookie.write_text("session=old")
    kfp_stub.cookie = "session=old"
    cluster_file = ClusterFile(endpoint=kfp_stub.url, image=IMAGE, cookie_file=str(cookie))
    body = {"pipeline_spec": SPEC}
    run = submit.create_run(
        clients.connect(cluster_file), cluster_file, "", "a", {"run_label": "a"}, body
    )
    kfp_stub.set_state(run.run_id, "RUNNING")

    def scenes():
        kfp_stub.cookie = "session=new"
        yield
        cookie.write_text("session=new")
        kfp_stub.set_state(run.run_id, "SUCCEEDED")

    code, said = followed(cluster_file, run, scenes=scenes())
    assert code == 0
    words = ["run a: RUNNING", "refuses the cookie in", "SUCCEEDED: a"]
    assert sorted(words, key=said.index) == words


def test_a_long_silence_ends_the_watching_but_not_the_run(kfp_stub):
    cluster_file, run = created(kfp_stub)
    kfp_stub.faults.append(Fault(status=503, method="GET", path="/runs/"))
    clock = FakeClock()
    began = clock.time

    def scenes():
        clock.time = began + PATIENCE_SECONDS - 1
        yield
        clock.time = began + PATIENCE_SECONDS + 1
        yield
        pytest.fail("it went on")

    clock.scenes = scenes()
    with pytest.raises(UserError, match="stopped watching, the run continues: http"):
        followed(cluster_file, run, clock=clock)
    assert len(clock.slept) == 2
    assert kfp_stub.seen("POST", ":terminate$") == []


class InterruptedOnce(io.StringIO):
    """Somebody presses Ctrl-C when the state of a run is shown."""

    def write(self, text):
        first = "RUNNING" not in self.getvalue()
        written = super().write(text)
        if first and "RUNNING" in self.getvalue():
            signal.raise_signal(signal.SIGINT)
        return written


def test_ctrl_c_stops_the_watching_but_not_the_run(kfp_stub):
    kfp_stub.script = ("RUNNING",)
    cluster_file, run = created(kfp_stub)
    code, said = followed(cluster_file, run, stream=InterruptedOnce())
    assert code == 130
    assert "Stopped watching; it continues on the cluster: http" in said
    assert kfp_stub.seen("POST", ":terminate$") == []


def test_an_earlier_run_is_followed_from_its_link_on(kfp_stub, tmp_path, capsys):
    """Where the results root cannot be read, states and the link are all there is to see."""
    cluster_file, run = created(kfp_stub)
    kfp_stub.set_state(run.run_id, "SUCCEEDED")
    path = tmp_path / "cluster.yaml"
    path.write_text(f"endpoint: {cluster_file.endpoint}\nimage: {IMAGE}\n")
    argv = ["run", "noise_sweep", f"--cluster={path}", "--watch=digits-1"]
    assert command_line.main([*argv, f"--out={tmp_path}"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"Run digits-1: {kfp_stub.url}/#/runs/details/{run.run_id}"
    assert any("run digits-1: SUCCEEDED" in line for line in rest)


def test_parts_are_followed_together(kfp_stub):
    made = [created(kfp_stub, run_label=f"d-part{part}", part=part, parts=2) for part in (1, 2)]
    kfp_stub.set_state(made[1][1].run_id, "RUNNING", "RUNNING", "FAILED")
    code, said = followed(made[0][0], made[0][1], made[1][1])
    assert code == 1
    assert "SUCCEEDED: d-part1" in said
    assert "FAILED: d-part2" in said


# Runs of which nothing works are canceled.


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
    cancel(client, cluster_file, run.run_id)
    kfp_stub.set_state(run.run_id, "RUNNING")
    with pytest.raises(UserError, match=r"could not cancel the run: .* Row not found"):
        cancel(client, cluster_file, run.run_id)


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
