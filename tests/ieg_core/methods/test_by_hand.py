# SPDX-License-Identifier: Apache-2.0
"""Every loss term of every method, worked out in plain Python on a network of one dense layer."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from keras import ops

from ieg_core.methods.method import Network, Update
from ieg_core.methods.mixup import Mixing
from tests.ieg_core.methods.by_hand import (
    ALPHA,
    BIAS,
    DECAY,
    IMAGES,
    KERNEL,
    LABELS,
    PROBE,
    PROBE_LABELS,
    SOFT_LABELS,
    STRONG,
    Rows,
    assert_gradient,
    clipped,
    cross_entropy,
    dot,
    logits,
    looked_ahead,
    mean,
    mixed,
    normalized,
    one_step,
    probe_product,
    residuals_of,
    softmax,
    tensor,
)


def test_decay_is_of_kernels_alone():
    network = Network(lambda *_: None, [True, False], 0.5, dense=(0, 1))
    kernel, bias = network.add_decay(
        [tensor([[1.0]]), tensor([2.0])], [tensor([[3.0]]), tensor([4.0])]
    )
    np.testing.assert_allclose(kernel, [[1.0 + 0.5 * 3.0]])
    np.testing.assert_allclose(bias, [2.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_plain_training(smoothing):
    update = one_step("supervised", [f"method.label_smoothing={smoothing}"])
    labels = [[(1 - smoothing) * y + smoothing / 2 for y in label] for label in LABELS]
    rows = logits(IMAGES)
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, IMAGES, halves)


def test_mixup_trains_on_the_mixed_image_and_label():
    mixing = Mixing(
        ops.convert_to_tensor(np.array([[1], [0]], np.int32)), tensor([[0.75], [0.6]]), None
    )
    update = one_step("mixup", mixing=mixing)
    images = mixed(IMAGES, IMAGES[::-1], [0.75, 0.6])
    labels = mixed(LABELS, LABELS[::-1], [0.75, 0.6])
    assert labels[0] == [0.75, 0.25]
    rows = logits(images)
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, images, halves)


@pytest.mark.parametrize("shares", [[0.75, 0.6], [1.0, 1.0]])
def test_retraining_on_a_teachers_posterior(shares):
    mixing = Mixing(
        ops.convert_to_tensor(np.array([[1], [0]], np.int32)),
        tensor([[share] for share in shares]),
        None,
    )
    alpha = 0.0 if shares == [1.0, 1.0] else 1.0
    update = one_step("retrain", [f"method.mixup_alpha={alpha}"], mixing=mixing)
    images = mixed(IMAGES, IMAGES[::-1], shares)
    labels = mixed(SOFT_LABELS, SOFT_LABELS[::-1], shares)
    rows = logits(images)
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, images, halves)
    if not alpha:
        own = [cross_entropy(row, label) for row, label in zip(rows, LABELS, strict=True)]
        np.testing.assert_allclose(update.examples["given_label_loss"], own, rtol=1e-6)


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


def test_l2r():
    update = one_step("l2r")
    rows = logits(IMAGES)
    # From w = 0 without momentum only the decay moves: θ̂ = (1 − α·wd)·kernel.
    lookahead = ([[value * (1 - ALPHA * DECAY) for value in row] for row in KERNEL], BIAS)
    product = probe_product(IMAGES, lookahead)
    residuals = residuals_of(rows, LABELS)
    weights = clipped([-ALPHA * dot(r, dz) for r, dz in zip(residuals, product, strict=True)])
    assert sum(weight > 0 for weight in weights) == 1
    np.testing.assert_allclose(update.examples["weight"], weights, rtol=1e-4)
    losses = [cross_entropy(row, label) for row, label in zip(rows, LABELS, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], dot(weights, losses), rtol=1e-4)
    assert_gradient(
        update, IMAGES, [[w * r for r in row] for w, row in zip(weights, residuals, strict=True)]
    )


# N + I has the rows (4, 1) and (0, 2); ε = 0.01.
COUNTS = [[3.0, 1.0], [0.0, 1.0]]
TRANSITION = [[0.99 * 0.8 + 0.005, 0.99 * 0.2 + 0.005], [0.005, 0.995]]


def _forward_step(epoch: float) -> Update:
    state = {"counts": tensor(COUNTS), "start_epoch": tensor(5.0)}
    return one_step("forward", epoch=epoch, method_state=state)


def test_forward_corrects_the_loss_from_its_start_epoch_on():
    update = _forward_step(epoch=5.0)
    probabilities = [softmax(row) for row in logits(IMAGES)]
    # Example 0 was given label 0, example 1 label 1.
    joint = [[probabilities[i][c] * TRANSITION[c][i] for c in range(2)] for i in range(2)]
    np.testing.assert_allclose(
        update.metrics["loss"], mean([-math.log(sum(row)) for row in joint]), rtol=1e-5
    )
    # ∂ℓ/∂z = p − q with the posterior q of the true class.
    halves = [
        [(p - q / sum(row)) / 2 for p, q in zip(probability, row, strict=True)]
        for probability, row in zip(probabilities, joint, strict=True)
    ]
    assert_gradient(update, IMAGES, halves)
    np.testing.assert_array_equal(update.method["counts"], tensor(COUNTS))


@pytest.mark.parametrize(("epoch", "counts"), [(3.0, False), (4.0, True)])
def test_forward_warms_up_on_given_labels_and_counts_in_the_last_epoch(epoch, counts):
    update = _forward_step(epoch)
    rows = logits(IMAGES)
    losses = [cross_entropy(row, label) for row, label in zip(rows, LABELS, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, LABELS)]
    assert_gradient(update, IMAGES, halves)
    expected = [list(row) for row in COUNTS]
    if counts:
        for given, row in enumerate(rows):
            expected[row.index(max(row))][given] += 1
        assert expected != COUNTS
    np.testing.assert_array_equal(update.method["counts"], tensor(expected))


# Probe examples 1 and 1; each block's first example is mixed with the next block's.
CHOICE = [1, 1]
PARTNERS = [[2, 4, 0], [3, 5, 1]]
SHARES = [[0.75, 0.6, 1.0], [0.5, 0.9, 0.8]]
IEG_MIXING = Mixing(
    np.array(PARTNERS, np.int32), np.array(SHARES, np.float32), np.array(CHOICE, np.int32)
)


def _centered(rows: Rows) -> Rows:
    means = [mean(column) for column in zip(*rows, strict=True)]
    return [[value - m for value, m in zip(row, means, strict=True)] for row in rows]


def _guesses(*, centered: bool = False) -> Rows:
    """Returns ĝ of the two views, sharpened with T = ½."""
    rows = [logits(images) for images in (IMAGES, STRONG)]
    views = [normalized(_centered(view) if centered else view) for view in rows]
    guesses = []
    for weak, strong in zip(*views, strict=True):
        halves = [(a + b) / 2 for a, b in zip(softmax(weak), softmax(strong), strict=True)]
        squares = [g**2 for g in halves]
        guesses.append([square / sum(squares) for square in squares])
    return guesses


def _ieg_terms(weights: Sequence[float], trust: Sequence[float]) -> dict[str, float]:
    guesses = _guesses()
    weak, strong = logits(IMAGES), logits(STRONG)
    targets, relabeled = mixed(LABELS, guesses, [0.9, 0.9]), mixed(LABELS, guesses, trust)
    pool = [PROBE[1], PROBE[1], *IMAGES, *STRONG]
    pool_labels = [PROBE_LABELS[1], PROBE_LABELS[1], *guesses, *guesses]
    blocks = []
    for block in range(3):
        own = slice(2 * block, 2 * block + 2)
        partners = [PARTNERS[i][block] for i in range(2)]
        shares = [SHARES[i][block] for i in range(2)]
        images = mixed(pool[own], [pool[p] for p in partners], shares)
        labels = mixed(pool_labels[own], [pool_labels[p] for p in partners], shares)
        rows = normalized(logits(images))
        blocks.append(mean([cross_entropy(r, y) for r, y in zip(rows, labels, strict=True)]))
    divergences = [
        sum(p * math.log(p / q) for p, q in zip(softmax(z), softmax(other), strict=True))
        for z, other in zip(weak, strong, strict=True)
    ]
    terms = {
        "relabelled_loss": mean(
            [cross_entropy(z, y) for z, y in zip(weak, relabeled, strict=True)]
        ),
        "weighted_loss": sum(
            w * cross_entropy(z, y) for w, z, y in zip(weights, weak, targets, strict=True)
        ),
        "mix_probe_loss": blocks[0],
        "mix_pseudo_label_loss": (blocks[1] + blocks[2]) / 2,
        "consistency_loss": mean(divergences),
    }
    terms["loss"] = (
        0.5 * (terms["relabelled_loss"] + terms["weighted_loss"])
        + terms["mix_probe_loss"]
        + 3.0 * terms["mix_pseudo_label_loss"]
        + 7.0 * terms["consistency_loss"]
    )
    return terms


IEG_SETTINGS = ["method.pseudo_label_loss_weight=3", "method.consistency_loss_weight=7"]


def test_every_term_of_ieg():
    update = one_step("ieg", IEG_SETTINGS, IEG_MIXING)
    guesses = _guesses()
    np.testing.assert_allclose(update.examples["pseudo_label"], guesses, rtol=1e-5)

    targets = mixed(LABELS, guesses, [0.9, 0.9])
    residuals = residuals_of(logits(IMAGES), targets)
    lookahead = looked_ahead(IMAGES, residuals)
    product = probe_product(IMAGES, lookahead)
    weights = clipped([-ALPHA * dot(r, dz) for r, dz in zip(residuals, product, strict=True)])
    by_label = [
        -ALPHA / 2 * dot([g - y for g, y in zip(guess, label, strict=True)], dz)
        for guess, label, dz in zip(guesses, LABELS, product, strict=True)
    ]
    trust = [1.0 if slope < 0 else 0.0 for slope in by_label]
    assert sorted(trust) == [0.0, 1.0]
    np.testing.assert_allclose(update.examples["weight"], weights, rtol=1e-4)
    np.testing.assert_array_equal(update.examples["label_coefficient"], trust)
    probe_rows = logits(PROBE, *lookahead)
    probe_losses = [cross_entropy(r, y) for r, y in zip(probe_rows, PROBE_LABELS, strict=True)]
    np.testing.assert_allclose(update.metrics["probe_loss"], mean(probe_losses), rtol=1e-5)

    for name, value in _ieg_terms(weights, trust).items():
        np.testing.assert_allclose(update.metrics[name], value, rtol=1e-4, err_msg=name)


def test_ieg_with_centered_pseudo_labels_subtracts_each_views_mean_logits():
    settings = [*IEG_SETTINGS, "method.centered_pseudo_labels=true"]
    update = one_step("ieg_no_lookahead", settings, IEG_MIXING)
    guesses = _guesses(centered=True)
    # Two examples differ from their mean by as much: the guesses mirror each other.
    np.testing.assert_allclose(guesses[0], guesses[1][::-1])
    np.testing.assert_allclose(update.examples["pseudo_label"], guesses, rtol=1e-5)
    targets = mixed(LABELS, guesses, [0.9, 0.9])
    losses = [cross_entropy(z, y) for z, y in zip(logits(IMAGES), targets, strict=True)]
    np.testing.assert_allclose(update.metrics["relabelled_loss"], mean(losses), rtol=1e-5)


def test_iegs_gradient_without_mixup_treats_the_weak_view_as_a_constant_target():
    update = one_step(
        "ieg", ["method.pseudo_label_loss_weight=0", "method.consistency_loss_weight=7"]
    )
    weights = np.asarray(update.examples["weight"]).tolist()
    trust = np.asarray(update.examples["label_coefficient"]).tolist()
    guesses, weak = _guesses(), logits(IMAGES)
    once = residuals_of(weak, mixed(LABELS, guesses, trust))
    again = residuals_of(weak, mixed(LABELS, guesses, [0.9, 0.9]))
    on_weak = [
        [0.5 * (a / 2 + w * b) for a, b in zip(one, other, strict=True)]
        for w, one, other in zip(weights, once, again, strict=True)
    ]
    # ∇ of k·mean KL(p ‖ softmax(z′)) with respect to z′ alone is k (softmax(z′) − p) / 2.
    on_strong = [
        [3.5 * value for value in row]
        for row in residuals_of(logits(STRONG), [softmax(row) for row in weak])
    ]
    assert_gradient(update, [*IMAGES, *STRONG], [*on_weak, *on_strong])


def test_ieg_without_its_look_ahead_keeps_the_initial_coefficients():
    update = one_step("ieg_no_lookahead", IEG_SETTINGS, IEG_MIXING)
    np.testing.assert_allclose(update.examples["weight"], [0.5, 0.5])
    np.testing.assert_allclose(update.examples["label_coefficient"], [0.9, 0.9])
    for name, value in _ieg_terms([0.5, 0.5], [0.9, 0.9]).items():
        np.testing.assert_allclose(update.metrics[name], value, rtol=1e-5, err_msg=name)


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
