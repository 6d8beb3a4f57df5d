# SPDX-License-Identifier: Apache-2.0
"""Exact resume, that clean and held-out labels decide nothing, and the exported model."""

from pathlib import Path

import numpy as np
import pytest

from ieg_core.training.loop import spans
from tests.backends import assert_close, run_on

SCRIPT = Path(__file__).parent / "runs.py"
METHODS = {
    "tensorflow": ("l2r", "fsr", "forward", "logit_adjustment", "ieg"),
    "jax": ("fsr", "ieg"),
}
STEPS = {"tensorflow": "60", "jax": "30"}
BOTH = [(backend, method) for backend, methods in METHODS.items() for method in methods]


@pytest.fixture(scope="module")
def on_backend() -> dict[str, dict[str, np.ndarray]]:
    return {name: run_on(name, SCRIPT, STEPS[name], *METHODS[name]) for name in METHODS}


@pytest.fixture
def runs(on_backend) -> dict[str, np.ndarray]:
    return on_backend["tensorflow"]


@pytest.mark.parametrize(("backend", "method"), BOTH)
@pytest.mark.parametrize("other", ["resumed", "finished-again", "permuted"])
def test_the_same_bits(on_backend, backend, method, other):
    runs = on_backend[backend]
    whole = {name: value for name, value in runs.items() if name.startswith(f"{method}/whole/")}
    assert len(whole) > 25
    for name, value in whole.items():
        assert runs[name.replace("/whole/", f"/{other}/")].tobytes() == value.tobytes(), name


@pytest.mark.parametrize(("backend", "method"), [each for each in BOTH if each[1] != "l2r"])
def test_the_exported_network_of_ones_own_predicts_as_well(on_backend, backend, method):
    runs = on_backend[backend]
    assert_close(runs[f"{method}/exported"], runs[f"{method}/evaluated"], 1e-4)
    # One of 359 test images may lie on an edge between two classes.
    exported, evaluated = (runs[f"{method}/{name}"] for name in ("exported-accuracy", "accuracy"))
    assert exported == pytest.approx(evaluated, abs=0.003)


def test_a_run_is_evaluated_where_it_should_be_and_learns(runs):
    assert runs["l2r/whole/steps"].tolist() == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    assert len(runs["l2r/whole/accuracies"]) == 1
    assert runs["l2r/whole/accuracies"][-1] > 0.5
    # FSR closes its epochs of 28 steps.
    assert {28, 56} <= set(runs["fsr/whole/steps"].tolist())
    assert (runs["fsr/whole/method/dictionary"] != runs["fsr/first-dictionary"]).any()


def test_forward_counts_one_epoch_and_then_corrects(runs):
    counts = runs["forward/whole/method/counts"]
    assert counts.sum() == 28 * 50
    assert np.trace(counts) < counts.sum()
    assert runs["forward/whole/method/start_epoch"] == 1


def test_spans_end_at_every_stop():
    assert list(spans(0, 10, [4, 10], 3)) == [(0, 3), (3, 4), (4, 7), (7, 10)]
    assert list(spans(5, 10, [4, 8], 100)) == [(5, 8), (8, 10)]
    assert list(spans(10, 10, [10], 3)) == []
