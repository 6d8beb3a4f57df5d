# SPDX-License-Identifier: Apache-2.0
"""`make cluster-test` against the stand-ins, which here do what a cluster does with each run.

The order of the tasks is the compiled pipeline's; KFP omits those after a loop whose iteration
failed (kubeflow/pipelines 2.17, backend/src/v2/compiler/argocompiler/dag.go, depends: it joins
`<task>.Succeeded` of those before a task by `&&`).
"""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ieg_core.store import runs as namespaces
from ieg_core.store.records import Finding, RunRecord
from ieg_core.tasks import late_report
from pipelines.cluster import client as clients
from pipelines.cluster import preflight
from pipelines.cluster_files import ClusterFile
from scripts import cluster_test
from scripts.cluster_test import Bench
from tests.clock import FakeClock
from tests.pipelines.stubs.kfp_api import KfpApi
from tests.pipelines.stubs.kubernetes_api import (
    EVERY_RIGHT,
    KubernetesApi,
    kubernetes_api,
    pod,
    write_kubeconfig,
)
from tests.records import put

IMAGE = "registry.example.org/ieg-python:1a2b3c"
ENDED = ("SUCCEEDED", "FAILED")


@dataclass
class Cluster:
    """What runs the stubs' runs: each `sleep` of the clock takes them a step further.

    Attributes:
      kfp: KFP.
      kubernetes: Kubernetes.
      root: The results root.
      flips: Whether a trial whose pod was deleted ends with another tensor.
      serves: Whether the UI serves artifacts.
      saves: Whether a training writes checkpoints on its way.
      kills: Whether the kernel kills the whole pod of a training without memory.
      stages: How far each run is: 1 in training, 2 with a checkpoint, 3 over.
    """

    kfp: KfpApi
    kubernetes: KubernetesApi
    root: Path
    flips: bool = False
    serves: bool = True
    saves: bool = True
    kills: bool = False
    stages: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        self.clock = FakeClock(self.scenes())

    def scenes(self):
        while True:
            for id_, run in list(self.kfp.runs.items()):
                self.step(id_, (run.get("runtime_config") or {}).get("parameters") or {})
            for id_, recurring in list(self.kfp.recurring.items()):
                if id_ not in {run.get("recurring_run_id") for run in self.kfp.runs.values()}:
                    self.start_scheduled(id_, recurring)
            yield

    def step(self, id_, given):
        if self.kfp.runs[id_].get("state") in ENDED or self.is_terminated(id_):
            return
        stage = self.stages[id_] = self.stages.get(id_, 0) + 1
        if "dataset" not in given:  # the doctor's
            for check in ("image", "gpu", "data", "checkpoint", "artifact"):
                Finding(check, True, "fine").write(self.root, given["run"], check)
            self.end(id_, "SUCCEEDED")
            return
        root = Path(namespaces.results_root(str(self.root), given["results_namespace"], id_))
        trials = [f"t{n}" for n in range(len(given["noise_ratios"]) * len(given["methods"]))]
        pods = self.kubernetes.pods.setdefault("kubeflow", [])
        if stage == 1:
            label = given.get("run_label") or "scheduled"
            put(root / "sweeps/s1/plan.json", sweep="s1", trials=trials)
            RunRecord(sweep="s1", trials=trials, part=1, parts=1).write(root, label)
            now = self.clock.now()
            for trial in trials:
                put(root / f"trials/{trial}/progress.json", phase="training", step=7, updated=now)
            pods.append(pod(id_, " ".join(trials), f"train-{id_}", phase="Running"))
        elif stage == 2 and self.saves:
            for trial in trials:
                self.write_checkpoint(root / "trials" / trial, 7, np.zeros(4))
        elif not self.is_waiting(id_, given["results_namespace"]):
            self.finish(id_, given["results_namespace"], root, trials)

    def is_waiting(self, id_, namespace):
        """Returns whether a training goes on until its pod is deleted, or its run terminated."""
        names = {each["metadata"]["name"] for each in self.kubernetes.pods["kubeflow"]}
        if namespace.endswith("/disturbed"):
            return f"train-{id_}" in names
        return namespace.endswith("/resume") and not any(map(self.is_terminated, self.kfp.runs))

    def is_terminated(self, id_):
        return bool(self.kfp.seen("POST", f"{id_}:terminate"))

    def finish(self, id_, namespace, root, trials):
        is_short = namespace.endswith("/memory")
        if is_short:
            put(root / "trials/t0/failure.json", reason="out of memory: 0.58 of the container's")
            trials = []
        if is_short and self.kills:
            self.end(id_, "FAILED")
            return
        tensor = np.arange(4.0) + (self.flips and namespace.endswith("/disturbed"))
        for trial in trials:
            folder = root / "trials" / trial
            put(folder / "result.json", steps=4000)
            self.write_checkpoint(folder, 4000, tensor)
        late_report.report_sweep(str(root), "s1")
        page = {"artifacts": [{"uri": f"minio://mlpipeline/{id_}/page"}]}
        report = pod(id_, "", f"report-{id_}", phase="Succeeded")
        command = report["spec"]["containers"][1]["command"]
        given = json.dumps({"outputs": {"artifacts": {"page": page}}})
        command[command.index("--executor_input") + 1] = given
        self.kubernetes.pods["kubeflow"].append(report)
        if self.serves:
            self.kfp.files[f"{id_}/page"] = (root / "sweeps/s1/report/report.html").read_text()
        self.end(id_, "FAILED" if is_short else "SUCCEEDED")  # by check_results

    def write_checkpoint(self, folder, step, tensor):
        (folder / "checkpoint").mkdir(exist_ok=True)
        about = {"ieg": json.dumps({"step": step})}
        save_file({"w": tensor}, folder / "checkpoint" / "000001.safetensors", about)

    def end(self, id_, state):
        self.kfp.set_state(id_, state)

    def start_scheduled(self, id_, recurring):
        """Starts a schedule's run, which has its workflow's name.

        As kubeflow/pipelines 2.17, backend/src/apiserver/resource/resource_manager.go,
        ReportWorkflowResource.
        """
        keys = ("experiment_id", "runtime_config", "pipeline_spec")
        body = {key: recurring[key] for key in keys}
        name = f"{recurring['display_name']}x7k2p-1-1234567890"
        self.kfp.add_run(body | {"display_name": name, "recurring_run_id": id_})


@pytest.fixture
def bench(kfp_stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kfp_stub.script = ("RUNNING",)
    root = tmp_path / "results"
    root.mkdir()
    with kubernetes_api(rights=EVERY_RIGHT | {("delete", "pods")}) as kubernetes:
        write_kubeconfig(tmp_path / "home" / "kubeconfig", kubernetes)
        cluster = Cluster(kfp_stub, kubernetes, root)
        cluster_file = ClusterFile(
            endpoint=kfp_stub.url, image=IMAGE, results_mount=str(root), max_gpu_hours=99.0
        )
        found = Bench(
            cluster_file,
            "cpu",
            clients.connect(cluster_file),
            preflight.reach(cluster_file),
            tmp_path / "out",
            cluster.clock,
        )
        found.cluster = cluster
        yield found


def test_a_sound_installation_passes_every_check_and_keeps_nothing(bench, tmp_path):
    lines = []
    rows = cluster_test.accept(bench, lines.append)
    assert [row for row in rows if not row.passed] == []
    assert len(rows) == len(cluster_test.CHECKS) + 1
    seen = {row.check: row.seen for row in rows}
    assert seen["sweep"].startswith("6 of 6 trials finished")
    assert "equal an undisturbed run's" in seen["lost pod"]
    assert seen["memory"].startswith("the page of the run's own report says: out of memory")
    assert bench.cluster.kfp.runs.keys() == bench.cluster.kfp.recurring.keys() == set()
    assert not list((tmp_path / "results").glob("*/*"))
    page = cluster_test.as_markdown(rows, bench)
    assert "8 of 8 checks passed" in page
    assert page.count("| passed |") == 8


def test_what_a_cluster_does_wrong_costs_its_own_check(bench):
    bench.cluster.flips = True
    bench.cluster.serves = False
    checks = [each for each in cluster_test.CHECKS if each[0] != "memory"]
    rows = cluster_test.accept(bench, lambda line: None, checks[:4])
    failed = {row.check: row.seen for row in rows if not row.passed}
    assert failed.keys() == {"lost pod", "artifacts"}
    assert failed["lost pod"] == "1 of 1 tensors differ"
    assert "| **failed** |" in cluster_test.as_markdown(rows, bench)


def test_no_pod_is_deleted_before_its_training_has_a_checkpoint(bench, monkeypatch):
    """It would only start again: the check is about going on from a checkpoint."""
    monkeypatch.setattr(cluster_test, "PATIENCE_SECONDS", 30.0)
    bench.cluster.saves = False
    check = next(each for each in cluster_test.CHECKS if each[0] == "lost pod")
    row, _ = cluster_test.accept(bench, lambda line: None, [check])
    assert (row.passed, row.seen) == (False, "waited 0 minutes for a first checkpoint")
    assert bench.cluster.kubernetes.seen("DELETE") == []


def test_a_report_that_kfp_did_not_write_is_no_report(bench, tmp_path):
    """The pod was killed whole: there is a report all the same, which this machine has written."""
    bench.cluster.kills = True
    check = next(each for each in cluster_test.CHECKS if each[0] == "memory")
    rows = cluster_test.accept(bench, lambda line: None, [check])
    said = "the run has no pod of its report, which names its page"
    assert (rows[0].passed, rows[0].seen) == (False, said)


def test_without_the_sweeps_report_no_other_runs_page_is_fetched(bench):
    check = next(each for each in cluster_test.CHECKS if each[0] == "artifacts")
    row, _ = cluster_test.accept(bench, lambda line: None, [check])
    assert (row.passed, row.seen) == (False, "not checked: the sweep has no report")


def test_an_interrupted_test_cleans_up_and_keeps_its_rows(bench):
    """Ctrl-C while a run is followed, which stops watching it and nothing else."""
    pages = []

    def interrupt():
        yield from itertools.islice(bench.cluster.scenes(), 1)
        raise KeyboardInterrupt

    bench.clock.scenes = interrupt()
    checks = [each for each in cluster_test.CHECKS if each[0] in ("sweep", "memory")]
    with pytest.raises(KeyboardInterrupt):
        cluster_test.accept(
            bench,
            lambda line: None,
            checks,
            lambda rows: pages.append(cluster_test.as_markdown(rows, bench)),
        )
    assert bench.cluster.kfp.runs == {}
    (page,) = pages
    assert "1 of 8 checks passed" in page
    assert "| clean-up |" in page


def test_a_run_that_no_node_can_take_fails_its_check_in_time(bench, monkeypatch):
    monkeypatch.setattr(cluster_test, "PATIENCE_SECONDS", 60.0)
    bench.cluster.kfp.script = ("PENDING",)
    bench.clock.scenes = iter(())
    check = next(each for each in cluster_test.CHECKS if each[0] == "sweep")
    row, _ = cluster_test.accept(bench, lambda line: None, [check])
    said = "Canceled: no pod has run for MAX_PENDING=1 minutes"
    assert (row.passed, row.seen) == (False, said)


def test_without_a_cluster_it_says_so_in_one_line(no_cluster, capsys, tmp_path):
    (tmp_path / "cluster.yaml").write_text("")
    assert cluster_test.main([f"--cluster={tmp_path / 'cluster.yaml'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no cluster is configured" in line
