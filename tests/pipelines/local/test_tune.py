# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.recipes.tuned import from_csv
from ieg_core.store import layout
from ieg_core.store.records import TrialRecord
from pipelines import __main__ as pipelines_main
from pipelines.local import tune
from tests.records import put


@pytest.fixture
def trained(monkeypatch):
    """Trials that take no time: a lower learning rate reaches more."""
    names = []

    def run_step(step, trial, results, data_dir, *, slot, echo):
        assert (step, echo, slot.threads) == ("train", False, 1)
        names.append(trial)
        record = TrialRecord.read(layout.trial_folder(results, trial))
        assert record.config["validation_fraction"] == 0.25
        assert "-validation0.25-" in record.label_set
        put(
            layout.trial_folder(results, trial) / "result.json",
            dataset=record.dataset,
            accuracy_ema_last=1 - record.config["optimizer"]["learning_rate"],
        )
        return 0

    monkeypatch.setattr(tune.worker, "run_step", run_step)
    monkeypatch.setattr(tune, "accept_estimate", lambda options, pending, shares: {})
    return names


def test_a_tuning_chooses_for_every_method_and_trains_nothing_twice(tmp_path, trained, capsys):
    command = ["tune", f"OUT={tmp_path}", "DATASET=digits_uniform", "NOISE=0.8", "DEVICES=cpu"]
    command += ["METHODS=supervised,ieg", "POINTS=3", "VALIDATION=0.25"]
    assert pipelines_main.main(command) == 0
    assert len(trained) == len(set(trained)) == 6
    assert all("-seed100-" in name for name in trained)
    output = capsys.readouterr().out
    assert "6 trials of 6 points, 0 finished" in output
    (table,) = (tmp_path / "tunings").iterdir()
    assert f"Table: {table}" in output
    assert "RECIPE=digits_tuned" in output
    rows = from_csv(table.read_text())
    assert len(rows) == 6
    chosen = {row.method: row for row in rows if row.chosen}
    assert chosen.keys() == {"supervised", "ieg"}
    assert all(row.settings[0] == "optimizer.learning_rate=0.03" for row in chosen.values())
    assert pipelines_main.main(command) == 0
    assert len(trained) == 6


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("POINTS=ten", "POINTS='ten': expected a whole number"),
        ("POINTS=99", "POINTS=99: expected from 1 to 9 points for each method"),
        ("VALIDATION=much", "VALIDATION='much': expected a share above 0 and at most 0.5"),
        ("VALIDATION=0.9", "validation_fraction must be in [0, 0.5], got 0.9"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, capsys, variable, message):
    assert pipelines_main.main(["tune", f"OUT={tmp_path}", variable]) == 2
    assert message in capsys.readouterr().err
