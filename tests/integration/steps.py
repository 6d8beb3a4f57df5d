# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in processes of their own: a step of every method on one backend.

    python steps.py OUT.npz [shares]

Writes every tensor of the state, the metrics and the per-example values of each method, after one
step from a state that has momentum, scores and moving logits already: as "one/…" on one device, and
as "two/…" on two devices of the methods that need more than a sum of gradients from one another.
With "shares", BatchNorm has the statistics of each replica's own share.
"""

import sys

import numpy as np

from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.experiment.overrides import override
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.recipes import build

BATCH_SIZE = 40
# Of the 60 epochs of 10 steps, Forward corrects the loss from epoch 3 on, which the step is in.
EXTRA = {
    "fsr": ["method.capacity=80", "method.dictionary_batch_size=40", "method.start_epoch=0"],
    "forward": ["method.warmup_fraction=0.05"],
    "ieg": ["method.centered_pseudo_labels=true"],
}
VARIANTS = {
    **{name: (name, []) for name in METHODS},
    "fsr_shift": (
        "fsr",
        ["method.weighting=shift", "method.mixup=false", "method.label_smoothing=0.1"],
    ),
    "fsr_class_weights": ("fsr", ["method.class_weight_decay=0.5"]),
    "forward_counting": ("forward", ["method.warmup_fraction=0.07"]),
    "ieg_plain": (
        "ieg",
        ["method.pseudo_label_loss_weight=0", "method.consistency_loss_weight=0"],
    ),
}
# What needs more of the other replicas than the gradient's sum.
SHARED = ("l2r", "fsr_shift", "fsr_class_weights", "forward_counting", "ieg")
# Which has five passes, one of them over blocks laid end to end.
OWN_SHARES = ("ieg",)


def build_config(name: str, synchronized: bool) -> Config:
    method, settings = VARIANTS[name]
    config = build.build_config(parse("digits_uniform_0.4"), method)
    settings = [*EXTRA.get(method, []), *settings, f"synchronized_batch_norm={synchronized}"]
    return override(config, [f"batch_size={BATCH_SIZE}", *settings])


def perturbed(state: dict) -> dict:
    """Puts something into the parts of the state that start at 0."""
    rng = np.random.default_rng(1)
    noise = [0.01 * rng.standard_normal(m.shape).astype(np.float32) for m in state["momentum"]]
    method = dict(state["method"])
    for name in ("scores", "moving_logits"):
        if name in method:
            method[name] = rng.standard_normal(method[name].shape).astype(np.float32)
    if "counts" in method:
        method["counts"] = rng.integers(0, 9, method["counts"].shape).astype(np.float32)
    return {**state, "momentum": noise, "method": method}


def flatten(prefix: str, tree) -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    else:
        return {prefix: np.asarray(tree)}
    flat: dict[str, np.ndarray] = {}
    for key, value in items:
        flat |= flatten(f"{prefix}/{key}", value)
    return flat


def virtual_devices() -> None:
    """Splits TensorFlow's CPU in two, as it must be before a computation; JAX's is, by a flag."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )


def one_step(runtime: Runtime, synchronized: bool) -> dict[str, np.ndarray]:
    from ieg_core import backend
    from ieg_core.methods import registry
    from ieg_core.training.measure import synthetic_label_set
    from ieg_core.training.step import build_network, build_step, initial_state
    from ieg_core.training.step_draws import device_data, stacked_draws
    from tests.ieg_core.models import one_block

    backend.start(runtime)
    written = {}
    model = one_block.build(10, (8, 8, 1), synchronized=synchronized)
    several = VARIANTS if runtime.num_replicas == 1 else SHARED
    for name in several if synchronized else OWN_SHARES:
        config = build_config(name, synchronized)
        method = registry.find(config.method)
        label_set = synthetic_label_set(config, 10, (8, 8, 1))
        images = np.random.default_rng(0).integers(
            0, 256, (len(label_set.noisy_labels), 8, 8, 1), dtype=np.uint8
        )
        network = build_network(model, config.optimizer.weight_decay)
        step = build_step(method, network, config, 10)
        call = backend.compile_loop(step, method.metrics, method.examples, 1)
        scalars = {
            "learning_rate": np.full(1, 0.05, np.float32),
            "ema_decay": np.full(1, 0.5, np.float32),
            "epoch": np.full(1, 3, np.float32),
        }
        state = backend.place(perturbed(initial_state(model, method, config, label_set)))
        data = backend.place(device_data(images, label_set))
        # Some steps, 1 and 4 among them, bring a ReLU within rounding of its kink, where the
        # derivative depends on the order of a sum.
        drawn = stacked_draws(config, label_set, 2, 3, 1)
        state, metrics, examples = call(state, data, drawn, scalars, 1)
        found = {"state": backend.fetch(state), "metrics": metrics, "examples": examples}
        written |= flatten(name, found)
    return written


def main(out: str, synchronized: bool) -> None:
    set_environment(Runtime())
    virtual_devices()
    written = {}
    for name, num_replicas in (("one", 1), ("two", 2)):
        steps = one_step(Runtime(num_replicas=num_replicas), synchronized)
        written |= {f"{name}/{key}": value for key, value in steps.items()}
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] != ["shares"])
