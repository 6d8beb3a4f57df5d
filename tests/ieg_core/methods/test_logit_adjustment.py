# SPDX-License-Identifier: Apache-2.0
"""The prior of logit adjustment; its loss by hand on one dense layer."""

import dataclasses
import math

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.methods.logit_adjustment import init
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set
from tests.ieg_core.methods.by_hand import (
    IMAGES,
    LABELS,
    assert_gradient,
    cross_entropy,
    logits,
    mean,
    one_step,
    residuals_of,
    softmax,
    tensor,
)


def test_the_prior_is_of_the_given_labels_in_training():
    config = build.build_config(parse("digits_imbal_0.1_0.2"), "logit_adjustment")
    label_set = synthetic_label_set(config, 4, (8, 8, 1))
    given = np.array([0, 0, 0, 1, 1, 3, 2, 2], np.int32)
    # The last two are not trained on, so that no example is given the label 2, which counts as one.
    label_set = dataclasses.replace(
        label_set,
        noisy_labels=given,
        clean_labels=np.full(8, 2, np.int32),
        train_ids=np.arange(6),
    )
    state = init(config, label_set)
    np.testing.assert_allclose(np.exp(state["log_prior"]), np.array([3, 2, 1, 1]) / 6, rtol=1e-6)
    assert state["log_prior"].dtype == np.float32


def test_a_negative_factor_is_refused():
    config = build.build_config(parse("digits_imbal_0.1"), "logit_adjustment")
    with pytest.raises(UserError, match=r"method\.tau"):
        override(config, ["method.tau=-1"])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_logit_adjustment_adds_the_log_prior_in_training_alone(smoothing):
    prior = [0.8, 0.2]
    update = one_step(
        "logit_adjustment",
        ["method.tau=1.5", f"method.label_smoothing={smoothing}"],
        method_state={"log_prior": tensor([math.log(share) for share in prior])},
    )
    labels = [[(1 - smoothing) * y + smoothing / 2 for y in label] for label in LABELS]
    plain = logits(IMAGES)
    rows = [[z + 1.5 * math.log(p) for z, p in zip(row, prior, strict=True)] for row in plain]
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, IMAGES, halves)
    np.testing.assert_allclose(
        update.examples["prediction"], [softmax(row) for row in plain], rtol=1e-5
    )
