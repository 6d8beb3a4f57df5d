# SPDX-License-Identifier: Apache-2.0
"""The cores, memory and GPUs that this process may use."""

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host import container_memory

UNKNOWN_MEMORY = 128 * 1024**3
"""Memory in bytes that is assumed if neither the kernel nor the container states a limit."""


def usable_cores() -> int:
    """Returns the number of cores that this process may use, including a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1


def usable_memory() -> int:
    """Returns the free memory for trials in bytes, including a container's limit."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        limits.append(int(text.split("MemAvailable:")[1].split()[0]) * 1024)
    if use := container_memory.read():
        limits.append(use.limit - use.used)
    return min(limits, default=UNKNOWN_MEMORY)


def find_gpus(devices: str, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Returns the ids of the GPUs to use, in the format of CUDA_VISIBLE_DEVICES.

    Args:
      devices: "auto" (all GPUs, or the CPU if there are none), "cpu", or ids such as "0,2".
      environ: The environment; its CUDA_VISIBLE_DEVICES limits the GPUs that can be used. As in
        CUDA, the first entry that names no GPU ends it, so that -1 means none.

    Returns:
      The ids; empty for the CPU.

    Raises:
      UserError: When `devices` is none of these, repeats an id, or names a GPU that is not
        available.
    """
    choice = devices.strip().lower()
    if choice == "cpu":
        return ()
    available = _nvidia_smi("index")
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and available:
        available = _visible_gpus(visible, available)
    if choice == "auto":
        return available
    requested = tuple(part.strip() for part in devices.split(","))
    if not all(part.isdigit() for part in requested) or len(set(requested)) < len(requested):
        raise UserError(
            f"DEVICES={devices!r}: expected auto, cpu, or distinct GPU numbers such as 0,1"
        )
    missing = [part for part in requested if part not in available]
    if missing:
        raise UserError(
            f"DEVICES={devices!r}: this machine has no GPU {', '.join(missing)}: expected one of "
            f"{', '.join(available) or '(none)'}, or use DEVICES=auto or DEVICES=cpu"
        )
    return requested


def names_gpus(devices: str) -> bool:
    """Returns whether `find_gpus` was asked for certain GPUs, which then must be usable."""
    return devices.strip().lower() not in ("auto", "cpu")


def processor_name() -> str:
    """Returns the model of the CPU, such as "AMD EPYC 7B13"; "" if the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor()


def driver_version() -> str:
    """Returns the version of NVIDIA's driver; "" if there is none."""
    return (_nvidia_smi("driver_version") or ("",))[0]


def _visible_gpus(visible: str, installed: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the entries of CUDA_VISIBLE_DEVICES before the first that CUDA finds invalid."""
    entries = [part.strip() for part in visible.split(",")]
    uuids = _nvidia_smi("uuid") if any(entry.startswith("GPU-") for entry in entries) else ()
    valid: list[str] = []
    for entry in entries:
        is_uuid = entry.startswith("GPU-") and any(uuid.startswith(entry) for uuid in uuids)
        # nvidia-smi does not list the parts of a GPU in this query.
        is_known = entry in installed or is_uuid or entry.startswith("MIG-")
        if not is_known or entry in valid:
            break
        valid.append(entry)
    return tuple(valid)


def _nvidia_smi(field: str) -> tuple[str, ...]:
    """Queries a field of each GPU with nvidia-smi; returns () without that program or a GPU."""
    # Some clusters mount the driver's programs in that folder without adding it to PATH.
    search_path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/nvidia/bin"])
    program = shutil.which("nvidia-smi", path=search_path)
    if program is None:
        return ()
    query = [program, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()
