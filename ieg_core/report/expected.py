# SPDX-License-Identifier: Apache-2.0
"""Published figures of the same data set and method, beside ours, with what differs.

Where the last column says that the protocol is the same, a figure says what ours should be.
"""

from collections.abc import Sequence

from ieg_core.recipes.published import PUBLISHED, protocol_difference
from ieg_core.report.summary import Group, accuracy_text

SAME = "nothing: the same protocol"
NOTE = (
    "A figure says what ours should be only where its protocol is the same. What is marked as "
    "recalled was not read anywhere."
)


def expected_table(groups: Sequence[Group]) -> list[list[str]]:
    """Lays published figures beside the results of the same data set and method, header first.

    Args:
      groups: All groups of a sweep.

    Returns:
      Lines of equal length, a line a published figure, accuracies in per cent; none at all where
      nothing was published.
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
