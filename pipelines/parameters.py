# SPDX-License-Identifier: Apache-2.0
"""The parameters of the noise sweep's pipeline: the request, and what a run is told besides."""

import inspect
import typing
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any

from ieg_core.sweep.request import Option, SweepRequest, described
from pipelines.profiles import Profile

OF_THE_PLACE = ("data_dir", "results")
"""Fields of a request that a cluster's package decides."""
ALWAYS_SENT = ("dataset", "noise_ratios", "methods", "seeds", "accelerator")


@dataclass(frozen=True)
class RunParameters:
    """What a run of the pipeline is told besides the request.

    Attributes:
      results_namespace: Part of the results root for this run alone.
      run_label: Name under which the run is recorded.
      part: Which part of the trials this run does, from 1.
      parts: How many runs share the trials.
      schedule: Name of the schedule that starts this run.
      tolerance: Points of accuracy, in per cent; negative: results are not compared.
      accepted: A results.json to compare with.
    """

    results_namespace: str = field(
        default="",
        metadata=described(
            "part of the results root for this run alone; {run} stands for the run's id. Empty: "
            "the whole root, where finished trainings are not repeated"
        ),
    )
    run_label: str = field(
        default="",
        metadata=described(
            "name under which the run is recorded in the results root. Empty: it is not recorded"
        ),
    )
    part: int = field(
        default=1, metadata=described("which part of the trials this run does, from 1 to parts")
    )
    parts: int = field(
        default=1, metadata=described("how many runs share the trials; one does at most 100")
    )
    schedule: str = field(
        default="", metadata=described("name of the schedule that starts this run. Empty: none")
    )
    tolerance: float = field(
        default=-1.0,
        metadata=described(
            "points of accuracy, in per cent, by which results may miss the published ones or "
            "differ from the accepted run's. Negative: they are not compared"
        ),
    )
    accepted: str = field(
        default="",
        metadata=described(
            "a results.json to compare with. Empty: accepted/<schedule>.json in the results root, "
            "if there is one"
        ),
    )


def declare(profile: Profile) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a function the pipeline's signature and the descriptions that the KFP UI shows.

    KFP reads types and defaults from the signature and descriptions from the docstring. It calls
    the function with one positional argument for each parameter.

    Args:
      profile: Where the pipeline runs: it decides some defaults.

    Returns:
      A decorator for a function that takes the parameters by keyword.
    """
    declared = signature(profile)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def pipeline(*values: Any) -> None:
            function(**dict(zip(declared.parameters, values, strict=True)))

        pipeline.__name__ = function.__name__
        pipeline.__signature__ = declared  # type: ignore[attr-defined]
        described_fields = (*fields(SweepRequest), *fields(RunParameters))
        lines = [f"  {each.name}: {description(each)}" for each in described_fields]
        pipeline.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
        return pipeline

    return decorate


def signature(profile: Profile) -> inspect.Signature:
    """Returns the pipeline's signature: tuples are lists, and the profile decides some defaults."""
    of_profile = {
        name: getattr(profile, name) for name in ("dataset", "accelerator", *OF_THE_PLACE)
    }
    parameters = []
    for kind in (SweepRequest, RunParameters):
        hints = typing.get_type_hints(kind)
        for each in fields(kind):
            default = of_profile.get(each.name, each.default)
            parameters.append(
                inspect.Parameter(
                    each.name,
                    inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=list(default) if isinstance(default, tuple) else default,
                    annotation=parameter_type(hints[each.name]),
                )
            )
    return inspect.Signature(parameters)


def parameter_type(hint: Any) -> Any:
    """Returns the type of a field as KFP has it: a list for a tuple."""
    if typing.get_origin(hint) is tuple:
        return list[typing.get_args(hint)[0]]  # type: ignore[misc]
    return hint


def description(each: "Field[Any]") -> str:
    """Returns what the KFP UI says of a parameter."""
    declared: Option | None = each.metadata.get("option")
    meaning = declared.meaning if declared else each.metadata["meaning"]
    text = f"{meaning[:1].upper()}{meaning[1:]}."
    if declared and declared.default_meaning:
        text += f" Default: {declared.default_meaning}."
    return text


def sent(request: SweepRequest) -> dict[str, Any]:
    """Returns a request's arguments on a cluster: what the pipeline's own defaults do not say.

    Where data and results are is the cluster's matter, compiled into the package.
    """
    values = request.parameters
    changed = [each.name for each in fields(request) if getattr(request, each.name) != each.default]
    return {
        name: values[name]
        for name in values
        if name in ALWAYS_SENT or (name in changed and name not in OF_THE_PLACE)
    }
