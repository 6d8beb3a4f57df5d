# SPDX-License-Identifier: Apache-2.0
import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from ieg_core import cli, sweep
from ieg_core.audit.run import audit_cell
from ieg_core.audit.shown import read_summary
from ieg_core.data import load_overlay, open_source
from ieg_core.data.labels import read_labels
from ieg_core.errors import UserError
from tests.ieg_core.audit.conftest import MadeCell, beliefs
from tests.ieg_core.data.trees import write_tree

DATA = Path("data")


def rows_of(cell):
    with (cell.folder / "audit" / "audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_every_training_example_the_most_suspect_first(knowing_cell):
    cell = knowing_cell
    audit_cell(cell.folder, DATA)
    rows = rows_of(cell)
    overlay = cell.overlay
    assert sorted(int(row["index"]) for row in rows) == overlay.train_ids.tolist()
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows[::50]:
        index = int(row["index"])
        assert int(row["given"]) == overlay.noisy_labels[index]
        assert int(row["clean"]) == overlay.clean_labels[index]
        assert row["suggested_name"] == overlay.class_names[int(row["suggested"])]
    table = parquet.read_table(cell.folder / "audit" / "audit.parquet").to_pylist()
    assert [str(row["index"]) for row in table] == [row["index"] for row in rows]
    assert [f"{row['score']:.9f}" for row in table] == [row["score"] for row in rows]
    assert set(table[0]) == set(rows[0])


def test_the_measures_are_scikit_learns(knowing_cell):
    summary = audit_cell(knowing_cell.folder, DATA)
    rows = rows_of(knowing_cell)
    wrong = np.array([row["given"] != row["clean"] for row in rows])
    score = np.array([float(row["score"]) for row in rows])
    flagged = score > 0.5
    assert 0.8 < summary["average_precision"] < 1
    assert summary["average_precision"] == pytest.approx(
        average_precision_score(wrong, score), abs=1e-4
    )
    assert summary["auroc"] == pytest.approx(roc_auc_score(wrong, score), abs=1e-4)
    assert summary["precision"] == pytest.approx(precision_score(wrong, flagged))
    assert summary["recall"] == pytest.approx(recall_score(wrong, flagged))
    assert summary["wrong"] == wrong.sum()
    assert summary["flagged"] == flagged.sum()
    estimated, true = (np.array(summary[f"transition_{n}"]) for n in ("estimated", "true"))
    np.testing.assert_allclose(estimated.sum(1), 1)
    assert summary["transition_error"] == pytest.approx(np.abs(estimated - true).mean())
    assert read_summary(knowing_cell.folder) == summary


def test_true_labels_are_told_only_where_they_are_known(make_cell):
    cell = make_cell("digits", "supervised")
    cell.write(beliefs(cell.overlay), name="prediction")
    summary = audit_cell(cell.folder, DATA)
    assert not summary["clean_labels_known"]
    assert "average_precision" not in summary
    assert "transition_true" not in summary
    assert "clean" not in rows_of(cell)[0]
    page = (cell.folder / "audit" / "audit.html").read_text()
    assert "true labels are not known" in page


def test_an_example_that_was_never_seen_has_no_score(make_cell):
    cell = make_cell(method="supervised")
    visits = np.ones(len(cell.overlay.noisy_labels))
    unseen = cell.overlay.train_ids[:7]
    visits[unseen] = 0
    cell.write(beliefs(cell.overlay), visits, name="prediction")
    summary = audit_cell(cell.folder, DATA)
    assert summary["not_seen"] == 7
    last = rows_of(cell)[-7:]
    assert sorted(int(row["index"]) for row in last) == unseen.tolist()
    assert {row["score"] for row in last} == {""}
    assert all(row["suggested"] == row["given"] for row in last)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_cleaned_file_is_the_next_runs_labels(knowing_cell, make_cell, tmp_path, suffix):
    cell = knowing_cell
    path = tmp_path / f"cleaned{suffix}"
    audit_cell(cell.folder, DATA, threshold=0.6, labels_file=path)
    source = open_source("digits", DATA)
    labels = read_labels(path, source).labels
    overlay = cell.overlay
    given, clean = overlay.noisy_labels, overlay.clean_labels
    np.testing.assert_array_equal(labels[overlay.probe_ids], clean[overlay.probe_ids])
    changed = {
        int(row["index"]): int(row["suggested"])
        for row in rows_of(cell)
        if float(row["score"]) >= 0.6
    }
    assert len(changed) > 300
    for index in overlay.train_ids.tolist():
        assert labels[index] == changed.get(index, given[index])
    train = overlay.train_ids
    before, after = (np.mean(found[train] != clean[train]) for found in (given, labels))
    assert after < before / 2

    following = make_cell("digits_labels", "supervised", labels=str(path))
    np.testing.assert_array_equal(following.overlay.noisy_labels, labels)


def test_a_threshold_of_zero_changes_only_what_has_another_suggestion(knowing_cell):
    summary = audit_cell(knowing_cell.folder, DATA, threshold=0.0)
    rows = rows_of(knowing_cell)
    assert summary["flagged"] == sum(row["given"] != row["suggested"] for row in rows)


def test_doing_it_again_gives_the_same_bytes(knowing_cell):
    folder = knowing_cell.folder / "audit"
    audit_cell(knowing_cell.folder, DATA)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    audit_cell(knowing_cell.folder, DATA)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"audit.csv", "audit.parquet", "audit.html", "summary.json"}


def test_what_cannot_be_audited_is_one_clear_line(make_cell, tmp_path):
    def message(cell, **options):
        with pytest.raises(UserError) as error:
            audit_cell(cell.folder, DATA, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "audit of probe_only is not available" in message(make_cell(method="probe_only"))
    cell = make_cell()
    assert "its training is not done" in message(cell)
    (cell.folder / "training.json").write_text("{}")
    assert "its training is from an older version" in message(cell)
    (cell.folder / "examples.safetensors").write_bytes(b"no tensors")
    assert "is damaged" in message(cell)
    cell.write(np.full((3, 10), 0.1))
    assert "is not of 1438 examples" in message(cell)
    cell.write(beliefs(cell.overlay))
    assert "threshold must be in [0, 1], got 1.5" in message(cell, threshold=1.5)
    assert "expected .csv or .parquet" in message(cell, labels_file=tmp_path / "x.txt")
    (tmp_path / "folder.csv").mkdir()
    assert "a folder of that name is in the way" in message(
        cell, labels_file=tmp_path / "folder.csv"
    )
    record = (cell.folder / "config.json").read_text()
    with pytest.raises(UserError, match="is no run"):
        audit_cell(tmp_path, DATA)
    for text in ("[]", "{}", '{"method": "ieg"}'):
        (cell.folder / "config.json").write_text(text)
        assert "config.json is damaged" in message(cell)
    (cell.folder / "config.json").write_text(record)
    manifest = next((cell.folder.parent.parent / "overlays").glob("*/manifest.json"))
    shutil.rmtree(manifest.parent)
    assert "cannot read the overlay" in message(cell)


def test_the_command_audits_a_run_and_every_run_of_a_sweep(make_cell, capsys, tmp_path):
    cell, other = make_cell(), make_cell(method="supervised")
    cell.write(beliefs(cell.overlay))
    other.write(beliefs(other.overlay), name="prediction")
    path = tmp_path / "cleaned.csv"
    assert cli.main(["audit", str(cell.folder), "--write-labels", str(path), "--top", "5"]) == 0
    told = capsys.readouterr().out
    assert "digits_uniform_0.4, ieg, seed 0: " in told
    assert "average precision 0." in told
    assert f"make sweep DATASET=digits_labels LABELS={path}" in told

    root = cell.folder.parent.parent
    plan = root / "sweeps" / "both" / "plan.json"
    plan.parent.mkdir()
    plan.write_text(json.dumps({"cells": [cell.folder.name, other.folder.name, "not-run"]}))
    assert cli.main(["audit", str(plan.parent)]) == 0
    assert (other.folder / "audit" / "summary.json").exists()
    assert cli.main(["audit", str(plan.parent), "--write-labels", str(path)]) == 2
    assert "stands for 2: name one of them" in capsys.readouterr().err
    both = [str(cell.folder), str(other.folder), str(other.folder)]
    assert cli.main(["audit", *both]) == 0
    assert capsys.readouterr().out.count(" labels look wrong") == 2
    assert cli.main(["audit", *both, "--write-labels", str(path)]) == 2
    assert "stands for 2: name one of them" in capsys.readouterr().err
    without_digest = cell.folder.with_name(cell.folder.name.rpartition("-")[0])
    assert cli.main(["audit", str(without_digest)]) == 0
    assert str(cell.folder / "audit" / "audit.html") in capsys.readouterr().out
    assert cli.main(["status", str(without_digest)]) == 0
    assert cli.main(["report", str(without_digest), "--output", str(tmp_path / "joined")]) == 0
    (cell.folder / "training.json").unlink()
    assert cli.main(["evaluate", str(without_digest)]) == 2
    assert "is not trained to the end" in capsys.readouterr().err
    plan.write_text(json.dumps({"cells": ["not-run"]}))
    assert cli.main(["audit", str(plan.parent)]) == 2
    assert "none of the 1 runs" in capsys.readouterr().err
    for text in ("[]", "{}", '{"cells": 3}'):
        plan.write_text(text)
        for command in ("audit", "status"):
            assert cli.main([command, str(plan.parent)]) == 2
            assert "plan.json is damaged (it has no list of cells)" in capsys.readouterr().err


def test_the_command_that_is_told_takes_the_cleaned_labels(tmp_path, monkeypatch, capsys):
    """Read at another size one's own images are other data, for which the file is not."""
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "my photos", {"train": 20, "test": 2, "more": 1})
    asked = sweep.SweepRequest(
        "folder",
        methods=("ieg",),
        settings=("images.size=8", "images.channels=1", "images.eval_sets=more", "batch_size=10"),
        data_dir="my photos",
    )
    (cell,) = sweep.plan(asked).cells
    folder = tmp_path / "runs" / "cells" / cell
    overlay = load_overlay(next((tmp_path / "runs" / "overlays").iterdir()))
    MadeCell(folder, overlay).write(beliefs(overlay))
    code = cli.main(["audit", str(folder), "--data-dir", "my photos", "--write-labels", "my c.csv"])
    assert code == 0
    told = capsys.readouterr().out.splitlines()[-1]
    words = dict(word.split("=", 1) for word in shlex.split(told.partition("make sweep ")[2]))
    assert words == {
        "DATASET": "folder_labels",
        "LABELS": "my c.csv",
        "DATA_DIR": "my photos",
        "SET": "images.size=8 images.channels=1 images.eval_sets=more",
    }
    following = sweep.SweepRequest(
        words["DATASET"],
        methods=("supervised", "ieg"),
        labels=words["LABELS"],
        data_dir=words["DATA_DIR"],
        settings=(*words["SET"].split(), "batch_size=10"),
    )
    assert len(sweep.plan(following).cells) == 2
