# SPDX-License-Identifier: Apache-2.0
"""What a process must set before it imports a deep-learning framework."""

import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ieg_core.errors import UserError, missing_extra, unknown_name

BACKENDS = ("tensorflow", "jax")
CHECKPOINT_SECONDS = "IEG_CHECKPOINT_SECONDS"
REQUIRE_GPU = "IEG_REQUIRE_GPU"


def checkpoint_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """Returns the time between two checkpoints that the environment asks for; by default 30 s.

    Raises:
      UserError: It is no number of seconds.
    """
    text = environ.get(CHECKPOINT_SECONDS) or "30"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{CHECKPOINT_SECONDS} must be a number of seconds from 0, got {text!r}")
    return seconds


def is_gpu_required(environ: Mapping[str, str] = os.environ) -> bool:
    """Returns whether this process was promised a GPU and must not compute without one."""
    return environ.get(REQUIRE_GPU, "") not in ("", "0")


@dataclass(frozen=True)
class Runtime:
    """How a trial is computed, without changing what is computed beyond the last bits.

    Attributes:
      threads: Threads of the CPU kernels. Another number sums in another order and gives other
        bits, so a checkpoint stores it and a resumed run uses it again.
      num_replicas: Devices that share each batch. Stored in the checkpoint for the same reason.
      steps_per_execution: Steps of one compiled call, between two visits to the host.
      checkpoint_seconds: Time between two checkpoints, at most, plus one call; by default what
        IEG_CHECKPOINT_SECONDS says.
    """

    threads: int = 1
    num_replicas: int = 1
    steps_per_execution: int = 25
    checkpoint_seconds: float = field(default_factory=checkpoint_seconds)

    def __post_init__(self) -> None:
        for name in ("threads", "num_replicas", "steps_per_execution"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")


def chosen_backend() -> str:
    """Returns the backend that KERAS_BACKEND asks for; TensorFlow unless it is set.

    Raises:
      UserError: It names no backend of ours.
    """
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in BACKENDS:
        raise unknown_name("backend (KERAS_BACKEND)", name, BACKENDS)
    if name == "jax" and importlib.util.find_spec("jax") is None:
        raise missing_extra("jax", "jax")
    return name


@contextmanager
def held_stderr() -> Iterator[None]:
    """Keeps back what this process writes to standard error, and tells it only if an error follows.

    The frameworks' C++ parts log as they start, whatever the environment says.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))


def silence(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keeps TensorFlow's C++ parts from logging, unless the environment says how much they may."""
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("GRPC_VERBOSITY", "ERROR")


def set_environment(runtime: Runtime, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the variables that the frameworks read when they are imported.

    Threads, deterministic GPU kernels, and silence: the frameworks' start-up messages would break
    the progress display. Virtual CPU devices appear when a CPU run asks for several replicas.
    """
    environment["KERAS_BACKEND"] = chosen_backend()
    silence(environment)
    environment["OMP_NUM_THREADS"] = str(runtime.threads)
    environment["NPROC"] = environment["PJRT_NPROC"] = str(runtime.threads)
    flags = environment.get("XLA_FLAGS", "").split()
    for flag in (
        "--xla_gpu_deterministic_ops=true",
        f"--xla_force_host_platform_device_count={runtime.num_replicas}",
    ):
        if not any(present.split("=")[0] == flag.split("=")[0] for present in flags):
            flags.append(flag)
    environment["XLA_FLAGS"] = " ".join(flags)
