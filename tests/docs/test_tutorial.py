# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md, gone through from start to end."""

import csv
import re

import pytest

from tests.docs.commands import ROOT, commands, give, link_program


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Its very commands, on trainings cut short, and what they printed."""
    folder = link_program(tmp_path_factory.mktemp("tutorial"))
    said = {}
    for command in commands(ROOT / "docs" / "tutorial.md"):
        short = f"{command} STEPS=60" if command.startswith("make sweep") else command
        said[command] = give(short, folder)
    return folder, said


@pytest.mark.slow
def test_the_audit_finds_the_swapped_labels(walk):
    folder, said = walk
    truth = {row["path"]: row["label"] for row in table(folder / "photos" / "truth.csv")}
    wrong = {path for path, label in truth.items() if path.split("/")[1] != label}
    assert (len(truth), len(wrong)) == (1000, 150)
    decided = table(folder / "decisions.csv")
    assert len(decided) == 100
    assert sum(row["path"] in wrong for row in decided) > 80
    cleaned = {row["path"]: row["label"] for row in table(folder / "cleaned.csv")}
    assert all(cleaned[row["path"]] == row["label"] for row in decided)
    assert sum(truth[path] != label for path, label in cleaned.items()) < 70
    assert (folder / "audits" / "photos" / "review.html").exists()
    trained = [text for command, text in said.items() if "train_on_photos" in command]
    assert len(trained) == 2
    accuracies = [float(re.search(r"accuracy (\S+) %", text)[1]) for text in trained]
    assert min(accuracies) > 70


@pytest.mark.slow
def test_the_comparison_of_methods_from_start_to_end(walk):
    folder, said = walk
    assert (folder / "runs" / "latest" / "report" / "report.html").exists()
    assert list(folder.glob("runs/trials/*-ieg-*/audit/audit.html"))
    sevens = len(list((folder / "my-digits" / "test" / "7").iterdir()))
    line = r"my-digits/test/7/\d{4}\.(png|jpg): \d \d+\.\d %\n"
    (predicted,) = (text for command, text in said.items() if "predict" in command)
    assert re.fullmatch(f"({line}){{{sevens}}}", predicted)
