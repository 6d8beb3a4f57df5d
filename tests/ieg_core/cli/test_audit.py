# SPDX-License-Identifier: Apache-2.0
"""`ieg audit` of a table by features."""

import csv

import numpy as np

from ieg_core.cli import main


def test_a_table_is_audited_by_a_file_of_features(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 150)
    features = rng.normal(size=(3, 8))[truth] * 3 + rng.normal(size=(150, 8))
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    given = np.where(np.arange(150) < 15, (truth + 1) % 3, truth)
    rows = "".join(f"a/{number}.jpg,{'xyz'[label]}\n" for number, label in enumerate(given))
    (tmp_path / "table.csv").write_text(f"path,label\n{rows}")
    out = tmp_path / "out"
    words = ["audit", str(tmp_path / "table.csv"), "--out", str(out)]
    assert main.main([*words, "--features", str(tmp_path / "features.npy")]) == 0
    assert str(out / "review.html") in capsys.readouterr().out
    with (out / "audit.csv").open(newline="") as file:
        suspects = [int(row["path"][2:-4]) for row in csv.DictReader(file)][:15]
    assert sum(number < 15 for number in suspects) >= 13
