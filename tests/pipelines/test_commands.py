# SPDX-License-Identifier: Apache-2.0
"""The command lines of `make schedule`, `accept`, `report`, `clean-runs` and `doctor`."""

import json
import os
import time

import pytest

from ieg_core.store.records import PlanRecord
from pipelines.__main__ import main
from tests.ieg_core.report.test_reproduction import row
from tests.pipelines.scheduling.test_schedules import PLAIN
from tests.records import example, put_json

IMAGE = "registry.example.org/ieg-python:1a2b3c"


@pytest.fixture
def cluster_file(tmp_path):
    def write(**values):
        path = tmp_path / "cluster.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
        return f"--cluster={path}"

    return write


def refused(capsys, *arguments):
    """Runs a command that must end with one line and exit code 2, and returns the line."""
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ieg: error: ")
    return line


def test_schedule_by_the_command_line_twice_changes_nothing(
    kfp_stub, tmp_path, cluster_file, capsys
):
    (tmp_path / "schedules.yaml").write_text(PLAIN)
    here = cluster_file(endpoint=kfp_stub.url, image=IMAGE)
    command = ["schedule", here, f"--file={tmp_path / 'schedules.yaml'}"]
    assert main([*command, "--plan=1"]) == 0
    assert not kfp_stub.recurring
    assert main(command) == 0
    assert "done: create nightly" in capsys.readouterr().out
    kfp_stub.requests.clear()
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {request.method for request in kfp_stub.requests} == {"GET"}


@pytest.mark.parametrize("text", ["yes", "2", "plan"])
def test_a_plan_that_is_neither_wanted_nor_not_is_refused(no_cluster, cluster_file, capsys, text):
    assert "expected 1" in refused(capsys, "schedule", cluster_file(), f"--plan={text}")
    assert "expected 1" in refused(
        capsys, "clean-runs", cluster_file(), "--older=30d", f"--plan={text}"
    )


def test_schedule_without_a_cluster_says_what_to_configure(
    no_cluster, cluster_file, capsys, tmp_path
):
    (tmp_path / "s.yaml").write_text(PLAIN)
    here = cluster_file(image=IMAGE)
    assert "no cluster is configured" in refused(
        capsys, "schedule", here, f"--file={tmp_path / 's.yaml'}"
    )


def test_clean_runs_lists_and_removes(no_cluster, cluster_file, tmp_path, capsys):
    old = tmp_path / "runs" / "trials" / "a" / "model.keras"
    old.parent.mkdir(parents=True)
    old.write_text("x" * 2048)
    moment = time.time() - 40 * 86400
    os.utime(old, (moment, moment))
    command = ["clean-runs", cluster_file(), f"--out={tmp_path / 'runs'}", "--older=30d"]
    assert main([*command, "--plan=1"]) == 0
    assert "would remove" in capsys.readouterr().out
    assert old.exists()
    assert main(command) == 0
    assert "2.0 KiB" in capsys.readouterr().out
    assert not old.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--older=30 dogs"], "OLDER='30 dogs': expected an age"),
        (["--older="], "OLDER='': expected an age"),
        (["--older=30d", "--out=absent"], "no results root absent"),
        (["--older=30d", "--runner=cloud"], "RUNNER='cloud'"),
        (["--older=30d", "--elder=1"], "unrecognized arguments"),
    ],
)
def test_clean_runs_refuses_in_one_line(no_cluster, cluster_file, capsys, arguments, message):
    assert message in refused(capsys, "clean-runs", cluster_file(), *arguments)


def test_the_clusters_results_root_is_meant_where_one_is_configured(
    no_cluster, cluster_file, tmp_path, capsys
):
    (tmp_path / "mounted").mkdir()
    address = "http://127.0.0.1:9"
    mounted = cluster_file(endpoint=address, results_mount=tmp_path / "mounted")
    assert main(["clean-runs", mounted, "--older=30d"]) == 0
    assert f"Results root {tmp_path / 'mounted'}" in capsys.readouterr().out
    nowhere = cluster_file(endpoint=address)
    assert "cannot be read from this machine" in refused(
        capsys, "clean-runs", nowhere, "--older=30d"
    )
    assert "no results root absent" in refused(
        capsys, "clean-runs", nowhere, "--older=30d", "--runner=local", "--out=absent"
    )


def test_accept_writes_the_rows_of_a_run(no_cluster, cluster_file, tmp_path, capsys):
    path = tmp_path / "scheduled/nightly/r1/sweeps/s/report/results.json"
    path.parent.mkdir(parents=True)
    put_json(path, {"trials": [row(0.9)]})
    command = ["accept", cluster_file(), f"--out={tmp_path}", "--schedule=nightly"]
    assert main(command) == 0
    assert "nightly: accepted r1" in capsys.readouterr().out
    assert json.loads((tmp_path / "accepted/nightly.json").read_text())["trials"] == [row(0.9)]
    assert "received RUN='r2': expected a run" in refused(capsys, *command, "--run=r2")


def test_report_writes_the_report_of_a_run_that_broke_off(
    no_cluster, cluster_file, tmp_path, capsys
):
    example(PlanRecord, sweep="s1", trials=[]).write(tmp_path / "sweeps" / "s1")
    command = ["report", cluster_file(), f"--out={tmp_path}"]
    assert main([*command, "--run=s1"]) == 0
    page = tmp_path / "sweeps/s1/report/report.html"
    assert f"Report: {page}" in capsys.readouterr().out
    assert page.exists()
    assert main(command) == 0
    assert "RUN='s2'" in refused(capsys, *command, "--run=s2")


def test_doctor_refuses_what_it_does_not_know(no_cluster, cluster_file, capsys):
    assert "PROFILE='tpu'" in refused(capsys, "doctor", cluster_file(), "--profile=tpu")
    assert "no cluster is configured" in refused(
        capsys, "doctor", cluster_file(image=IMAGE), "--runner=cluster"
    )
