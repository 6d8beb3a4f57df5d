# SPDX-License-Identifier: Apache-2.0
"""Measures how fast steps of a configuration run on this machine, on images of noise.

    python -m ieg_core.training.measure '{"config": {…}, "base": "cifar10", "threads": 1}'

prints steps per second of the configuration with the method `supervised`.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

from ieg_core.classes import BASES
from ieg_core.config import Config, from_dict
from ieg_core.runtime import Runtime, set_environment
from ieg_core.settings import SupervisedSettings

MIN_SECONDS = 2.0
MIN_STEPS = 2


def synthetic_call(
    config: Config, base: str, length: int, batch_norm: str = "auto"
) -> Callable[[int], None]:
    """Builds a compiled training loop over synthetic data.

    Args:
      config: What to train.
      base: The base data set, for image shape and number of classes.
      length: Steps of a call at most.
      batch_norm: Kernel of the BatchNorm layers (ieg_core.models.build).

    Returns:
      A function that runs so many steps, at most `length`.
    """
    from ieg_core import backend, models
    from ieg_core.methods import METHODS
    from ieg_core.training.step import build_network, build_step, initial_state

    shape, num_classes = BASES[base].image_shape, len(BASES[base].class_names)
    rng = np.random.default_rng(0)
    size = config.batch_size
    data = {
        "images": rng.integers(0, 256, (10 * size, *shape), dtype=np.uint8),
        "labels": rng.integers(0, num_classes, 10 * size, dtype=np.int32),
        "probe_labels": rng.integers(0, num_classes, 10 * size, dtype=np.int32),
    }
    draws: dict[str, np.ndarray] = {}
    for prefix in ("", "probe_"):
        offsets = 2 * config.augmentation.pad + 1
        draws |= {
            f"{prefix}ids": rng.integers(0, 10 * size, (length, size), dtype=np.int32),
            f"{prefix}offset_y": rng.integers(0, offsets, (length, size), dtype=np.int32),
            f"{prefix}offset_x": rng.integers(0, offsets, (length, size), dtype=np.int32),
            f"{prefix}flip": rng.random((length, size)) < 0.5,
        }
    scalars = {
        "learning_rate": np.full(length, 1e-3, np.float32),
        "ema_decay": np.full(length, 0.9, np.float32),
    }
    method = METHODS[config.method]
    model = models.build(
        config.network,
        num_classes,
        shape,
        dtype="mixed_bfloat16" if config.precision == "bfloat16" else "float32",
        batch_norm=batch_norm,
    )
    network = build_network(model, config.optimizer.weight_decay)
    step = build_step(method, network, config, num_classes)
    call = backend.compile_loop(step, method.metrics, method.examples, length)
    state = [backend.place(initial_state(model, method, config))]
    placed = backend.place(data)

    def run(steps: int) -> None:
        state[0] = call(state[0], placed, draws, scalars, steps)[0]

    return run


def steps_per_second(call: Callable[[int], None], length: int) -> float:
    """Times a loop once it is compiled: at least MIN_STEPS steps and MIN_SECONDS."""
    call(1)
    began, steps, size = time.monotonic(), 0, 1
    while steps < MIN_STEPS or time.monotonic() - began < MIN_SECONDS:
        call(size)
        steps += size
        size = min(length, 2 * size)
    return steps / (time.monotonic() - began)


def main(text: str) -> None:
    """Measures what the command line asks for and prints it."""
    asked: Mapping = json.loads(text)
    set_environment(Runtime(threads=asked["threads"]))
    from ieg_core import backend

    backend.start(Runtime(threads=asked["threads"]))
    config = from_dict(asked["config"])
    plain = dataclasses.replace(
        config, method="supervised", probe_per_class=0, method_settings=SupervisedSettings()
    )
    print(steps_per_second(synthetic_call(plain, asked["base"], 32), 32))


if __name__ == "__main__":
    main(sys.argv[1])
