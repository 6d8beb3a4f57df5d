# SPDX-License-Identifier: Apache-2.0
"""docs/own-images.md, gone through from start to end."""

import csv

import numpy as np
import pytest

from ieg_core.data.open import open_source
from ieg_core.experiment.config import ImagesConfig
from ieg_core.host.files import read_json
from tests.docs.commands import ROOT, commands, give, link_program

PAGE = ROOT / "docs" / "own-images.md"
NETWORK = "docs.examples.small_network:build"
STEPS = {"ieg": "STEPS=300", "other": "STEPS=40"}
SMALL = "SET=images.size=64"  # for features, which see images at 160 by default


@pytest.fixture
def clone(tmp_path):
    return link_program(tmp_path)


def test_the_example_writes_what_the_page_says(clone):
    said = give(commands(PAGE)[0], clone)
    assert "1797 images in my-digits, 325 of 1300 with a wrong label" in said
    source = open_source("folder", clone / "my-digits", ImagesConfig(size=8))
    assert source.class_names == tuple("0123456789")
    assert (len(source.train_labels), len(source.test_labels)) == (1400, 397)
    assert np.bincount(source.train_labels[source.probe_ids]).tolist() == [10] * 10
    assert source.notes["num_unreadable"] == 0
    with (clone / "my-digits" / "truth.csv").open() as file:
        truth = {row["path"]: int(row["label"]) for row in csv.DictReader(file)}
    given = dict(zip(source.paths, source.train_labels.tolist(), strict=True))
    assert sum(given[path] != label for path, label in truth.items()) == 325


def run_of(clone, network):
    """Returns the folder of the one ieg run on the page's own labels with this network."""
    (trial,) = (
        folder
        for folder in (clone / "runs" / "trials").glob("folder-ieg-*")
        if read_json(folder / "config.json")["network"] == network
    )
    return trial


@pytest.mark.slow
def test_the_page_from_start_to_end(clone):
    """Its very commands, cut short: fewer steps, least for the audit, and smaller images."""
    for command in commands(PAGE):
        steps = STEPS["ieg" if "supervised,fsr,ieg" in command else "other"]
        command = command.replace("STEPS=600", steps)
        command += f" {SMALL}" if "FEATURES=" in command else ""
        if "package.module:function" in command:  # a run and an image of the reader's own
            command = command.replace("package.module:function", NETWORK)
            command = command.replace("<trial>", run_of(clone, NETWORK).name)
            command = command.replace("image.png", "my-digits/test/3")
        said = give(command, clone)
        if command.startswith("make sweep DATASET=folder_labels"):
            (trial,) = (clone / "runs" / "trials").glob("folder_labels-*")
            assert read_json(trial / "result.json")["noise_rate"] is None
    assert said.count("my-digits/test/3/") == len(list((clone / "my-digits/test/3").iterdir()))
    trial = run_of(clone, "preact8")
    with (clone / "my-digits" / "truth.csv").open() as file:
        truth = {row["path"]: int(row["label"]) for row in csv.DictReader(file)}
    with (trial / "audit" / "audit.csv").open() as file:
        suspects = list(csv.DictReader(file))[:100]
    wrong = sum(truth[row["path"]] != int(row["given"]) for row in suspects)
    assert wrong > 90, wrong
