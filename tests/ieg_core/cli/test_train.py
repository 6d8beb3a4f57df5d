# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core.cli import main
from ieg_core.store.records import TrialRecord
from tests.records import put_json


def test_training_prints_the_accuracy_and_the_runs_folder(planned, tmp_path, capsys):
    arguments, _ = planned
    assert main.main(arguments) == 0
    accuracy, folder = capsys.readouterr().out.splitlines()[-2:]
    assert accuracy.startswith("Test accuracy 93.5 % after the last step")
    assert folder.startswith(str(tmp_path / "runs" / "trials" / "digits_uniform_0.4-l2r-seed0-"))
    assert main.main(["evaluate", folder]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == accuracy


def test_features_train_a_head(planned, tmp_path):
    arguments, _ = planned
    names = ["--features", "efficientnet-lite0", "--features", "efficientnet-lite2"]
    assert main.main([*arguments, *names]) == 0
    (folder,) = (tmp_path / "runs" / "trials").glob("digits_uniform_0.4-retrain-seed0-*")
    assert TrialRecord.read(folder).network == "efficientnet-lite0+efficientnet-lite2"
    assert main.main([*arguments, "--features", "efficientnet"]) == 2


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [(3, 3, "ieg: diverged: why"), (2, 2, "ieg: error: why"), (1, 1, "why"), (-9, 1, "why")],
)
def test_a_failed_training_ends_with_its_reason_and_is_not_evaluated(
    planned, capsys, code, expected, message
):
    arguments, steps = planned
    steps["train"] = (code, {"failure.json": {"reason": "why"}})
    assert main.main(arguments) == expected
    output = capsys.readouterr()
    assert message in output.err
    assert "Test accuracy" not in output.out


@pytest.mark.slow
def test_a_trial_is_really_trained_and_evaluated(tmp_path, capsys):
    arguments = ["train", "--dataset", "digits_uniform_0.4", "--method", "supervised"]
    arguments += ["--steps", "30", "--out", str(tmp_path / "runs")]
    assert main.main(arguments) == 0
    (result,) = (tmp_path / "runs" / "trials").glob("*/result.json")
    row = json.loads(result.read_text())
    assert row["steps"] == 30
    assert row["accuracy_ema_last"] > 0.2  # ten classes: 0.1 is chance
    # Its labels were audited with it: 36 % of them are wrong, in expectation.
    summary = json.loads((result.parent / "audit" / "summary.json").read_text())
    assert 0.2 < summary["average_precision"] <= 1
    # A second evaluation computes the same result.
    put_json(result, row | {"accuracy_ema_last": 0.0})
    assert main.main(["evaluate", str(result.parent)]) == 0
    assert json.loads(result.read_text()) == row
