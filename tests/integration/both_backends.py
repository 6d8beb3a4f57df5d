# SPDX-License-Identifier: Apache-2.0
"""Run by `test_both_backends.py` under each backend: networks and their derivatives.

KERAS_BACKEND=jax python tests/integration/both_backends.py OUT.npz
"""

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ieg_core import augment, backend
from ieg_core.methods.losses import softmax_cross_entropy
from ieg_core.methods.reweighting import clip_weights, weight_meta_gradient
from ieg_core.models import zoo

# One of each way to build a block; a Wide ResNet's is preact8's.
NETWORKS = {"resnet11": (8, 8, 3), "resnet8": (8, 8, 3), "preact8": (8, 8, 1)}
BATCH = 16
Arrays = dict[str, Any]


def inputs(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (BATCH, *shape)).astype(np.float32)
    return images, np.eye(10, dtype=np.float32)[rng.integers(0, 10, BATCH)]


def split(model: keras.Model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns initial parameters, biases and offsets moved off zero, and statistics."""
    rng = np.random.default_rng(1)
    values = {
        v.path: value + (0.1 * rng.standard_normal(value.shape).astype(np.float32))
        if v.name in ("gamma", "beta", "bias")
        else value
        for v, value in zip(model.variables, zoo.initial_values(model, 0), strict=True)
    }
    return (
        [values[v.path] for v in model.trainable_variables],
        [values[v.path] for v in model.non_trainable_variables],
    )


def derivatives(
    model: keras.Model, params: Sequence, stats: Sequence, images: Any, labels: Any, direction: Any
) -> Arrays:
    """Computes what a re-weighting step needs; sums over examples, not means."""

    def logits_of(params: Sequence) -> tuple[Any, Any]:
        (logits, features), moved = model.stateless_call(params, stats, images, training=True)
        return logits, (features, moved)

    at_batch = backend.linearize(logits_of, params)
    logits, (features, moved) = at_batch.outputs, at_batch.auxiliary
    product = at_batch.forward(direction)
    meta_gradient = weight_meta_gradient(logits, labels, product, 0.1)
    weights = clip_weights(meta_gradient, backend.sum_over_replicas)
    gradient = at_batch.backward(weights[:, None] * (ops.softmax(logits) - labels))
    return {
        "rows": {
            "logits": logits,
            "features": features,
            "loss": softmax_cross_entropy(logits, labels),
            "product": product,
            "weights": weights,
        },
        "stats": dict(enumerate(moved)),
        "gradient": dict(enumerate(gradient)),
    }


def compiled(function: Any) -> Any:
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False)


def flat(prefix: str, tree: Arrays) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        name = f"{prefix}/{key}"
        found |= (
            flat(name, value) if isinstance(value, dict) else {name: ops.convert_to_numpy(value)}
        )
    return found


def on_two_devices(model: keras.Model, arguments: Sequence[Any]) -> Arrays:
    """Computes the same with half of the batch on each of two devices."""
    params, stats, images, labels, direction = arguments
    if keras.backend.backend() == "jax":
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        mesh = Mesh(np.asarray(jax.devices()[:2]), ("replica",))
        shared = NamedSharding(mesh, PartitionSpec())
        halves = NamedSharding(mesh, PartitionSpec("replica"))
        return jax.jit(lambda *a: derivatives(model, *a))(
            *jax.device_put((params, stats), shared),
            *jax.device_put((images, labels), halves),
            jax.device_put(direction, shared),
        )
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    half = BATCH // 2

    def replica() -> Arrays:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = slice(index * half, (index + 1) * half)
        return derivatives(
            model,
            [tf.constant(p) for p in params],
            [tf.constant(s) for s in stats],
            tf.constant(images)[rows],
            tf.constant(labels)[rows],
            [tf.constant(d) for d in direction],
        )

    found = tf.function(lambda: strategy.run(replica), autograph=False)()
    local = strategy.experimental_local_results
    return {
        key: {
            name: tf.concat(local(value), 0) if key == "rows" else local(value)[1]
            for name, value in found[key].items()
        }
        for key in found
    }


def main() -> None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    arrays: dict[str, np.ndarray] = {}
    for name, shape in NETWORKS.items():
        model = zoo.build(name, 10, shape)
        images, labels = inputs(shape)
        params, stats = split(model)
        rng = np.random.default_rng(2)
        direction = [rng.standard_normal(p.shape).astype(np.float32) for p in params]
        arguments = (params, stats, images, labels, direction)
        tensors = [
            [ops.convert_to_tensor(a) for a in group] if isinstance(group, list) else group
            for group in arguments
        ]
        one = compiled(lambda *a, model=model: derivatives(model, *a))(*tensors)
        arrays |= flat(name, one)
        inference = compiled(lambda *a, model=model: model.stateless_call(*a, training=False)[0][0])
        arrays[f"{name}/inference"] = ops.convert_to_numpy(inference(*tensors[:3]))
        if name == "preact8":
            arrays |= flat("two devices", on_two_devices(model, arguments))
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 256, (BATCH, 9, 7, 3), dtype=np.uint8)
    offsets = rng.integers(0, 5, (2, BATCH), dtype=np.int32)
    crops = augment.crop_and_flip(pictures, *offsets, rng.random(BATCH) < 0.5, 2)
    arrays["crops"] = ops.convert_to_numpy(crops)
    arrays["unit range"] = ops.convert_to_numpy(augment.to_unit_range(crops))
    arrays["tensorflow imported"] = np.array(sys.modules.get("tensorflow") is not None)
    np.savez(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
