# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in processes of their own: a few steps of every method on one backend.

    python steps.py OUT.npz NUM_REPLICAS NUM_STEPS

Writes every tensor of the state, the metrics and the per-example values of each method.
"""

import sys

import numpy as np

from ieg_core import recipes
from ieg_core.config import Config, override
from ieg_core.runtime import Runtime, set_environment
from ieg_core.settings import METHODS
from ieg_core.spec import parse

BATCH_SIZE, LENGTH = 40, 4


def draws_and_data(config: Config, num_steps: int) -> tuple[dict, dict, dict]:
    rng = np.random.default_rng(0)
    data = {
        "images": rng.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8),
        "labels": rng.integers(0, 10, 200, dtype=np.int32),
        "probe_labels": rng.integers(0, 10, 200, dtype=np.int32),
    }
    drawn = {}
    for prefix in ("", "probe_"):
        shape = (LENGTH, BATCH_SIZE)
        drawn |= {
            f"{prefix}ids": rng.integers(0, 200, shape, dtype=np.int32),
            f"{prefix}offset_y": rng.integers(0, 3, shape, dtype=np.int32),
            f"{prefix}offset_x": rng.integers(0, 3, shape, dtype=np.int32),
            f"{prefix}flip": rng.random(shape) < 0.5,
        }
    scalars = {
        "learning_rate": np.full(LENGTH, 0.05, np.float32),
        "ema_decay": np.full(LENGTH, 0.5, np.float32),
    }
    return data, drawn, scalars


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


def main(out: str, num_replicas: int, num_steps: int) -> None:
    runtime = Runtime(threads=1, num_replicas=num_replicas)
    set_environment(runtime)
    from ieg_core import backend, models
    from ieg_core.methods import METHODS as UPDATES
    from ieg_core.training.step import build_network, build_step, initial_state

    backend.start(runtime)
    written = {}
    for name in METHODS:
        config = override(
            recipes.build_config(parse("digits_uniform_0.4"), name), [f"batch_size={BATCH_SIZE}"]
        )
        method = UPDATES[name]
        model = models.build(config.network, 10, (8, 8, 1))
        network = build_network(model, config.optimizer.weight_decay)
        step = build_step(method, network, config, 10)
        call = backend.compile_loop(step, method.metrics, method.examples, LENGTH)
        data, drawn, scalars = draws_and_data(config, num_steps)
        state = backend.place(initial_state(model, method, config))
        state, metrics, examples = call(state, backend.place(data), drawn, scalars, num_steps)
        found = {"state": backend.fetch(state), "metrics": metrics, "examples": examples}
        written |= flatten(name, found)
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
