# SPDX-License-Identifier: Apache-2.0
"""Runs a script under one Keras backend, fixed for its process, and reads its arrays back."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

BACKENDS = ("tensorflow", "jax")
ROOT = Path(__file__).resolve().parents[1]
# Each script has a process of its own, forked from one that has imported the backend and computed
# nothing yet: the imports take longer than many a script.
_SERVER = """
import gc, json, os, runpy, sys, traceback
backend, root = sys.argv[1:]
sys.path[:0] = [root]
if backend == "jax":
    sys.modules["tensorflow"] = None  # as if it were not installed
import ieg_core.methods.registry, ieg_core.training.loop
gc.freeze()  # what was imported stays
for line in sys.stdin:
    log, *sys.argv = json.loads(line)
    child = os.fork()
    if not child:
        code = 1
        try:
            with open(log, "w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@functools.cache
def _server(backend: str) -> subprocess.Popen[str]:
    settings = {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if backend == "jax":
        # Compiled once and run once: the compiler's own time is all there is to save.
        settings["XLA_FLAGS"] = (
            "--xla_force_host_platform_device_count=2 "
            "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        )
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, backend, str(ROOT)],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.communicate)  # the end of its input ends it
    return process


def run_on(backend: str, script: Path, *arguments: str) -> dict[str, np.ndarray]:
    """Runs a script on the CPU of one backend; JAX sees two virtual devices.

    Args:
      backend: "tensorflow" or "jax".
      script: A Python file that saves its arrays by `np.savez(sys.argv[1], ...)`; TensorFlow cannot
        be imported in it on the JAX backend.
      *arguments: sys.argv[2:] of the script.

    Returns:
      The arrays by name.
    """
    server = _server(backend)
    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder) / "log.txt", Path(folder) / "out.npz"
        server.stdin.write(json.dumps([str(log), str(script), str(out), *arguments]) + "\n")
        server.stdin.flush()
        if server.stdout.readline() != "0\n":
            told = log.read_text() if log.exists() else "no output"
            raise AssertionError(f"{script.name} failed on {backend}:\n{told[-4000:]}")
        with np.load(out) as arrays:
            return dict(arrays)


def run_on_both(script: Path, *arguments: str) -> dict[str, dict[str, np.ndarray]]:
    """Runs a script on both backends side by side; returns each one's arrays."""
    with ThreadPoolExecutor() as pool:
        arrays = pool.map(lambda backend: run_on(backend, script, *arguments), BACKENDS)
        return dict(zip(BACKENDS, arrays, strict=True))


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
