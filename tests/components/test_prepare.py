# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest
from kfp import dsl

from components.prepare import prepare
from ieg_core.errors import UserError
from ieg_core.sweep import plan as sweep
from ieg_core.sweep.request import SweepRequest
from tests.components.calls import artifact, request


def test_prepare_writes_the_data_and_lists_the_trials(tmp_path):
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    trials = prepare.python_func(**request(tmp_path / "runs"), plan=plan)
    assert [trial.rpartition("-")[0] for trial in trials] == [
        f"digits_uniform_{noise}-{method}-seed{seed}"
        for method in ("l2r", "supervised")  # the longest first
        for noise in ("0.4", "0.8")
        for seed in (0, 1)
    ]
    assert (tmp_path / "runs" / "sweeps" / plan.metadata["sweep"] / "plan.json").exists()
    assert plan.metadata.keys() == {"sweep"}
    text = (tmp_path / "plan.md").read_text()
    assert [line.strip("- `") for line in text.splitlines()] == trials
    # Two noise rates, two seeds, with and without a probe.
    assert len(list((tmp_path / "runs" / "label_sets").iterdir())) == 2 * 2 * 2


def test_prepare_agrees_with_the_plan_made_before(tmp_path):
    values = request(tmp_path / "runs")
    fields = {field.name for field in dataclasses.fields(SweepRequest)}
    typed = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in fields
    }
    planned = sweep.plan(SweepRequest(**typed | {"seeds": (0, 1)}))
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    assert prepare.python_func(**values, plan=plan) == list(planned.trials)
    assert plan.metadata["sweep"] == planned.sweep


def test_prepare_lists_the_trials_of_its_part_and_writes_the_run_down(tmp_path):
    values = request(tmp_path, results_namespace="weekly/{run}", run_label="digits-1", parts=3)
    listed = []
    for part in (1, 2, 3):
        plan = artifact(dsl.Markdown, tmp_path, "plan.md")
        listed.append(prepare.python_func(**values | {"part": part}, plan=plan))
    assert [len(trials) for trials in listed] == [3, 3, 2]
    place = tmp_path / "weekly" / "1b-2c"
    whole = json.loads((place / "sweeps" / plan.metadata["sweep"] / "plan.json").read_text())
    assert sorted(whole["trials"]) == sorted(trial for trials in listed for trial in trials)
    record = json.loads((place / "runs" / "digits-1.json").read_text())
    assert (record["sweep"], record["trials"], record["part"]) == (whole["sweep"], listed[2], 3)


def test_prepare_refuses_more_trials_than_a_run_can_have(tmp_path):
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    with pytest.raises(UserError, match="8 trials in one run, expected at most 3: start parts=3"):
        prepare.python_func(**request(tmp_path, max_trials=3), plan=plan)
