# SPDX-License-Identifier: Apache-2.0
"""The parameters of the noise sweep's pipeline: those of the request, and those of the run."""

import inspect
import json
import typing
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import Any

from ieg_core.sweep.request import Option, SweepRequest, attributes
from pipelines.profiles import Profile

OF_THE_PLACE = ("data_dir", "results")
"""Fields of a request that a cluster's package decides."""
ALWAYS_SENT = ("dataset", "noise_ratios", "methods", "seeds", "accelerator")


@dataclass(frozen=True)
class RunParameters:
    """The parameters of a run of the pipeline, in addition to the request's.

    The KFP UI shows these descriptions.

    Attributes:
      results_namespace: Part of the results root for this run alone; {run} stands for the run's id.
        Empty: the whole root, where finished trainings are not repeated.
      run_label: Name under which the run is recorded in the results root. Empty: it is not
        recorded.
      part: Which part of the trials this run does, from 1 to parts.
      parts: How many runs share the trials; one does at most 100.
      schedule: Name of the schedule that starts this run. Empty: none.
      tolerance: Points of accuracy, in percent, by which results may miss the published ones or
        differ from the accepted run's. Negative: they are not compared.
      accepted: A results.json to compare with. Empty: accepted/<schedule>.json in the results root,
        if there is one.
    """

    results_namespace: str = ""
    run_label: str = ""
    part: int = 1
    parts: int = 1
    schedule: str = ""
    tolerance: float = -1.0
    accepted: str = ""


def declare(profile: Profile) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a function the pipeline's signature and the descriptions that the KFP UI shows.

    KFP reads types and defaults from the signature and descriptions from the docstring. It calls
    the function with one positional argument for each parameter.

    Args:
      profile: The place where the pipeline runs; it determines some defaults.

    Returns:
      A decorator for a function that takes the parameters by keyword.
    """
    declared = signature(profile)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def pipeline(*values: Any) -> None:
            function(**dict(zip(declared.parameters, values, strict=True)))

        pipeline.__name__ = function.__name__
        pipeline.__signature__ = declared  # type: ignore[attr-defined]
        lines = [
            f"  {each.name}: {description(kind, each)}"
            for kind in (SweepRequest, RunParameters)
            for each in fields(kind)
        ]
        pipeline.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
        return pipeline

    return decorate


def signature(profile: Profile) -> inspect.Signature:
    """Returns the pipeline's signature, with lists for tuples and the profile's defaults."""
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
    """Returns KFP's type of a field: a list for a tuple."""
    if typing.get_origin(hint) is tuple:
        return list[typing.get_args(hint)[0]]  # type: ignore[misc]
    return hint


def description(kind: type, each: "Field[Any]") -> str:
    """Returns the KFP UI's text for a parameter: its option's meaning, or its docstring's."""
    declared: Option | None = each.metadata.get("option")
    if declared is None:
        return attributes(kind)[each.name]
    text = f"{declared.meaning[:1].upper()}{declared.meaning[1:]}."
    return text + (f" Default: {declared.default_meaning}." if declared.default_meaning else "")


def as_markdown(profile: Profile) -> str:
    """Returns the parameters as a Markdown list: name, default, meaning."""
    default = {name: json.dumps(p.default) for name, p in signature(profile).parameters.items()}
    return "\n".join(
        f"- **{each.name}** (`{default[each.name]}`): {description(kind, each)}"
        for kind in (SweepRequest, RunParameters)
        for each in fields(kind)
    )


def sent(request: SweepRequest) -> dict[str, Any]:
    """Returns the arguments of a request that differ from the pipeline's defaults.

    The places of data and results are left out: the package contains the cluster's.
    """
    values = request.parameters
    changed = [each.name for each in fields(request) if getattr(request, each.name) != each.default]
    return {
        name: values[name]
        for name in values
        if name in ALWAYS_SENT or (name in changed and name not in OF_THE_PLACE)
    }
