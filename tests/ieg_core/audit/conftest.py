# SPDX-License-Identifier: Apache-2.0
"""Trials as training leaves them, with beliefs made up by the test."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ieg_core.data.label_set import load_label_set
from ieg_core.store.arrays import encode
from ieg_core.store.layout import label_sets_folder, trial_folder
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from tests.records import put


@dataclass(frozen=True)
class MadeTrial:
    folder: Path
    label_set: object

    def write(self, believed, visits=None, name="final_prediction"):
        """Writes what the method said: a distribution over the classes for each example."""
        counts = np.ones(len(believed), np.int32) if visits is None else visits.astype(np.int32)
        known = {"visits": counts, "all_visits": counts, name: believed.astype(np.float32)}
        (self.folder / "examples.safetensors").write_bytes(encode(known))
        put(self.folder / "training.json")


@pytest.fixture
def make_trial(tmp_path):
    """A function that plans a trial of digits and returns it, not trained."""

    def make(dataset="digits_uniform_0.4", method="ieg", labels="", root="runs"):
        planned = plan.plan(
            SweepRequest(dataset, methods=(method,), labels=labels, results=str(tmp_path / root))
        )
        folder = trial_folder(tmp_path / root, planned.trials[0])
        record = json.loads((folder / "config.json").read_text())
        label_set = load_label_set(label_sets_folder(tmp_path / root) / record["label_set"])
        return MadeTrial(folder, label_set)

    return make


@pytest.fixture
def knowing_trial(make_trial):
    """A trial whose method believes in the true labels of all but a tenth of the examples."""
    trial = make_trial()
    trial.write(beliefs(trial.label_set))
    return trial


def beliefs(label_set, doubted=0.1, seed=0):
    rng = np.random.default_rng(seed)
    examples = len(label_set.clean_labels)
    believed = rng.dirichlet(np.full(label_set.num_classes, 0.3), examples)
    sure = rng.random(examples) >= doubted
    believed[sure] *= 0.3
    believed[sure, label_set.clean_labels[sure]] += 0.7
    return believed
