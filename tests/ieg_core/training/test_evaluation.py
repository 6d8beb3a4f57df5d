# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core import augment
from ieg_core.audit import posterior
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.errors import DivergedError, UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.host.runtime import Runtime
from ieg_core.models import zoo
from ieg_core.store.layout import trial_folder
from ieg_core.store.leases import Lease
from ieg_core.sweep.plan import record_trials
from ieg_core.sweep.request import SweepRequest
from ieg_core.training import loop, trial
from ieg_core.training.evaluation import build_predictor, final_beliefs, measure
from tests.records import put


def test_outputs_that_are_not_finite_are_a_divergence():
    logits = np.array([[0.0, 1.0], [np.nan, 0.0]], np.float32)
    with pytest.raises(DivergedError, match="outputs for test images are not finite"):
        measure(logits, np.array([0, 1]))


def test_a_trial_with_a_validation_set_opens_without_the_test_images(tmp_path, monkeypatch):
    digits = open_source("digits", tmp_path)

    def no_test(rows):
        raise AssertionError("the test set was read")

    blind = dataclasses.replace(digits, test_images=no_test)
    monkeypatch.setattr(trial, "open_source", lambda *_: blind)
    request = SweepRequest(
        dataset="digits_uniform_0.4",
        methods=("l2r",),
        settings=("validation_fraction=0.2",),
        results=str(tmp_path),
    )
    ((record,),), _ = record_trials([request])
    _, config, label_set, source = trial.open_trial(tmp_path, record.trial, tmp_path)
    assert config.validation_fraction == 0.2
    assert record.num_test_examples == len(label_set.validation_ids) == len(label_set.test_labels)
    np.testing.assert_array_equal(
        source.test_images(np.arange(5)), digits.train_images(label_set.validation_ids[:5])
    )
    assert len(source.eval_sets["clean_validation"].labels) == 100


def test_a_trial_is_evaluated_again_in_the_precision_of_its_training(tmp_path, monkeypatch):
    request = SweepRequest(
        dataset="digits_uniform_0.4",
        methods=("supervised",),
        settings=("precision=bfloat16",),
        results=str(tmp_path),
    )
    ((record,),), _ = record_trials([request])
    folder = trial_folder(tmp_path, record.trial)
    put(folder / "training.json")

    def build(*_, dtype, **__):
        raise UserError(f"built in {dtype}")

    monkeypatch.setattr(zoo, "build", build)
    monkeypatch.setattr(trial.backend, "start", lambda runtime: None)
    with pytest.raises(UserError, match="built in mixed_bfloat16"):
        trial.evaluate_here(
            tmp_path, Lease(folder, 1, ""), tmp_path, Runtime(), lambda **progress: None
        )


@pytest.mark.parametrize("name", ["params", "ema", "stats"])
def test_a_parameter_that_is_not_finite_after_the_last_step_is_a_divergence(tmp_path, name):
    state = {key: [np.zeros(3)] for key in ("params", "ema", "stats", "momentum")}
    loop._require_finite_parameters(state, 2, tmp_path)
    state[name].append(np.array([0.0, np.inf]))
    with pytest.raises(DivergedError, match="not finite after step 2; last good checkpoint: none"):
        loop._require_finite_parameters(state, 2, tmp_path)


@pytest.fixture
def label_set_and_source(tmp_path):
    source = open_source("digits", tmp_path)
    label_set = prepare_label_set(
        parse("digits_uniform_0.4"),
        seed=0,
        probe_per_class=1,
        source=source,
        label_sets_dir=tmp_path,
    )
    chosen = np.random.default_rng(0).permutation(label_set.train_ids)[:523]  # more than a batch
    return dataclasses.replace(label_set, train_ids=chosen), source


@pytest.fixture
def model_and_state(label_set_and_source):
    label_set, _ = label_set_and_source
    model = zoo.build("preact8", label_set.num_classes, label_set.image_shape)
    rng = np.random.default_rng(0)
    averaged = [
        0.1 * rng.normal(size=v.shape).astype(np.float32) for v in model.trainable_variables
    ]
    raw = [np.zeros_like(value) for value in averaged]
    stats = [np.asarray(v) for v in model.non_trainable_variables]
    return model, {"params": raw, "ema": averaged, "stats": stats}


def test_the_examples_trained_on_are_judged_by_the_averaged_parameters(
    label_set_and_source, model_and_state
):
    label_set, source = label_set_and_source
    model, state = model_and_state
    ids = label_set.train_ids
    found = final_beliefs(model, state, label_set, source)
    assert found.keys() == {"final_prediction", "label_posterior"}
    for values in found.values():
        assert values.dtype == np.float32
        assert values.shape == (len(label_set.noisy_labels), 10)
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
    wanted = posterior.label_posterior(
        features, label_set.noisy_labels[ids], found["final_prediction"][ids], label_set.seed
    )
    np.testing.assert_allclose(found["label_posterior"][ids], wanted, atol=2e-3)


def test_where_memory_is_short_there_are_predictions_alone(
    label_set_and_source, model_and_state, monkeypatch
):
    label_set, source = label_set_and_source
    monkeypatch.setattr(posterior, "MOST_NUMBERS", 523 * (128 + 4 * 10) - 1)
    found = final_beliefs(*model_and_state, label_set, source)
    assert found.keys() == {"final_prediction"}


def test_a_predictor_gives_the_logits(label_set_and_source, model_and_state):
    label_set, source = label_set_and_source
    model, state = model_and_state
    images = source.train_images(label_set.train_ids)
    logits = build_predictor(model)(state["ema"], state["stats"], images)
    predicted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = final_beliefs(model, state, label_set, source)["final_prediction"]
    np.testing.assert_allclose(predicted, found[label_set.train_ids], atol=1e-5)
