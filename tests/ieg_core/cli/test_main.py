# SPDX-License-Identifier: Apache-2.0
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ieg_core import __version__, errors
from ieg_core.cli import completion, main, recipes
from ieg_core.host import files, program
from ieg_core.sweep import worker
from ieg_core.sweep.request import SweepRequest
from tests.doors import refused

IEG = [sys.executable, "-m", "ieg_core.cli.main"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("prepare digits_unifrom_0.4", "digits_unifrom", id="misspelled spec"),
        pytest.param("prepare digitz", "did you mean 'digits'", id="unknown data set"),
        pytest.param("prepare digits_uniform_1.5", "1.5", id="ratio above 1"),
        pytest.param("prepare digits_uniform_nan", "nan", id="ratio not a number"),
        pytest.param("prepare digits --seed x", "--seed", id="not a whole number"),
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
        pytest.param("train --dataset digits_uniform", "digits_uniform", id="no noise rate"),
        pytest.param("train --dataset digits_uniform_0.4 --devices 99", "DEVICES", id="device"),
        pytest.param("evaluate nowhere", "nowhere is not a run", id="no run"),
        pytest.param("frobnicate", "invalid choice", id="unknown command"),
        pytest.param("", "required: COMMAND", id="no command"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, main.main(arguments.split()))
    assert not list((tmp_path / "runs").rglob("*.json"))


def test_an_output_folder_that_cannot_be_is_one_line(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    arguments = ["prepare", "digits_uniform_0.4", "--out", str(tmp_path / "runs")]
    assert "cannot write results" in refused(capsys, main.main(arguments))


def test_each_argument_has_a_help_text_and_outputs_go_to_out():
    for name, command in completion.commands(main.build_parser()):
        assert command.description.endswith("."), name
        for action in command._actions:
            assert action.help, (name, action.dest)
            assert "output" not in action.dest, name


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"ieg {__version__}\n"


def test_ctrl_c_is_one_line_and_stops_the_training(tmp_path, slow_tensorflow):
    command = [*IEG, "train", "--dataset", "digits_uniform_0.4"]
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
    assert process.returncode == errors.EXIT_INTERRUPTED
    assert error == "\nieg: interrupted; run the same command again to continue\n"
    slow_tensorflow.wait_until_ended()
    assert not list((tmp_path / "runs").rglob("failure.json"))


def test_a_reader_that_stops_reading_is_no_error(tmp_path):
    """As of `ieg predict … | head`."""
    command = [*IEG, "prepare", "digits", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == errors.EXIT_BROKEN_PIPE
    assert list((tmp_path / "label_sets").iterdir())


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENAMETOOLONG])
def test_an_error_of_the_machine_is_one_line(monkeypatch, capsys, number):
    def fail(arguments):
        raise OSError(number, os.strerror(number), "runs/a\nb")

    monkeypatch.setattr(recipes, "run", fail)
    assert main.main(["recipes"]) == worker.EXIT_FAILED
    assert capsys.readouterr().err == f"ieg: failed: runs/a\\nb: {os.strerror(number)}\n"


def test_a_tilde_is_the_home_folder_also_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/users/me")
    words = ["--out=~/x", "~/y", "--out=~", "--set=a=~/b", "x~/y", "--out=~other/x"]
    assert [program._expanded(word) for word in words] == [
        *("--out=/users/me/x", "/users/me/y", "--out=/users/me"),
        *("--set=a=~/b", "x~/y", "--out=~other/x"),
    ]
    parsed = main.build_parser().parse_args(["train", "--dataset=digits_0.4", "--out=~/x"])
    assert parsed.out == "/users/me/x"
    assert SweepRequest(dataset="digits", results="~/x").results == "/users/me/x"
    assert files.expand("~/x") == Path("/users/me/x")
