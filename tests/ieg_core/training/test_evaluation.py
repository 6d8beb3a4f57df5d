# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core import augment, models
from ieg_core.data import open_source, prepare_overlay
from ieg_core.spec import parse
from ieg_core.training import label_posterior
from ieg_core.training.evaluation import build_predictor, final_beliefs


@pytest.fixture
def overlay_and_source(tmp_path):
    source = open_source("digits", tmp_path)
    overlay = prepare_overlay(
        parse("digits_uniform_0.4"),
        seed=0,
        probe_per_class=1,
        source=source,
        overlays_dir=tmp_path,
    )
    chosen = np.random.default_rng(0).permutation(overlay.train_ids)[:523]  # more than a batch
    return dataclasses.replace(overlay, train_ids=chosen), source


@pytest.fixture
def model_and_state(overlay_and_source):
    overlay, _ = overlay_and_source
    model = models.build("preact8", overlay.num_classes, overlay.image_shape)
    rng = np.random.default_rng(0)
    averaged = [
        0.1 * rng.normal(size=v.shape).astype(np.float32) for v in model.trainable_variables
    ]
    raw = [np.zeros_like(value) for value in averaged]
    stats = [np.asarray(v) for v in model.non_trainable_variables]
    return model, {"params": raw, "ema": averaged, "stats": stats}


def test_the_examples_trained_on_are_judged_by_the_averaged_parameters(
    overlay_and_source, model_and_state
):
    overlay, source = overlay_and_source
    model, state = model_and_state
    ids = overlay.train_ids
    found = final_beliefs(model, state, overlay, source)
    assert found.keys() == {"final_prediction", "label_posterior"}
    for values in found.values():
        assert values.dtype == np.float32
        assert values.shape == (len(overlay.noisy_labels), 10)
        assert np.flatnonzero(values.sum(1)).tolist() == sorted(ids.tolist())
        np.testing.assert_allclose(values[ids].sum(1), 1, atol=1e-5)

    (logits, features), _ = model.stateless_call(
        state["ema"],
        state["stats"],
        augment.to_unit_range(source.train_images(ids)),
        training=False,
    )
    logits, features = np.asarray(logits), np.array(features)
    assert np.ptp(logits) > 0.1
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found["final_prediction"][ids], wanted, atol=1e-5)
    wanted = label_posterior.label_posterior(
        features, overlay.noisy_labels[ids], found["final_prediction"][ids], overlay.seed
    )
    np.testing.assert_allclose(found["label_posterior"][ids], wanted, atol=2e-3)


def test_where_memory_is_short_there_are_predictions_alone(
    overlay_and_source, model_and_state, monkeypatch
):
    overlay, source = overlay_and_source
    monkeypatch.setattr(label_posterior, "MOST_NUMBERS", 523 * (128 + 4 * 10) - 1)
    found = final_beliefs(*model_and_state, overlay, source)
    assert found.keys() == {"final_prediction"}


def test_a_predictor_gives_the_logits(overlay_and_source, model_and_state):
    overlay, source = overlay_and_source
    model, state = model_and_state
    images = source.train_images(overlay.train_ids)
    logits = build_predictor(model)(state["ema"], state["stats"], images)
    predicted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = final_beliefs(model, state, overlay, source)["final_prediction"]
    np.testing.assert_allclose(predicted, found[overlay.train_ids], atol=1e-5)
