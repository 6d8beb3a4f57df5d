# SPDX-License-Identifier: Apache-2.0
"""The same networks, derivatives and crops on TensorFlow and JAX, on one device and on two."""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import BACKENDS, assert_close, run_on_both

Results = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def results() -> Results:
    return run_on_both(Path(__file__).with_name("both_backends.py"))


def _group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(f"{prefix}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{prefix}/")
    }


def _assert_all_close(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-4
) -> None:
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        try:
            assert_close(array, expected[name], tolerance)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("name", ["resnet11", "resnet8", "preact8"])
def test_networks_and_their_derivatives_agree(results: Results, name: str) -> None:
    tensorflow, jax = (_group(results[backend], name) for backend in BACKENDS)
    assert len(tensorflow) > 10
    assert tensorflow["rows/weights"].sum() == pytest.approx(1, abs=1e-2)
    _assert_all_close(jax, tensorflow)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_compute_the_global_batch(results: Results, backend: str) -> None:
    one = _group(results[backend], "preact8")
    del one["inference"]
    _assert_all_close(_group(results[backend], "two devices"), one)


def test_crops_are_identical(results: Results) -> None:
    tensorflow, jax = (results[backend] for backend in BACKENDS)
    np.testing.assert_array_equal(tensorflow["crops"], jax["crops"])
    np.testing.assert_allclose(tensorflow["unit range"], jax["unit range"], atol=1e-6)


def test_jax_runs_without_tensorflow(results: Results) -> None:
    assert results["tensorflow"]["tensorflow imported"]
    assert not results["jax"]["tensorflow imported"]
