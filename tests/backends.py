# SPDX-License-Identifier: Apache-2.0
"""Runs a script under one Keras backend, fixed for its process, and reads its arrays back."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

BACKENDS = ("tensorflow", "jax")
# With JAX the other library is made impossible to import, as if it were not installed.
_START = """
import runpy, sys
sys.path[:0] = [{root!r}]
if {backend!r} == "jax":
    sys.modules["tensorflow"] = None
sys.argv = {argv!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def run_on(
    backend: str,
    script: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = 3600.0,
) -> dict[str, np.ndarray]:
    """Runs a script on the CPU of one backend; JAX sees two virtual devices.

    Args:
      backend: "tensorflow" or "jax".
      script: A Python file that saves its arrays by `np.savez(sys.argv[1], ...)`; TensorFlow cannot
        be imported in it on the JAX backend.
      *arguments: sys.argv[2:] of the script.
      environment: Variables on top of this process's.
      timeout: Seconds.

    Returns:
      The arrays by name.
    """
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        argv = [str(script), str(out), *arguments]
        program = _START.format(root=str(root), backend=backend, argv=argv, script=str(script))
        settings = {
            "KERAS_BACKEND": backend,
            "JAX_PLATFORMS": "cpu",
            # Compiled once and run once: the compiler's own time is all there is to save.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
            "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if backend == "tensorflow":
            del settings["XLA_FLAGS"]
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **settings, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{script.name} failed on {backend}:\n{done.stderr[-4000:]}")
        with np.load(out) as arrays:
            return dict(arrays)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Fails unless two tensors agree to `tolerance` of the expected one's largest value."""
    if actual.shape != expected.shape:
        raise AssertionError(f"shapes differ: {actual.shape} and {expected.shape}")
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        raise AssertionError("not finite")
    largest = np.abs(expected).max(initial=0.0)
    error = np.abs(actual.astype(np.float64) - expected).max(initial=0.0)
    if error > tolerance * largest:
        raise AssertionError(f"largest difference {error:.3g}, largest value {largest:.3g}")
