# SPDX-License-Identifier: Apache-2.0
import os
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np

import ieg_core
from ieg_core.experiment.methods import METHODS
from scripts.gpu_check import __main__ as command
from scripts.gpu_check import wheels
from scripts.gpu_check.figures import compare, time_call
from scripts.gpu_check.sizes import GPU, REHEARSAL
from scripts.gpu_check.stages import Stage, run_stages

RATES = {
    "rehearsal": True,
    "device": "CPU",
    "driver": "",
    "versions": {"jax": "0.10"},
    "rates": {"float32": 2e12, "bfloat16": 8e12},
}


def test_a_stage_runs_with_tiny_sizes_and_ends_in_both_tables(tmp_path):
    """The steps are injected: a matrix product in place of a network."""
    weights, images = np.ones((4, 4), np.float32), np.ones((REHEARSAL.batch_size, 4), np.float32)

    def check(left):
        timed = time_call(lambda steps: [images @ weights for _ in range(steps)], REHEARSAL)
        names = {"network": "product", "precision": "float32", "method": "supervised"}
        figures = {"memory": 2 * 1024**2, "busy_share": None, "rate_share": 0.25}
        return {**names, **compare([weights], [weights], "float32"), **timed, **figures}

    def train(left):
        return {
            "dataset": "cifar10_uniform_0.8",
            "method": "ieg",
            "network": "product",
            "finished": False,
            "train_images": 200,
            "step": 25,
            "num_steps": 2000,
            "accuracy": None,
            "pseudo_label_accuracy": [(25, 0.125)],
        }

    stages = [
        Stage("rates", "rates", 1, lambda left: RATES),
        Stage("steps-product-float32-supervised", "steps", 1, check),
        Stage("collapse", "trainings", 1, train, stops_in_time=True),
    ]
    left = run_stages(stages, tmp_path, 60, say=lambda line: None)
    assert left == {"collapse": 1}
    command.write_summary(tmp_path, [stage.name for stage in stages])
    performance = (tmp_path / "performance.md").read_text()
    assert "a rehearsal with tiny sizes on a CPU, no measurement" in performance
    assert "product: 2.0 in float32, 8.0 in bfloat16." in performance
    assert "| product | float32 | supervised | 0.0e+00 | 2 | " in performance
    assert performance.rstrip().endswith("| - | 25.0 % |")
    results = (tmp_path / "results.md").read_text()
    assert "product, 25 of 2000 steps, 200 training images." in results
    assert "| 25 | 12.5 |" in results


def test_the_stages_come_in_order_of_worth(tmp_path):
    with mock.patch.object(command.importlib.util, "find_spec", lambda name: name == "torch"):
        stages = command.all_stages(GPU, tmp_path, None, is_rehearsal=False)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    assert names[:3] == ["rates", "steps-resnet29-float32-supervised", "steps-resnet29-float32-ieg"]
    assert names.index("side-by-side") < names.index("steps-wrn28-10-float32-ieg")
    assert "torch-wrn28-10-supervised" in names
    assert "collapse" not in names  # without CIFAR-10
    assert sum(name.startswith("steps-") for name in names) == 4 * len(METHODS)
    assert {*GPU.methods, *GPU.other_methods} == METHODS.keys()


def test_a_quarter_of_an_hour_reaches_every_kind_of_stage(tmp_path):
    start, usable = 60.0, 900.0
    with mock.patch.object(command.importlib.util, "find_spec", lambda name: name == "torch"):
        stages = command.all_stages(GPU, tmp_path, tmp_path, is_rehearsal=False)
    reached, seconds = set(), start
    for stage in stages:
        seconds += stage.seconds
        if seconds <= usable:
            reached.add(stage.name.split("-")[0])
    assert reached == {"rates", "steps", "collapse", "side", "torch"}


def run_command(*arguments):
    with mock.patch.dict(os.environ):
        return command.main(list(arguments))


def test_a_missing_gpu_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    stub = SimpleNamespace(start=lambda runtime: None, accelerators=lambda: 0)
    monkeypatch.setitem(sys.modules, "ieg_core.backend", stub)
    monkeypatch.setattr(ieg_core, "backend", stub, raising=False)
    assert run_command("--state", str(tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "gpu-check: error: JAX sees no GPU here: run on a machine with one, or rehearse with --cpu"
    )


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(wheels.NEEDED, "no_such_module", "no-such-package")
    assert run_command("--state", str(tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gpu-check: error: not installed: no-such-package; expected all of jax")


def test_a_folder_without_wheels_is_refused(tmp_path, capsys):
    assert run_command("--state", str(tmp_path), "--wheels", str(tmp_path)) == 2
    assert "there is no wheel in" in capsys.readouterr().err


def test_a_rehearsal_and_measurements_do_not_mix(tmp_path, capsys):
    run_stages([Stage("rates", "rates", 1, lambda left: RATES)], tmp_path, 60, say=len)
    assert run_command("--state", str(tmp_path)) == 2
    assert capsys.readouterr().err.endswith(
        "holds a rehearsal, expected measurements: choose another --state\n"
    )
