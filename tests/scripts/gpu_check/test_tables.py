# SPDX-License-Identifier: Apache-2.0
from scripts.gpu_check import tables


def test_a_row_is_beside_the_published_figures_and_their_networks():
    row = {
        "dataset": "cifar10_uniform_0.2",
        "method": "ieg",
        "network": "resnet29-released",
        "step": 1500,
        "num_steps": 193232,
        "train_images": 50000,
        "accuracy": 0.4567,
    }
    *_, line = tables.results({"row-cifar10_uniform_0.2-ieg": row}).splitlines()
    published = "96.2 by wrn28-10-released, another network; 92.0 by resnet29-released"
    cells = ["1500 of 193232", "50000", "45.7", published]
    assert line == f"| cifar10_uniform_0.2 | ieg | {' | '.join(cells)} |"


def test_what_was_not_measured_says_why():
    outcomes = {"torch-a": {"skipped": "PyTorch is not installed"}, "steps-b": {"error": "OOM"}}
    expected = "- steps-b failed: OOM\n- torch-a was skipped: PyTorch is not installed\n"
    assert tables.performance(outcomes) == tables.results(outcomes) == expected
