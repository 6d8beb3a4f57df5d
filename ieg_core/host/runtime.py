# SPDX-License-Identifier: Apache-2.0
"""Settings that a process must make before it imports a deep-learning framework."""

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
WARNING = "ieg: warning: "
"""The start of a line of a child process that its parent shows the user."""


def checkpoint_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """Returns the seconds between two checkpoints, from IEG_CHECKPOINT_SECONDS; 30 by default.

    Raises:
      UserError: When the variable is not a number of at least 0.
    """
    text = environ.get(CHECKPOINT_SECONDS) or "30"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(
            f"{CHECKPOINT_SECONDS} must be a number of seconds, at least 0, got {text!r}"
        )
    return seconds


def is_gpu_required(environ: Mapping[str, str] = os.environ) -> bool:
    """Returns whether this process must not compute without a GPU, from IEG_REQUIRE_GPU."""
    return environ.get(REQUIRE_GPU, "") not in ("", "0")


@dataclass(frozen=True)
class Runtime:
    """How a trial is computed; affects results by rounding errors only.

    Attributes:
      threads: Threads of the CPU kernels. A different number changes the order of summation and so
        the last bits; a checkpoint stores it, and a resumed run uses it again.
      num_replicas: Devices that share each batch. Stored in the checkpoint for the same reason.
      steps_per_execution: Training steps per compiled call.
      checkpoint_seconds: Maximum time between two checkpoints in seconds, plus one call;
        IEG_CHECKPOINT_SECONDS by default.

    Raises:
      UserError: When one of the counts is below 1.
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
    """Returns the backend that KERAS_BACKEND selects; TensorFlow if it is not set.

    Raises:
      UserError: When the backend is not supported or not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in BACKENDS:
        raise unknown_name("backend (KERAS_BACKEND)", name, BACKENDS)
    if name == "jax" and importlib.util.find_spec("jax") is None:
        raise missing_extra("jax", "jax")
    return name


@contextmanager
def held_stderr() -> Iterator[None]:
    """Buffers this process's standard error, and prints it only if an error is raised.

    The C++ parts of the frameworks log on start-up regardless of the environment.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        failed = False
        try:
            yield
        except Exception:  # not Ctrl-C, which explains itself
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            if failed:
                buffer.seek(0)
                sys.stderr.write(buffer.read().decode(errors="replace"))


def use_utf8() -> None:
    """Restarts this program in UTF-8 mode, unless it runs in UTF-8 already.

    In another locale, Python decodes file names, and with them class names, in its encoding.
    Programs that this one starts run in UTF-8 mode, too.
    """
    os.environ["PYTHONUTF8"] = "1"
    if not sys.flags.utf8_mode and sys.getfilesystemencoding() != "utf-8":
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def silence(environment: MutableMapping[str, str] = os.environ) -> None:
    """Disables logging of TensorFlow's C++ parts, unless the environment sets a log level."""
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("GRPC_VERBOSITY", "ERROR")


def set_environment(runtime: Runtime) -> None:
    """Sets the environment variables that the frameworks read on import.

    These set the backend, the threads, deterministic GPU kernels, and a log level without start-up
    messages, which would break the progress display. A CPU run with several replicas gets virtual
    CPU devices.

    Args:
      runtime: The runtime settings.

    Raises:
      UserError: When the backend is not supported or not installed.
    """
    os.environ["KERAS_BACKEND"] = chosen_backend()
    silence()
    os.environ["OMP_NUM_THREADS"] = str(runtime.threads)
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(runtime.threads)
    flags = os.environ.get("XLA_FLAGS", "").split()
    for flag in (
        "--xla_gpu_deterministic_ops=true",
        f"--xla_force_host_platform_device_count={runtime.num_replicas}",
    ):
        if not any(present.split("=")[0] == flag.split("=")[0] for present in flags):
            flags.append(flag)
    os.environ["XLA_FLAGS"] = " ".join(flags)
