# SPDX-License-Identifier: Apache-2.0
"""What KFP hands a component, and a worker that starts no process."""

import contextlib

from ieg_core.sweep import worker


def run_child(command, environment, log, echo):
    """Runs what a worker's child would, without starting one."""
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = worker.main(command[command.index("ieg_core.sweep.worker") + 1 :])
    return worker._Ended(code, 0, "")


def artifact(kind, folder, name):
    return kind(name=name, uri=str(folder / name))


def request(results, **changes):
    values = {
        "dataset": "digits_uniform",
        "noise_ratios": [0.4, 0.8],
        "methods": ["supervised", "l2r"],
        "seeds": [0.0, 1.0],  # as KFP hands over a list of whole numbers
        "recipe": "",
        "network": "",
        "features": "",
        "steps": 50,
        "settings": ["optimizer.learning_rate=0.05"],
        "accelerator": False,
        "data_dir": "data",
        "labels": "",
        **root(results),
        "run_label": "",
        "part": 1,
        "parts": 1,
        "max_trials": 100,
        "trials_per_pod": 1,
    }
    return values | changes


def root(results):
    return {"results": str(results), "results_namespace": "", "run": "1b-2c"}
