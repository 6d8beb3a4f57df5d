# SPDX-License-Identifier: Apache-2.0
import errno
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from ieg_core.host import files
from ieg_core.store import fingerprint, layout, leases
from ieg_core.store.records import TrialRecord
from tests.records import example, put


def test_a_run_is_found_without_its_digest_and_the_newest_is_meant(tmp_path, monkeypatch):
    trials = tmp_path / "runs" / "trials"
    for age, name in enumerate(("d[1]-ieg-seed0-0123456789ab", "d[1]-ieg-seed0-cdef01234567")):
        files.write_json_atomic(trials / name / "config.json", {})
        os.utime(trials / name / "config.json", (1000 - age, 1000 - age))
    files.write_json_atomic(trials / "d[1]-ieg-seed01-0123456789ab" / "config.json", {})
    (trials / "d[1]-ieg-seed0-999999999999").mkdir()  # no run
    monkeypatch.chdir(tmp_path)
    found = layout.find_run(Path("runs/trials/d[1]-ieg-seed0"))
    assert found == trials / "d[1]-ieg-seed0-0123456789ab"
    assert layout.find_run(found.with_name("d[1]-ieg-seed0-cdef01234567")).name.endswith("567")
    for name in ("d[1]-ieg", "d[1]-ieg-seed", "d[1]-ieg-seed0-01"):
        assert layout.find_run(trials / name) == trials / name


def test_links_to_nothing_or_in_a_loop_are_no_results(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", os.path.lexists)  # pathlib's `glob` asks so, or as follows
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop contains no results: expected the folder of a sweep"):
        layout.find_trials(tmp_path / "loop")
    trials, sweeps = tmp_path / "trials", tmp_path / "sweeps"
    for folder in (trials / "a-0123456789ab", trials / "a-0123456789ac", sweeps / "a"):
        folder.mkdir(parents=True)
    (trials / "a-0123456789ac" / "config.json").symlink_to("nowhere")
    put(trials / "a-0123456789ab" / "config.json")
    assert layout.find_run(trials / "a").name == "a-0123456789ab"
    (sweeps / "a" / "plan.json").symlink_to("nowhere")
    put(sweeps / "b" / "plan.json", trials=["a-0123456789ab"])
    assert layout.find_trials(tmp_path)[1:] == ("b", ["a-0123456789ab"])


def _hold(folder: Path, ready) -> None:
    with leases.trial_lock(folder):
        ready.set()
        signal.pause()


def test_a_lock_keeps_others_out_and_dies_with_its_owner(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=_hold, args=(tmp_path, ready))
    owner.start()
    assert ready.wait(30)
    with pytest.raises(leases.TrialBusyError), leases.trial_lock(tmp_path):
        pass
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    with leases.trial_lock(tmp_path):
        pass


def test_a_trial_is_named_by_all_that_decides_its_outcome():
    record = example(TrialRecord, dataset="digits_uniform_0.2", method="l2r", seed=0)
    name = fingerprint.trial_name(record)
    assert name.startswith("digits_uniform_0.2-l2r-seed0-")
    assert name == fingerprint.trial_name(replace(record, git_revision="another", trial="x"))
    for change in (
        {"config": {"learning_rate": 0.1}},
        {"label_set_digest": "b"},
        {"code_version": "b"},
        {"backend": "b"},
        {"precision": "b"},
        {"network_digest": "b"},
    ):
        assert name != fingerprint.trial_name(replace(record, **change))


def test_a_trial_whose_settings_were_edited_is_refused(tmp_path):
    record = example(TrialRecord)
    name = fingerprint.trial_name(record)
    folder = layout.trial_folder(tmp_path, name)
    replace(record, trial=name).write(folder)
    assert layout.read_planned(tmp_path, name).trial == name
    replace(record, trial=name, config={"learning_rate": 1.0}).write(folder)
    with pytest.raises(UserError, match=r"has other settings than those that .* is named by"):
        layout.read_planned(tmp_path, name)


def test_latest_points_at_the_newest_sweep(tmp_path):
    for sweep in ("a", "b"):
        (tmp_path / "sweeps" / sweep).mkdir(parents=True)
        layout.set_latest(tmp_path, sweep)
    assert (tmp_path / "latest").resolve().name == "b"
    assert layout.latest_sweep(tmp_path) == "b"
    assert layout.latest_folder(tmp_path) == tmp_path / "latest"


def test_where_links_fail_latest_is_a_file_that_names_the_sweep(tmp_path, monkeypatch):
    def no_links(path, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    for sweep in ("a", "b"):
        (tmp_path / "sweeps" / sweep).mkdir(parents=True)
        layout.set_latest(tmp_path, sweep)
    assert (tmp_path / "latest").read_text() == "sweeps/b\n"
    assert layout.latest_sweep(tmp_path) == "b"
    assert layout.latest_folder(tmp_path) == tmp_path / "sweeps" / "b"
    # The commands take it as they take a link.
    assert layout.find_run(tmp_path / "latest") == tmp_path / "sweeps" / "b"


def test_without_a_sweep_there_is_no_latest_one(tmp_path):
    assert layout.latest_sweep(tmp_path) == ""
