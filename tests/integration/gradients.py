# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: meta-gradients in float64 on a small BatchNorm network.

    python gradients.py OUT.npz

Writes the meta-gradient by the forward product, by central differences of the probe loss after an
explicit look-ahead, and L2R's own update beside one put together by hand; of IEG and FSR what their
look-aheads decide beside what the differences say; of Forward and of logit adjustment the slope of
the loss in some directions beside the differences.
"""

import sys

import numpy as np

from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import IEGSettings
from ieg_core.experiment.overrides import override
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.recipes import build

BATCH, CLASSES, LOOKAHEAD_LR, DECAY = 8, 4, 0.1, 5e-4
STEP = 1e-6  # small enough to cross hardly any kink of the ReLUs


def ieg_and_fsr(network, params, stats, batch, probe_loss, central_differences, rng) -> dict:
    from keras import ops

    from ieg_core import backend
    from ieg_core.methods import ieg, registry
    from ieg_core.methods.losses import softmax_cross_entropy
    from ieg_core.methods.method import State
    from ieg_core.methods.reweighting import clip_weights

    momentum = [ops.convert_to_tensor(0.01 * rng.standard_normal(p.shape)) for p in params]
    state = State(params, momentum, stats, {})
    guesses = rng.dirichlet(np.ones(CLASSES), BATCH)
    pseudo_labels, given = ops.convert_to_tensor(guesses), np.asarray(batch.labels)
    settings = IEGSettings()
    share = settings.initial_label_coefficient

    def probe_after(weights: np.ndarray, coefficients: np.ndarray) -> float:
        targets = coefficients[:, None] * given + (1 - coefficients[:, None]) * guesses

        def inner(at: list) -> tuple:
            logits = network.forward(at, stats, batch.images).logits
            losses = softmax_cross_entropy(logits, ops.convert_to_tensor(targets))
            return ops.sum(ops.convert_to_tensor(weights) * losses), None

        slopes = network.add_decay(backend.gradients(inner, params)[2], params)
        looked = [
            p - LOOKAHEAD_LR * (0.9 * m + slope)
            for p, m, slope in zip(params, momentum, slopes, strict=True)
        ]
        return float(probe_loss(looked))

    even, shares = np.full(BATCH, 1 / BATCH), np.full(BATCH, share)
    by_weight = central_differences(lambda w: probe_after(w, shares), even)
    by_label = central_differences(lambda c: probe_after(even, c), shares)

    def weak_logits(at: list) -> tuple:
        return network.forward(at, stats, batch.images).logits, None

    weak = backend.linearize(weak_logits, params)
    targets = share * batch.labels + (1 - share) * pseudo_labels
    slopes = ieg.meta_gradient(network, settings, state, batch, weak, pseudo_labels, targets)
    supervision = ieg.distill(slopes)
    written = {
        "ieg_by_weight": np.asarray(slopes.example_weights),
        "ieg_by_weight_differences": by_weight,
        "ieg_by_label": np.asarray(slopes.label_coefficients),
        "ieg_by_label_differences": by_label,
        "ieg_weights": np.asarray(supervision.example_weights),
        "ieg_weights_by_differences": np.asarray(clip_weights(ops.convert_to_tensor(by_weight))),
        "ieg_coefficients": np.asarray(supervision.label_coefficients),
    }

    method_state = {
        "scores": ops.zeros(BATCH, "float64"),
        "scored": ops.zeros(BATCH, "float64"),
        "moving_logits": ops.zeros((BATCH, CLASSES), "float64"),
        "class_weights": ops.zeros(CLASSES, "float64"),
        "dictionary": ops.arange(BATCH),
    }
    config = override(
        build.build_config(parse("digits_uniform_0.4"), "fsr"),
        ["method.mixup=false", "method.start_epoch=0"],
    )
    kernel_at, bias_at = network.dense

    def dense_probe_after(weights: np.ndarray) -> float:
        forward = network.forward(params, stats, batch.images)
        residuals = np.asarray(ops.softmax(forward.logits)) - given
        scaled = weights[:, None] * residuals
        kernel, bias = np.asarray(params[kernel_at]), np.asarray(params[bias_at])
        slope = np.asarray(forward.features).T @ scaled + DECAY * kernel
        kernel = kernel - LOOKAHEAD_LR * (0.9 * np.asarray(momentum[kernel_at]) + slope)
        bias = bias - LOOKAHEAD_LR * (0.9 * np.asarray(momentum[bias_at]) + scaled.sum(0))
        features = np.asarray(network.forward(params, stats, batch.probe_images).features)
        logits = ops.convert_to_tensor(features @ kernel + bias)
        mean = float(ops.mean(softmax_cross_entropy(logits, batch.probe_labels)))
        return mean + 0.5 * DECAY * float((kernel**2).sum())

    update = registry.find("fsr").update(
        network, config, State(params, momentum, stats, method_state), batch
    )
    by_dense = central_differences(dense_probe_after, even)
    written |= {
        "fsr_weights": np.asarray(update.examples["weight"]),
        "fsr_weights_by_differences": np.asarray(clip_weights(ops.convert_to_tensor(by_dense))),
        "fsr_scores": np.asarray(update.method["scores"]),
        "fsr_margin": np.asarray(update.examples["margin"]),
    }
    return written


def directional(network, params, stats, batch, method, state, losses, rng) -> dict:
    """Returns slopes of a method's update in five directions beside differences of its loss.

    Args:
      state: The method's own state.
      losses: In NumPy, logits [B, C] -> the loss of each example [B]; decay is added here.
    """
    from keras import ops

    from ieg_core.methods import registry
    from ieg_core.methods.method import State

    config = build.build_config(parse("digits_uniform_0.4"), method)
    update = registry.find(method).update(
        network, config, State(params, params, stats, state), batch
    )

    def loss(at: list) -> float:
        logits = np.asarray(network.forward(at, stats, batch.images).logits)
        decay = sum(
            float(ops.sum(p**2)) for p, decayed in zip(at, network.decayed, strict=True) if decayed
        )
        return float(losses(logits).mean()) + 0.5 * DECAY * decay

    # All parameters move at once, so a smaller step than STEP keeps off the ReLUs' kinks.
    step = 1e-8
    slopes, differences = [], []
    for _ in range(5):
        direction = [rng.standard_normal(p.shape) for p in params]
        either = [
            loss([p + sign * step * d for p, d in zip(params, direction, strict=True)])
            for sign in (1, -1)
        ]
        differences.append((either[0] - either[1]) / (2 * step))
        pairs = zip(update.gradients, direction, strict=True)
        slopes.append(sum(float((np.asarray(g) * d).sum()) for g, d in pairs))
    return {f"{method}_slopes": np.array(slopes), f"{method}_differences": np.array(differences)}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(1, keepdims=True)


def corrected_and_adjusted(network, params, stats, batch, rng) -> dict:
    from keras import ops

    given = np.asarray(batch.labels).argmax(1)
    counts = rng.integers(0, 9, (CLASSES, CLASSES)).astype(float)
    state = {"counts": ops.convert_to_tensor(counts), "start_epoch": ops.cast(0.0, "float64")}
    counts = counts + np.eye(CLASSES)
    transition = 0.99 * counts / counts.sum(1, keepdims=True) + 0.01 / CLASSES

    def corrected(logits: np.ndarray) -> np.ndarray:
        return -np.log((softmax(logits) * transition[:, given].T).sum(1))

    prior = np.array([0.6, 0.25, 0.1, 0.05])

    def adjusted(logits: np.ndarray) -> np.ndarray:
        weighted = np.exp(logits) * prior
        return -np.log(weighted[np.arange(BATCH), given] / weighted.sum(1))

    at = network, params, stats, batch
    log_prior = {"log_prior": ops.convert_to_tensor(np.log(prior))}
    return {
        **directional(*at, "forward", state, corrected, rng),
        **directional(*at, "logit_adjustment", log_prior, adjusted, rng),
    }


def main(out: str) -> None:
    set_environment(Runtime())
    import keras
    from keras import ops

    keras.backend.set_floatx("float64")
    from ieg_core import backend
    from ieg_core.methods import registry
    from ieg_core.methods.losses import softmax_cross_entropy
    from ieg_core.methods.method import Batch, State
    from ieg_core.methods.reweighting import clip_weights, weight_meta_gradient
    from ieg_core.models import zoo
    from ieg_core.training.step import build_network
    from tests.ieg_core.models import one_block

    rng = np.random.default_rng(0)

    def images() -> object:
        return ops.convert_to_tensor(rng.uniform(-1, 1, (BATCH, 8, 8, 1)))

    def one_hot() -> object:
        return ops.convert_to_tensor(np.eye(CLASSES)[rng.integers(0, CLASSES, BATCH)])

    model = one_block.build(CLASSES, (8, 8, 1), dtype="float64")
    network = build_network(model, DECAY)
    values = dict(zip([v.path for v in model.variables], zoo.initial_values(model, 0), strict=True))
    params = [ops.convert_to_tensor(values[v.path]) for v in model.trainable_variables]
    stats = [ops.convert_to_tensor(values[v.path]) for v in model.non_trainable_variables]
    batch = Batch(
        ids=ops.arange(BATCH),
        images=images(),
        strong_images=None,
        labels=one_hot(),
        soft_labels=None,
        probe_images=images(),
        probe_labels=one_hot(),
        mixing=None,
        epoch=ops.cast(0.0, "float64"),
        size=BATCH,
        probe_size=BATCH,
    )

    def probe_loss(at: list) -> object:
        logits = network.forward(at, stats, batch.probe_images).logits
        decay = sum(
            ops.sum(p**2) for p, decayed in zip(at, network.decayed, strict=True) if decayed
        )
        mean = ops.mean(softmax_cross_entropy(logits, batch.probe_labels))
        return mean + 0.5 * DECAY * decay

    def looked_ahead(weights: np.ndarray) -> list:
        def inner(at: list) -> tuple:
            logits = network.forward(at, stats, batch.images).logits
            losses = softmax_cross_entropy(logits, batch.labels)
            return ops.sum(ops.convert_to_tensor(weights) * losses), None

        slopes = network.add_decay(backend.gradients(inner, params)[2], params)
        return [p - LOOKAHEAD_LR * slope for p, slope in zip(params, slopes, strict=True)]

    def central_differences(function, at: np.ndarray) -> np.ndarray:
        found = np.zeros(BATCH)
        for index in range(BATCH):
            shift = np.zeros(BATCH)
            shift[index] = STEP
            found[index] = (function(at + shift) - function(at - shift)) / (2 * STEP)
        return found

    differences = central_differences(
        lambda weights: float(probe_loss(looked_ahead(weights))), np.zeros(BATCH)
    )

    start = looked_ahead(np.zeros(BATCH))
    direction = backend.gradients(lambda at: (probe_loss(at), None), start)[2]

    def logits_of(at: list) -> tuple:
        return network.forward(at, stats, batch.images).logits, None

    at_batch = backend.linearize(logits_of, params)
    meta = weight_meta_gradient(
        at_batch.outputs, batch.labels, at_batch.forward(direction), LOOKAHEAD_LR
    )

    config = build.build_config(parse("digits_uniform_0.4"), "l2r")
    update = registry.find("l2r").update(network, config, State(params, params, stats, {}), batch)
    weights = clip_weights(meta)

    def weighted(at: list) -> tuple:
        forward = network.forward(at, stats, batch.images)
        losses = softmax_cross_entropy(forward.logits, batch.labels)
        return ops.sum(weights * losses), forward.stats

    _, moved, slopes = backend.gradients(weighted, params)
    by_hand = network.add_decay(slopes, params)
    written = ieg_and_fsr(network, params, stats, batch, probe_loss, central_differences, rng)
    written |= corrected_and_adjusted(network, params, stats, batch, rng)
    written |= {
        "differences": differences,
        "meta_gradient": np.asarray(meta),
        "weights": np.asarray(weights),
        "l2r_weights": np.asarray(update.examples["weight"]),
    }
    for name, one, other in (
        ("gradient", update.gradients, by_hand),
        ("stats", update.stats, moved),
    ):
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            written[f"l2r_{name}/{index}"] = np.asarray(mine)
            written[f"hand_{name}/{index}"] = np.asarray(theirs)
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1])
