# SPDX-License-Identifier: Apache-2.0
import json
import os
import time

import pytest

from ieg_core.errors import UserError
from ieg_core.store import gcs as storage
from ieg_core.store.leases import trial_lock
from ieg_core.store.records import RunRecord
from ieg_core.store.seal import seal
from pipelines.cleanup import clean, parse_age, plan, size_text
from pipelines.stored_files import FolderRoot, open_root
from tests import gcs
from tests.clock import FakeClock
from tests.records import KINDS, complete, example

DAY = 86400.0
OLD = 40 * DAY
LARGE = ("checkpoint/000001.safetensors", "model.keras", "tensorboard/events", ".x.keras.tmp")
SMALL = ("config.json", "result.json", "curves.json", "examples.safetensors", "progress.json")


@pytest.fixture
def now():
    return time.time()


def write(root, name, text="x" * 100, age=OLD):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, dict):
        text = json.dumps(seal(complete(path.name, **text) if path.name in KINDS else text))
    path.write_text(text)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def trial(root, name, *, finished=True, age=OLD, updated=0.0):
    for file in (*LARGE, *SMALL):
        if file == "progress.json":
            write(root, f"trials/{name}/{file}", {"phase": "training", "updated": updated}, age)
        elif finished or file != "result.json":
            write(root, f"trials/{name}/{file}", age=age)


def sweep(root, name, trials, *, age=OLD, latest=False):
    write(root, f"sweeps/{name}/plan.json", {"trials": trials}, age)
    write(root, f"sweeps/{name}/report/report.html", age=age)
    if latest:
        (root / "latest").unlink(missing_ok=True)
        (root / "latest").symlink_to(f"sweeps/{name}")


def accepted(namespace="", sweep=""):
    run = {"namespace": namespace, "sweep": sweep, "accepted": "2025-01-02T03:04:05Z"}
    return {"schema": 1, "trials": [], "run": run}


def names(root):
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def run(root, older="30d", *, only_plan=False):
    lines = []
    clean(FolderRoot(root), parse_age(older), only_plan=only_plan, say=lines.append)
    return "\n".join(lines)


def test_an_old_finished_trial_loses_what_is_large_and_keeps_its_result(tmp_path):
    trial(tmp_path, "a")
    write(tmp_path, "label_sets/o/manifest.json")
    run(tmp_path)
    kept = {f"trials/a/{name}" for name in SMALL}
    assert names(tmp_path) - {"trials/a/lock"} == kept | {"label_sets/o/manifest.json"}
    assert not (tmp_path / "trials/a/checkpoint").exists()


def test_an_old_trial_without_a_result_goes_whole(tmp_path):
    trial(tmp_path, "a", finished=False)
    run(tmp_path)
    assert not (tmp_path / "trials" / "a").exists()


def test_what_is_young_stays(tmp_path):
    trial(tmp_path, "a", age=29 * DAY)
    trial(tmp_path, "b", finished=False, age=29 * DAY)
    # One young file is enough.
    trial(tmp_path, "c")
    write(tmp_path, "trials/c/curves.json", age=DAY)
    before = names(tmp_path)
    assert "nothing that old" in run(tmp_path)
    assert names(tmp_path) == before


def test_the_latest_sweep_and_its_trials_stay(tmp_path):
    for name in ("a", "b", "c"):
        trial(tmp_path, name)
    sweep(tmp_path, "old", ["a", "b"])
    sweep(tmp_path, "new", ["b", "c"], latest=True)
    run(tmp_path)
    left = names(tmp_path)
    assert not any(name.startswith("sweeps/old/") for name in left)
    assert "sweeps/new/plan.json" in left
    assert "trials/a/model.keras" not in left
    assert {"trials/b/model.keras", "trials/c/model.keras"} <= left


def test_a_young_sweep_keeps_its_old_trials(tmp_path):
    trial(tmp_path, "a")
    sweep(tmp_path, "young", ["a"], age=DAY)
    before = names(tmp_path)
    run(tmp_path)
    assert names(tmp_path) == before


def test_a_running_trial_stays_although_its_files_are_old(tmp_path, now):
    # A clock that runs behind, or a volume that keeps old times.
    trial(tmp_path, "a", finished=False, updated=now - 60)
    trial(tmp_path, "b", finished=False, updated=now - 3600)
    run(tmp_path)
    assert {path.name for path in (tmp_path / "trials").iterdir()} == {"a"}


def test_a_trial_whose_lock_is_held_stays(tmp_path):
    trial(tmp_path, "a", finished=False)
    with trial_lock(tmp_path / "trials" / "a"):
        os.utime(tmp_path / "trials/a/lock", (0, 0))
        assert "in use by another process" in run(tmp_path)
    assert (tmp_path / "trials/a/checkpoint/000001.safetensors").exists()


@pytest.mark.parametrize(("age", "updated"), [(DAY, 0.0), (OLD, 60.0)])
def test_a_sweep_in_progress_stays_although_it_was_planned_long_ago(tmp_path, now, age, updated):
    """`a` works now, or did a day ago; `b` waits for a node with its checkpoint."""
    trial(tmp_path, "a", finished=False, age=age, updated=updated and now - updated)
    trial(tmp_path, "b", finished=False)
    write(tmp_path, "sweeps/s/plan.json", {"trials": ["a", "b"]})
    before = names(tmp_path)
    run(tmp_path)
    assert names(tmp_path) == before


def test_a_sweep_that_only_waits_for_nodes_stays_for_a_week(tmp_path):
    trial(tmp_path, "a", finished=False, age=2 * DAY)
    write(tmp_path, "sweeps/s/plan.json", {"trials": ["a"]}, age=2 * DAY)
    run(tmp_path, "12h")
    assert (tmp_path / "sweeps/s/plan.json").exists()
    assert (tmp_path / "trials/a/checkpoint/000001.safetensors").exists()
    write(tmp_path, "sweeps/s/report/report.html", age=2 * DAY)
    run(tmp_path, "12h")
    assert names(tmp_path) == set()


def test_an_accepted_run_keeps_what_it_used(tmp_path):
    trial(tmp_path, "a")
    sweep(tmp_path, "s", ["a"])
    scheduled = "scheduled/nightly"
    for run_id, age in (("r1", OLD + 3 * DAY), ("r2", OLD + 2 * DAY), ("r3", OLD)):
        write(tmp_path, f"{scheduled}/{run_id}/trials/c/result.json", age=age)
    write(tmp_path, "accepted/nightly.json", accepted(namespace=f"{scheduled}/r1"))
    write(tmp_path, "accepted/other.json", accepted(sweep="s"))
    run(tmp_path)
    # r3 is the newest of its schedule, r1 was accepted.
    assert {p.name for p in (tmp_path / scheduled).iterdir()} == {"r1", "r3"}
    assert (tmp_path / "trials/a/model.keras").exists()
    assert (tmp_path / "sweeps/s/plan.json").exists()


def test_a_scheduled_run_with_a_running_trial_stays(tmp_path, now):
    for run_id, updated in (("r1", now - 30), ("r2", 0.0), ("r3", 0.0)):
        folder = tmp_path / "scheduled" / "n" / run_id
        trial(folder, "c", finished=False, updated=updated, age=OLD - (run_id == "r3"))
    run(tmp_path)
    assert {p.name for p in (tmp_path / "scheduled/n").iterdir()} == {"r1", "r3"}


def test_records_of_runs_go_with_their_sweeps(tmp_path):
    sweep(tmp_path, "old", [])
    sweep(tmp_path, "new", [], latest=True)
    write(tmp_path, "runs/one.json", example(RunRecord, sweep="old").to_value())
    write(tmp_path, "runs/two.json", example(RunRecord, sweep="new").to_value())
    run(tmp_path)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["two.json"]


def test_the_doctors_lines_go(tmp_path):
    write(tmp_path, "doctor/doctor-1/gpu.json")
    write(tmp_path, "doctor/doctor-2/gpu.json", age=DAY)
    run(tmp_path)
    assert [p.name for p in (tmp_path / "doctor").iterdir()] == ["doctor-2"]


def test_a_plan_lists_with_sizes_and_removes_nothing(tmp_path):
    trial(tmp_path, "a")
    write(tmp_path, "trials/a/model.keras", "x" * 3 * 1024 * 1024)
    before = names(tmp_path)
    text = run(tmp_path, only_plan=True)
    assert "would remove" in text
    # The model and three files of 100 bytes.
    assert "3.0 MiB    40.0 days old  checkpoint and model of a" in text
    assert names(tmp_path) == before
    # What it then does is what it said.
    assert run(tmp_path).splitlines()[1:] == text.splitlines()[1:]


def test_cleaning_twice_finds_nothing_the_second_time(tmp_path):
    trial(tmp_path, "a")
    trial(tmp_path, "b", finished=False)
    run(tmp_path)
    assert "nothing that old" in run(tmp_path)


def test_the_largest_comes_first_and_sizes_are_sums(tmp_path, now):
    trial(tmp_path, "a")
    trial(tmp_path, "b")
    write(tmp_path, "trials/b/model.keras", "x" * 1000)
    found = plan(FolderRoot(tmp_path), 30 * DAY, now)
    assert [removal.size for removal in found] == [1300, 400]


def test_a_link_in_the_root_is_not_followed(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    write(outside, "trials/a/model.keras")
    root.mkdir()
    (root / "trials").symlink_to(outside / "trials")
    run(root)
    assert (outside / "trials/a/model.keras").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * DAY), ("12h", DAY / 2), ("8w", 56 * DAY), ("1.5d", 1.5 * DAY)],
)
def test_ages(text, seconds):
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "30 days", "-1d", "0d", "30m", "d", "0.5h"])
def test_what_is_no_age_is_refused(text):
    with pytest.raises(UserError, match="OLDER="):
        parse_age(text)


def test_a_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no results root"):
        open_root(str(tmp_path / "absent"))


def test_sizes():
    assert [size_text(n) for n in (0, 1023, 1024, 1536 * 1024)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 MiB",
    ]  # fmt: skip


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket's root with an old sweep, the latest one, and a scheduled schedule's two runs."""
    root = f"gs://{gcs.BUCKET}/team"
    local = tmp_path / "local"
    for name in ("a", "b"):
        trial(local, name)
    trial(local, "c", finished=False)
    sweep(local, "old", ["a"])
    sweep(local, "new", ["b"])
    write(local, "latest.json", {"sweep": "new"})
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        storage.upload(root, local, names(local), dict.fromkeys(names(local)))
        yield root


def clean_bucket(root, now, **options):
    lines, clock = [], FakeClock()
    clock.time = now
    options = {"only_plan": False, "say": lines.append, "clock": clock} | options
    clean(open_root(root), 30 * DAY, **options)
    return "\n".join(lines)


def test_a_bucket_is_cleaned_by_the_same_rules(bucket, now):
    before = set(storage.list_files(bucket))
    assert "nothing that old" in clean_bucket(bucket, now)
    clean_bucket(bucket, now + OLD, only_plan=True)
    assert set(storage.list_files(bucket)) == before
    clean_bucket(bucket, now + OLD)
    left = set(storage.list_files(bucket))
    assert before - left == {
        *(f"trials/a/{name}" for name in LARGE),
        *(name for name in before if name.startswith(("trials/c/", "sweeps/old/"))),
    }


def test_a_trial_of_a_bucket_that_was_written_to_meanwhile_stays(bucket, now):
    root = open_root(bucket)
    found = [removal for removal in plan(root, 30 * DAY, now + OLD) if removal.trial == "trials/c"]
    storage.write(f"{bucket}/trials/c/claims/000002.json", b"{}")
    (removal,) = found
    assert root.remove(removal.files, removal.trial) is False
    assert "trials/c/model.keras" in storage.list_files(bucket)
