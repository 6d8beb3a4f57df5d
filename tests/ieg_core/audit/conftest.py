# SPDX-License-Identifier: Apache-2.0
"""Cells as training leaves them, with beliefs made up by the test."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ieg_core import sweep
from ieg_core.data import load_overlay
from ieg_core.results import cell_folder, overlays_folder


@dataclass(frozen=True)
class MadeCell:
    folder: Path
    overlay: object

    def write(self, believed, visits=None, name="final_prediction"):
        """Writes what the method said: a distribution over the classes for each example."""
        counts = np.ones(len(believed), np.int32) if visits is None else visits.astype(np.int32)
        known = {"visits": counts, "all_visits": counts, name: believed.astype(np.float32)}
        (self.folder / "examples.safetensors").write_bytes(save(known))
        (self.folder / "training.json").write_text("{}")


@pytest.fixture
def make_cell(tmp_path):
    """A function that plans a cell of digits and returns it, not trained."""

    def make(dataset="digits_uniform_0.4", method="ieg", labels="", root="runs"):
        planned = sweep.plan(
            sweep.SweepRequest(
                dataset, methods=(method,), labels=labels, results=str(tmp_path / root)
            )
        )
        folder = cell_folder(tmp_path / root, planned.cells[0])
        record = json.loads((folder / "config.json").read_text())
        overlay = load_overlay(overlays_folder(tmp_path / root) / record["overlay"])
        return MadeCell(folder, overlay)

    return make


@pytest.fixture
def knowing_cell(make_cell):
    """A cell whose method believes in the true labels of all but a tenth of the examples."""
    cell = make_cell()
    cell.write(beliefs(cell.overlay))
    return cell


def beliefs(overlay, doubted=0.1, seed=0):
    rng = np.random.default_rng(seed)
    examples = len(overlay.clean_labels)
    believed = rng.dirichlet(np.full(overlay.num_classes, 0.3), examples)
    sure = rng.random(examples) >= doubted
    believed[sure] *= 0.3
    believed[sure, overlay.clean_labels[sure]] += 0.7
    return believed
