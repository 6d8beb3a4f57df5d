# SPDX-License-Identifier: Apache-2.0
"""Every loss term of IEG, worked out in plain Python on a network of one dense layer."""

import math
from collections.abc import Sequence

import numpy as np

from ieg_core.methods.mixup import Mixing
from tests.ieg_core.methods.by_hand import (
    ALPHA,
    IMAGES,
    LABELS,
    PROBE,
    PROBE_LABELS,
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
)

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
