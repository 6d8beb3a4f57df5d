# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: L2R in float64 on a small BatchNorm network.

    python gradients.py OUT.npz

Writes the meta-gradient by the forward product, by central differences of the probe loss after an
explicit look-ahead, and L2R's own update beside one put together by hand.
"""

import sys

import numpy as np

from ieg_core import recipes
from ieg_core.runtime import Runtime, set_environment
from ieg_core.spec import parse

BATCH, CLASSES, LOOKAHEAD_LR, DECAY = 8, 4, 0.1, 5e-4
STEP = 1e-6  # small enough to cross hardly any kink of the ReLUs


def main(out: str) -> None:
    set_environment(Runtime())
    import keras
    from keras import ops

    keras.backend.set_floatx("float64")
    from ieg_core import backend, models
    from ieg_core.losses import softmax_cross_entropy
    from ieg_core.methods import METHODS, Batch, State
    from ieg_core.reweighting import clip_weights, weight_meta_gradient
    from ieg_core.training.step import build_network

    rng = np.random.default_rng(0)

    def images() -> object:
        return ops.convert_to_tensor(rng.uniform(-1, 1, (BATCH, 8, 8, 1)))

    def one_hot() -> object:
        return ops.convert_to_tensor(np.eye(CLASSES)[rng.integers(0, CLASSES, BATCH)])

    model = models.build("preact8", CLASSES, (8, 8, 1), dtype="float64")
    network = build_network(model, DECAY)
    values = dict(
        zip([v.path for v in model.variables], models.initial_values(model, 0), strict=True)
    )
    params = [ops.convert_to_tensor(values[v.path]) for v in model.trainable_variables]
    stats = [ops.convert_to_tensor(values[v.path]) for v in model.non_trainable_variables]
    batch = Batch(images(), one_hot(), images(), one_hot(), BATCH)

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

    differences = np.zeros(BATCH)
    for index in range(BATCH):
        shift = np.zeros(BATCH)
        shift[index] = STEP
        above, below = (float(probe_loss(looked_ahead(s))) for s in (shift, -shift))
        differences[index] = (above - below) / (2 * STEP)

    start = looked_ahead(np.zeros(BATCH))
    direction = backend.gradients(lambda at: (probe_loss(at), None), start)[2]

    def logits_of(at: list) -> tuple:
        return network.forward(at, stats, batch.images).logits, None

    at_batch = backend.linearize(logits_of, params)
    meta = weight_meta_gradient(
        at_batch.outputs, batch.labels, at_batch.forward(direction), LOOKAHEAD_LR
    )

    config = recipes.build_config(parse("digits_uniform_0.4"), "l2r")
    update = METHODS["l2r"].update(network, config, State(params, params, stats, {}), batch)
    weights = clip_weights(meta)

    def weighted(at: list) -> tuple:
        forward = network.forward(at, stats, batch.images)
        losses = softmax_cross_entropy(forward.logits, batch.labels)
        return ops.sum(weights * losses), forward.stats

    _, moved, slopes = backend.gradients(weighted, params)
    by_hand = network.add_decay(slopes, params)
    written = {
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
