# SPDX-License-Identifier: Apache-2.0
"""Published figures next to the results of the same data set and method."""

from collections.abc import Sequence

from ieg_core.recipes.published import PUBLISHED, protocol_difference
from ieg_core.report.summary import Group, accuracy_text

SAME = "nothing: the same protocol"
NOTE = (
    "Only a figure with the same protocol is a target for ours. Figures marked as recalled were "
    "not checked against their source."
)


def expected_table(groups: Sequence[Group]) -> list[list[str]]:
    """Compares the results with the published figures of the same data set and method.

    Args:
      groups: All groups of a sweep.

    Returns:
      A header and one line per published figure, all of equal length, accuracies in percent;
      empty if nothing was published.
    """
    table = []
    for group in groups:
        row = group.rows[0]
        for figure in PUBLISHED:
            if (figure.dataset, figure.method) != (group.dataset, group.method):
                continue
            clean = "?" if group.clean_labels_used is None else str(group.clean_labels_used)
            ours = [accuracy_text(group.accuracy_ema_last), f"{row['network']}, {clean}"]
            theirs = [figure.text, f"{figure.network}, {figure.clean_labels}", figure.source]
            differs = protocol_difference(row, figure) or SAME
            table.append([group.dataset, group.label, *ours, *theirs, differs])
    if not table:
        return []
    header = ["data set", "method", "ours %", "network, clean labels"]
    header += ["published %", "network, clean labels", "source", "what differs first"]
    return [header, *table]
