# SPDX-License-Identifier: Apache-2.0
import csv
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from ieg_core.audit.findings import read_audit
from ieg_core.audit.write import audit_trial
from ieg_core.cli import main
from ieg_core.data.label_set import load_label_set
from ieg_core.data.labels.label_file import read_labels
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.store.records import AuditRecord
from ieg_core.sweep import plan as sweep
from ieg_core.sweep.request import SweepRequest
from tests.ieg_core.audit.conftest import MadeTrial, beliefs
from tests.ieg_core.data.trees import write_tree
from tests.records import put

DATA = Path("data")


def rows_of(trial):
    with (trial.folder / "audit" / "audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_every_training_example_the_most_suspect_first(knowing_trial):
    trial = knowing_trial
    audit_trial(trial.folder, DATA)
    rows = rows_of(trial)
    label_set = trial.label_set
    assert sorted(int(row["index"]) for row in rows) == label_set.train_ids.tolist()
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows[::50]:
        index = int(row["index"])
        assert int(row["given"]) == label_set.noisy_labels[index]
        assert int(row["clean"]) == label_set.clean_labels[index]
        assert row["suggested_name"] == label_set.class_names[int(row["suggested"])]
    table = parquet.read_table(trial.folder / "audit" / "audit.parquet").to_pylist()
    assert [str(row["index"]) for row in table] == [row["index"] for row in rows]
    assert [f"{row['score']:.9f}" for row in table] == [row["score"] for row in rows]
    assert set(table[0]) == set(rows[0])


def test_the_measures_are_scikit_learns(knowing_trial):
    summary = audit_trial(knowing_trial.folder, DATA)
    rows = rows_of(knowing_trial)
    wrong = np.array([row["given"] != row["clean"] for row in rows])
    score = np.array([float(row["score"]) for row in rows])
    flagged = score > 0.5
    assert 0.8 < summary.average_precision < 1
    assert summary.average_precision == pytest.approx(
        average_precision_score(wrong, score), abs=1e-4
    )
    assert summary.auroc == pytest.approx(roc_auc_score(wrong, score), abs=1e-4)
    assert summary.precision == pytest.approx(precision_score(wrong, flagged))
    assert summary.recall == pytest.approx(recall_score(wrong, flagged))
    assert summary.wrong == wrong.sum()
    assert summary.flagged == flagged.sum()
    estimated, true = map(np.array, (summary.transition_estimated, summary.transition_true))
    np.testing.assert_allclose(estimated.sum(1), 1)
    assert summary.transition_error == pytest.approx(np.abs(estimated - true).mean())
    assert AuditRecord.read(knowing_trial.folder) == summary


def test_true_labels_are_told_only_where_they_are_known(make_trial):
    trial = make_trial("digits", "supervised")
    trial.write(beliefs(trial.label_set), name="prediction")
    summary = audit_trial(trial.folder, DATA)
    assert not summary.clean_labels_known
    assert summary.average_precision is summary.wrong is summary.transition_true is None
    assert "clean" not in rows_of(trial)[0]
    page = (trial.folder / "audit" / "audit.html").read_text()
    assert "true labels are unknown" in page


def test_an_example_that_was_never_seen_has_no_score(make_trial):
    trial = make_trial(method="supervised")
    visits = np.ones(len(trial.label_set.noisy_labels))
    unseen = trial.label_set.train_ids[:7]
    visits[unseen] = 0
    trial.write(beliefs(trial.label_set), visits, name="prediction")
    summary = audit_trial(trial.folder, DATA)
    assert summary.not_seen == 7
    last = rows_of(trial)[-7:]
    assert sorted(int(row["index"]) for row in last) == unseen.tolist()
    assert {row["score"] for row in last} == {""}
    assert all(row["suggested"] == row["given"] for row in last)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_cleaned_file_is_the_next_runs_labels(knowing_trial, make_trial, tmp_path, suffix):
    trial = knowing_trial
    path = tmp_path / f"cleaned{suffix}"
    audit_trial(trial.folder, DATA, threshold=0.6, labels_file=path)
    source = open_source("digits", DATA)
    labels = read_labels(path, source).labels
    label_set = trial.label_set
    given, clean = label_set.noisy_labels, label_set.clean_labels
    np.testing.assert_array_equal(labels[label_set.probe_ids], clean[label_set.probe_ids])
    changed = {
        int(row["index"]): int(row["suggested"])
        for row in rows_of(trial)
        if float(row["score"]) >= 0.6
    }
    assert len(changed) > 300
    for index in label_set.train_ids.tolist():
        assert labels[index] == changed.get(index, given[index])
    train = label_set.train_ids
    before, after = (np.mean(found[train] != clean[train]) for found in (given, labels))
    assert after < before / 2

    following = make_trial("digits_labels", "supervised", labels=str(path))
    np.testing.assert_array_equal(following.label_set.noisy_labels, labels)


def test_a_threshold_of_zero_changes_only_what_has_another_suggestion(knowing_trial):
    summary = audit_trial(knowing_trial.folder, DATA, threshold=0.0)
    rows = rows_of(knowing_trial)
    assert summary.flagged == sum(row["given"] != row["suggested"] for row in rows)


def test_doing_it_again_gives_the_same_bytes(knowing_trial):
    folder = knowing_trial.folder / "audit"
    audit_trial(knowing_trial.folder, DATA)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    audit_trial(knowing_trial.folder, DATA)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"audit.csv", "audit.parquet", "audit.html", "summary.json"}


def test_what_cannot_be_audited_is_one_clear_line(make_trial, tmp_path):
    def message(trial, **options):
        with pytest.raises(UserError) as error:
            audit_trial(trial.folder, DATA, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "audit of probe_only is not available" in message(make_trial(method="probe_only"))
    trial = make_trial()
    assert "its training is not done" in message(trial)
    put(trial.folder / "training.json")
    assert "its training is from an older version" in message(trial)
    (trial.folder / "examples.safetensors").write_bytes(b"no tensors")
    assert "is damaged" in message(trial)
    trial.write(np.full((3, 10), 0.1))
    assert "expected 1438 examples" in message(trial)
    trial.write(beliefs(trial.label_set))
    assert "threshold must be in [0, 1], got 1.5" in message(trial, threshold=1.5)
    assert "expected .csv or .parquet" in message(trial, labels_file=tmp_path / "x.txt")
    (tmp_path / "folder.csv").mkdir()
    assert "a folder of that name exists" in message(trial, labels_file=tmp_path / "folder.csv")
    record = (trial.folder / "config.json").read_text()
    with pytest.raises(UserError, match="is not a run"):
        audit_trial(tmp_path, DATA)
    for text in ("[]", "{}", '{"method": "ieg"}'):
        (trial.folder / "config.json").write_text(text)
        assert "config.json is damaged" in message(trial)
    (trial.folder / "config.json").write_text(record)
    manifest = next((trial.folder.parent.parent / "label_sets").glob("*/manifest.json"))
    shutil.rmtree(manifest.parent)
    assert "cannot read the label set" in message(trial)


def test_the_command_audits_a_run_and_every_run_of_a_sweep(make_trial, capsys, tmp_path):
    trial, other = make_trial(), make_trial(method="supervised")
    trial.write(beliefs(trial.label_set))
    other.write(beliefs(other.label_set), name="prediction")
    path = tmp_path / "cleaned.csv"
    assert main.main(["audit", str(trial.folder), "--write-labels", str(path), "--top", "5"]) == 0
    told = capsys.readouterr().out
    assert "digits_uniform_0.4, ieg, seed 0: " in told
    assert "average precision 0." in told
    assert f"make sweep DATASET=digits_labels LABELS={path}" in told

    root = trial.folder.parent.parent
    plan = root / "sweeps" / "both" / "plan.json"
    put(plan, trials=[trial.folder.name, other.folder.name, "not-run"])
    assert main.main(["audit", str(plan.parent)]) == 0
    assert (other.folder / "audit" / "summary.json").exists()
    assert main.main(["audit", str(plan.parent), "--write-labels", str(path)]) == 2
    assert "expected one run, such as" in capsys.readouterr().err
    both = [str(trial.folder), str(other.folder), str(other.folder)]
    assert main.main(["audit", *both]) == 0
    assert capsys.readouterr().out.count(" labels look wrong") == 2
    assert main.main(["audit", *both, "--write-labels", str(path)]) == 2
    assert "expected one run, such as" in capsys.readouterr().err
    without_digest = trial.folder.with_name(trial.folder.name.rpartition("-")[0])
    assert main.main(["audit", str(without_digest)]) == 0
    assert str(trial.folder / "audit" / "audit.html") in capsys.readouterr().out
    assert main.main(["status", str(without_digest)]) == 0
    assert main.main(["report", str(without_digest), "--out", str(tmp_path / "joined")]) == 0
    (trial.folder / "training.json").unlink()
    assert main.main(["evaluate", str(without_digest)]) == 2
    assert "has not finished training" in capsys.readouterr().err
    put(plan, trials=["not-run"])
    assert main.main(["audit", str(plan.parent)]) == 2
    assert "none of the 1 runs" in capsys.readouterr().err
    for text in ("[]", "{}", '{"trials": 3}'):
        plan.write_text(text)
        for command in ("audit", "status"):
            assert main.main([command, str(plan.parent)]) == 2
            assert "plan.json is damaged (" in capsys.readouterr().err


def test_a_probe_is_no_suspect_even_where_a_method_trains_on_it(tmp_path):
    photos = write_tree(tmp_path / "photos", {"train": 10, "test": 2, "probe": 2})
    asked = SweepRequest(
        "folder_uniform_0.4",
        methods=("supervised",),
        settings=("images.size=8", "batch_size=10"),
        data_dir=str(photos),
        results=str(tmp_path / "runs"),
    )
    (name,) = sweep.plan(asked).trials
    label_set = load_label_set(next((tmp_path / "runs" / "label_sets").iterdir()))
    assert len(label_set.train_ids) == 36  # plain training uses the probe like any other image
    trial = MadeTrial(tmp_path / "runs" / "trials" / name, label_set)
    trial.write(beliefs(label_set, doubted=1), name="prediction")
    cleaned = tmp_path / "cleaned.csv"
    assert audit_trial(trial.folder, photos, labels_file=cleaned).examples == 30
    assert all(row["path"].startswith("train/") for row in rows_of(trial))
    found = read_labels(cleaned, open_source("folder", photos, ImagesConfig(size=8))).labels
    np.testing.assert_array_equal(found[30:], label_set.clean_labels[30:])


def test_in_python_it_speaks_in_the_callers_indices(knowing_trial):
    found = read_audit(knowing_trial.folder, DATA, 0.5)
    assert found.suspects(3) == found.ids[:3].tolist()
    assert len(found.suspects()) == found.flagged.sum()
    own = replace(found, indices=[f"row {place}" for place in range(1438)])
    first, *_ = own.suspects(1)
    assert first == f"row {found.ids[0]}"
    assert f"\n  {first}: " in repr(own)
    assert "Audit of 1,338 labels: " in repr(own)
    assert len(repr(own)) < 500
    table = own.to_frame()
    assert table["index"][0] == first
    assert set(table) >= {"given_name", "suggested_name", "score"}


def test_the_command_that_is_told_takes_the_cleaned_labels(tmp_path, monkeypatch, capsys):
    """Read at another size one's own images are other data, for which the file is not."""
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "my photos", {"train": 20, "test": 2, "more": 1})
    asked = SweepRequest(
        "folder",
        methods=("ieg",),
        settings=("images.size=8", "images.channels=1", "images.eval_sets=more", "batch_size=10"),
        data_dir="my photos",
    )
    (trial,) = sweep.plan(asked).trials
    folder = tmp_path / "runs" / "trials" / trial
    label_set = load_label_set(next((tmp_path / "runs" / "label_sets").iterdir()))
    MadeTrial(folder, label_set).write(beliefs(label_set))
    # The run knows its data directory.
    assert main.main(["audit", str(folder), "--write-labels", "my c.csv"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    words = dict(word.split("=", 1) for word in shlex.split(told.partition("make sweep ")[2]))
    assert words == {
        "DATASET": "folder_labels",
        "LABELS": "my c.csv",
        "DATA_DIR": str(tmp_path / "my photos"),
        "SET": "images.size=8 images.channels=1 images.eval_sets=more",
    }
    following = SweepRequest(
        words["DATASET"],
        methods=("supervised", "ieg"),
        labels=words["LABELS"],
        data_dir=words["DATA_DIR"],
        settings=(*words["SET"].split(), "batch_size=10"),
    )
    assert len(sweep.plan(following).trials) == 2

    (tmp_path / "my photos").rename(tmp_path / "moved")
    assert main.main(["audit", str(folder)]) == 2
    assert f"my photos, whose images {trial} was trained on" in capsys.readouterr().err
    assert main.main(["audit", str(folder), "--data-dir", "moved", "--json"]) == 0
    (audited,) = json.loads(capsys.readouterr().out)["audits"]
    assert audited["summary"]["trial"] == trial
    assert audited["files"] == [str(folder / f"audit/audit.{kind}") for kind in ("html", "csv")]
