# SPDX-License-Identifier: Apache-2.0
"""The request for a sweep and its options, declared once.

The variables of `make sweep`, the pipeline's parameters, the keys of schedules.yaml and the
README's table are derived from the fields of `SweepRequest` or checked against them by tests. This
module imports nothing outside this package and the standard library, because `make` checks its
variables before `.venv` exists.
"""

import inspect
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ieg_core.errors import UserError, require
from ieg_core.experiment.length import MAX_STEPS
from ieg_core.experiment.methods import DEFAULT_METHODS, method_spec
from ieg_core.store.names import DEFAULT_ROOT

MAX_SEED = 2**53
"""The largest whole number up to which a KFP parameter is exact."""

MAX_TRIALS = 1000


@dataclass(frozen=True)
class Option:
    """A variable of `make` and the command-line option that is generated from it.

    Attributes:
      variable: The make variable; `GPUS_PER_TRIAL` becomes `--gpus-per-trial`.
      meaning: What it does, for the README's table (Markdown, no final period).
      default: The value if none is given.
      default_meaning: What an empty default means; "" if it means nothing.
      expected: The valid values, for error messages.
      choices: The valid values; empty if any value is valid.
      scope: Which sweeps have it: "" all, "here" those on this machine, "cluster" those on a
        cluster.
      new_run: Whether it describes a new run and so cannot be used with RESUME or WATCH=<run>.
      separator: The separator between the values of a list.
    """

    variable: str
    meaning: str
    default: str = ""
    default_meaning: str = ""
    expected: str = ""
    choices: tuple[str, ...] = ()
    scope: str = ""
    new_run: bool = False
    separator: str = ","

    @property
    def flag(self) -> str:
        """The option's name on the command line, without the leading dashes."""
        return self.variable.lower().replace("_", "-")

    @property
    def key(self) -> str:
        """The attribute of argparse's namespace."""
        return self.variable.lower()

    def text(self, value: Any) -> str:
        """Formats a value for the variable; "" for an empty value or 0."""
        if isinstance(value, tuple):
            return self.separator.join(
                f"{each:g}" if isinstance(each, float) else str(each) for each in value
            )
        return str(value or "")


def option(variable: str, meaning: str, value: Any = MISSING, **details: Any) -> Any:
    """Declares a field that is a variable of `make`; with no value, the field has no default."""
    declared = Option(variable, meaning, **{"new_run": True, **details})
    return field(default=value, metadata={"option": declared})


def make_sweep(given: Mapping[str, str]) -> str:
    """Returns the `make sweep` command with some variables."""
    words = (f"{name}={shlex.quote(text)}" for name, text in given.items())
    return " ".join(["make", "sweep", *words])


def attributes(owner: type) -> Mapping[str, str]:
    """Reads the descriptions of a dataclass's fields from its docstring, each as one line."""
    _, _, text = (inspect.getdoc(owner) or "").partition("Attributes:")
    described = re.findall(r"^ {2}(\w+): (.*(?:\n {4}.*)*)", text, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in described}


@dataclass(frozen=True)
class SweepRequest:
    """The request for a sweep.

    Attributes:
      dataset: Data set, complete or without its noise rate, which `noise_ratios` append
        (ieg_core.experiment.dataset_spec.combine).
      noise_ratios: Noise rates in [0, 1]; empty for the data set's defaults.
      methods: Names of methods.
      seeds: Seeds; each varies corruption, probe, initial weights and batches.
      recipe: Recipe family; empty to choose by data set and device.
      network: A network that replaces the recipe's; empty to keep the recipe's.
      features: The features on which heads are trained (`feature_sources`); empty to train
        networks.
      steps: Training steps of a trial; 0 to keep the recipe's.
      settings: Overrides such as "optimizer.learning_rate=0.05", for every trial.
      labels: The label file of `<base>_labels`; empty for other data sets.
      accelerator: Whether trainings have GPUs; decides the recipe if none is named.
      data_dir: Where the base data sets are.
      results: The results root.
    """

    dataset: str = option(
        "DATASET",
        "data set and kind of noise: `<base>_uniform`, `<base>_asymmetric`, "
        "`<base>_imbal_<ratio>`, or a complete name such as `cifar10_uniform_0.4`; human "
        "labels `cifar10_human_worst`, `cifar100_human`; a label file `<base>_labels`; bases: "
        "`digits`, `fashion_mnist`, `cifar10`, `cifar100`, `webvisionmini`, `folder`",
        default="digits_uniform",
    )
    noise_ratios: tuple[float, ...] = option(
        "NOISE",
        "noise rates in [0, 1], appended to the data set's name",
        value=(),
        default_meaning="`0.2,0.4,0.8`; asymmetric `0.1,0.2,0.3,0.4`",
        expected="rates in [0, 1], such as 0.2,0.4",
    )
    methods: tuple[str, ...] = option(
        "METHODS",
        "methods to compare; `ieg recipes` lists them",
        value=DEFAULT_METHODS,
        default=",".join(DEFAULT_METHODS),
        expected="names, such as supervised,l2r",
    )
    seeds: tuple[int, ...] = option(
        "SEEDS",
        "each seed varies noise, clean labels, initial weights and batches, identically for "
        "every method",
        value=(0,),
        default="0",
        expected="whole numbers, such as 0,1,2",
    )
    recipe: str = option(
        "RECIPE",
        "a family of settings; `ieg recipes` lists them",
        value="",
        default_meaning="by data set and device",
    )
    network: str = option(
        "NETWORK",
        "network to use instead of the recipe's: `preact8`, `resnet29`, `resnet32`, `wrn28-10`, …",
        value="",
        default_meaning="the recipe's",
    )
    features: str = option(
        "FEATURES",
        "train a head on features, in minutes on a CPU: `efficientnet-lite0`, "
        "`efficientnet-lite2`, a file of features or of a network, several joined by `+`; "
        "METHODS of `supervised`, `forward`, `retrain`",
        value="",
    )
    steps: int = option(
        "STEPS",
        "training steps of a trial",
        value=0,
        default_meaning="the recipe's",
        expected="a whole number of training steps",
    )
    settings: tuple[str, ...] = option(
        "SET",
        'overrides for every trial: `SET="optimizer.learning_rate=0.05 batch_size=50"`',
        value=(),
        separator=" ",
    )
    labels: str = option(
        "LABELS",
        "the label file, CSV or Parquet, of a `<base>_labels` data set",
        value="",
    )
    accelerator: bool = False
    data_dir: str = option(
        "DATA_DIR",
        "folder of the base data sets; CIFAR is downloaded to it",
        value="data",
        default="./data",
        scope="here",
        new_run=False,
    )
    results: str = option(
        "OUT",
        "the results root, a folder; a pipeline on a cluster also takes `gs://bucket/prefix`",
        value=DEFAULT_ROOT,
        default=DEFAULT_ROOT,
        new_run=False,
    )

    def __post_init__(self) -> None:
        for name in ("methods", "seeds"):
            if not getattr(self, name):
                raise UserError(f"no {name}: expected at least one")
        for method in self.methods:
            method_spec(method)
        for name in ("network", "features", "labels", "data_dir", "results"):
            object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))
        wrong = [seed for seed in self.seeds if not 0 <= seed <= MAX_SEED]
        require(not wrong, "seeds", wrong, f"numbers from 0 to {MAX_SEED}")
        for variable, value in (("NETWORK", self.network), ("RECIPE", self.recipe)):
            if self.features and value:
                raise UserError(
                    f"received {variable}={value} with FEATURES={self.features}, which chooses "
                    f"network and recipe: leave one of the two out"
                )
        expected = f"at least 1 and at most {MAX_STEPS}, or 0 for the recipe's"
        require(0 <= self.steps <= MAX_STEPS, "steps", self.steps, expected)

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Builds a request from the pipeline's parameters.

        Args:
          values: A JSON value for each field; other keys are ignored. KFP hands over the numbers
            of a list as floats.
          **changes: Fields that differ from `values`.

        Returns:
          The request.

        Raises:
          UserError: When a value is invalid.
        """
        given = {each.name: values[each.name] for each in fields(cls)} | changes
        for name, value in given.items():
            if isinstance(value, list):
                given[name] = tuple(value)
        given["seeds"] = tuple(int(seed) for seed in given["seeds"])
        return cls(**given)

    @property
    def parameters(self) -> dict[str, Any]:
        """The request as the pipeline's parameters: a JSON value for each field."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}

    @property
    def command(self) -> str:
        """The `make sweep` command that repeats this request, in the default results root."""
        given = {}
        for name, each in REQUEST_OPTIONS.items():
            text = each.text(getattr(self, name))
            is_default = name == "data_dir" and Path(text) == Path(each.default)
            if text and name != "results" and not is_default:
                given[each.variable] = text
        return make_sweep(given)


REQUEST_OPTIONS: Mapping[str, Option] = {
    each.name: each.metadata["option"] for each in fields(SweepRequest) if "option" in each.metadata
}
"""The options of a request, by the name of the field that each one sets."""
