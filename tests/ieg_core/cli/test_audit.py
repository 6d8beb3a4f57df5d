# SPDX-License-Identifier: Apache-2.0
"""`ieg audit`: what its arguments stand for, and a table judged by features."""

import csv
import os

import numpy as np
import pytest

from ieg_core.cli import audit, main
from ieg_core.errors import UserError
from tests.records import put


def test_a_root_means_the_runs_of_the_sweep_that_was_planned_last(tmp_path):
    for age, sweep in enumerate(("new", "old")):
        trials = [f"{sweep}-{name}" for name in ("audited", "clean")]
        for trial in trials:
            put(tmp_path / "trials" / trial / "config.json")
        (tmp_path / "trials" / trials[0] / "examples.safetensors").touch()
        plan = tmp_path / "sweeps" / sweep / "plan.json"
        put(plan, trials=trials)
        os.utime(plan, (1000 - age, 1000 - age))
    assert audit._kind(str(tmp_path)) == audit.RUN
    assert audit.auditable_trials(tmp_path) == [tmp_path / "trials" / "new-audited"]
    single = tmp_path / "trials" / "old-clean"
    assert audit.auditable_trials(single) == [single]  # whose audit says why it is not possible
    (tmp_path / "trials" / "new-audited" / "examples.safetensors").unlink()
    with pytest.raises(UserError, match="none of the 2 runs of"):
        audit.auditable_trials(tmp_path)


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
