# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

from ieg_core.host.files import read_json
from tests.ieg_core.data.trees import write_tree


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "method", "network"),
    [
        ("tensorflow", "ieg", "resnet18"),
        ("tensorflow", "fsr", "resnet50"),
        ("jax", "ieg", "resnet18"),
    ],
)
def test_the_recipe_runs_on_a_small_tree(tmp_path, backend, method, network):
    names = tuple(f"n{number}" for number in range(4))
    counts = {"train": 6, "val": 1, "probe": 2, "imagenet": 1}
    write_tree(tmp_path / "webvisionmini", counts, names, kind="jpg", size=(150, 140))
    settings = ["images.size=128", "batch_size=4", "schedule.warmup_epochs=0"]
    if method == "fsr":
        settings += ["method.start_epoch=0", "method.capacity=8", "method.dictionary_batch_size=4"]
    command = [sys.executable, "-m", "ieg_core.cli.main", "train", "--dataset", "webvisionmini"]
    command += ["--method", method, "--network", network, "--steps", "3"]
    command += ["--data-dir", str(tmp_path), "--out", str(tmp_path / "runs"), "--devices", "cpu"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(
        command,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = (tmp_path / "runs" / "trials").iterdir()
    row = read_json(trial / "result.json")
    assert row["steps"] == 3
    assert 0 <= row["eval_sets"]["imagenet"]["accuracy_ema"] <= 1
    curve = read_json(trial / "curves.json")["evaluations"][-1]
    assert curve["accuracy_ema_imagenet"] == row["eval_sets"]["imagenet"]["accuracy_ema"]
