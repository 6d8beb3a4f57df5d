# SPDX-License-Identifier: Apache-2.0
"""Training steps of a method: equal to the CPU's, and their time, memory and share of the rates."""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ieg_core import backend
from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.methods import registry
from ieg_core.methods.method import Method
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set
from ieg_core.training.step import build_model, build_network, build_step, initial_state
from ieg_core.training.step_draws import device_data, stacked_draws
from scripts.bench import SPEC
from scripts.gpu_check.figures import (
    TOLERANCES,
    FirstStep,
    busy_share,
    compare,
    peak_memory,
    time_call,
)
from scripts.gpu_check.sizes import Sizes

NUM_CLASSES = 10
PROFILED_STEPS = 2
SQUARES = 4


@dataclass(frozen=True)
class Prepared:
    """A step function with its inputs, NumPy arrays.

    Attributes:
      step: The step, (state, data, draws, scalars) -> (state, metrics, examples).
      method: The method.
      arguments: The state, the data, and the draws and scalars with the step on axis 0.
      paths: The paths of the trainable variables, in the order of the state's "params".
    """

    step: Any
    method: Method
    arguments: tuple[Any, Any, Any, Any]
    paths: Sequence[str]

    def first(self) -> tuple[Any, Any, Any, Any]:
        """Returns the arguments of the first step alone."""
        state, data, draws, scalars = self.arguments
        return state, data, *jax.tree.map(lambda values: values[0], (draws, scalars))


def configuration(network: str, method: str, precision: str, batch_size: int) -> Config:
    """Returns the papers' configuration of a method on CIFAR-10, with another batch.

    Args:
      network: Name of a network.
      method: Name of a method.
      precision: "float32" or "bfloat16".
      batch_size: Examples in a step.
    """
    config = build.build_config(parse(SPEC), method, recipe="cifar", network=network)
    return override(config, [f"precision={precision}", f"batch_size={batch_size}"])


def prepare(config: Config, image_side: int, length: int) -> Prepared:
    """Builds a configuration's step and its inputs: images of random colored squares.

    Images of noise would all look the same to a network, and rounding errors would outweigh the
    gradient's small difference between them.
    """
    shape = (image_side, image_side, 3)
    label_set = synthetic_label_set(config, NUM_CLASSES, shape)
    size = (len(label_set.noisy_labels), SQUARES, SQUARES, 3)
    colors = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    square = np.arange(image_side) * SQUARES // image_side
    images = colors[:, square[:, None], square]
    model = build_model(config, NUM_CLASSES, shape)
    method = registry.find(config.method)
    network = build_network(model, config.optimizer.weight_decay)
    scalars = {
        name: np.full(length, value, np.float32)
        for name, value in (("learning_rate", 1e-3), ("ema_decay", 0.9), ("epoch", 1e6))
    }
    return Prepared(
        build_step(method, network, config, NUM_CLASSES),
        method,
        (
            initial_state(model, method, config, label_set),
            device_data(images, label_set),
            stacked_draws(config, label_set, 0, length, length),
            scalars,
        ),
        [variable.path for variable in model.trainable_variables],
    )


def first_step(lowered: Any, prepared: Prepared) -> FirstStep:
    """Compiles and runs a lowered step; its momentum after the first step is the gradient."""
    state, metrics, examples = lowered.compile()(*prepared.first())
    return FirstStep(
        {
            path: np.asarray(each)
            for path, each in zip(prepared.paths, state["momentum"], strict=True)
        },
        float(metrics["loss"]),
        {name: np.asarray(each) for name, each in examples.items()},
    )


def check_steps(
    network: str, precision: str, method: str, sizes: Sizes, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Compares a method's step with the CPU's and measures a compiled call of several steps.

    The compared step is of a smaller batch, with exact float32 products (no TF32); the timed ones
    compute as a training does. The reference is the CPU's step in float32. From it, a bfloat16 step
    may be as far as `figures.compare` lets it, measured by the CPU's.

    Args:
      network: The network's name.
      precision: "float32" or "bfloat16".
      method: The method's name.
      sizes: The sizes.
      rates: The measured matrix rate in FLOP/s, by precision.

    Returns:
      The outcome of `figures.compare`, "flops" of a step, "compile_seconds",
      "step_seconds", "busy_share", "rate_share", "memory", the compiler's estimate in bytes, and
      "peak_memory", the measured peak of the process, 0 where it is not known. That peak cannot be
      reset: "peak_is_older" says that an earlier stage reached it.
    """
    jax.clear_caches()  # the executables of earlier stages would count as memory
    gc.collect()
    earlier_peak = peak_memory()
    size = sizes.checked_batch_size
    small = plain = prepare(configuration(network, method, precision, size), sizes.image_side, 1)
    if precision != "float32":
        plain = prepare(configuration(network, method, "float32", size), sizes.image_side, 1)
    with jax.default_matmul_precision("highest"):
        here = jax.jit(small.step).lower(*small.first())
        with jax.default_device(jax.devices("cpu")[0]):
            there = jax.jit(small.step).lower(*small.first())
            exact = there if plain is small else jax.jit(plain.step).lower(*plain.first())
    costs = there.cost_analysis() or {}
    flops = float(costs.get("flops", 0.0)) * sizes.batch_size / size
    with ThreadPoolExecutor(2) as pool:  # the CPU compiles and computes beside the GPU
        rounded = pool.submit(first_step, there, small)
        reference = rounded if plain is small else pool.submit(first_step, exact, plain)
        found = first_step(here, small)
        measured = time_steps(
            prepare(
                configuration(network, method, precision, sizes.batch_size),
                sizes.image_side,
                sizes.steps,
            ),
            sizes,
            lambda: wait((rounded, reference)),
        )
    peak = peak_memory()
    return {
        "network": network,
        "precision": precision,
        "method": method,
        **compare(found, reference.result(), precision, rounded.result()),
        "flops": flops,
        "peak_memory": peak,
        "peak_is_older": peak == earlier_peak,
        "rate_share": flops / measured["step_seconds"] / rates[precision],
        **measured,
    }


def time_steps(prepared: Prepared, sizes: Sizes, make_quiet: Callable[[], Any]) -> dict[str, Any]:
    """Compiles a loop of steps and times it: seconds of compilation and of a step, memory, load.

    Args:
      prepared: The step and its inputs.
      sizes: Steps of a call and number of calls.
      make_quiet: Waits for other work before the timed calls.
    """
    state, data, draws, scalars = prepared.arguments
    method = prepared.method
    call = backend.compile_loop(prepared.step, method.metrics, method.examples, sizes.steps)
    held, placed = [backend.place(state)], backend.place(data)

    def run(steps: int) -> None:
        held[0] = call(held[0], placed, draws, scalars, steps)[0]
        jax.block_until_ready(held[0])

    timed = time_call(run, sizes, make_quiet)
    memory = [
        stats.temp_size_in_bytes + stats.argument_size_in_bytes
        for executable in jax.devices()[0].client.live_executables()
        if (stats := executable.get_compiled_memory_stats()) is not None
    ]
    return {
        **timed,
        "memory": max(memory, default=0),
        **profile(lambda: run(min(PROFILED_STEPS, sizes.steps))),
    }


def profile(call: Callable[[], None]) -> dict[str, Any]:
    """Traces a call.

    Returns:
      "busy_share" of the call in which the GPU computes, None where that is not known; and
      "profile_error" if the tracing failed, which costs no other figure.
    """
    if not backend.accelerators():
        return {"busy_share": None}
    try:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                call()
            return {"busy_share": busy_share(_kernels(Path(folder)))}
    except Exception as error:
        return {"busy_share": None, "profile_error": f"{type(error).__name__}: {error}"}


def _kernels(folder: Path) -> Iterator[tuple[float, float]]:
    """Yields start and end of each kernel in a trace, in nanoseconds."""
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if plane.name.startswith("/device:GPU"):
                for line in plane.lines:
                    if line.name.startswith("Stream"):
                        for event in line.events:
                            yield event.start_ns, event.start_ns + event.duration_ns


def matrix_rates(side: int, rounds: int = 5) -> dict[str, float]:
    """Measures the matrix rate: FLOP/s of products of random square matrices.

    Args:
      side: Rows and columns.
      rounds: Timed products, of which the median counts.

    Returns:
      FLOP/s for "float32" (as the device multiplies by default) and "bfloat16".
    """
    rates = {}
    product = jax.jit(jnp.matmul)
    for precision in TOLERANCES:
        one, other = (
            jax.random.normal(jax.random.key(seed), (side, side), precision) for seed in (0, 1)
        )
        product(one, other).block_until_ready()
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            product(one, other).block_until_ready()
            seconds.append(time.perf_counter() - began)
        rates[precision] = 2.0 * side**3 / statistics.median(seconds)
    return rates
