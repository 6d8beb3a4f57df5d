# SPDX-License-Identifier: Apache-2.0
"""Results roots in a bucket, on the emulator that enforces generations (tests/gcs.py)."""

import contextlib
import dataclasses
import json
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.host.files import read_json, write_json_atomic
from ieg_core.store import gcs as storage
from ieg_core.store import layout, leases, mirror, trial_copy
from ieg_core.store.leases import SupersededError
from ieg_core.store.record import Record
from ieg_core.store.records import LeaseRecord, PlanRecord, ProgressRecord, RunRecord, TrialRecord
from ieg_core.sweep import plan as sweep
from ieg_core.sweep.request import SweepRequest
from ieg_core.training.checkpoint import Progress, load_checkpoint, read_progress, save_checkpoint
from tests import gcs
from tests.clock import FakeClock
from tests.records import example

ROOT = f"gs://{gcs.BUCKET}/runs"
TRIAL = "digits_uniform_0.4-l2r-seed0-0123456789ab"
URL = f"{ROOT}/trials/{TRIAL}"


@pytest.fixture
def emulator(monkeypatch):
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        yield running


def put(name: str, value: object) -> None:
    data = value.encode() if isinstance(value, Record) else json.dumps(value).encode()
    storage.write(f"{ROOT}/{name}", data)


def stored(prefix: str = "") -> set[str]:
    return set(storage.list_files(ROOT, prefix))


def state(value: float) -> dict:
    return {"params": [np.full(1000, value, np.float32)]}


def save(folder: Path, step: int, value: float = 0.0) -> None:
    """Does what the worker does in a scratch folder: leases it and saves a checkpoint."""
    with leases.owned(folder) as lease:
        save_checkpoint(lease, state(value), Progress(TRIAL, step, 1, 1, 0.0, {}))


def test_a_folder_is_handed_on_as_it_is(tmp_path):
    for opened in (mirror.planning, mirror.trial, mirror.sweep):
        with opened(str(tmp_path), *["x"][: opened is not mirror.planning]) as root:
            assert root == tmp_path
    run = example(RunRecord)
    assert RunRecord.read(str(tmp_path), "x") is None
    run.write(str(tmp_path), "x")
    assert RunRecord.read(str(tmp_path), "x") == RunRecord.read(tmp_path, "x") == run
    assert mirror.latest(str(tmp_path)) == ""
    layout.set_latest(tmp_path, "newest")
    assert mirror.latest(str(tmp_path)) == "newest"
    assert mirror.fetch(str(tmp_path), "runs", tmp_path) == [tmp_path / "runs" / "x.json"]


def test_a_record_in_a_bucket_is_read(emulator):
    assert RunRecord.read(ROOT, "x") is None
    example(RunRecord).write(ROOT, "x")
    assert RunRecord.read(ROOT, "x") == example(RunRecord)
    storage.write(f"{ROOT}/runs/x.json", b"{")
    with pytest.raises(UserError, match=r"gs://ieg/runs/runs/x\.json is damaged"):
        RunRecord.read(ROOT, "x")
    assert RunRecord.look(ROOT, "x")[0] is None


def test_a_plan_goes_up_and_what_is_there_stays(emulator):
    request = SweepRequest("digits_uniform_0.4", methods=("supervised",), steps=50)

    def planned() -> sweep.Plan:
        with mirror.planning(ROOT) as root:
            write_json_atomic(root / "runs" / "label.json", {"schema": 1})
            return sweep.plan(dataclasses.replace(request, results=str(root)))

    made = planned()
    (trial,) = made.trials
    config, first = f"trials/{trial}/config.json", f"sweeps/{made.sweep}/plan.json"
    assert {config, first, "runs/label.json"} <= stored()
    assert len(stored("label_sets/")) == 2
    place = f"{ROOT}/sweeps/{made.sweep}"
    first_plan = dataclasses.replace(PlanRecord.read(place), created="2020-01-02T03:04:05Z")
    first_plan.write(place)
    before = storage.list_files(ROOT)
    assert planned() == made
    after = storage.list_files(ROOT)
    assert after.keys() == before.keys()
    kept = {name for name in before if after[name] == before[name]}
    assert kept == {config} | stored("label_sets/")
    assert PlanRecord.read(place) == first_plan


def test_a_plan_that_fails_uploads_nothing(emulator):
    def fail_half_way() -> None:
        with mirror.planning(ROOT) as root:
            (root / "label_sets").mkdir()
            (root / "label_sets" / "half").write_text("")
            raise UserError("too few examples")

    with pytest.raises(UserError):
        fail_half_way()
    assert stored() == set()


def test_a_trial_goes_up_while_it_runs_and_whole_at_the_end(emulator):
    clock = FakeClock()
    put(f"trials/{TRIAL}/config.json", example(TrialRecord, label_set="digits-1"))
    put("label_sets/digits-1/manifest.json", {})
    put("label_sets/digits-10/manifest.json", {})
    with mirror.trial(ROOT, TRIAL, clock) as root:
        folder = layout.trial_folder(root, TRIAL)
        assert [path.name for path in (root / "label_sets").iterdir()] == ["digits-1"]
        save(folder, 25)
        example(ProgressRecord, step=25).write(folder)
        (folder / "model.keras").write_bytes(b"model")
        (folder / "tensorboard").mkdir()
        (folder / "tensorboard" / "events").write_bytes(b"events")
        wanted = {"checkpoint/000001.safetensors", "progress.json", "tensorboard/events"}
        clock.advance(trial_copy.LOOK_SECONDS)
        assert wanted <= set(storage.list_files(URL))
        assert "model.keras" not in storage.list_files(URL)
        write_json_atomic(folder / "result.json", {"accuracy": 1})
    listed = set(storage.list_files(URL))
    assert listed == wanted | {"config.json", "model.keras", "result.json", "leases/000001.json"}
    assert LeaseRecord.read(URL, 1).ended
    requests = len(emulator.requests)
    with mirror.trial(ROOT, TRIAL) as root:  # finished: nothing is leased or uploaded
        folder = layout.trial_folder(root, TRIAL)
        assert {path.name for path in folder.iterdir()} >= {"config.json", "result.json"}
        assert not (folder / "model.keras").exists()
    assert {method for method, _ in emulator.requests[requests:]} == {"GET"}
    before = storage.list_files(URL)
    with mirror.trial(ROOT, TRIAL) as root:  # but what is added to it goes up
        assert (root / "label_sets" / "digits-1" / "manifest.json").exists()
        page = layout.trial_folder(root, TRIAL) / "audit" / "audit.html"
        page.parent.mkdir()
        page.write_text("<p>")
    after = storage.list_files(URL)
    assert after == before | {"audit/audit.html": after["audit/audit.html"]}


def test_a_new_checkpoint_goes_up_at_once(emulator):
    """A lost pod costs the time between two checkpoints, not a minute more."""
    name, clock = "checkpoint/000001.safetensors", FakeClock()
    with mirror.trial(ROOT, TRIAL, clock) as root:
        folder = layout.trial_folder(root, TRIAL)
        with leases.owned(folder) as lease:
            for value in (1, 2):
                save_checkpoint(lease, state(value), Progress(TRIAL, 25 * value, 1, 1, 0.0, {}))
                clock.advance(trial_copy.LOOK_SECONDS)
                assert storage.read(f"{URL}/{name}")[0] == (folder / name).read_bytes()
        (folder / "log.txt").write_text("nothing new to go on from")
        requests, uploaded = len(emulator.requests), clock.time
        while clock.time < uploaded + trial_copy.SYNC_SECONDS - trial_copy.LOOK_SECONDS:
            assert len(emulator.requests) == requests
            clock.advance(trial_copy.LOOK_SECONDS)
        clock.advance(trial_copy.LOOK_SECONDS)
        assert "log.txt" in storage.list_files(URL)


def test_the_next_attempt_goes_on_from_the_last_ones_upload(emulator):
    def fail_after_a_checkpoint() -> None:
        with mirror.trial(ROOT, TRIAL) as root:
            folder = layout.trial_folder(root, TRIAL)
            save(folder, 25)
            write_json_atomic(folder / "failure.json", {"reason": "out of luck"})
            (folder / "log.txt").write_text("first\n")
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError):
        fail_after_a_checkpoint()
    assert {"failure.json", "checkpoint/000001.safetensors"} <= set(storage.list_files(URL))
    with mirror.trial(ROOT, TRIAL) as root:
        folder = layout.trial_folder(root, TRIAL)
        assert read_progress(folder).step == 25
        assert (folder / "log.txt").read_text() == "first\n"
        (folder / "failure.json").unlink()
        save(folder, 50)
    listed = set(storage.list_files(URL, "checkpoint/"))
    assert listed == {"checkpoint/000002.safetensors"}
    assert "failure.json" not in storage.list_files(URL)


def test_a_living_pod_is_waited_for_and_a_dead_one_is_not(emulator):
    clock = FakeClock()
    now = clock.time
    put(f"trials/{TRIAL}/leases/000001.json", example(LeaseRecord, started=now - 900))
    put(f"trials/{TRIAL}/progress.json", example(ProgressRecord, attempt=1, updated=now - 170))
    with mirror.trial(ROOT, TRIAL, clock):
        # The heartbeat was 170 seconds old, and is waited for until it is 180 seconds old.
        assert clock.slept == [trial_copy.WAIT_SECONDS] * 2
        assert "leases/000002.json" in storage.list_files(URL)


def test_a_result_that_comes_while_waiting_is_taken(emulator):
    def scenes():
        put(f"trials/{TRIAL}/result.json", {"accuracy": 1})
        yield

    clock = FakeClock(scenes())
    put(f"trials/{TRIAL}/leases/000001.json", example(LeaseRecord, started=clock.time))
    with mirror.trial(ROOT, TRIAL, clock) as root:
        assert read_json(layout.trial_folder(root, TRIAL) / "result.json") == {"accuracy": 1}
    assert set(storage.list_files(URL, "leases/")) == {"leases/000001.json"}


def test_a_pod_whose_upload_fails_for_a_while_tries_again(emulator, capsys):
    clock = FakeClock()
    with mirror.trial(ROOT, TRIAL, clock) as root:
        folder = layout.trial_folder(root, TRIAL)
        emulator.failures = [HTTPStatus.FORBIDDEN]
        save(folder, 25)
        clock.advance(trial_copy.LOOK_SECONDS)
        assert not storage.list_files(URL, "checkpoint/")
        clock.advance(trial_copy.SYNC_SECONDS)
        assert storage.list_files(URL, "checkpoint/")
    assert "ieg: will try again: no permission" in capsys.readouterr().err


def test_two_live_writers_the_stale_one_stops_and_its_successors_checkpoint_survives(
    emulator, monkeypatch
):
    """The first pod is thought dead; both save and upload in turn, at every point of the other."""
    monkeypatch.setattr(
        leases, "is_alive", lambda attempt, record, progress, now: False
    )  # its heartbeat did not get through
    with contextlib.ExitStack() as pods:
        stale_root = pods.enter_context(mirror.trial(ROOT, TRIAL))
        stale = layout.trial_folder(stale_root, TRIAL)
        stale_copy = trial_copy.Copy(URL, stale, 1, trial_copy.read_generations(URL))
        lease = pods.enter_context(leases.owned(stale))
        save_checkpoint(lease, state(1), Progress(TRIAL, 1000, 1, 1, 0.0, {}))
        example(ProgressRecord, step=1000).write(stale)
        trial_copy.send(stale_copy, everything=False)

        successor_root = pods.enter_context(mirror.trial(ROOT, TRIAL))
        successor = layout.trial_folder(successor_root, TRIAL)
        copy = trial_copy.Copy(URL, successor, 2, trial_copy.read_generations(URL))
        assert read_progress(successor).step == 1000
        # It looked for a later lease before there was one, and its uploads arrive only now.
        save_checkpoint(lease, state(1), Progress(TRIAL, 2000, 1, 1, 0.0, {}))
        example(ProgressRecord, step=2000).write(stale)
        trial_copy.send_once(stale_copy, everything=True)

        own = pods.enter_context(leases.owned(successor))
        save_checkpoint(own, state(2), Progress(TRIAL, 1025, 1, 1, 0.0, {}))
        example(ProgressRecord, step=1025).write(successor)
        trial_copy.send(copy, everything=False)
        assert ProgressRecord.read(URL).step == 1025

        # Now it is late by more: refused, shown the lease, and stopped.
        example(ProgressRecord, step=3000).write(stale)
        write_json_atomic(stale / "result.json", {"step": 3000})
        with pytest.raises(storage.StaleWriterError):
            trial_copy.send_once(stale_copy, everything=True)
        trial_copy.send(stale_copy, everything=True)
        assert stale_copy.superseded
        with pytest.raises(SupersededError):
            save_checkpoint(lease, state(1), Progress(TRIAL, 4000, 1, 1, 0.0, {}))
        assert ProgressRecord.read(URL).step == 1025
        save_checkpoint(own, state(2), Progress(TRIAL, 1050, 1, 1, 0.0, {}))
        trial_copy.send(copy, everything=False)
    assert set(storage.list_files(URL, "checkpoint/")) == {"checkpoint/000002.safetensors"}
    assert "result.json" not in storage.list_files(URL)
    with mirror.trial(ROOT, TRIAL) as root:
        found, progress = load_checkpoint(layout.trial_folder(root, TRIAL), TRIAL, state(0))
        assert progress.step == 1050
        assert (found["params"][0] == 2).all()


def test_of_two_pods_that_lease_at_once_one_waits(emulator, monkeypatch):
    """The other's lease comes between the look at the leases and the own one."""
    write = storage.write

    def be_late(url, data, generation=None):
        if url.endswith("leases/000001.json") and generation == 0:
            monkeypatch.setattr(storage, "write", write)
            write(url, example(LeaseRecord, token="other", ended=1.0).encode())
        return write(url, data, generation)

    monkeypatch.setattr(storage, "write", be_late)
    with mirror.trial(ROOT, TRIAL):
        assert set(storage.list_files(URL, "leases/")) == {
            "leases/000001.json",
            "leases/000002.json",
        }
    assert LeaseRecord.read(URL, 1).token == "other"


def test_a_sweeps_small_files_come_and_its_report_goes(emulator, tmp_path):
    put("sweeps/s/plan.json", example(PlanRecord, trials=[TRIAL, "another"]))
    put(f"trials/{TRIAL}/config.json", example(TrialRecord, label_set="digits-1"))
    for name in ("result.json", "curves.json", "checkpoint/000001.safetensors", "model.keras"):
        put(f"trials/{TRIAL}/{name}", {})
    put("label_sets/digits-1/manifest.json", {})
    put("label_sets/digits-1/arrays.safetensors", {})
    put("trials/of-another-sweep/result.json", {})
    with mirror.sweep(ROOT, "s") as root:
        there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        assert there == {
            "sweeps/s/plan.json",
            f"trials/{TRIAL}/config.json",
            f"trials/{TRIAL}/result.json",
            f"trials/{TRIAL}/curves.json",
            "label_sets/digits-1/manifest.json",
        }
        report = root / "sweeps" / "s" / "report"
        report.mkdir()
        (report / "report.html").write_text("first")
        layout.set_latest(root, "s")
    assert mirror.latest(ROOT) == "s"
    with mirror.sweep(ROOT, "s") as root:
        (root / "sweeps" / "s" / "report").mkdir()
        (root / "sweeps" / "s" / "report" / "report.html").write_text("second")
    fetched = mirror.fetch(ROOT, "sweeps/s/report", tmp_path)
    assert fetched == [tmp_path / "report.html"]
    assert fetched[0].read_text() == "second"
