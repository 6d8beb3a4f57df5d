# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import ieg_core
from ieg_core.experiment.methods import METHODS
from scripts.gpu_check import __main__ as command
from scripts.gpu_check import wheels
from scripts.gpu_check.figures import FirstStep, compare, time_call
from scripts.gpu_check.sizes import GPU, REHEARSAL
from scripts.gpu_check.stages import Stage, run_stages
from tests.clock import FakeClock

ROOT = Path(__file__).parents[2]

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
        memory = {"memory": 2 * 1024**2, "peak_memory": 3 * 1024**2, "peak_is_older": True}
        step = FirstStep({"product/kernel": weights}, 0.5, {})
        shares = {"busy_share": None, "rate_share": 0.25}
        return {**names, **compare(step, step, "float32"), **timed, **memory, **shares}

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
            "pseudo_labels": [(25, 0.125, 0.9)],
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
    distances = "0.0e+00 (1.0e-03) product/kernel | 0.0e+00 (1.0e-04) | - | - | yes"
    assert f"| product | float32 | supervised | {distances} | 2 | ≤ 3 | " in performance
    assert performance.rstrip().endswith("| - | 25.0 % |")
    results = (tmp_path / "results.md").read_text()
    assert (
        "product, 25 of 2000 steps, 200 training images. "
        "Published at the end: 93.7 (recalled) by wrn28-10-released, another network." in results
    )
    assert "| 25 | 12.5 | 90.0 |" in results


def gpu_stages(tmp_path, data_dir=None):
    with mock.patch.object(command.importlib.util, "find_spec", lambda name: name == "torch"):
        return command.all_stages(GPU, tmp_path, data_dir, is_rehearsal=False)


def test_every_method_is_a_stage_by_each_network_in_each_precision(tmp_path):
    names = [stage.name for stage in gpu_stages(tmp_path)]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("steps-") for name in names) == 4 * len(METHODS)
    assert {*GPU.methods, *GPU.other_methods} == METHODS.keys()
    assert sum(name.startswith("torch-") for name in names) == 2 * len(GPU.torch_methods)


def test_what_cannot_run_here_says_why(tmp_path):
    skipped = {stage.name: stage.skip for stage in gpu_stages(tmp_path) if stage.skip}
    assert skipped["collapse"] == "no --data-dir, expected CIFAR-10"
    assert all(name == "collapse" or name.startswith("row-") for name in skipped)
    assert not any(stage.skip for stage in gpu_stages(tmp_path, tmp_path))
    with mock.patch.object(command.importlib.util, "find_spec", return_value=None):
        stages = command.all_stages(GPU, tmp_path, tmp_path, is_rehearsal=False)
    reasons = {stage.skip for stage in stages if stage.name.startswith("torch-")}
    assert reasons == {"PyTorch is not installed"}


def test_a_quarter_of_an_hour_reaches_what_the_documentation_says(tmp_path):
    """Two calls, 60 s of which pass before a stage starts, and each stage takes what is expected.

    A row of the papers would take all the time that is left; none is reached.
    """
    clock, lines = FakeClock(), []

    def taking(stage):
        return dataclasses.replace(stage, run=lambda left: clock.sleep(stage.seconds) or {})

    stages = [taking(stage) for stage in gpu_stages(tmp_path / "none", tmp_path)]
    for seconds in (600 - 60, 300 - 60):
        run_stages(stages, tmp_path / "state", seconds, clock, lines.append)
    reached = [line.partition(":")[0] for line in lines]
    text = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    (said,) = re.findall(r"should end these stages,\s+in\s+this\s+order: (.*?)\.\n\n", text, re.S)
    assert re.findall("`(.*?)`", said) == reached
    small, large = (f"steps-{network}" for network in GPU.networks)
    wanted = {
        f"{small}-{each}-{method}" for each in command.PRECISIONS for method in GPU.methods[:3]
    }
    wanted |= {f"{large}-bfloat16-ieg", "collapse", "side-by-side", "torch-resnet29-supervised"}
    assert wanted <= set(reached)


FAST_COMPILATION = (
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
TICKING = """
import dataclasses, functools, importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
from ieg_core.host.clock import Clock
from scripts.gpu_check import __main__ as command, stages, trainings

class Ticks(Clock):
    ticks = 0
    def monotonic(self):
        self.ticks += 1
        return float(self.ticks)

command.run_stages = functools.partial(stages.run_stages, clock=Ticks())
command.REHEARSAL = dataclasses.replace(
    command.REHEARSAL, networks=("preact8", "wrn10-1"), trained_network="wrn10-1-released",
    methods=("supervised",), other_methods=(), torch_methods=("supervised",), image_side=8,
    companions=(1,), companion_seconds=0.0, row_steps=4, collapse_steps=3, seconds=1e-3,
)
trainings.COLLAPSE = ("cifar10_uniform_0.8", "fsr")
trainings.ROWS = (trainings.COLLAPSE,)
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_rehearsal_resumes_its_trainings_and_runs_nothing_twice(tmp_path):
    """The whole program, with a clock that moves by a second whenever someone looks at it."""

    def call(seconds):
        arguments = ["--cpu", "--state", str(tmp_path), "--seconds", str(seconds)]
        done = subprocess.run(
            [sys.executable, "-c", TICKING, *arguments],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": FAST_COMPILATION},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        *lines, last = done.stdout.splitlines()
        outcomes = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
        return {line.partition(":")[0]: line for line in lines}, last, outcomes

    # The training begins after 8 s, and has fewer left after its first step than it keeps.
    first, left, before = call(11)
    skipped = "torch-preact8-supervised", "torch-wrn10-1-supervised"
    done = ["rates", "steps-preact8-float32-supervised"]
    assert [name for name in first if name not in skipped] == [*done, "collapse"]
    assert first["collapse"].startswith("collapse: continues")
    assert "left: collapse (" in left
    assert (before["collapse"]["finished"], before["collapse"]["step"]) == (False, 1)

    second, left, after = call(1000)
    assert left.endswith("left: nothing")
    assert not {*second} & {*done}
    assert all(after[name] == before[name] for name in done)
    assert (after["collapse"]["first_step"], after["collapse"]["step"]) == (1, 3)
    row = after["row-cifar10_uniform_0.8-fsr"]
    assert (row["first_step"], row["step"], row["num_steps"]) == (3, 4, 4)
    assert row["accuracy"] is not None
    assert all(0.1 <= share <= 1 for _, _, share in row["pseudo_labels"])
    assert not [name for name, each in after.items() if "error" in each]
    assert {after[name]["skipped"] for name in skipped} == {"PyTorch is not installed"}
    assert "torch-preact8-supervised was skipped" in (tmp_path / "performance.md").read_text()
    steps = [name for name in after if name.startswith("steps-")]
    assert len(steps) == 4
    assert all(after[name]["equal"] for name in steps)


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
