# SPDX-License-Identifier: Apache-2.0
"""README.md, its commands given in their order."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.docs.commands import ROOT, commands, give, link_program

PAGE = ROOT / "README.md"
SHORT = {
    "make sweep": "make sweep NOISE=0.4 METHODS=supervised,ieg STEPS=60",
    # What a test cannot have: CIFAR, which would have to be downloaded, and hours.
    "cifar10_uniform_0.4": "digits_uniform_0.4",
    "--network resnet29": "--network resnet29 --steps 5",
}


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
    top = "\n".join(PAGE.read_text(encoding="utf-8").splitlines()[:20])
    assert top.index("docs/images/report.png") < top.index("make sweep ") < top.index("make test ")
    assert commands(PAGE)[:3] == ["make sweep", "make test", "make audit DATA_DIR=photos"]


@pytest.mark.slow
def test_the_readme_from_start_to_end(tmp_path):
    link_program(tmp_path)
    pixels = np.uint8(load_digits().images[0] * 255 / 16)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    give(".venv/bin/python docs/examples/digits_as_files.py my-digits", tmp_path)
    (tmp_path / "photos").symlink_to(tmp_path / "my-digits" / "test", target_is_directory=True)
    said = {}
    for command in commands(PAGE):
        if command != "make test":  # which this is a part of
            said[command] = give(filled(command, tmp_path), tmp_path)
        if command == "make sweep":
            give("make sweep NOISE=0.8 METHODS=supervised STEPS=30", tmp_path)
    last = {command.split()[1]: text for command, text in said.items()}
    assert "Report: runs/latest/report/report.html" in last["sweep"]
    assert "Test accuracy" in last["train"]
    assert "Test accuracy" in last["evaluate"]
    assert "1 of 1 trials finished" in last["status"]  # of the newest plan
    assert "image.png: " in last["predict"]
    assert "audits/photos/review.html" in said["make audit DATA_DIR=photos"]
    assert "recipe" in last["recipes"]
