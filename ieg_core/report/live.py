# SPDX-License-Identifier: Apache-2.0
"""What the page of a sweep shows in addition while its trials run."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LiveTrial:
    """A trial that has no result yet, as text.

    Attributes:
      trial: Its name.
      name: Its name as shown.
      state: "training", "waiting", "failed" and so on.
      share: How much of its training is done, in [0, 1].
      step: The step and their number; "" if unknown.
      left: Time left; "" if unknown.
      accuracy: The latest test accuracy; "" before the first.
      reason: Why it failed; else "".
    """

    trial: str
    name: str
    state: str
    share: float = 0.0
    step: str = ""
    left: str = ""
    accuracy: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Live:
    """The progress of a sweep, as text.

    Attributes:
      title: How many trials have finished.
      share: How much of the sweep is done, in [0, 1].
      now: What runs and when it will end.
      updated: When this was written.
      reload_seconds: The page loads itself again after that many seconds.
      trials: The trials without a result, those that run first.
    """

    title: str
    share: float
    now: str
    updated: str
    reload_seconds: int
    trials: Sequence[LiveTrial]

    @property
    def states(self) -> dict[str, str]:
        """The state of each trial without a result, by its name."""
        return {each.trial: each.state for each in self.trials}
