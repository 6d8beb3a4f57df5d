# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest

from ieg_core.errors import UserError
from scripts.gpu_check import trainings
from scripts.gpu_check.sizes import GPU


def test_a_part_of_cifar_is_carried_as_one_file(tmp_path, monkeypatch):
    whole = trainings.random_source(50)
    monkeypatch.setattr(trainings, "open_source", lambda base, folder: whole)
    trainings.pack(tmp_path, tmp_path / "part.npz", 20)
    part = trainings.open_packed(tmp_path / "part.npz")
    assert (len(part.train_labels), len(part.test_labels)) == (20, 4)
    np.testing.assert_array_equal(part.train_images([3, 19]), whole.train_images([3, 19]))
    np.testing.assert_array_equal(part.test_labels, whole.test_labels[:4])
    trainings.pack(tmp_path, tmp_path / "whole.npz", 0)
    assert trainings.open_packed(tmp_path / "whole.npz").digest == whole.digest


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "photos.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a packed CIFAR-10"):
        trainings.open_packed(path)


def test_the_rows_are_the_papers_with_the_recipes_settings():
    assert {method for _, method in trainings.ROWS} == {"ieg", "fsr"}
    assert trainings.COLLAPSE in trainings.ROWS
    config = trainings.papers_config(*trainings.COLLAPSE, GPU.trained_network, 0, 100)
    assert config.network == "resnet29-released"
    assert config.schedule.num_cycles == 13
    assert config.schedule.name == "cosine_restarts"
    assert config.method_settings.pseudo_label_loss_weight == 5.0
    assert config.method_settings.consistency_loss_weight == 20.0


def test_labels_and_probe_are_drawn_from_the_images_at_hand():
    config = trainings.papers_config(*trainings.COLLAPSE, "resnet29", 2000, 100)
    label_set = trainings.label_set_of(config, trainings.random_source(400))
    wrong = label_set.noisy_labels != label_set.clean_labels
    assert 0.6 < wrong.mean() < 0.84  # 0.8 is redrawn from all ten classes
    assert len(label_set.probe_ids) == 100
    assert len(label_set.train_ids) == 300


def test_an_outcome_keeps_some_of_the_pseudo_labels():
    rows = [
        {"step": step, "pseudo_label_accuracy": step / 200, trainings.MOST_FREQUENT: 0.3}
        for step in range(1, 201)
    ]
    curves = {"training": [{"step": 0}, *rows]}
    report = SimpleNamespace(
        step=200, num_steps=2000, steps_per_second=9.0, accuracy_ema=None, curves=curves
    )
    kept = trainings.summarize(report)["pseudo_labels"]
    assert len(kept) == trainings.KEPT_ROWS
    assert kept[-1] == (200, 1.0, 0.3)
