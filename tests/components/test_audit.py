# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path

import numpy as np
from kfp import dsl
from safetensors.numpy import save

from components.audit import audit
from ieg_core import sweep
from ieg_core.results import cell_folder


def run_component(tmp_path, cell):
    page = dsl.HTML(name="page", uri=str(tmp_path / "page.html"))
    measures = dsl.Metrics(name="measures", uri=str(tmp_path / "measures.json"))
    name = audit.python_func(
        cell=cell,
        data_dir="data",
        results=str(tmp_path / "runs"),
        results_namespace="",
        run="run",
        page=page,
        measures=measures,
    )
    assert name == cell
    return Path(page.path).read_text(encoding="utf-8"), measures.metadata


def plan(tmp_path, method):
    request = sweep.SweepRequest(
        "digits_uniform_0.4", methods=(method,), results=str(tmp_path / "runs")
    )
    (cell,) = sweep.plan(request).cells
    return cell, cell_folder(tmp_path / "runs", cell)


def test_a_trained_cell_gets_its_page_and_its_measures(tmp_path):
    cell, folder = plan(tmp_path, "supervised")
    visits = np.ones(1438, np.int32)
    believed = np.random.default_rng(0).dirichlet(np.ones(10), 1438).astype(np.float32)
    said = {"visits": visits, "all_visits": visits, "prediction": believed}
    (folder / "examples.safetensors").write_bytes(save(said))
    page, measures = run_component(tmp_path, cell)
    assert page == (folder / "audit" / "audit.html").read_text(encoding="utf-8")
    summary = json.loads((folder / "audit" / "summary.json").read_text())
    assert measures["average_precision"] == summary["average_precision"]
    assert measures["flagged"] == summary["flagged"]
    assert all(math.isfinite(value) for value in measures.values())


def test_a_cell_that_cannot_be_audited_says_why_and_stops_nothing(tmp_path):
    for method, reason in (("probe_only", "is not available"), ("ieg", "its training is not done")):
        cell, _ = plan(tmp_path, method)
        page, measures = run_component(tmp_path, cell)
        assert reason in page
        assert measures == {}
