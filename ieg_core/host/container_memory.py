# SPDX-License-Identifier: Apache-2.0
"""The memory limit of a container, and a guard that ends a child before the kernel ends them all.

Since Kubernetes 1.28 the kubelet sets `memory.oom.group` on cgroup v2 (kubernetes/kubernetes,
pkg/kubelet/kuberuntime/kuberuntime_container_linux.go): when a container exceeds its limit, the
kernel kills every process in it. In a pod of KFP these are the children that train, our
parent that would record it, and the launcher that would report it.
"""

import contextlib
import resource
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SHARE = 0.95
POLL_SECONDS = 0.2
UNLIMITED = 2**60
"""Version 1 states "no limit" as a number of about 2**63; no machine has this much."""

_guarded: list[int] = []
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class MemoryUse:
    """Memory of this process's control group.

    Attributes:
      used: Bytes that the kernel cannot reclaim: without the page cache of files.
      limit: Bytes beyond which the kernel kills.
    """

    used: int
    limit: int


def read(cgroup: Path = CGROUP) -> MemoryUse | None:
    """Reads the memory of this process's control group.

    Args:
      cgroup: Where control groups are mounted, version 2 or 1.

    Returns:
      The use; None without a limit.
    """
    version_1 = cgroup / "memory"
    for folder, limit, current, prefix in (
        (cgroup, "memory.max", "memory.current", ""),
        (version_1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            most = int((folder / limit).read_text(encoding="utf-8"))
            stat = _parse_stat((folder / "memory.stat").read_text(encoding="utf-8"))
            cache = stat[f"{prefix}inactive_file"] + stat[f"{prefix}active_file"]
            used = int((folder / current).read_text(encoding="utf-8")) - cache
            return MemoryUse(max(used, 0), most) if most < UNLIMITED else None
    return None


def _parse_stat(text: str) -> Mapping[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in pairs}


@dataclass
class Guard:
    """What `guarded` did.

    Attributes:
      reason: Why it killed the process; "" if it did not.
    """

    reason: str = ""


@contextlib.contextmanager
def guarded(process: "subprocess.Popen[str]", cgroup: Path = CGROUP) -> Iterator[Guard]:
    """Kills a process, within the block, when its container is about to run out of memory.

    It looks every 0.2 s: what a process allocates faster than that is still the kernel's to end. Of
    several guarded processes, it kills the one that uses the most memory and spares the others.

    Args:
      process: The process.
      cgroup: Where control groups are mounted.

    Yields:
      What it did.
    """
    guard, ended = Guard(), threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            with _one_at_a_time:
                use = read(cgroup)
                if use is None:
                    return
                sizes = {pid: resident(pid) for pid in _guarded}
                is_largest = sizes[process.pid] == max(sizes.values())
                if use.used > SHARE * use.limit and is_largest:
                    guard.reason = _reason(use, sizes[process.pid], len(sizes))
                    process.kill()
                    process.wait()  # before another guard looks: its memory is free then
                    return

    thread = threading.Thread(target=watch, daemon=True)
    with _one_at_a_time:
        _guarded.append(process.pid)
    thread.start()
    try:
        yield guard
    finally:
        ended.set()
        thread.join()
        with _one_at_a_time:
            _guarded.remove(process.pid)


def _reason(use: MemoryUse, own: int, at_once: int) -> str:
    own_share = f", {own / 2**30:.2f} by this trial, the largest of {at_once} at once"
    lower = " lower trials_at_once,"
    return (
        f"out of memory: {use.used / 2**30:.2f} of the container's {use.limit / 2**30:.2f} GiB in "
        f"use{own_share if at_once > 1 else ''};{lower if at_once > 1 else ''} raise memory_limit "
        "of resources.train or resources.evaluate in the cluster file, or shrink the batch"
    )


def resident(pid: int) -> int:
    """Returns the bytes of memory that a process holds; 0 if there is no such process."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()
