# SPDX-License-Identifier: Apache-2.0
"""Published accuracies of all families, and whether a result is comparable with one.

Protocols differ (network, number of clean labels, best or last epoch), so each figure states its
own, and where it was read.
"""

import math
from collections.abc import Mapping
from typing import Any

from ieg_core.experiment import dataset_spec
from ieg_core.recipes import build
from ieg_core.recipes.family import OURS, Published

PUBLISHED: tuple[Published, ...] = tuple(
    figure for family in build.FAMILIES.values() for figure in family.figures
)


def protocol_difference(row: Mapping[str, Any], figure: Published) -> str:
    """Returns why a result is not comparable with a figure of its data set and method.

    Args:
      row: A row of results.json.
      figure: A published figure of the same data set and method.

    Returns:
      The first difference between the protocols, or "" if they are the same. The standard form of a
      released network is another network.
    """
    if row["network"] != figure.network:
        return f"network {row['network']}, the figure's is {figure.network}"
    if row["clean_labels_used"] != figure.clean_labels:
        return f"published with {figure.clean_labels} clean labels, not {row['clean_labels_used']}"
    flipped = figure.true_flip_rate
    flipped = dataset_spec.parse(figure.dataset).true_flip_rate if flipped is None else flipped
    # Human labels have no convention: the name of the data set determines them.
    if flipped is not None and not (
        row["true_flip_rate"] is not None and math.isclose(row["true_flip_rate"], flipped)
    ):
        return f"another noise convention: {flipped:.1%} of the published run's labels were wrong"
    family = build.FAMILIES.get(str(row["recipe"]))
    if family is None or family.source == OURS:
        return f"recipe {row['recipe']} follows no paper"
    if row.get("recipe_steps") is None:
        return "the trial does not record the length of its recipe"
    if row["steps"] != row["recipe_steps"]:
        return f"trained {row['steps']} steps, the recipe has {row['recipe_steps']}"
    if row.get("changed_settings"):
        return f"settings differ from the recipe's: {', '.join(row['changed_settings'])}"
    if figure.is_recalled:
        return "the published figure was recalled, not read, so it is not a gate"
    return ""
