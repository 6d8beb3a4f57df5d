# SPDX-License-Identifier: Apache-2.0
"""Measures the speed of a configuration's training steps on this machine, on random images.

    python -m ieg_core.training.measure \
        '{"config": {…}, "num_classes": 10, "image_shape": [32, 32, 3], "threads": 1}'

prints the steps per second of the configuration with the method `supervised`.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.config import Config, from_dict
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import SupervisedSettings
from ieg_core.host import processes
from ieg_core.host.runtime import Runtime, set_environment

MIN_SECONDS = 2.0
MIN_STEPS = 2


def synthetic_label_set(
    config: Config, num_classes: int, image_shape: tuple[int, int, int]
) -> LabelSet:
    """Builds a label set of ten batches with labels 0 … C − 1 in turn; the first is the probe."""
    num_examples = max(10 * config.batch_size, 20 * num_classes)
    labels = np.arange(num_examples, dtype=np.int32) % num_classes
    ids = np.arange(num_examples)
    probe_size = num_examples // 10 if config.probe_per_class else 0
    return LabelSet(
        name="synthetic",
        spec=parse(config.dataset),
        seed=0,
        num_classes=num_classes,
        class_names=tuple(map(str, range(num_classes))),
        image_shape=image_shape,
        noisy_labels=labels,
        clean_labels=labels,
        train_ids=ids[probe_size:],
        probe_ids=ids[:probe_size],
        test_labels=labels[:0],
        digest="",
        soft_labels=np.eye(num_classes, dtype=np.float32)[labels]
        if config.method_settings.soft_label_mixup is not None
        else None,
    )


def synthetic_call(
    config: Config,
    num_classes: int,
    image_shape: tuple[int, int, int],
    length: int,
    batch_norm: str = "auto",
) -> Callable[[int], None]:
    """Builds a compiled training loop over synthetic data.

    Args:
      config: The configuration to train.
      num_classes: C.
      image_shape: (height, width, channels).
      length: Maximum number of steps per call.
      batch_norm: Kernel of the BatchNorm layers (`ieg_core.models.zoo.build`).

    Returns:
      A function that runs the given number of steps, at most `length`.
    """
    from ieg_core import backend
    from ieg_core.methods import registry
    from ieg_core.training.step import build_model, build_network, build_step, initial_state
    from ieg_core.training.step_draws import device_data, stacked_draws

    label_set = synthetic_label_set(config, num_classes, image_shape)
    size = (len(label_set.noisy_labels), *image_shape)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    draws = stacked_draws(config, label_set, 0, length, length)
    scalars = {
        "learning_rate": np.full(length, 1e-3, np.float32),
        "ema_decay": np.full(length, 0.9, np.float32),
        "epoch": np.full(length, 1e6, np.float32),
    }
    method = registry.find(config.method)
    model = build_model(config, num_classes, image_shape, batch_norm=batch_norm)
    network = build_network(model, config.optimizer.weight_decay)
    step = build_step(method, network, config, num_classes)
    call = backend.compile_loop(step, method.metrics, method.examples, length)
    state = [backend.place(initial_state(model, method, config, label_set))]
    placed = backend.place(device_data(images, label_set))

    def run(steps: int) -> None:
        state[0] = call(state[0], placed, draws, scalars, steps)[0]

    return run


def steps_per_second(call: Callable[[int], None], length: int) -> float:
    """Times a loop after compiling it: at least MIN_STEPS steps and MIN_SECONDS seconds."""
    call(1)
    began, steps, size = time.monotonic(), 0, 1
    while steps < MIN_STEPS or time.monotonic() - began < MIN_SECONDS:
        call(size)
        steps += size
        size = min(length, 2 * size)
    return steps / (time.monotonic() - began)


def main(text: str) -> None:
    """Measures the request of the command line, a JSON object, and prints steps per second."""
    processes.die_with_parent()
    request: Mapping = json.loads(text)
    set_environment(Runtime(threads=request["threads"]))
    from ieg_core import backend

    backend.start(Runtime(threads=request["threads"]))
    from ieg_core.training.trial import require_promised_gpu

    require_promised_gpu()
    config = from_dict(request["config"])
    plain = dataclasses.replace(
        config, method="supervised", probe_per_class=0, method_settings=SupervisedSettings()
    )
    height, width, channels = request["image_shape"]
    call = synthetic_call(plain, request["num_classes"], (height, width, channels), 32)
    print(steps_per_second(call, 32))


if __name__ == "__main__":
    main(sys.argv[1])
