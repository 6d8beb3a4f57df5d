# SPDX-License-Identifier: Apache-2.0
"""Plays the person at review.html, who knows the photos of photos_as_files.py.

python docs/examples/answers.py FOLDER AUDIT DECISIONS

Reads the 100 most suspicious images from AUDIT/audit.csv and their true labels from
FOLDER/truth.csv, and writes what a person who makes no mistake would save: DECISIONS.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

REVIEWED = 100


def main(folder: Path, audit: Path, decisions: Path) -> None:
    """Writes the decisions."""
    with (folder / "truth.csv").open(newline="") as file:
        truth = {row["path"]: row["label"] for row in csv.DictReader(file)}
    with (audit / "audit.csv").open(newline="") as file:
        suspects = list(csv.DictReader(file))[:REVIEWED]
    rows = []
    for row in suspects:
        label = truth[row["path"]]
        known = {row["suggested"]: "suggestion", row["given"]: "keep"}
        rows.append((row["path"], label, known.get(label, "other")))
    with decisions.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "decision"))
        writer.writerows(rows)
    counts = Counter(decision for _, _, decision in rows)
    print(f"{decisions}: " + ", ".join(f"{kind} {count}" for kind, count in counts.most_common()))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
