# SPDX-License-Identifier: Apache-2.0
"""The rule for whether a process that writes heartbeats is alive."""

import os
import tempfile
from pathlib import Path

STALE_SECONDS = 180.0
"""Age in seconds at which a heartbeat means a dead process; heartbeats are written every 30 s."""


def is_recent(beat: float, now: float) -> bool:
    """Returns whether a heartbeat is recent enough for its process to be alive.

    Args:
      beat: Time of the heartbeat, Unix time in seconds, by the clock of the machine that wrote it.
      now: The local time, Unix time in seconds. The clocks must agree to within a minute; a
        heartbeat far in the future counts as dead, like one far in the past.
    """
    return abs(now - beat) < STALE_SECONDS


def is_new(path: Path) -> bool:
    """Returns whether a file changed recently, by the clock of its file system.

    A file server's clock may differ from this machine's by hours.

    Raises:
      FileNotFoundError: When there is no such file.
      OSError: When its folder is not writable.
    """
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return is_recent(path.stat().st_mtime, os.fstat(now.fileno()).st_mtime)
