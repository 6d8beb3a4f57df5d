# SPDX-License-Identifier: Apache-2.0
"""The one rule for whether something that writes heartbeats is alive."""

STALE_SECONDS = 180.0
"""A heartbeat that is older belongs to a process that is dead; one is written every 30 s."""


def is_recent(beat: float, now: float) -> bool:
    """Returns whether a heartbeat is young enough for its process to be alive.

    Args:
      beat: When it was written, Unix time in seconds, by the clock of the machine that wrote it.
      now: The time here. The clocks must agree to a minute; a heartbeat far in the future is as
        dead as one far in the past.
    """
    return abs(now - beat) < STALE_SECONDS
