# SPDX-License-Identifier: Apache-2.0
"""The memory limit of a container, and a guard that ends a child before the kernel ends them all.

Since Kubernetes 1.28 the kubelet sets `memory.oom.group` on cgroup v2: when a container exceeds its
limit, the kernel kills every process in it. In a pod of KFP these are the child that trains, our
parent that would record it, and the launcher that would report it.
"""

import contextlib
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

    It looks every 0.2 s: what a process allocates faster than that is still the kernel's to end.

    Args:
      process: The process.
      cgroup: Where control groups are mounted.

    Yields:
      What it did.
    """
    guard, ended = Guard(), threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS) and (use := read(cgroup)):
            if use.used > SHARE * use.limit:
                guard.reason = (
                    f"out of memory: {use.used / 2**30:.2f} of the container's "
                    f"{use.limit / 2**30:.2f} GiB in use; raise memory_limit of resources.train or "
                    "resources.evaluate in the cluster file, or shrink the batch"
                )
                process.kill()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield guard
    finally:
        ended.set()
        thread.join()
