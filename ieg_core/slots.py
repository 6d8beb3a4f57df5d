# SPDX-License-Identifier: Apache-2.0
"""How many cells run at once on this machine, and what each of them may use.

On GPUs a slot is `gpus_per_cell` of them; on a CPU it is a number of threads. A worker takes a free
slot before it imports a framework, and holds it by a file lock that the kernel drops when the
worker dies.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ieg_core.errors import UserError

MEMORY_PER_CELL = 2 * 1024**3
"""Bytes a cell needs at most on the CPU recipes (TensorFlow itself takes 0.6 GiB)."""

DIRECTORY = "IEG_SLOTS_DIR"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """What one cell may use.

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


def usable_cores() -> int:
    """Returns how many cores this process may use; a container's CPU quota counts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1


def usable_memory() -> int:
    """Returns how many bytes of memory are free for cells; a container's limit counts."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        limits.append(int(text.split("MemAvailable:")[1].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()) - used)
    return min(limits, default=64 * MEMORY_PER_CELL)


def find_gpus(devices: str, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Returns the ids of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them.

    Args:
      devices: "auto" (every GPU there is, else the CPU), "cpu", or ids such as "0,2".
      environ: CUDA_VISIBLE_DEVICES in it limits what "auto" finds.

    Returns:
      The ids; empty means the CPU.

    Raises:
      UserError: Neither of these, an id twice, or one that this machine does not have.
    """
    choice = devices.strip().lower()
    if choice == "cpu":
        return ()
    found = _installed_gpus()
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = tuple(part.strip() for part in visible.split(",") if part.strip()) if found else ()
    if choice == "auto":
        return found
    asked = tuple(part.strip() for part in devices.split(","))
    if not all(part.isdigit() for part in asked) or len(set(asked)) < len(asked):
        raise UserError(
            f"DEVICES={devices!r}: expected auto, cpu, or different GPU numbers such as 0,1"
        )
    missing = [part for part in asked if part not in found]
    if missing:
        raise UserError(
            f"DEVICES={devices!r}: this machine has no GPU {', '.join(missing)} "
            f"(found {', '.join(found) or 'none'}): use DEVICES=auto or DEVICES=cpu"
        )
    return asked


def driver_version() -> str:
    """Returns the version of NVIDIA's driver; "" where there is none."""
    return (_nvidia_smi("driver_version") or ("",))[0]


def _installed_gpus() -> tuple[str, ...]:
    return _nvidia_smi("index")


def _nvidia_smi(field: str) -> tuple[str, ...]:
    """Returns what nvidia-smi says of each GPU; empty where there is no such program, or no GPU."""
    # Some clusters mount the driver's programs there and leave PATH alone.
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/nvidia/bin"])
    program = shutil.which("nvidia-smi", path=places)
    if program is None:
        return ()
    query = [program, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()


def plan_slots(
    num_cells: int, gpus: Sequence[str], gpus_per_cell: int, cores: int, memory: int
) -> list[Slot]:
    """Shares the machine out among cells.

    GPUs: ⌊len(gpus) / gpus_per_cell⌋ slots. CPU: one thread a cell while there are as many cells
    as cores, since cells side by side fight less than threads inside one; else ⌊cores / cells⌋.

    Args:
      num_cells: Cells still to run.
      gpus: Ids of the GPUs to use; empty for the CPU.
      gpus_per_cell: GPUs (replicas) of a cell, at least 1; a CPU is always one replica.
      cores: CPU cores to use.
      memory: Bytes of memory to use.

    Returns:
      The slots, at least one, no more than `num_cells` where that is above 0.

    Raises:
      UserError: `gpus_per_cell` is below 1 or more than there are.
    """
    if gpus_per_cell < 1:
        raise UserError(f"GPUS_PER_CELL must be at least 1, got {gpus_per_cell}")
    wanted = max(1, num_cells)
    if not gpus:
        if gpus_per_cell > 1:
            raise UserError(
                f"GPUS_PER_CELL={gpus_per_cell}, but no GPU is in use: leave it out, or see DEVICES"
            )
        at_once = max(1, min(wanted, cores, memory // MEMORY_PER_CELL))
        return [Slot(threads=max(1, cores // at_once))] * at_once
    if gpus_per_cell > len(gpus):
        raise UserError(
            f"GPUS_PER_CELL={gpus_per_cell}, but {len(gpus)} GPUs are in use: ask for fewer"
        )
    at_once = min(wanted, len(gpus) // gpus_per_cell)
    groups = [gpus[i * gpus_per_cell : (i + 1) * gpus_per_cell] for i in range(at_once)]
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
