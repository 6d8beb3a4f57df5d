# SPDX-License-Identifier: Apache-2.0
import importlib.util
from types import SimpleNamespace

import numpy as np

from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.host.runtime import Runtime
from ieg_core.recipes.build import build_config
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from scripts import audit_bench
from tests.ieg_core.data.trees import write_tree


def test_ones_own_images_are_read_as_their_run_reads_them(tmp_path, monkeypatch):
    write_tree(tmp_path / "data", {"train": 10, "test": 2})
    request = SweepRequest(
        "folder_uniform_0.4",
        methods=("supervised",),
        settings=("images.size=8", "images.channels=1", "batch_size=5"),
        data_dir=str(tmp_path / "data"),
        results=str(tmp_path / "runs"),
    )
    (trial,) = plan.plan(request).trials

    def certain(trial, config, label_set, source, folder, held_out, runtime):
        assert config.schedule.num_steps == 7
        assert source.image_shape == (8, 8, 1)
        assert not set(label_set.train_ids) & set(held_out)
        return 50 * np.eye(3)[label_set.noisy_labels[held_out]]

    monkeypatch.setattr(audit_bench, "_train_and_predict", certain)
    label_set, probabilities = audit_bench.out_of_sample(
        trial,
        tmp_path / "runs",
        tmp_path / "data",
        audit_bench.Folds(3, steps=7),
        Runtime(threads=1),
    )
    np.testing.assert_array_equal(probabilities.argmax(1), label_set.noisy_labels)


def test_a_fold_is_predicted_in_the_precision_that_it_was_trained_in(tmp_path, monkeypatch):
    from ieg_core.training import evaluation, loop, step

    state = {"ema": [], "stats": []}
    monkeypatch.setattr(loop, "train", lambda *_: SimpleNamespace(state=state))
    monkeypatch.setattr(step, "build_model", lambda config, *_: config.precision)
    monkeypatch.setattr(evaluation, "build_predictor", lambda model: lambda *_: model)
    config = build_config(parse("digits_uniform_0.4"), "supervised")
    data = SimpleNamespace(num_classes=10, image_shape=(8, 8, 1), train_images=lambda ids: ids)
    for precision in ("float32", "bfloat16"):
        found = audit_bench._train_and_predict(
            "trial", override(config, [f"precision={precision}"]), data, data,
            tmp_path / precision, np.arange(3), Runtime(threads=1),
        )  # fmt: skip
        assert found == precision


def test_without_cleanlab_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert audit_bench.main(["--seeds", "0"]) == 2
    told = capsys.readouterr().err
    assert "uv pip install --python .venv/bin/python --group bench" in told
    assert told.count("\n") == 1
