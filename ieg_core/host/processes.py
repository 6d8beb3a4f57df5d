# SPDX-License-Identifier: Apache-2.0
"""Processes that end when the process that wants their work is gone.

A killed runner of `kfp.local` leaves its components running, and so would a killed `make sweep`.
A process that starts others puts `children_environment()` into their environment; each of them
calls `die_with_parent()` first thing. Where nobody set the variables, as in a pod, that does
nothing.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PID = "IEG_PARENT_PID"
START = "IEG_PARENT_START"
POLL_SECONDS = 1.0


def start_time(pid: int) -> str:
    """Returns when a process started, in the kernel's clock ticks; "" where /proc does not tell.

    Together with the id it names a process for good: ids are used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field, the program's name, may hold spaces and brackets.
    return stat.rpartition(")")[2].split()[19]


def children_environment() -> dict[str, str]:
    """Returns the variables that tell a child process to end when this process is gone."""
    return {PID: str(os.getpid()), START: start_time(os.getpid())}


def die_with_parent(
    environ: Mapping[str, str] = os.environ, end: Callable[[int], object] = os._exit
) -> None:
    """Ends this process, at once and without clean-up, when the process named in `environ` is gone.

    Also when it is gone already. A thread waits for it; files written by rename are safe.

    Args:
      environ: Where `children_environment` was put.
      end: Called with exit code 1 when the parent is gone.
    """
    if not environ.get(PID):
        return
    pid, started = int(environ[PID]), environ.get(START, "")
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        end(1)
        return
    except (AttributeError, OSError):  # not Linux, or one older than 5.3
        handle = None
    if not _alive(pid, started):
        end(1)
        return
    threading.Thread(target=_wait, args=(pid, started, handle, end), daemon=True).start()


def _alive(pid: int, started: str) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return start_time(pid) == started


def _wait(pid: int, started: str, handle: int | None, end: Callable[[int], object]) -> None:
    if handle is None:
        while _alive(pid, started):
            time.sleep(POLL_SECONDS)
    else:
        poll = select.poll()
        poll.register(handle, select.POLLIN)  # a pidfd becomes readable when its process ends
        poll.poll()
    end(1)


def machine() -> str:
    """Names the running kernel: containers on one node share it, and with it the locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
