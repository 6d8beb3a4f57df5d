# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md and README.md, their commands given in their order.

The README's go on in the tutorial's folder: what both would train is trained once.
"""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.docs.commands import ROOT, commands, give, link_program

README = ROOT / "README.md"
SHORT = {
    # Whose trials the tutorial has trained.
    "make sweep": "make sweep NOISE=0.5 METHODS=supervised,ieg STEPS=60",
    # What a test cannot have: CIFAR, which would have to be downloaded, and hours.
    "cifar10_uniform_0.4": "digits_uniform_0.4",
    "--network resnet29": "--network resnet29 --steps 5",
}


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


def filled(command, folder):
    """Puts something that there is into the command's blanks."""
    for text, other in SHORT.items():
        command = command.replace(text, other)
    trials = sorted(path.name for path in folder.glob("runs/trials/*"))
    sweeps = sorted(path.name for path in folder.glob("runs/sweeps/*"))
    for blank, names in (("<trial>", trials), ("<one>", sweeps), ("<another>", sweeps[1:])):
        command = command.replace(blank, names[0]) if blank in command else command
    return command


def test_the_picture_and_the_two_commands_come_first():
    top = "\n".join(README.read_text(encoding="utf-8").splitlines()[:20])
    assert top.index("docs/images/report.png") < top.index("make sweep ") < top.index("make test ")
    assert commands(README)[:3] == ["make sweep", "make test", "make audit DATA_DIR=photos"]


@pytest.mark.slow
def test_the_readme_from_start_to_end(walk):
    folder, given = walk
    pixels = np.uint8(load_digits().images[0] * 255 / 16)
    Image.fromarray(pixels).save(folder / "image.png")
    said = {}
    for command in commands(README):
        if command != "make test":  # which this is a part of
            said[command] = given.get(command) or give(filled(command, folder), folder)
    last = {command.split()[1]: text for command, text in said.items()}
    assert "2 of them finished already" in last["sweep"]
    assert "Report: runs/latest/report/report.html" in last["sweep"]
    assert "Test accuracy" in last["train"]
    assert "Test accuracy" in last["evaluate"]
    assert "1 of 1 trials finished" in last["status"]  # of the newest plan
    assert "image.png: " in last["predict"]
    assert "audits/photos/review.html" in said["make audit DATA_DIR=photos"]
    assert "recipe" in last["recipes"]
