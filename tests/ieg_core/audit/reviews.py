# SPDX-License-Identifier: Apache-2.0
"""Audits as review.html takes them, with beliefs made up by the test."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ieg_core.audit.feature_posterior import MISSING, Evidence
from ieg_core.audit.images import LabeledImages
from ieg_core.audit.label_audit import LabelAudit


def make_audit(
    q: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    pixels: Any = None,
) -> LabelAudit:
    """Returns an audit of n images that believes q, [n, C], of labels [n] or [n, a]."""
    columns = labels.reshape(len(labels), -1).astype(np.int32)
    images = LabeledImages(
        names=tuple(names or (f"{number:04d}.png" for number in range(len(q)))),
        class_names=tuple(class_names or (f"class {number}" for number in range(q.shape[1]))),
        labels=columns,
        annotators=tuple(f"person {number}" for number in range(columns.shape[1])),
        trusted=np.full(len(q), MISSING, np.int32),
        read=None if pixels is None else pixels.__getitem__,
    )
    unused: Any = None
    evidence = Evidence(
        q=q.astype(np.float32),
        predicted=q.astype(np.float32),
        plain=q.astype(np.float32),
        transitions=unused,
        reliability=unused,
        agreement=1.0,
        chance=0.0,
        precisions=(1.0, 1.0),
        reduction=unused,
        components=0,
    )
    given = images.given
    score = evidence.score(given)
    order = np.argsort(-score, kind="stable").astype(np.int64)
    return LabelAudit(images, evidence, given, evidence.suggested, score, order, summary=unused)


def random_audit(count: int, classes: int, seed: int = 0, **options: Any) -> LabelAudit:
    """Returns an audit of random labels, believed at random."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(classes, 0.3), count)
    return make_audit(q, rng.integers(0, classes, count), **options)
