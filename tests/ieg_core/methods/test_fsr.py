# SPDX-License-Identifier: Apache-2.0
"""FSR by hand on one dense layer; its dictionary on digits with each recipe's settings."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.methods.fsr import init
from ieg_core.methods.method import Update
from ieg_core.methods.mixup import Mixing
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set
from tests.backends import run_on
from tests.ieg_core.methods.by_hand import (
    ALPHA,
    IMAGES,
    LABELS,
    Rows,
    assert_gradient,
    clipped,
    cross_entropy,
    dot,
    logits,
    looked_ahead,
    mean,
    mixed,
    one_step,
    probe_product,
    residuals_of,
    softmax,
    tensor,
)

SCRIPT = Path(__file__).parent / "purity.py"
FSR = {
    name: family.settings_of("fsr")
    for name, family in build.FAMILIES.items()
    if family.takes("fsr") and not family.choices
}
FAMILIES = [name for name, settings in FSR.items() if settings.weighting == "clip"]
STEPS = 84  # six epochs


def test_the_recipes_for_noise_mix():
    assert len(FAMILIES) == len(FSR) - 1
    assert all(FSR[name].mixup for name in FAMILIES)


def test_the_digits_recipe_finds_rightly_labeled_examples():
    found = run_on("tensorflow", SCRIPT, str(STEPS), "digits")
    assert found["random"] == pytest.approx(0.46, abs=0.03)
    assert found["first"] == pytest.approx(found["random"], abs=0.1)
    assert found["digits"] > found["random"] + 0.3


@pytest.mark.slow
def test_every_recipe_for_noise_finds_rightly_labeled_examples():
    found = run_on("tensorflow", SCRIPT, str(STEPS), *FAMILIES)
    for name in FAMILIES:
        assert found[name] > found["random"] + 0.3, name


def test_a_dictionary_without_examples_of_a_given_label_is_refused():
    # At 100 %, every 3 is given as an 8, and nothing else as a 3.
    config = build.build_config(parse("digits_asymmetric_1"), "fsr")
    label_set = synthetic_label_set(config, 10, (8, 8, 1))
    flipped = np.where(label_set.noisy_labels == 3, 8, label_set.noisy_labels)
    assert len(init(config, label_set)["dictionary"]) == 200
    with pytest.raises(UserError, match=r"no .* digits_asymmetric_1 is given the label '3'"):
        init(config, dataclasses.replace(label_set, noisy_labels=flipped))


SCORES, MOVING = [0.0, 0.4, 0.0, -0.2], [[9.0, 9.0], [3.0, 0.0], [9.0, 9.0], [0.0, 4.0]]


def _fsr_state() -> dict:
    return {
        "scores": tensor(SCORES),
        "scored": tensor([0.0, 1.0, 0.0, 0.0]),
        "moving_logits": tensor(MOVING),
        "class_weights": tensor([0.3, 0.7]),
        "dictionary": ops.convert_to_tensor(np.arange(2, dtype=np.int32)),
    }


FSR_SETTINGS = ["method.start_epoch=5", "method.mixup=false"]
# Rows 3 and 1 of the moving logits; their mean square is (16 + 9) / 4.
TARGETS = [softmax([0.0, 4.0 / 2.5]), softmax([3.0 / 2.5, 0.0])]


def _after_fsr(images: Rows, labels: Rows) -> tuple[list[float], list[float], list[float]]:
    """Returns losses at θ, losses of the un-mixed images at θ̂ and the meta-gradient."""
    rows = logits(images)
    residuals = residuals_of(rows, labels)
    lookahead = looked_ahead(images, residuals)
    product = probe_product(images, lookahead)
    before = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    own = zip(logits(IMAGES, *lookahead), LABELS, strict=True)
    after = [cross_entropy(row, label) for row, label in own]
    return before, after, [-ALPHA * dot(r, dz) for r, dz in zip(residuals, product, strict=True)]


def _check_fsr_state(update: Update, images: Rows, margin: Sequence[float]) -> None:
    # r ← 0.9 r − 0.1·margin of examples 3 and 1; 0 and 2 stay.
    scores = [0.0, 0.9 * 0.4 - 0.1 * margin[1], 0.0, 0.9 * -0.2 - 0.1 * margin[0]]
    np.testing.assert_allclose(update.method["scores"], scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(update.method["scored"], [0, 1, 0, 1])
    # q ← 0.1 n(q) + 0.9 z.
    rows = logits(images)
    moving = [list(row) for row in MOVING]
    moving[3] = [0.1 * q + 0.9 * z for q, z in zip([0.0, 1.6], rows[0], strict=True)]
    moving[1] = [0.1 * q + 0.9 * z for q, z in zip([1.2, 0.0], rows[1], strict=True)]
    np.testing.assert_allclose(update.method["moving_logits"], moving, rtol=1e-5)


def test_every_term_of_fsr_without_mixup():
    update = one_step("fsr", FSR_SETTINGS, method_state=_fsr_state())
    before, after, meta_gradient = _after_fsr(IMAGES, LABELS)
    weights = clipped(meta_gradient)
    assert sum(weight > 0 for weight in weights) == 1
    margin = [one - other for one, other in zip(before, after, strict=True)]
    np.testing.assert_allclose(update.examples["weight"], weights, rtol=1e-4)
    np.testing.assert_allclose(update.examples["margin"], margin, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(update.examples["pseudo_label"], TARGETS, rtol=1e-5)
    rows = logits(IMAGES)
    pseudo = mean([cross_entropy(row, target) for row, target in zip(rows, TARGETS, strict=True)])
    weighted = dot(weights, before)
    np.testing.assert_allclose(update.metrics["pseudo_label_loss"], pseudo, rtol=1e-5)
    np.testing.assert_allclose(update.metrics["weighted_loss"], weighted, rtol=1e-4)
    np.testing.assert_allclose(update.metrics["loss"], weighted + 2 * pseudo, rtol=1e-5)
    on_logits = [
        [w * r + p for r, p in zip(given, guessed, strict=True)]
        for w, given, guessed in zip(
            weights, residuals_of(rows, LABELS), residuals_of(rows, TARGETS), strict=True
        )
    ]
    assert_gradient(update, IMAGES, on_logits)
    _check_fsr_state(update, IMAGES, margin)
    np.testing.assert_array_equal(update.method["class_weights"], tensor([0.3, 0.7]))


def test_fsr_before_its_start_weighs_alike_but_keeps_scores():
    update = one_step("fsr", FSR_SETTINGS, epoch=4.0, method_state=_fsr_state())
    before, after, _ = _after_fsr(IMAGES, LABELS)
    np.testing.assert_allclose(update.examples["weight"], [0.5, 0.5])
    np.testing.assert_allclose(update.metrics["loss"], mean(before), rtol=1e-5)
    halves = [[value / 2 for value in row] for row in residuals_of(logits(IMAGES), LABELS)]
    assert_gradient(update, IMAGES, halves)
    _check_fsr_state(update, IMAGES, [a - b for a, b in zip(before, after, strict=True)])


def test_fsrs_margin_compares_the_mixed_image_with_the_unmixed_one():
    mixing = Mixing(np.array([[1], [0]], np.int32), np.array([[0.75], [0.6]], np.float32), None)
    update = one_step("fsr", ["method.start_epoch=5"], mixing, method_state=_fsr_state())
    images = mixed(IMAGES, IMAGES[::-1], [0.75, 0.6])
    labels = mixed(LABELS, LABELS[::-1], [0.75, 0.6])
    before, after, meta_gradient = _after_fsr(images, labels)
    margin = [one - other for one, other in zip(before, after, strict=True)]
    np.testing.assert_allclose(update.examples["margin"], margin, rtol=1e-5)
    np.testing.assert_allclose(update.examples["weight"], clipped(meta_gradient), rtol=1e-4)
    _check_fsr_state(update, images, margin)


def test_fsr_smooths_the_training_and_the_probe_loss_but_not_the_margins_second_one():
    update = one_step(
        "fsr", [*FSR_SETTINGS, "method.label_smoothing=0.2"], method_state=_fsr_state()
    )
    labels = [[0.9, 0.1], [0.1, 0.9]]
    rows = logits(IMAGES)
    residuals = residuals_of(rows, labels)
    lookahead = looked_ahead(IMAGES, residuals)
    product = probe_product(IMAGES, lookahead, [[0.1, 0.9], [0.9, 0.1]])
    weights = clipped([-ALPHA * dot(r, dz) for r, dz in zip(residuals, product, strict=True)])
    np.testing.assert_allclose(update.examples["weight"], weights, rtol=1e-4)
    smoothed = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    own = zip(logits(IMAGES, *lookahead), LABELS, strict=True)
    margin = [
        loss - cross_entropy(row, label) for loss, (row, label) in zip(smoothed, own, strict=True)
    ]
    np.testing.assert_allclose(update.examples["margin"], margin, rtol=1e-5)


def test_fsr_shifts_weights_for_imbalance():
    update = one_step("fsr", [*FSR_SETTINGS, "method.weighting=shift"], method_state=_fsr_state())
    _, _, meta_gradient = _after_fsr(IMAGES, LABELS)
    raised = [0.5 - slope for slope in meta_gradient]
    raised = [value - min(raised) + 0.5 for value in raised]
    weights = [value / (sum(raised) + 1e-5) for value in raised]
    np.testing.assert_allclose(update.examples["weight"], weights, rtol=1e-5)


def test_fsrs_class_weights_move_and_stop():
    settings = [*FSR_SETTINGS, "method.class_weight_decay=0.5", "method.class_weight_end_epoch=6"]
    update = one_step("fsr", settings, method_state=_fsr_state())
    weights = clipped(_after_fsr(IMAGES, LABELS)[2])
    # One example a class: 0.5·old + 0.5·its weight; the examples take their class's.
    moved = [0.5 * 0.3 + 0.5 * weights[0], 0.5 * 0.7 + 0.5 * weights[1]]
    np.testing.assert_allclose(update.method["class_weights"], moved, rtol=1e-5)
    np.testing.assert_allclose(update.examples["weight"], moved, rtol=1e-5)
    stopped = one_step("fsr", settings, epoch=6.0, method_state=_fsr_state())
    np.testing.assert_allclose(stopped.examples["weight"], [0.3, 0.7], rtol=1e-6)
