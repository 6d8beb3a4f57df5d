# SPDX-License-Identifier: Apache-2.0
"""This machine: the cores, the memory and the GPUs that this process may use."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ieg_core.errors import UserError

UNKNOWN_MEMORY = 128 * 1024**3
"""Bytes that are assumed where neither the kernel nor a container says how many there are."""


def usable_cores() -> int:
    """Returns how many cores this process may use; a container's CPU quota counts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1


def usable_memory() -> int:
    """Returns how many bytes of memory are free for trials; a container's limit counts."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        limits.append(int(text.split("MemAvailable:")[1].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()) - used)
    return min(limits, default=UNKNOWN_MEMORY)


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
