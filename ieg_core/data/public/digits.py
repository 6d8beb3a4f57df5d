# SPDX-License-Identifier: Apache-2.0
"""The built-in default: scikit-learn's handwritten digits, 1,797 real images of 8x8 pixels."""

from importlib import metadata

import numpy as np

from ieg_core.data.base import Source, Split, in_memory_source
from ieg_core.data.corruption import select_per_class
from ieg_core.draws.generator import generator

TEST_FRACTION = 0.2
FILE = "sklearn/datasets/data/digits.csv.gz"
"""What load_digits reads: 64 pixels and the label of each image."""


def open_digits() -> Source:
    """Reads the digits.

    Pixels are uint8, round(v·255/16) for the original values v in 0 … 16. The test set is a fixed
    fifth of each class, the same for every seed.

    Returns:
      The source.
    """
    # scikit-learn itself takes over a second to import.
    table = np.loadtxt(str(metadata.distribution("scikit-learn").locate_file(FILE)), delimiter=",")
    images = np.rint(table[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, -1].astype(np.int32)
    everything = np.arange(len(labels))
    test_counts = np.rint(np.bincount(labels) * TEST_FRACTION).astype(np.int64)
    draws = generator(0, "digits test set").random(len(labels))
    test_ids = select_per_class(labels, everything, test_counts, draws)
    train_ids = np.setdiff1d(everything, test_ids)
    return in_memory_source(
        "digits",
        version="scikit-learn",
        origin="scikit-learn's load_digits",
        train=Split(images[train_ids], labels[train_ids]),
        test=Split(images[test_ids], labels[test_ids]),
    )
