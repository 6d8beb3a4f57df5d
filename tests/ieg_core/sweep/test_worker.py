# SPDX-License-Identifier: Apache-2.0
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ieg_core.errors import DivergedError, UserError
from ieg_core.host import container_memory
from ieg_core.host.container_memory import MemoryUse
from ieg_core.store import leases
from ieg_core.store.leases import SupersededError, TrialBusyError
from ieg_core.store.records import LeaseRecord, ProgressRecord
from ieg_core.store.runs import TIME_LIMIT
from ieg_core.sweep import slots, worker
from ieg_core.training import run_trial
from tests.clock import FakeClock
from tests.records import example, put

TRIAL = "digits_uniform_0.8-l2r-seed0-0123456789ab"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "trials" / TRIAL
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Puts a shell script in the place of the child's interpreter."""

    def write(script: str) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return write


def run(tmp_path, step="train", **options):
    return worker.run_step(step, TRIAL, tmp_path, Path("data"), **options)


def failure(folder):
    value = json.loads((folder / "failure.json").read_text())
    return {key: each for key, each in value.items() if key != "sha256"}


def test_the_child_gets_its_step_its_share_and_its_parent(tmp_path, folder, interpreter):
    interpreter('echo "$@"; echo "gpus $CUDA_VISIBLE_DEVICES parent $IEG_PARENT_PID"')
    assert run(tmp_path, slot=slots.Slot(3, ("4", "5"))) == 0
    assert (folder / "log.txt").read_text().splitlines() == [
        f"-m ieg_core.sweep.worker train {TRIAL} {tmp_path} data 3 2",
        f"gpus 4,5 parent {os.getpid()}",
    ]


def test_the_slots_of_the_runner_are_used(tmp_path, folder, interpreter, monkeypatch):
    slots.write_slots(tmp_path / "slots", [slots.Slot(7)])
    monkeypatch.setenv(slots.DIRECTORY, str(tmp_path / "slots"))
    interpreter('echo "$@"')
    run(tmp_path)
    assert (folder / "log.txt").read_text().split()[-2:] == ["7", "1"]


def test_the_output_goes_to_the_log_and_is_echoed_where_asked(tmp_path, folder, interpreter, capfd):
    interpreter("echo out; echo err >&2; printf '\\377\\n'")
    run(tmp_path, echo=True)
    run(tmp_path, echo=False)
    once = ["out", "err", "\N{REPLACEMENT CHARACTER}"]
    assert (folder / "log.txt").read_text().splitlines() == once + once
    assert capfd.readouterr().out.splitlines() == once


@pytest.mark.parametrize("numbers", ["seq 1 5000", "seq 1 5000 | tr -d '\\n'"])
def test_a_flood_of_output_keeps_the_last_lines(
    tmp_path, folder, interpreter, monkeypatch, capfd, numbers
):
    monkeypatch.setattr(worker, "LOG_BYTES", 4_000)
    monkeypatch.setattr(worker, "LINE_LENGTH", 1000)
    interpreter(f"{numbers}; echo; echo over")
    for _ in range(2):  # an attempt appends to the log of the one before
        run(tmp_path, echo=True)
    log = (folder / "log.txt").read_text()
    assert len(log) <= 4_000
    assert log.startswith("[earlier lines were dropped]\n")
    assert log.endswith("5000\nover\n" if "tr" in numbers else "5000\n\nover\n")
    assert len(capfd.readouterr().out) <= 2 * 4_000


def test_a_killed_child_costs_its_trial_and_says_so(tmp_path, folder, interpreter):
    put(folder / "progress.json", step=40, num_steps=600)
    interpreter("echo last words; kill -9 $$")
    assert run(tmp_path) == -9
    assert failure(folder) == {
        "phase": "training",
        "reason": "killed by SIGKILL, probably out of memory",
        "step": 40,
        "log": "last words",
    }


def test_a_child_that_was_killed_for_its_memory_says_so(tmp_path, folder, interpreter, monkeypatch):
    monkeypatch.setattr(container_memory, "read", lambda root: MemoryUse(used=99, limit=100))
    interpreter("exec sleep 600")
    assert run(tmp_path) == -9
    assert failure(folder)["reason"].startswith("out of memory: ")
    assert "memory_limit of resources.train" in failure(folder)["reason"]


def test_a_child_ends_before_its_pods_time_is_over(tmp_path, folder, interpreter, monkeypatch):
    monkeypatch.setenv(TIME_LIMIT, "5400")
    interpreter("echo in time")
    assert run(tmp_path) == 0
    monkeypatch.setattr(worker, "_BEGAN", time.monotonic() - 5400)
    interpreter("exec sleep 600")
    assert run(tmp_path) == -9
    assert failure(folder)["reason"].startswith("over the time limit of its pod, 1.5 hours: raise ")


def test_an_audit_that_was_killed_for_its_memory_costs_itself_alone(
    tmp_path, folder, interpreter, monkeypatch
):
    monkeypatch.setattr(container_memory, "read", lambda root: MemoryUse(used=99, limit=100))
    interpreter("exec sleep 600")
    reason = worker.run_audit(TRIAL, tmp_path, Path("data"))
    assert reason.startswith("out of memory: ")
    assert not (folder / "failure.json").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('echo "$@"', ""),
        ("echo 'ieg: error: no data'; exit 2", "no data"),
        ("kill -9 $$", "killed by SIGKILL, probably out of memory"),
    ],
)
def test_an_audit_says_why_there_is_none(tmp_path, folder, interpreter, script, reason):
    interpreter(script)
    assert worker.run_audit(TRIAL, tmp_path, Path("data")) == reason
    if not reason:
        assert (folder / "log.txt").read_text().split()[2:4] == ["audit", TRIAL]


def test_a_child_beside_others_is_left_to_the_machine(tmp_path, folder, interpreter, monkeypatch):
    monkeypatch.setattr(container_memory, "read", lambda root: MemoryUse(used=99, limit=100))
    slots.write_slots(tmp_path / "slots", [slots.Slot(7)])
    monkeypatch.setenv(slots.DIRECTORY, str(tmp_path / "slots"))
    interpreter("sleep 0.5")
    assert run(tmp_path) == 0


def test_a_child_that_ends_without_a_reason_leaves_its_last_line(tmp_path, folder, interpreter):
    interpreter("echo first; echo 'ImportError: no such thing'; exit 1")
    assert run(tmp_path) == 1
    assert failure(folder)["reason"] == "exit code 1: ImportError: no such thing"


def test_a_reason_that_the_child_wrote_stays(tmp_path, folder, interpreter):
    interpreter(f"""echo '{{"reason": "its own"}}' > {folder}/failure.json; exit 3""")
    assert run(tmp_path) == worker.EXIT_DIVERGED
    assert failure(folder) == {"reason": "its own"}


def test_the_trial_shows_as_starting_before_the_framework_is_imported(
    tmp_path, folder, interpreter
):
    put(folder / "progress.json", step=40, num_steps=600, updated=1)
    interpreter(f"cat {folder}/progress.json")
    run(tmp_path)
    shown = json.loads((folder / "log.txt").read_text())
    assert (shown["phase"], shown["step"]) == ("starting", 40)
    assert shown["updated"] > time.time() - 60


def taken_over(folder, attempt=1):
    replace(leases.new_record(), machine="other", host="pod-7").write(folder, attempt)


def test_a_superseded_child_is_no_failure_of_the_trial(tmp_path, folder, interpreter):
    interpreter("echo 'ieg: attempt 1 stops'; exit 4")
    assert run(tmp_path) == worker.EXIT_SUPERSEDED
    assert not (folder / "failure.json").exists()


def test_a_child_that_dies_when_another_machine_has_its_trial_is_no_failure_of_it(
    tmp_path, folder, interpreter
):
    taken_over(folder)
    (folder / "failure.json").write_text("{}")
    interpreter("kill -9 $$")
    assert run(tmp_path) == -9
    assert (folder / "failure.json").read_text() == "{}"
    (folder / "failure.json").unlink()
    assert run(tmp_path) == -9
    assert not (folder / "failure.json").exists()


def test_another_machines_progress_is_left_alone(tmp_path, folder, interpreter):
    taken_over(folder)
    before = example(ProgressRecord, attempt=1, phase="training", updated=time.time() - 60)
    before.write(folder)
    interpreter("exit 0")
    run(tmp_path)
    assert ProgressRecord.read(folder) == before


def test_a_dead_machine_gets_no_heartbeat_from_its_successor(tmp_path, folder, interpreter):
    taken_over(folder)
    replace(LeaseRecord.read(folder, 1), started=0).write(folder, 1)
    put(folder / "progress.json", attempt=1, step=40, updated=1)
    interpreter("exit 0")
    run(tmp_path)
    assert json.loads((folder / "progress.json").read_text())["step"] == 40
    assert not leases.is_live_elsewhere(folder)


def test_a_warning_reaches_the_user_whose_screen_shows_progress(
    tmp_path, folder, interpreter, capfd
):
    interpreter("echo step 1; echo 'ieg: warning: tensorflow sees no GPU'")
    run(tmp_path, slot=slots.Slot(1), echo=False)
    assert capfd.readouterr().err == "ieg: warning: tensorflow sees no GPU\n"


def test_a_promised_gpu_stays_visible_where_nvidia_smi_is_missing(
    tmp_path, folder, interpreter, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all of them")
    interpreter('echo "[$CUDA_VISIBLE_DEVICES]"')
    run(tmp_path, slot=slots.Slot(1))
    monkeypatch.setenv("IEG_REQUIRE_GPU", "1")
    run(tmp_path, slot=slots.Slot(1))
    assert (folder / "log.txt").read_text().split("\n")[:2] == ["[]", "[all of them]"]


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_a_finished_trial_starts_nothing(tmp_path, folder, interpreter, step):
    put(folder / "result.json")
    interpreter("echo started")
    assert run(tmp_path, step) == 0
    assert not (folder / "log.txt").exists()


def test_a_trained_trial_is_not_trained_again_but_may_be_evaluated_again(
    tmp_path, folder, interpreter
):
    put(folder / "training.json")
    (folder / "failure.json").write_text('{"phase": "evaluating"}')
    interpreter("echo started")
    assert run(tmp_path, "train") == 0
    assert not (folder / "log.txt").exists()
    assert run(tmp_path, "evaluate") == 0
    assert (folder / "log.txt").read_text() == "started\n"


def test_a_failed_trial_is_trained_again_and_not_evaluated(tmp_path, folder, interpreter):
    (folder / "failure.json").write_text("{}")
    interpreter("echo started")
    assert run(tmp_path, "evaluate") == worker.EXIT_FAILED
    assert not (folder / "log.txt").exists()
    assert run(tmp_path, "train") == 0
    assert not (folder / "failure.json").exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("no such data"), worker.EXIT_USER_ERROR, "ieg: error: no such data"),
        (DivergedError("loss is NaN"), worker.EXIT_DIVERGED, "ieg: diverged: loss is NaN"),
        (RuntimeError("a bug"), worker.EXIT_FAILED, "RuntimeError: a bug"),
        (SupersededError("attempt 1 stops"), worker.EXIT_SUPERSEDED, "ieg: attempt 1 stops"),
    ],
)
def test_the_child_ends_with_a_code_that_tells_what_happened(
    monkeypatch, capsys, error, code, said
):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(run_trial, "train_trial", fail)
    assert worker.main(["train", TRIAL, "runs", "data", "2", "1"]) == code
    output = capsys.readouterr()
    assert said in output.out + output.err


def test_a_trial_that_another_sweep_works_on_is_waited_for(monkeypatch):
    calls, clock = [], FakeClock()

    def evaluate(trial, root, data_dir, runtime):
        calls.append((trial, root, data_dir, runtime.threads, runtime.num_replicas))
        if len(calls) < 3:
            raise TrialBusyError("busy")

    monkeypatch.setattr(run_trial, "evaluate_trial", evaluate)
    assert worker.main(["evaluate", TRIAL, "runs", "data", "2", "4"], clock) == 0
    assert clock.slept == [worker.BUSY_SECONDS] * 2
    assert calls == [(TRIAL, Path("runs"), Path("data"), 2, 4)] * 3
