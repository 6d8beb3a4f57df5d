# SPDX-License-Identifier: Apache-2.0
import json
import os
import signal
import subprocess
import sys

import pytest

from ieg_core import __version__
from ieg_core.cli import main
from ieg_core.sweep import worker
from tests.records import put


def tree(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def error_line(capsys) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("ieg: error: ")
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("prepare digits_unifrom_0.4", "digits_unifrom", id="misspelt spec"),
        pytest.param("prepare digitz", "did you mean 'digits'", id="unknown data set"),
        pytest.param("prepare digits_uniform_1.5", "1.5", id="ratio above 1"),
        pytest.param("prepare digits_uniform_nan", "nan", id="ratio not a number"),
        pytest.param("prepare digits --seed x", "--seed", id="no whole number"),
        pytest.param("prepare digits --seed -1", "seed must be at least 0, got -1", id="seed"),
        pytest.param("prepare digits --probe-per-class 9999", "9999", id="probe larger than class"),
        pytest.param("prepare", "required: dataset", id="nothing to prepare"),
        pytest.param("train --dataset digits_uniform_0.4 --method l2x", "'l2r'", id="method"),
        pytest.param("train --dataset digits_uniform_0.4 --network resnet30", "", id="network"),
        pytest.param("train --dataset digits_uniform_0.4 --recipe digit", "'digits'", id="recipe"),
        pytest.param("train --dataset digits_uniform_0.4 --set x=1", "'x'", id="unknown setting"),
        pytest.param(
            "train --dataset digits_uniform_0.4 --set optimizer.learning_rate=fast",
            "'fast'",
            id="type of a setting",
        ),
        pytest.param("train --dataset digits_uniform_0.4 --steps -1", "-1", id="negative steps"),
        pytest.param("train --dataset digits_uniform", "digits_uniform", id="no noise ratio"),
        pytest.param("train --dataset digits_uniform_0.4 --devices 99", "DEVICES", id="device"),
        pytest.param("evaluate nowhere", "nowhere is no run", id="no run"),
        pytest.param("frobnicate", "invalid choice", id="unknown command"),
        pytest.param("", "required: COMMAND", id="no command"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main.main(arguments.split()) == worker.EXIT_USER_ERROR
    assert message in error_line(capsys)
    assert not list((tmp_path / "runs").rglob("*.json"))


def test_an_output_folder_that_cannot_be_is_one_line(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    arguments = ["prepare", "digits_uniform_0.4", "--out", str(tmp_path / "runs")]
    assert main.main(arguments) == worker.EXIT_USER_ERROR
    assert "cannot write results" in error_line(capsys)


def test_preparing_twice_gives_the_same_bytes(tmp_path, capsys):
    for name in ("one", "two"):
        arguments = ["prepare", "digits_uniform_0.4", "digits_asymmetric_0.2", "--out"]
        assert main.main([*arguments, str(tmp_path / name)]) == 0
    assert len(tree(tmp_path / "one")) == 4
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    # 1,797 digits, a fifth of them for the test, ten of each class for the probe.
    assert "1338 training examples, 100 clean ones" in lines[0]


def test_the_recipes_name_every_family_and_method(capsys):
    assert main.main(["recipes"]) == 0
    text = capsys.readouterr().out
    for name in ("digits", "cifar_cpu", "cifar", "longtail", "supervised", "probe_only", "l2r"):
        assert name in text
    assert "600 steps, cosine" in text


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"ieg {__version__}\n"


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Trains by a stand-in for the worker, which does what `steps` says; returns the arguments."""
    steps = {}

    def run_step(step, trial, results, data_dir, *, slot, echo):
        folder = results / "trials" / trial
        assert slot.threads >= 1
        assert not echo
        code, files = steps[step]
        for name, value in files.items():
            put(folder / name, **value)
        return code

    monkeypatch.setattr(worker, "run_step", run_step)
    steps["train"] = (0, {"training.json": {}})
    row = {"accuracy_ema_last": 0.935, "accuracy_last": 0.9, "steps_per_second": 30.0, "steps": 600}
    steps["evaluate"] = steps[worker.AGAIN] = (0, {"result.json": row})
    arguments = ["train", "--dataset", "digits_uniform_0.4", "--out", str(tmp_path / "runs")]
    return arguments, steps


def test_training_ends_with_what_it_reached_and_where_it_lies(planned, tmp_path, capsys):
    arguments, _ = planned
    assert main.main(arguments) == 0
    accuracy, folder = capsys.readouterr().out.splitlines()[-2:]
    assert accuracy.startswith("Test accuracy 93.5 % after the last step")
    assert folder.startswith(str(tmp_path / "runs" / "trials" / "digits_uniform_0.4-l2r-seed0-"))
    assert main.main(["evaluate", folder]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == accuracy


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [(3, 3, "ieg: diverged: why"), (2, 2, "ieg: error: why"), (1, 1, "why"), (-9, 1, "why")],
)
def test_a_failed_training_ends_with_its_reason_and_is_not_evaluated(
    planned, capsys, code, expected, said
):
    arguments, steps = planned
    steps["train"] = (code, {"failure.json": {"reason": "why"}})
    assert main.main(arguments) == expected
    output = capsys.readouterr()
    assert said in output.err
    assert "Test accuracy" not in output.out


def test_a_run_that_is_not_trained_cannot_be_evaluated(planned, tmp_path, capsys):
    arguments, steps = planned
    steps["train"] = (1, {})
    main.main(arguments)
    capsys.readouterr()
    (folder,) = (tmp_path / "runs" / "trials").iterdir()
    assert main.main(["evaluate", str(folder)]) == worker.EXIT_USER_ERROR
    assert "not trained to the end" in error_line(capsys)


def test_ctrl_c_is_one_line_and_stops_the_training(tmp_path, slow_tensorflow):
    command = [
        sys.executable,
        "-m",
        "ieg_core.cli.main",
        "train",
        "--dataset",
        "digits_uniform_0.4",
    ]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "runs")],
        env=slow_tensorflow.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    slow_tensorflow.wait_until_imported(1)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=3600)
    assert process.returncode == main.EXIT_INTERRUPTED
    assert error == "\nieg: interrupted; the same command goes on where it stopped\n"
    slow_tensorflow.wait_until_ended()
    assert not list((tmp_path / "runs").rglob("failure.json"))


@pytest.mark.slow
def test_a_trial_is_really_trained_and_evaluated(tmp_path, capsys):
    arguments = ["train", "--dataset", "digits_uniform_0.4", "--method", "supervised"]
    arguments += ["--steps", "30", "--out", str(tmp_path / "runs")]
    assert main.main(arguments) == 0
    (result,) = (tmp_path / "runs" / "trials").glob("*/result.json")
    row = json.loads(result.read_text())
    assert row["steps"] == 30
    assert row["accuracy_ema_last"] > 0.2  # ten classes: 0.1 is chance
    # Its labels were audited with it: 36 % of them are wrong, in expectation.
    summary = json.loads((result.parent / "audit" / "summary.json").read_text())
    assert 0.2 < summary["average_precision"] <= 1
    # Evaluating anew computes, and finds the same.
    result.write_text(json.dumps(row | {"accuracy_ema_last": 0.0}))
    assert main.main(["evaluate", str(result.parent)]) == 0
    assert json.loads(result.read_text()) == row


def test_a_reader_that_stops_reading_is_no_error(tmp_path):
    """As of `ieg predict … | head`."""
    command = [
        sys.executable,
        "-m",
        "ieg_core.cli.main",
        "prepare",
        "digits",
        "--out",
        str(tmp_path),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == main.EXIT_BROKEN_PIPE
    assert list((tmp_path / "label_sets").iterdir())
