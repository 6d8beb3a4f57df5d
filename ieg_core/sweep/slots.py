# SPDX-License-Identifier: Apache-2.0
"""Slots: how many trials run at once on this machine, and what each of them may use.

A slot is `gpus_per_trial` GPUs, or a number of CPU threads. A worker takes a free slot before it
imports a framework, and holds it with a file lock, which the kernel releases if the worker dies.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host import machine
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.locks import lock
from ieg_core.host.runtime import REQUIRE_GPU

MEMORY_PER_TRIAL = 2 * 1024**3
"""The most bytes that a trial of the CPU recipes needs (TensorFlow itself takes 0.6 GiB)."""

JAX_MEMORY = 0.75
"""The share of a GPU's memory that JAX takes by default (docs.jax.dev, "GPU memory allocation")."""

DIRECTORY = "IEG_SLOTS_DIR"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """What one trial may use.

    Attributes:
      threads: CPU threads; 1 without GPUs.
      gpus: Ids of its GPUs, for CUDA_VISIBLE_DEVICES; empty on a CPU.
      required: Whether the user named these GPUs: the trial then fails if it cannot use them.
    """

    threads: int
    gpus: tuple[str, ...] = ()
    required: bool = False

    @property
    def num_replicas(self) -> int:
        """The number of devices that share a batch: the GPUs, or 1 on a CPU."""
        return max(1, len(self.gpus))

    @property
    def description(self) -> str:
        """How much of the machine it is, such as "2 threads"."""
        return f"{len(self.gpus)} GPUs" if self.gpus else f"{self.threads} threads"

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that restrict a process to this slot's devices.

        The order is nvidia-smi's, whose numbers `gpus` has; CUDA's own puts the fastest GPU first.
        """
        env = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        return env | ({REQUIRE_GPU: "1"} if self.required else {})


def whole_machine(gpus: Sequence[str], *, required: bool = False) -> Slot:
    """Returns the slot of a trial that runs alone, with one CPU thread if there are no GPUs."""
    return Slot(machine.usable_cores() if gpus else 1, tuple(gpus), required)


def shared_gpu_environment(at_once: int) -> dict[str, str]:
    """Returns the environment variables with which several trials share the memory of a GPU.

    Without them the first one takes most of it: TensorFlow all, JAX three quarters.

    Args:
      at_once: Number of trials.
    """
    return {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_CLIENT_MEM_FRACTION": f"{JAX_MEMORY / at_once:.4f}",
    }


def plan_slots(
    num_trials: int,
    gpus: Sequence[str],
    gpus_per_trial: int,
    cores: int,
    memory: int,
    required: bool = False,
) -> list[Slot]:
    """Divides the machine into slots.

    GPUs: ⌊len(gpus) / gpus_per_trial⌋ slots. CPU: as many as cores and memory allow, with one
    thread each, since another number of threads changes the order of summation and so the result.

    Args:
      num_trials: Trials still to run.
      gpus: Ids of the GPUs to use; empty for the CPU.
      gpus_per_trial: GPUs (replicas) of a trial, at least 1; must be 1 on a CPU.
      cores: CPU cores to use.
      memory: Bytes of memory to use.
      required: Whether a trial fails if it cannot use its GPUs.

    Returns:
      The slots: at least one, and at most max(1, `num_trials`).

    Raises:
      UserError: When `gpus_per_trial` is below 1 or above the number of GPUs.
    """
    if gpus_per_trial < 1:
        raise UserError(f"GPUS_PER_TRIAL must be at least 1, got {gpus_per_trial}")
    if not gpus:
        if gpus_per_trial > 1:
            raise UserError(
                f"GPUS_PER_TRIAL={gpus_per_trial}, but no GPU is in use: leave it out, or "
                "choose GPUs with DEVICES"
            )
        at_once = max(1, min(num_trials, cores, memory // MEMORY_PER_TRIAL))
        return [Slot(threads=1)] * at_once
    if gpus_per_trial > len(gpus):
        raise UserError(
            f"GPUS_PER_TRIAL={gpus_per_trial}, but {len(gpus)} GPUs are in use: expected at most "
            f"{len(gpus)}"
        )
    at_once = min(max(1, num_trials), len(gpus) // gpus_per_trial)
    groups = [gpus[i * gpus_per_trial : (i + 1) * gpus_per_trial] for i in range(at_once)]
    threads = max(1, cores // at_once)
    return [Slot(threads, tuple(group), required) for group in groups]


def write_slots(directory: Path, slots: Sequence[Slot]) -> None:
    """Writes one file per slot, for `acquire`."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, slot in enumerate(slots):
        (directory / f"{index}.json").write_text(json.dumps(asdict(slot)))


@contextlib.contextmanager
def acquire(directory: Path, clock: Clock = CLOCK) -> Iterator[Slot]:
    """Holds a free slot; waits without a time limit until there is one.

    Child processes do not inherit the lock, so it is released however this process ends.

    Args:
      directory: The folder that `write_slots` wrote to.
      clock: Tells the time between two looks.

    Yields:
      The slot.

    Raises:
      FileNotFoundError: When there are no slots in `directory`.
    """
    paths = sorted(directory.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no slots in {directory}")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open()) for path in paths]
        while True:
            for file in files:
                if lock(file.fileno()):
                    values = json.loads(file.read())
                    yield Slot(**values | {"gpus": tuple(values["gpus"])})
                    return
            clock.sleep(POLL_SECONDS)
