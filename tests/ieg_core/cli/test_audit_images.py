# SPDX-License-Identifier: Apache-2.0
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ieg_core.audit.cleaning import Cleaned
from ieg_core.audit.decisions import Decisions
from ieg_core.audit.exports import EXPORTS
from ieg_core.cli import audit_images
from ieg_core.cli.main import main
from tests.ieg_core.data.trees import picture, write_tree

FEATURES = ("--features", "features.npy")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of labels without images, and features of them in features.npy."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 3, 1200)
    np.save("features.npy", rng.normal(size=(1200, 8)) + 4 * np.eye(8)[clean])
    given = np.where(rng.random(1200) < 0.2, (clean + 1) % 3, clean)
    lines = [f"{number}.jpg,{'abc'[label]}\n" for number, label in enumerate(given)]
    (tmp_path / "photos.csv").write_text("path,label\n" + "".join(lines))
    return tmp_path


def test_a_table_with_features(table, capsys):
    arguments = ["audit", "photos.csv", "--features", "features.npy"]
    assert main([*arguments, "--write-labels", "cleaned.csv"]) == 0
    told = capsys.readouterr().out
    assert "1200 images of 3 classes" in told
    assert "they judge these images well" in told
    assert (table / "audits/photos/audit.csv").is_file()
    assert (table / "cleaned.csv").read_text().startswith("path,label\n0.jpg,")

    (table / "decisions.csv").write_text("path,label,decision\n0.jpg,a,keep\n1.jpg,,drop\n")
    assert main([*arguments, "--decisions", "decisions.csv", "--out", "again"]) == 0
    assert "1199 images" in capsys.readouterr().out
    assert "\n1.jpg," not in (table / "again/audit.csv").read_text()


def test_corrections_of_other_tools_are_decisions(table, capsys):
    """Written as the tools export them; the first given labels are 0.jpg's and 1.jpg's."""
    arguments = ["audit", "photos.csv", *FEATURES, "--json", "--corrections"]
    given = [line.split(",")[1] for line in (table / "photos.csv").read_text().split()[1:3]]
    other = "b" if given[0] == "a" else "a"
    (table / "project.json").write_text(json.dumps([
        {
            "id": 1 + place, "project": 3, "file_upload": "5d1b-tasks.json",
            "data": {"image": f"https://photos/{place}.jpg", "name": f"{place}.jpg"},
            "annotations": [{
                "id": 7, "completed_by": 1, "was_cancelled": False, "lead_time": 4.2,
                "updated_at": "2026-01-02T03:04:05.678901Z",
                "result": [{
                    "id": "a", "type": "choices", "from_name": "choice", "to_name": "image",
                    "origin": "manual", "value": {"choices": [label]},
                }],
            }],
            "predictions": [],
        } for place, label in enumerate((other, given[1]))
    ]))  # fmt: skip
    (table / "labels.json").write_text(json.dumps({
        "classes": ["a", "b", "c"],
        "labels": {
            "/elsewhere/photos/0": {"label": "abc".index(other), "confidence": None},
            "1": {"label": "abc".index(given[1]), "attributes": {"reviewed": True}},
            "2": None,
        },
    }))  # fmt: skip
    (table / "table.csv").write_text(f"path,corrected_label\n0.jpg,{other}\n1.jpg,{given[1]}\n")
    for file in ("project.json", "labels.json", "table.csv"):
        assert main([*arguments, file]) == 0
        (audit,) = json.loads(capsys.readouterr().out)["audits"]
        assert audit["files"] == ["audits/photos/review.html", "audits/photos/audit.csv"]
        assert audit["summary"]["trusted"] == 2
        assert audit["summary"]["reviews"] == [1]


def test_an_audit_is_exported_for_other_tools(table, capsys):
    files = {tool: f"{tool}.csv" if tool == "cleanlab" else f"{tool}.json" for tool in EXPORTS}
    exports = [f"--export={tool}={file}" for tool, file in files.items()]
    assert main(["audit", "photos.csv", "--features", "features.npy", *exports]) == 0
    printed = capsys.readouterr().out
    assert "\nlabel-studio.xml\n" in printed
    for file in files.values():
        assert (table / file).stat().st_size > 1000
        assert file in printed
    first = json.loads((table / files["label-studio"]).read_text())[0]["data"]
    assert first["image"] == f"/data/local-files/?d={table.name}/{first['name']}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos.csv", "--export", "excel=x"], "received --export excel=x: expected one of"),
        (["photos.csv", "--export", "cleanlab"], "received --export cleanlab: expected one of"),
        (["nothing"], "there is no nothing"),
        ([""], "received no folder"),
        (["photos.csv", "photos.csv"], "expected one folder or table"),
        (["photos.csv", "--features", "none.npy"], "there is no file"),
        (["photos.csv", "--threshold", "0.5"], "--threshold is for runs"),
        (["photos.csv", "--write-labels", "cleaned.txt"], "expected .csv or .parquet"),
        (["photos.csv", "--write-labels", "photos.csv"], "photos.csv is read and would be overw"),
        (["photos.csv", "--export", "cleanlab=./photos.csv"], "photos.csv is read and would be"),
        (
            ["photos.csv", "--features", "a.npy+b.parquet", "--export", "cleanlab=b.parquet"],
            "b.parquet is read and would be overwritten",
        ),
        (["photos.csv", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["photos.csv", "--features", "few.npy"], "few.npy holds features of 3 images: expec"),
        (["photos.csv", "--labels", "x.csv"], "--labels has no effect here: it is for a data set"),
        (["photos.csv", *FEATURES, "--mirrored"], "--mirrored has no effect here: it is for netw"),
        (["digits", "--annotators", "a"], "--annotators has no effect here: it is for tables"),
        (["digits", "--with-test"], "--with-test has no effect here: it is for folders"),
        (["photos.csv", *FEATURES, "--decisions", "all.csv"], "no image is left to audit"),
        (["one class"], "one class has one class folder, a: expected at least two"),
        (["doubtful"], "the probe contradicts itself: probe/a/1.png and probe/b/2.png are the"),
        (["photos.csv", "--precision", "2"], "--precision must be above 0"),
        (["photos.csv", "--decisions", "d.csv", "--corrections", "c.csv"], "expected one of the"),
        (["photos.csv", *FEATURES, "--decisions", "photos.csv"], "decision is missing"),
        (["photos.csv", *FEATURES, "--corrections", "photos.csv"], "has no corrected labels"),
        (["photos.csv", *FEATURES, "--corrections", "features.npy"], "expected a file from Label"),
        (["photos"], "none of the 2 files"),
        (["photos", "--out", "photos/out"], "inside photos"),
        (["photos", "--write-labels", "photos/train.csv"], "train.csv, inside photos: choose"),
        (["photos", "--export", "cleanlab=photos/a/new.csv"], "new.csv, inside photos: choose"),
        (["audit.csv", "--out", "."], "audit.csv is read and would be overwritten"),
        (
            ["photos.csv", *FEATURES, "--write-labels", "x.csv", "--export", "cleanlab=./x.csv"],
            "x.csv would be written twice",
        ),
        (
            ["photos.csv", "--export", "label-studio=x.json", "--export", "cleanlab=x.xml"],
            "x.xml would be written twice",
        ),
        (
            ["photos.csv", "--write-labels", "audits/photos/audit.csv"],
            "audits/photos/audit.csv would be written twice",
        ),
    ],
)
def test_what_is_refused_writes_nothing(table, capsys, arguments, message):
    for name in ("a", "b"):
        (table / "photos" / name).mkdir(parents=True)
        (table / "photos" / name / "1.jpg").write_text("no image")
    write_tree(table / "one class", {".": 3}, ("a",))
    doubtful = write_tree(table / "doubtful", {"train": 3}, ("a", "b"))
    for name in ("a/1.png", "b/2.png"):
        (doubtful / "probe" / name).parent.mkdir(parents=True)
        picture(0, 0).save(doubtful / "probe" / name)
    np.save(table / "few.npy", np.eye(3))
    (table / "audit.csv").write_bytes((table / "photos.csv").read_bytes())
    lines = [f"{number}.jpg,,drop" for number in range(1200)]
    (table / "all.csv").write_text("\n".join(["path,label,decision", *lines]))
    assert main(["audit", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (table / "audits").exists()
    assert set(os.listdir(table / "photos")) - {".ieg-cache"} == {"a", "b"}


def test_the_cleaned_labels_of_a_table_are_trained_on_as_the_table_of_a_data_directory(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    expected = f"cp c.CSV {tmp_path}/train.csv && make sweep DATASET=folder DATA_DIR={tmp_path}"
    for place in (tmp_path, tmp_path / "labels.csv"):
        request = SimpleNamespace(
            places=[str(place)], are_datasets=False, write_labels=Path("c.CSV")
        )
        for read, command in ((len, expected), (None, "")):
            opened = SimpleNamespace(images=SimpleNamespace(read=read), broken_share=0.5)
            assert audit_images._next_command(request, opened) == command


@pytest.mark.parametrize(
    ("share", "setting"), [(0.01, ""), (1 / 7, " SET=images.max_broken_fraction=0.1429")]
)
def test_the_command_that_trains_allows_the_files_that_the_audit_left_out(tmp_path, share, setting):
    """Above the default of 1 % the printed command would be refused."""
    write_tree(tmp_path, {"train": 1})
    request = SimpleNamespace(
        places=[str(tmp_path)], are_datasets=False, write_labels=Path("cleaned.csv")
    )
    command = audit_images._next_command(request, SimpleNamespace(broken_share=share))
    assert command.endswith(f"LABELS=cleaned.csv{setting}")


def test_results_are_in_a_folder_of_the_whole_name(tmp_path):
    """Those of photos.2024 are not overwritten by those of photos.2025."""
    for name, expected in (("photos.2024", "photos.2024"), ("photos.csv", "photos")):
        (tmp_path / "photos.2024").mkdir(exist_ok=True)
        request = SimpleNamespace(places=[str(tmp_path / name)], are_datasets=False)
        assert audit_images._name(request) == expected


def test_a_file_of_no_decisions_is_said_to_hold_none():
    nothing = Decisions(np.empty(0, np.int64), np.empty(0, np.int32), ())
    assert audit_images._describe_decisions(nothing) == "No label has been reviewed yet"


@pytest.mark.parametrize(
    ("shows_errors", "reason"),
    [(False, "the labels do not show that any of them"), (True, "no suggestion is certain enough")],
)
def test_a_cleaning_that_changes_nothing_says_why(shows_errors, reason):
    audit = SimpleNamespace(given=np.zeros(3))
    nothing = np.zeros(3, bool)
    cleaned = Cleaned(np.zeros(3, np.int32), nothing, nothing, np.nan, np.nan, shows_errors)
    described = audit_images._describe_cleaned(audit, cleaned)
    assert described.startswith(f"0 of 3 labels changed, since {reason}")
