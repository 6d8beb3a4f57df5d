# SPDX-License-Identifier: Apache-2.0
"""Stages of a check that is made over several calls, each of them with a time budget."""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.files import read_json, write_json_atomic

Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A piece of work whose outcome is one JSON file.

    Attributes:
      name: The file's name, without its suffix.
      group: The stages that take the same time relative to their `seconds`.
      seconds: How long it is expected to take; for a stage that stops in time, the least that is
        worth starting.
      run: Does the work. Receives a function that returns the seconds left, and returns the
        outcome, in which "finished": False asks for another run in the next call.
      stops_in_time: Whether `run` returns before no seconds are left.
      skip: Why the stage cannot run on this machine; "" if it can.
    """

    name: str
    group: str
    seconds: float
    run: Callable[[Callable[[], float]], Outcome]
    stops_in_time: bool = False
    skip: str = ""


def outcome_path(state: Path, name: str) -> Path:
    """Returns the file of a stage's outcome."""
    return state / f"{name}.json"


def read_outcome(state: Path, name: str) -> Outcome | None:
    """Returns a stage's outcome; None if it has not been run."""
    path = outcome_path(state, name)
    return read_json(path) if path.exists() else None


def expected_seconds(stage: Stage, stages: Sequence[Stage], state: Path) -> float:
    """Returns how long a stage will take: its guess, scaled by the slowest measured of its group.

    Args:
      stage: The stage.
      stages: All stages.
      state: The folder of the outcomes.
    """
    if stage.stops_in_time:
        return stage.seconds
    ratios = []
    for other in stages:
        outcome = read_outcome(state, other.name) if other.group == stage.group else None
        if outcome is not None and not {"error", "skipped"} & outcome.keys():
            ratios.append(outcome["seconds"] / other.seconds)
    return stage.seconds * max(ratios, default=1.0)


def _representable(value: Any) -> Any:
    """Replaces numbers that JSON cannot represent by their names, so that an outcome keeps them."""
    if isinstance(value, Mapping):
        return {name: _representable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_representable(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _print(line: str) -> None:
    print(line, flush=True)


def run_stages(
    stages: Sequence[Stage],
    state: Path,
    budget: float,
    clock: Clock = CLOCK,
    say: Callable[[str], None] = _print,
) -> dict[str, float]:
    """Runs the stages that are not finished, in order, as far as they fit into the budget.

    A stage that fails is recorded with its error and not repeated until its file is deleted. One
    that cannot run is recorded with the reason, and runs in a later call that can.

    Args:
      stages: The stages, the most valuable first.
      state: The folder of the outcomes, created if missing.
      budget: Seconds for this call.
      clock: The time.
      say: Receives a line for each stage that was run.

    Returns:
      The names of the stages that are left, with the seconds that each is expected to take.
    """
    state.mkdir(parents=True, exist_ok=True)
    end = clock.monotonic() + budget

    def left() -> float:
        return end - clock.monotonic()

    unfinished: dict[str, float] = {}
    for stage in stages:
        done = read_outcome(state, stage.name)
        if done is not None and done["finished"] and "skipped" not in done:
            continue
        if stage.skip:
            if done is None:
                skipped = {"finished": True, "skipped": stage.skip}
                write_json_atomic(outcome_path(state, stage.name), skipped)
            say(f"{stage.name}: skipped, {stage.skip}")
            continue
        expected = expected_seconds(stage, stages, state)
        if expected > left():
            unfinished[stage.name] = expected
            continue
        began = clock.monotonic()
        try:
            outcome = {"finished": True, **stage.run(left)}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            outcome = {"finished": True, "error": reason, "traceback": traceback.format_exc()}
        outcome |= {
            "seconds": clock.monotonic() - began,
            "date": time.strftime("%Y-%m-%d", time.gmtime(clock.now())),
        }
        write_json_atomic(outcome_path(state, stage.name), _representable(outcome))
        if not outcome["finished"]:
            unfinished[stage.name] = expected
        result = outcome.get("error") or ("done" if outcome["finished"] else "continues")
        say(f"{stage.name}: {result}, {outcome['seconds']:.0f} s")
    return unfinished
