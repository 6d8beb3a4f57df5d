# SPDX-License-Identifier: Apache-2.0
"""`ieg audit`: what its arguments stand for, and a table judged by features."""

import csv
import os

import numpy as np
import pytest

from ieg_core.cli import audit, main, options
from ieg_core.errors import UserError
from tests.doors import refused
from tests.records import put


def test_a_root_means_the_runs_of_the_sweep_that_was_planned_last(tmp_path):
    for age, sweep in enumerate(("new", "old")):
        trials = [f"{sweep}-{name}" for name in ("audited", "clean")]
        for trial in trials:
            put(tmp_path / "trials" / trial / "config.json")
        (tmp_path / "trials" / trials[0] / "examples.safetensors").touch()
        plan = tmp_path / "sweeps" / sweep / "plan.json"
        put(plan, trials=trials)
        os.utime(plan, (1000 - age, 1000 - age))
    assert audit._kind(str(tmp_path)) == audit.RUN
    assert audit.auditable_trials(tmp_path) == [tmp_path / "trials" / "new-audited"]
    single = tmp_path / "trials" / "old-clean"
    assert audit.auditable_trials(single) == [single]  # whose audit says why it is not possible
    (tmp_path / "trials" / "new-audited" / "examples.safetensors").unlink()
    with pytest.raises(UserError, match="none of the 2 runs of"):
        audit.auditable_trials(tmp_path)


def test_options_of_images_are_refused_for_runs(tmp_path, capsys):
    put(tmp_path / "trials" / "one" / "config.json")
    put(tmp_path / "sweeps" / "s" / "plan.json", trials=["one"])
    for option in ("--precision=0.9", "--seed=1", "--out=x"):
        line = refused(capsys, main.main(["audit", str(tmp_path), option]))
        assert f"{option.partition('=')[0]} is for images, but {tmp_path} is a run" in line


def test_images_of_a_run_that_have_moved_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, base, data_dir in (("old", "folder", "gone"), ("new", "digits", "gone")):
        put(tmp_path / name / "config.json", base=base, data_dir=str(tmp_path / data_dir))
    with pytest.raises(UserError, match=r"there is no folder .*gone, whose images old was trained"):
        options.data_dir_of(tmp_path / "old", None)
    assert options.data_dir_of(tmp_path / "old", "here") == "here"
    assert options.data_dir_of(tmp_path / "new", None) == options.DATA_DIR
    (tmp_path / "gone").mkdir()
    assert options.data_dir_of(tmp_path / "old", None) == str(tmp_path / "gone")


def test_labels_are_not_written_into_the_folder_of_a_runs_images(tmp_path):
    """Where train.csv may hold the labels that people gave."""
    images = tmp_path / "photos"
    for name, base in (("own", "folder"), ("public", "digits")):
        put(tmp_path / name / "config.json", base=base)
    with pytest.raises(UserError, match=r"train.csv, inside .*photos: choose another folder"):
        audit._refuse_overwriting(images / "train.csv", tmp_path / "own", images)
    audit._refuse_overwriting(tmp_path / "cleaned.csv", tmp_path / "own", images)
    audit._refuse_overwriting(images / "cleaned.csv", tmp_path / "public", images)


def test_a_table_is_audited_by_a_file_of_features(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 150)
    features = rng.normal(size=(3, 8))[truth] * 3 + rng.normal(size=(150, 8))
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    given = np.where(np.arange(150) < 15, (truth + 1) % 3, truth)
    rows = "".join(f"a/{number}.jpg,{'xyz'[label]}\n" for number, label in enumerate(given))
    (tmp_path / "table.csv").write_text(f"path,label\n{rows}")
    out = tmp_path / "out"
    words = ["audit", str(tmp_path / "table.csv"), "--out", str(out)]
    assert main.main([*words, "--features", str(tmp_path / "features.npy")]) == 0
    assert str(out / "review.html") in capsys.readouterr().out
    with (out / "audit.csv").open(newline="") as file:
        suspects = [int(row["path"][2:-4]) for row in csv.DictReader(file)][:15]
    assert sum(number < 15 for number in suspects) >= 13
