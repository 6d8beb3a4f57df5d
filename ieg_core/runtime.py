# SPDX-License-Identifier: Apache-2.0
"""What a process must set before it imports a deep-learning framework."""

import os
from collections.abc import MutableMapping
from dataclasses import dataclass

from ieg_core.errors import UserError, unknown_name

BACKENDS = ("tensorflow", "jax")


@dataclass(frozen=True)
class Runtime:
    """How a cell is computed, without changing what is computed beyond the last bits.

    Attributes:
      threads: Threads of the CPU kernels. Another number sums in another order and gives other
        bits, so a checkpoint stores it and a resumed run uses it again.
      num_replicas: Devices that share each batch. Stored in the checkpoint for the same reason.
      steps_per_execution: Steps of one compiled call, between two visits to the host.
      checkpoint_seconds: Time between two checkpoints, at most, plus one call.
    """

    threads: int = 1
    num_replicas: int = 1
    steps_per_execution: int = 25
    checkpoint_seconds: float = 30.0

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
    return name


def set_environment(runtime: Runtime, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the variables that the frameworks read when they are imported.

    Threads, deterministic GPU kernels, and silence: the frameworks' start-up messages would break
    the progress display. Virtual CPU devices appear when a CPU run asks for several replicas.
    """
    environment["KERAS_BACKEND"] = chosen_backend()
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("GRPC_VERBOSITY", "ERROR")
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
