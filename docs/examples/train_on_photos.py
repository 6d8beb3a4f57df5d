# SPDX-License-Identifier: Apache-2.0
"""Trains a classifier on the features of photos, by their folders or by a table of labels.

python docs/examples/train_on_photos.py FOLDER [LABELS]

FOLDER has train/<class>/ and test/<class>/; LABELS is a table with the columns path and label, such
as `ieg audit` writes with --write-labels.
"""

import csv
import sys
from pathlib import Path

import ieg_core


def main(folder: Path, table: Path | None = None) -> None:
    """Trains, and prints the accuracy on the test set."""
    images = sorted((folder / "train").glob("[!.]*/*.*"))
    labels = [path.parent.name for path in images]
    if table:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        images = [folder / row["path"] for row in rows]
        labels = [row["label"] for row in rows]
    tests = sorted((folder / "test").glob("[!.]*/*.*"))
    truth = [path.parent.name for path in tests]
    fitted = ieg_core.fit(images, labels, network="efficientnet-lite0", test=(tests, truth))
    print(f"labels of {table or folder}: test accuracy {100 * fitted.accuracy:.1f} %")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
