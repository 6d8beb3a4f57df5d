# SPDX-License-Identifier: Apache-2.0
"""How many trials run at once on this machine, and what each of them may use.

On GPUs a slot is `gpus_per_trial` of them; on a CPU it is a number of threads. A worker takes a
free slot before it imports a framework, and holds it by a file lock that the kernel drops when the
worker dies.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ieg_core.errors import UserError

MEMORY_PER_TRIAL = 2 * 1024**3
"""Bytes a trial needs at most on the CPU recipes (TensorFlow itself takes 0.6 GiB)."""

DIRECTORY = "IEG_SLOTS_DIR"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """What one trial may use.

    Attributes:
      threads: CPU threads, at least 1.
      gpus: Ids of its GPUs, as CUDA_VISIBLE_DEVICES takes them; empty on a CPU.
    """

    threads: int
    gpus: tuple[str, ...] = ()

    @property
    def num_replicas(self) -> int:
        """Devices that share a batch: the GPUs, or the CPU as one."""
        return max(1, len(self.gpus))

    @property
    def env(self) -> dict[str, str]:
        """What keeps a process to this slot's devices."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


def plan_slots(
    num_trials: int, gpus: Sequence[str], gpus_per_trial: int, cores: int, memory: int
) -> list[Slot]:
    """Shares the machine out among trials.

    GPUs: ⌊len(gpus) / gpus_per_trial⌋ slots. CPU: one thread a trial while there are as many trials
    as cores, since trials side by side fight less than threads inside one; else ⌊cores / trials⌋.

    Args:
      num_trials: Trials still to run.
      gpus: Ids of the GPUs to use; empty for the CPU.
      gpus_per_trial: GPUs (replicas) of a trial, at least 1; a CPU is always one replica.
      cores: CPU cores to use.
      memory: Bytes of memory to use.

    Returns:
      The slots, at least one, no more than `num_trials` where that is above 0.

    Raises:
      UserError: `gpus_per_trial` is below 1 or more than there are.
    """
    if gpus_per_trial < 1:
        raise UserError(f"GPUS_PER_TRIAL must be at least 1, got {gpus_per_trial}")
    wanted = max(1, num_trials)
    if not gpus:
        if gpus_per_trial > 1:
            raise UserError(
                f"GPUS_PER_TRIAL={gpus_per_trial}, but no GPU is in use: leave it out, or see "
                "DEVICES"
            )
        at_once = max(1, min(wanted, cores, memory // MEMORY_PER_TRIAL))
        return [Slot(threads=max(1, cores // at_once))] * at_once
    if gpus_per_trial > len(gpus):
        raise UserError(
            f"GPUS_PER_TRIAL={gpus_per_trial}, but {len(gpus)} GPUs are in use: ask for fewer"
        )
    at_once = min(wanted, len(gpus) // gpus_per_trial)
    groups = [gpus[i * gpus_per_trial : (i + 1) * gpus_per_trial] for i in range(at_once)]
    return [Slot(threads=max(1, cores // at_once), gpus=tuple(group)) for group in groups]


def write_slots(directory: Path, slots: Sequence[Slot]) -> None:
    """Lays the slots out as files for the workers to take."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, slot in enumerate(slots):
        (directory / f"{index}.json").write_text(json.dumps(asdict(slot)))


@contextlib.contextmanager
def acquire(directory: Path) -> Iterator[Slot]:
    """Holds a free slot, waiting for one as long as it takes.

    The lock is inherited by no child process and ends with this one, however it ends.

    Args:
      directory: Where `write_slots` put them.

    Yields:
      The slot.

    Raises:
      FileNotFoundError: There are no slots in `directory`.
    """
    paths = sorted(directory.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no slots in {directory}")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open()) for path in paths]
        while True:
            for file in files:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    values = json.loads(file.read())
                    yield Slot(threads=values["threads"], gpus=tuple(values["gpus"]))
                    return
            time.sleep(POLL_SECONDS)
