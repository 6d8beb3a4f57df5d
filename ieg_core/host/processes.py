# SPDX-License-Identifier: Apache-2.0
"""Processes that exit when the process that started them is gone.

A killed runner of `kfp.local` leaves its components running, and so would a killed `make sweep`.
Therefore a process that starts others adds `children_environment()` to their environment, and each
of them first calls `die_with_parent()`. Without these variables, as in a pod, the call does
nothing.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ieg_core.host.clock import CLOCK, Clock

PID = "IEG_PARENT_PID"
START = "IEG_PARENT_START"
POLL_SECONDS = 1.0


def start_time(pid: int) -> str:
    """Returns when a process started, in kernel clock ticks; "" if /proc does not list it.

    Ids are reused; id and start time together identify a process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    # The second field, the program's name, may contain spaces and parentheses.
    return stat.rpartition(")")[2].split()[19]


def children_environment() -> dict[str, str]:
    """Returns the environment variables that make a child exit when this process is gone."""
    return {PID: str(os.getpid()), START: start_time(os.getpid())}


def die_with_parent(
    environ: Mapping[str, str] = os.environ,
    end: Callable[[int], object] = os._exit,
    clock: Clock = CLOCK,
) -> None:
    """Exits this process immediately, without cleanup, when its parent is gone.

    Also exits if the parent is gone already. A thread waits for the parent's end; files written
    atomically stay intact.

    Args:
      environ: An environment with the variables of `children_environment`.
      end: Called with exit code 1 when the parent is gone.
      clock: Tells the time between two looks at the parent, where the kernel has no pidfd.
    """
    if not environ.get(PID):
        return
    pid, started = int(environ[PID]), environ.get(START, "")
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        end(1)
        return
    except (AttributeError, OSError):  # not Linux, or older than 5.3
        handle = None
    if not _alive(pid, started):
        end(1)
        return
    threading.Thread(target=_wait, args=(pid, started, handle, end, clock), daemon=True).start()


def is_running(pid: int) -> bool:
    """Returns whether there is a process of that id."""
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _alive(pid: int, started: str) -> bool:
    return is_running(pid) and start_time(pid) == started


def _wait(
    pid: int, started: str, handle: int | None, end: Callable[[int], object], clock: Clock
) -> None:
    if handle is None:
        while _alive(pid, started):
            clock.sleep(POLL_SECONDS)
    else:
        poll = select.poll()
        poll.register(handle, select.POLLIN)  # a pidfd becomes readable when its process ends
        poll.poll()
    end(1)


def machine() -> str:
    """Returns an id of the running kernel; containers on one node share it and its file locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return socket.gethostname()
