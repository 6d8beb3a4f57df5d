# SPDX-License-Identifier: Apache-2.0
"""Careful automatic cleaning: changes only labels whose suggestion is expected to be right.

q depends on the error rate, which few labels leave uncertain. So each label is judged by the
channel with the fewest errors that the labels do not contradict (`channel.fewest_errors`, at 95 %),
and changed if its suggestion is another class with at least the requested probability even then. Of
300 images, this changes about half of the labels that the likeliest channel would change.

Nothing is changed where the labels do not contradict a channel without errors: of 300 right labels,
one or two always look wrong. Nor are labels of a class that features do not recognize
(`LabelAudit.unrecognized`), since right ones of these look wrong, too. A confirmed label becomes
the confirmed class.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.channel import Votes, fewest_errors, sharpen
from ieg_core.audit.feature_posterior import Evidence, posterior
from ieg_core.audit.images import MISSING
from ieg_core.audit.label_audit import LabelAudit
from ieg_core.data.labels.label_file import encode_table
from ieg_core.errors import require
from ieg_core.host.files import write_bytes_atomic

PRECISION = 0.95
_ALLOWED = 1.353
"""In nats: half the 90 % quantile of χ² with one degree of freedom, a one-sided bound at 95 %."""


@dataclass(frozen=True)
class Cleaned:
    """Labels after careful cleaning.

    Attributes:
      labels: int32 [n]; `MISSING` if none was given or confirmed.
      changed: Labels that the audit changed, bool [n].
      confirmed: Given labels replaced by a different confirmed class, bool [n].
      expected_right: Mean probability of the changed labels, each judged by the channel with the
        fewest errors; NaN if none changed.
      least: The lowest of these probabilities; NaN if none changed.
      shows_errors: Whether the labels, or what people confirmed, show that some of them are wrong.
    """

    labels: NDArray[np.int32]
    changed: NDArray[np.bool_]
    confirmed: NDArray[np.bool_]
    expected_right: float
    least: float
    shows_errors: bool


def clean_labels(audit: LabelAudit, precision: float = PRECISION) -> Cleaned:
    """Changes labels whose suggestion is expected to be right.

    Args:
      audit: The audit.
      precision: Minimum probability of the suggestion of a changed label, in (0, 1].

    Returns:
      The labels.

    Raises:
      UserError: When the precision is not in (0, 1].
    """
    require(0 < precision <= 1, "precision", precision, "above 0 and at most 1")
    given, trusted = audit.given, audit.images.trusted
    judged = audit.order[audit.suggested[audit.order] != given[audit.order]]
    careful = _fewest_errors(audit)
    # Sum over the other classes: 1 − q loses all digits if q is close to 1.
    doubt = careful.score(audit.suggested)[judged] if careful else np.ones(len(judged))
    is_certain = doubt <= 1 - precision if careful else np.zeros(len(judged), bool)
    is_certain &= ~np.isin(given[judged], audit.unrecognized)
    changed = np.zeros(len(given), bool)
    changed[judged[is_certain]] = True
    doubts = doubt[is_certain]
    labels = np.where(changed, audit.suggested, given)
    labels = np.where(trusted != MISSING, trusted, labels).astype(np.int32)
    confirmed = (trusted != MISSING) & (given != MISSING) & (trusted != given)
    return Cleaned(
        labels=labels,
        changed=changed,
        confirmed=confirmed,
        expected_right=1 - float(doubts.mean()) if len(doubts) else float("nan"),
        least=1 - float(doubts.max()) if len(doubts) else float("nan"),
        shows_errors=careful is not None or bool(confirmed.any()),
    )


def _fewest_errors(audit: LabelAudit) -> Evidence | None:
    """Returns the evidence by the channel with the fewest errors; None if that has none."""
    evidence, images = audit.evidence, audit.images
    labels, trusted = images.labels.astype(np.int64), images.trusted.astype(np.int64)
    votes = Votes(labels, trusted, 1.0, len(images.class_names))
    channel = fewest_errors(evidence.predicted, votes, evidence.transitions, _ALLOWED)
    if channel is None:
        return None
    predicted = sharpen(evidence.predicted, channel.sharpness)
    q = posterior(predicted, labels, channel.transitions, trusted)
    return replace(evidence, q=q.astype(np.float32))


def write_cleaned(path: Path, audit: LabelAudit, cleaned: Cleaned, data_tag: str = "") -> None:
    """Writes the labels as a label file, which `LABELS=` accepts.

    Images without a given label, such as a probe's, are left out. A file with the columns path and
    label can also serve as the train.csv of a data directory.

    Args:
      path: A .csv or .parquet file.
      audit: The audit.
      cleaned: Its cleaned labels.
      data_tag: For a data set opened by name, its `ieg_core.data.labels.given.data_tag`; the file
        then identifies images by index.

    Raises:
      UserError: When the extension is neither of these, or the file cannot be written.
    """
    images = audit.images
    rows = np.flatnonzero(audit.given != MISSING).tolist()
    labels = [images.class_names[cleaned.labels[row]] for row in rows]
    if data_tag and images.indices is not None:
        indices = [images.indices[row] for row in rows]
        columns = {"index": indices, "label": labels, "data": [data_tag] * len(rows)}
    else:
        columns = {"path": [images.names[row] for row in rows], "label": labels}
    write_bytes_atomic(path, encode_table(path, columns))
