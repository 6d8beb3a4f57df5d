# SPDX-License-Identifier: Apache-2.0
import argparse

import pytest

from ieg_core.errors import UserError
from ieg_core.sweep.request import SweepRequest
from pipelines import options, variables


def read(*arguments):
    parser = argparse.ArgumentParser()
    variables.add_arguments(parser, "sweep")
    return options.read(parser.parse_args(["--devices=cpu", *arguments]))


def test_the_defaults_are_those_of_make_sweep():
    found = read()
    assert found.request == SweepRequest(
        dataset="digits_uniform",
        noise_ratios=(),
        methods=("supervised", "mixup", "probe_only", "l2r", "fsr", "ieg"),
        seeds=(0,),
        data_dir="./data",
        results="runs",
    )
    assert (found.gpus, found.gpus_per_trial, found.max_hours) == ((), 1, 4.0)


def test_each_variable_becomes_a_value():
    found = read(
        "--dataset=cifar10_asymmetric",
        "--noise=0.1, 0.4",
        "--methods=l2r",
        "--seeds=0,1,2",
        "--recipe=cifar",
        "--network=resnet29",
        "--steps=50",
        "--set=optimizer.learning_rate=0.05  batch_size=50",
        "--data-dir=my data",
        "--out=elsewhere",
        "--max-hours=0.5",
    )
    assert found.request == SweepRequest(
        dataset="cifar10_asymmetric",
        noise_ratios=(0.1, 0.4),
        methods=("l2r",),
        seeds=(0, 1, 2),
        recipe="cifar",
        network="resnet29",
        steps=50,
        settings=("optimizer.learning_rate=0.05", "batch_size=50"),
        data_dir="my data",
        results="elsewhere",
    )
    assert found.max_hours == 0.5


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--noise=0.2,x", "NOISE='0.2,x': expected rates"),
        ("--noise=0.2,,0.4", "NOISE='0.2,,0.4': expected rates"),
        ("--noise=0.2;0.4", "NOISE='0.2;0.4': expected rates"),
        ("--seeds=0.5", "SEEDS='0.5': expected whole numbers"),
        ("--seeds=-1", "seeds must be numbers from 0 to 9007199254740992"),
        (f"--seeds={10**400}", "seeds must be numbers from 0 to 9007199254740992"),
        (f"--steps={10**400}", "steps must be at least 1 and at most 100000000"),
        ("--seeds=", "no seeds: expected at least one"),
        ("--methods=", "no methods: expected at least one"),
        ("--methods=l2x", "unknown method 'l2x': did you mean 'l2r'"),
        ("--steps=many", "STEPS='many': expected a whole number"),
        ("--steps=0", "STEPS='0': expected a whole number of training steps, at least 1"),
        ("--steps=-5", "STEPS='-5': expected a whole number of training steps, at least 1"),
        ("--max-hours=long", "MAX_HOURS='long': expected hours above 0"),
        ("--max-hours=0", "MAX_HOURS='0': expected hours above 0"),
        ("--max-hours=nan", "MAX_HOURS='nan': expected hours above 0"),
        ("--gpus-per-trial=2", "GPUS_PER_TRIAL=2, but no GPU is in use"),
        ("--gpus-per-trial=0", "GPUS_PER_TRIAL must be at least 1"),
        ("--gpus-per-trial=all", "GPUS_PER_TRIAL='all': expected a whole number"),
        ("--devices=7,8", "DEVICES='7,8': this machine has no GPU"),
        ("--out=", "OUT is empty"),
        ("--data-dir= ", "DATA_DIR is empty"),
    ],
)
def test_what_is_no_value_is_told_under_its_variables_name(argument, message, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi
    with pytest.raises(UserError, match=message):
        read(argument)
