# SPDX-License-Identifier: Apache-2.0
"""The three ways in which people start a run, and what a refused one may say."""

from ieg_core.cli import main
from ieg_core.sweep import worker
from pipelines import __main__ as pipelines

SIZE = "images.size=8"


def prepare(dataset="folder", *more):
    size = ("--image-size", "8") if dataset.startswith("folder") else ()
    return main.main(["prepare", dataset, "--probe-per-class", "1", *size, *more])


def train(dataset="folder", *more):
    sizes = ("--set", SIZE, "--set", "batch_size=10") if dataset.startswith("folder") else ()
    return main.main(["train", "--dataset", dataset, "--method", "supervised", *sizes, *more])


def sweep(dataset="folder", *more):
    words = [f"--dataset={dataset}", "--methods=supervised", "--data-dir=data", "--out=runs"]
    if dataset.startswith("folder"):
        words.append(f"--set={SIZE} batch_size=10")
    return pipelines.main(["run", "noise_sweep", "--runner=local", "--devices=cpu", *words, *more])


DOORS = [prepare, train, sweep]


def refused(capsys, code):
    """Returns the one line that a refused command ends with."""
    told = capsys.readouterr()
    assert code == worker.EXIT_USER_ERROR
    assert told.out == ""
    assert told.err.startswith("ieg: error: ")
    assert told.err.count("\n") == 1
    assert told.err.strip().isprintable()
    return told.err


def files(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]
