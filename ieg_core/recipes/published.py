# SPDX-License-Identifier: Apache-2.0
"""Published accuracies to hold ours against, with where each was read.

Figures that were not read anywhere are marked as recalled: to be shown, never to be gated on.
Protocols differ (network, clean labels, best or last epoch), so each row says its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ieg_core.experiment import dataset_spec
from ieg_core.recipes import build


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
      dataset: Data-set spec.
      method: Our name of the method.
      network: Our name of the network.
      clean_labels: Clean labels used.
      accuracy: Test accuracy in per cent.
      deviation: Its published deviation, or None.
      source: Where it was read; "recalled" where it was not.
      true_flip_rate: Its share of wrong labels, where its noise convention is not that of
        ieg_core.experiment.dataset_spec (uniform noise redraws from all classes, as in IEG); None
        where it is.
    """

    dataset: str
    method: str
    network: str
    clean_labels: int
    accuracy: float
    deviation: float | None
    source: str
    true_flip_rate: float | None = None

    @property
    def is_recalled(self) -> bool:
        """Whether nobody here read it."""
        return self.source == RECALLED

    @property
    def text(self) -> str:
        """The figure as people write it."""
        spread = f" ± {self.deviation}" if self.deviation is not None else ""
        return f"{self.accuracy}{spread}{' (recalled)' if self.is_recalled else ''}"


RECALLED = "recalled"
_ABSTRACT = "IEG abstract"
_INDEX = "FSR, third-party index of its table"

PUBLISHED = (
    Published("cifar100_uniform_0.4", "ieg", "wrn28-10", 1000, 80.2, 0.3, _ABSTRACT),
    Published("cifar100_uniform_0.8", "ieg", "wrn28-10", 1000, 75.5, 0.2, _ABSTRACT),
    Published(
        "cifar10_uniform_0.2",
        "ieg",
        "wrn28-10",
        100,
        96.2,
        None,
        "independent re-run of the released code (Huawei ModelZoo, GPU row)",
    ),
    Published(
        "cifar10_uniform_0.2", "ieg", "resnet29", 100, 92.0, None, "a user quoting IEG's table 1"
    ),
    Published("cifar10_uniform_0.4", "ieg", "wrn28-10", 100, 95.9, None, RECALLED),
    Published("cifar10_uniform_0.8", "ieg", "wrn28-10", 100, 93.7, None, RECALLED),
    Published("cifar100_uniform_0.2", "fsr", "wrn28-10", 0, 78.7, None, _INDEX),
    Published(
        "webvisionmini",
        "fsr",
        "resnet50",
        0,
        74.9,
        None,
        f"{_INDEX}; 72.3 on ImageNet's validation images",
    ),
    Published("cifar10_uniform_0.2", "fsr", "wrn28-10", 0, 95.1, None, RECALLED),
    Published("cifar10_uniform_0.4", "fsr", "wrn28-10", 0, 93.7, None, RECALLED),
    Published("cifar10_uniform_0.8", "fsr", "wrn28-10", 0, 82.8, None, RECALLED),
    Published("cifar100_uniform_0.4", "fsr", "wrn28-10", 0, 74.2, None, RECALLED),
    Published("cifar100_uniform_0.8", "fsr", "wrn28-10", 0, 46.7, None, RECALLED),
)


def protocol_difference(row: Mapping[str, Any], figure: Published) -> str:
    """Says why a result cannot be held against a figure of its data set and method.

    Args:
      row: A row of results.json.
      figure: A published figure of the same data set and method.

    Returns:
      The first difference between the protocols, or "" where they are the same.
    """
    if row["network"] != figure.network:
        return f"published with {figure.network}, this is {row['network']}"
    if row["clean_labels_used"] != figure.clean_labels:
        return f"published with {figure.clean_labels} clean labels, not {row['clean_labels_used']}"
    flipped = figure.true_flip_rate
    flipped = dataset_spec.parse(figure.dataset).true_flip_rate if flipped is None else flipped
    # Labels that people gave have no convention: the data set's name says all.
    if flipped is not None and not (
        row["true_flip_rate"] is not None and math.isclose(row["true_flip_rate"], flipped)
    ):
        return f"another noise convention: {flipped:.1%} of the published run's labels were wrong"
    family = build.FAMILIES.get(str(row["recipe"]))
    if family is None or family.source == build.OURS:
        return f"recipe {row['recipe']} is none of a paper's"
    if row.get("recipe_steps") is None:
        return "the trial does not say how long its recipe is"
    if row["steps"] != row["recipe_steps"]:
        return f"trained {row['steps']} steps, the recipe is {row['recipe_steps']} long"
    if row.get("changed_settings"):
        return f"other settings than the recipe's: {', '.join(row['changed_settings'])}"
    if figure.is_recalled:
        return "the published figure was recalled, not read: it is no gate"
    return ""
