# SPDX-License-Identifier: Apache-2.0
"""What a sweep takes."""

import shlex
from dataclasses import dataclass

from ieg_core.errors import UserError
from ieg_core.experiment.methods import DEFAULT_METHODS, method_spec

MAX_TRIALS = 1000


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep was asked to do.

    Attributes:
      dataset: Data set, complete or to be completed by the noise ratios
        (ieg_core.experiment.dataset_spec.combine).
      noise_ratios: Empty for the data set's defaults.
      methods: Names of methods.
      seeds: Seeds, each varying corruption, probe, initial weights and batches.
      recipe: Recipe family; empty chooses by data set and device.
      network: Another network than the recipe's.
      steps: Another length than the recipe's; 0 keeps it.
      settings: Overrides such as "optimizer.learning_rate=0.05", for every trial.
      accelerator: Whether the trials will have GPUs; decides the default recipe.
      data_dir: Where base data sets lie.
      results: The results root.
      labels: The label file of `<base>_labels`; empty for other data sets.
    """

    dataset: str
    noise_ratios: tuple[float, ...] = ()
    methods: tuple[str, ...] = DEFAULT_METHODS
    seeds: tuple[int, ...] = (0,)
    recipe: str = ""
    network: str = ""
    steps: int = 0
    settings: tuple[str, ...] = ()
    accelerator: bool = False
    data_dir: str = "data"
    results: str = "runs"
    labels: str = ""

    def __post_init__(self) -> None:
        for name in ("methods", "seeds"):
            if not getattr(self, name):
                raise UserError(f"a sweep needs at least one of {name}")
        for method in self.methods:
            method_spec(method)
        if min(self.seeds) < 0:
            raise UserError(f"seeds must be at least 0, got {min(self.seeds)}")

    @property
    def command(self) -> str:
        """The `make sweep` command that asks for this again."""
        values = {
            "DATASET": self.dataset,
            "LABELS": self.labels,
            "NOISE": ",".join(f"{ratio:g}" for ratio in self.noise_ratios),
            "METHODS": ",".join(self.methods),
            "SEEDS": ",".join(map(str, self.seeds)),
            "RECIPE": self.recipe,
            "NETWORK": self.network,
            "STEPS": str(self.steps or ""),
            "SET": " ".join(self.settings),
            "DATA_DIR": "" if self.data_dir in ("data", "./data") else self.data_dir,
        }
        given = [f"{name}={shlex.quote(value)}" for name, value in values.items() if value]
        return " ".join(["make", "sweep", *given])
