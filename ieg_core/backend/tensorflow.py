# SPDX-License-Identifier: Apache-2.0
"""The adapter for TensorFlow: graphs on CPUs, XLA on one GPU, MirroredStrategy on several GPUs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ieg_core.errors import UserError
from ieg_core.host.runtime import Runtime

Tree = Any
_strategy: tf.distribute.Strategy | None = None


def accelerators() -> int:
    """Returns how many GPUs this process sees."""
    return len(tf.config.list_physical_devices("GPU"))


def device_description() -> str:
    """Returns the name of the device that a run computes on."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def start(runtime: Runtime) -> None:
    """Sets threads, determinism and devices; call once per process, before any computation.

    Args:
      runtime: The runtime settings.

    Raises:
      UserError: When the machine has GPUs, but fewer than replicas.
    """
    global _strategy
    tf.config.threading.set_intra_op_parallelism_threads(runtime.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1 if runtime.threads == 1 else 2)
    tf.config.experimental.enable_op_determinism()
    if runtime.num_replicas == 1:
        return
    gpus = accelerators()
    if gpus and gpus < runtime.num_replicas:
        raise UserError(
            f"received {gpus} GPUs for {runtime.num_replicas} replicas: expected one GPU per "
            "replica; lower GPUS_PER_TRIAL"
        )
    if not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        virtual = [tf.config.LogicalDeviceConfiguration()] * runtime.num_replicas
        tf.config.set_logical_device_configuration(cpu, virtual)
    kind = "GPU" if gpus else "CPU"
    _strategy = tf.distribute.MirroredStrategy(
        [f"{kind}:{index}" for index in range(runtime.num_replicas)]
    )


def place(tree: Tree) -> Tree:
    """Copies NumPy arrays to the device, or to the device of every replica."""
    if _strategy is None:
        return tf.nest.map_structure(tf.convert_to_tensor, tree)
    strategy = _strategy
    return tf.nest.map_structure(
        lambda value: strategy.experimental_distribute_values_from_function(
            lambda _: tf.convert_to_tensor(value)
        ),
        tree,
    )


def fetch(tree: Tree) -> Tree:
    """Copies a tree back as NumPy arrays; for replicated values, the copy of the first replica."""
    return tf.nest.map_structure(lambda value: value.numpy(), first_replica(tree))


def first_replica(tree: Tree) -> Tree:
    """Returns the first replica's copy of values that are identical on all replicas."""
    return tree if _strategy is None else _map_replicas(lambda values: values[0], tree)


def compile_function(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Compiles a function of tensors that runs on one device."""
    return tf.function(function, autograph=False, jit_compile=bool(accelerators()))


def sum_over_replicas(tree: Tree) -> Tree:
    """Sums each tensor over the replicas; differentiable."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return tree
    context = tf.distribute.get_replica_context()
    return tf.nest.map_structure(
        lambda value: context.all_reduce(tf.distribute.ReduceOp.SUM, value), tree
    )


def mean_over_replicas(tree: Tree) -> Tree:
    """Averages each tensor over the replicas."""
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return tf.nest.map_structure(lambda value: value / num_replicas, sum_over_replicas(tree))


def gather_replicas(value: tf.Tensor) -> tf.Tensor:
    """Concatenates the replicas' rows, so that each sees the global batch; differentiable."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return value
    return tf.distribute.get_replica_context().all_gather(value, axis=0)


def concatenate(blocks: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenates the rows of blocks; each replica concatenates its own rows.

    Args:
      blocks: K tensors [B, …].

    Returns:
      [K·B, …].
    """
    return tf.concat(blocks, 0)


def split(rows: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Reverses `concatenate`.

    Args:
      rows: [K·B, …].
      count: K.

    Returns:
      K tensors [B, …].
    """
    return list(tf.split(rows, count))


def share(tree: Tree) -> Tree:
    """Returns this replica's rows of tensors that have the global batch on axis 0."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return tree
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group

    def rows(value: tf.Tensor) -> tf.Tensor:
        size = value.shape[0] // strategy.num_replicas_in_sync
        return value[replica * size : (replica + 1) * size]

    return tf.nest.map_structure(rows, tree)


def gradients(
    loss: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, Any]], params: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, Any, list[tf.Tensor]]:
    """Differentiates a loss.

    Args:
      loss: params -> (this replica's share of the loss, a scalar; auxiliary values).
      params: The point at which to differentiate.

    Returns:
      (loss, auxiliary values, gradient as a list like params); loss and gradient are summed over
      replicas, the auxiliary values are this replica's.
    """
    params = list(params)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(params)
        value, auxiliary = loss(params)
    slopes = tape.gradient(value, params, unconnected_gradients="zero")
    return sum_over_replicas(value), auxiliary, sum_over_replicas(slopes)


class Linearization(NamedTuple):
    """A function f at a point: its value, and products with its Jacobian J from both sides.

    Attributes:
      outputs: f(params).
      auxiliary: The auxiliary values that f returned.
      forward: v -> J·v, of the shape of the outputs.
      backward: u -> Jᵀ·u, a list like params, summed over replicas.
    """

    outputs: tf.Tensor
    auxiliary: Any
    forward: Callable[[Sequence[tf.Tensor]], tf.Tensor]
    backward: Callable[[tf.Tensor], list[tf.Tensor]]


def linearize(
    function: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, Any]], params: Sequence[tf.Tensor]
) -> Linearization:
    """Linearizes a function with one forward pass, which both products share.

    J·v is the derivative of ⟨Jᵀ·u, v⟩ with respect to u. ⟨Jᵀ·u, v⟩ is linear in u, so the value of
    u does not matter, and the graph keeps only those parts of the inner backward pass that the
    derivative needs.

    Args:
      function: params -> (outputs, auxiliary values).
      params: The point at which to linearize.

    Returns:
      The outputs, and the two products with the Jacobian.
    """
    params = list(params)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(params)
        outputs, auxiliary = function(params)

    def pull(cotangent: tf.Tensor) -> list[tf.Tensor]:
        return tape.gradient(
            outputs, params, output_gradients=cotangent, unconnected_gradients="zero"
        )

    def forward(tangents: Sequence[tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            cotangent = tf.zeros_like(outputs)
            outer.watch(cotangent)
            pulled = pull(cotangent)
        return outer.gradient(pulled, cotangent, output_gradients=list(tangents))

    def backward(cotangent: tf.Tensor) -> list[tf.Tensor]:
        return sum_over_replicas(pull(cotangent))

    return Linearization(outputs, auxiliary, forward, backward)


Step = Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Mapping[str, Any], Mapping[str, Any]]]


def compile_loop(
    step: Step, metrics: Sequence[str], examples: Sequence[str], length: int
) -> Callable[..., tuple[Tree, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Compiles up to `length` steps into one call on the device.

    Args:
      step: One step, (state, data, draws, scalars) -> (state, metrics, examples): draws are for
        the global batch, scalars are float32, metrics are float32 scalars already summed over
        replicas, examples are float32 with this replica's examples on axis 0.
      metrics: Names of the metrics that `step` returns.
      examples: Names of the per-example values that `step` returns.
      length: Maximum number of steps per call.

    Returns:
      (state, data, draws, scalars, count) -> (state, metrics, examples), where draws, scalars and
      results have the step on axis 0; the call runs `count` steps and fills as many entries.
    """
    strategy = _strategy
    xla = bool(accelerators()) and strategy is None

    def run_one(state: Tree, data: Tree, draws: Tree, scalars: Tree) -> tuple[Tree, Tree]:
        if strategy is None:
            state, values, rows = step(state, data, draws, scalars)
        else:
            state, values, rows = strategy.run(step, args=(state, data, draws, scalars))
            values = _map_replicas(lambda replicas: replicas[0], values)
            rows = _map_replicas(lambda replicas: tf.concat(replicas, 0), rows)
        _check_names(values, metrics, rows, examples)
        return state, {**values, **rows}

    @functools.partial(tf.function, autograph=False, jit_compile=xla)
    def call(state: Tree, data: Tree, draws: Tree, scalars: Tree, count: tf.Tensor) -> Any:
        arrays = {name: tf.TensorArray(tf.float32, length) for name in (*metrics, *examples)}

        def body(index: tf.Tensor, state: Tree, arrays: Tree) -> tuple[tf.Tensor, Tree, Tree]:
            at = functools.partial(tf.nest.map_structure, lambda value: value[index])
            state, values = run_one(state, data, at(draws), at(scalars))
            arrays = {name: array.write(index, values[name]) for name, array in arrays.items()}
            return index + 1, state, arrays

        _, state, arrays = tf.while_loop(
            lambda index, *_: index < count,
            body,
            (tf.constant(0), state, arrays),
            parallel_iterations=1,
        )
        return state, {name: array.stack() for name, array in arrays.items()}

    def run(state: Tree, data: Tree, draws: Tree, scalars: Tree, count: int) -> Any:
        to_tensor = functools.partial(tf.nest.map_structure, tf.convert_to_tensor)
        state, values = call(state, data, to_tensor(draws), to_tensor(scalars), tf.constant(count))
        values = {name: value.numpy() for name, value in values.items()}
        return (
            state,
            {name: values[name] for name in metrics},
            {name: values[name] for name in examples},
        )

    return run


def _check_names(
    values: Mapping[str, Any],
    metrics: Sequence[str],
    rows: Mapping[str, Any],
    examples: Sequence[str],
) -> None:
    if set(values) != set(metrics) or set(rows) != set(examples):
        raise ValueError(
            f"the step returned metrics {sorted(values)} and examples {sorted(rows)}: expected "
            f"{sorted(metrics)} and {sorted(examples)}"
        )


def _map_replicas(function: Callable[[Sequence[Any]], Any], tree: Tree) -> Tree:
    if isinstance(tree, Mapping):
        return {key: _map_replicas(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_map_replicas(function, value) for value in tree]
    if _strategy is None:
        raise ValueError("received a replicated tree on one device: call start() for replicas")
    return function(_strategy.experimental_local_results(tree))
