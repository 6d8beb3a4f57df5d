# SPDX-License-Identifier: Apache-2.0
"""The adapter for JAX: one compiled loop, batches sharded over devices."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ieg_core.errors import UserError
from ieg_core.host.runtime import Runtime

Tree = Any
_mesh: Mesh | None = None


def accelerators() -> int:
    """Returns how many GPUs this process sees."""
    return 0 if jax.default_backend() == "cpu" else jax.device_count()


def device_description() -> str:
    """Returns the name of the device that a run computes on."""
    return str(jax.devices()[0].device_kind).replace("cpu", "CPU")


def start(runtime: Runtime) -> None:
    """Selects the devices; the environment sets threads and determinism (ieg_core.host.runtime).

    Args:
      runtime: The runtime settings.

    Raises:
      UserError: When there are fewer devices than replicas.
    """
    global _mesh
    if runtime.num_replicas == 1:
        return
    devices = jax.devices()
    if len(devices) < runtime.num_replicas:
        raise UserError(
            f"received {len(devices)} devices for {runtime.num_replicas} replicas: expected one "
            "device per replica; lower GPUS_PER_TRIAL"
        )
    _mesh = Mesh(np.asarray(devices[: runtime.num_replicas]), ("replica",))


def place(tree: Tree) -> Tree:
    """Copies NumPy arrays to the device, or to the device of every replica."""
    if _mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, NamedSharding(_mesh, PartitionSpec()))


def fetch(tree: Tree) -> Tree:
    """Copies a tree back as NumPy arrays."""
    return jax.tree.map(np.asarray, tree)


def first_replica(tree: Tree) -> Tree:
    """Returns the first device's copy of values that are identical on all devices."""
    if _mesh is None:
        return tree
    return jax.tree.map(lambda value: value.addressable_data(0), tree)


def compile_function(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Compiles a function of tensors that runs on one device."""
    return jax.jit(function)


def sum_over_replicas(tree: Tree) -> Tree:
    """Returns the tree unchanged: under sharding, sums are over the global batch."""
    return tree


def gather_replicas(value: jax.Array) -> jax.Array:
    """Returns the value unchanged: under sharding, code sees the global batch."""
    return value


def mean_over_replicas(tree: Tree) -> Tree:
    """Returns the tree unchanged: per-share values are averaged where they are computed."""
    return tree


def num_shares() -> int:
    """Returns the number of replicas' shares that a batch consists of, one after another."""
    return 1 if _mesh is None else _mesh.size


def concatenate(blocks: Sequence[jax.Array]) -> jax.Array:
    """Concatenates the rows of blocks, replica by replica.

    Args:
      blocks: K arrays [B, …] with the rows of the first replica, then of the second, ….

    Returns:
      [K·B, …], again replica by replica: for each its rows of the first block, of the second, ….
    """
    if _mesh is None:
        return jnp.concatenate(blocks)
    shares = [block.reshape(_mesh.size, -1, *block.shape[1:]) for block in blocks]
    return jnp.concatenate(shares, axis=1).reshape(-1, *blocks[0].shape[1:])


def split(rows: jax.Array, count: int) -> list[jax.Array]:
    """Reverses `concatenate`.

    Args:
      rows: [K·B, …].
      count: K.

    Returns:
      K arrays [B, …].
    """
    shares = rows.reshape(num_shares(), count, -1, *rows.shape[1:])
    return [shares[:, index].reshape(-1, *rows.shape[1:]) for index in range(count)]


def share(tree: Tree) -> Tree:
    """Returns the tree unchanged: under sharding, code sees the global batch."""
    return tree


def gradients(
    loss: Callable[[Sequence[jax.Array]], tuple[jax.Array, Any]], params: Sequence[jax.Array]
) -> tuple[jax.Array, Any, list[jax.Array]]:
    """Differentiates a loss.

    Args:
      loss: params -> (the loss, a scalar; auxiliary values).
      params: The point at which to differentiate.

    Returns:
      (loss, auxiliary values, gradient as a list like params).
    """
    (value, auxiliary), slopes = jax.value_and_grad(loss, has_aux=True)(list(params))
    return value, auxiliary, slopes


class Linearization(NamedTuple):
    """A function f at a point: its value, and products with its Jacobian J from both sides.

    Attributes:
      outputs: f(params).
      auxiliary: The auxiliary values that f returned.
      forward: v -> J·v, of the shape of the outputs.
      backward: u -> Jᵀ·u, a list like params.
    """

    outputs: jax.Array
    auxiliary: Any
    forward: Callable[[Sequence[jax.Array]], jax.Array]
    backward: Callable[[jax.Array], list[jax.Array]]


def linearize(
    function: Callable[[Sequence[jax.Array]], tuple[jax.Array, Any]], params: Sequence[jax.Array]
) -> Linearization:
    """Linearizes a function; the compiler merges the forward passes of the two products.

    Args:
      function: params -> (outputs, auxiliary values).
      params: The point at which to linearize.

    Returns:
      The outputs, and the two products with the Jacobian.
    """
    params = list(params)
    outputs, pull, auxiliary = jax.vjp(function, params, has_aux=True)

    def forward(tangents: Sequence[jax.Array]) -> jax.Array:
        return jax.jvp(lambda p: function(p)[0], (params,), (list(tangents),))[1]

    def backward(cotangent: jax.Array) -> list[jax.Array]:
        return pull(cotangent)[0]

    return Linearization(outputs, auxiliary, forward, backward)


Step = Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Mapping[str, Any], Mapping[str, Any]]]


def compile_loop(
    step: Step, metrics: Sequence[str], examples: Sequence[str], length: int
) -> Callable[..., tuple[Tree, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Compiles up to `length` steps into one call on the device.

    Args:
      step: One step, (state, data, draws, scalars) -> (state, metrics, examples): draws are for
        the global batch, scalars are float32, metrics are float32 scalars, examples are float32
        with the examples of the batch on axis 0.
      metrics: Names of the metrics that `step` returns.
      examples: Names of the per-example values that `step` returns.
      length: Maximum number of steps per call.

    Returns:
      (state, data, draws, scalars, count) -> (state, metrics, examples), where draws, scalars and
      results have the step on axis 0; the call runs `count` steps and fills as many entries.
    """
    if not accelerators():
        return _host_loop(step)

    @functools.partial(jax.jit, donate_argnums=0)
    def call(state: Tree, data: Tree, draws: Tree, scalars: Tree, count: jax.Array) -> Any:
        def at(index: Any) -> tuple[Tree, Tree]:
            return jax.tree.map(lambda value: value[index], (draws, scalars))

        shapes = jax.eval_shape(lambda s: step(s, data, *at(0))[1:], state)
        filled = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), jnp.float32), shapes)

        def body(index: jax.Array, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
            state, filled = carry
            state, values, rows = step(state, data, *at(index))
            filled = jax.tree.map(
                lambda array, value: array.at[index].set(value), filled, (values, rows)
            )
            return state, filled

        return jax.lax.fori_loop(0, count, body, (state, filled))

    def run(state: Tree, data: Tree, draws: Tree, scalars: Tree, count: int) -> Any:
        if _mesh is not None:
            draws = jax.device_put(draws, NamedSharding(_mesh, PartitionSpec(None, "replica")))
        state, (values, rows) = call(state, data, draws, scalars, jnp.asarray(count))
        if set(values) != set(metrics) or set(rows) != set(examples):
            raise ValueError(
                f"the step returned metrics {sorted(values)} and examples {sorted(rows)}: expected "
                f"{sorted(metrics)} and {sorted(examples)}"
            )
        return state, fetch(values), fetch(rows)

    return run


def _host_loop(step: Step) -> Callable[..., Any]:
    """Calls a compiled step repeatedly from the host, with the interface of `compile_loop`.

    XLA's CPU convolutions are about 17 times slower inside a loop than outside (measured with
    preact8), and the overhead of a call on the CPU is negligible.
    """
    one = jax.jit(step, donate_argnums=0)

    def run(state: Tree, data: Tree, draws: Tree, scalars: Tree, count: int) -> Any:
        filled = []
        for index in range(count):
            drawn, scalar = jax.tree.map(lambda value, at=index: value[at], (draws, scalars))
            if _mesh is not None:
                drawn = jax.device_put(drawn, NamedSharding(_mesh, PartitionSpec("replica")))
            state, *rest = one(state, data, drawn, scalar)
            filled.append(fetch(rest))
        values, rows = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
        return state, values, rows

    return run
