# SPDX-License-Identifier: Apache-2.0
"""L2R: learning to reweight examples.

    θ̂   = θ − α·∇R(θ)                       (the look-ahead from w = 0, no momentum)
    v    = ∇θ̂ [mean CE on the probe batch + R(θ̂)]
    g_i  = ∂P/∂w_i = −α (softmax(z_i) − y_i)·dz_i,   dz = (∂z/∂θ)·v
    w_i  = max(0, −g_i) / (Σ_j max(0, −g_j) + 1e-5)
    θ    ← momentum step along ∇[Σ w_i ℓ_i + R]

Reference: Ren et al., ICML 2018, arXiv 1803.09050. Differs from a literal
implementation: the meta-gradient is one forward product, which equals the second backward pass
through the look-ahead, and the weighted step shares the forward pass over the batch.
"""

from collections.abc import Sequence

from keras import ops

from ieg_core import backend
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import L2RSettings
from ieg_core.methods.losses import softmax_cross_entropy
from ieg_core.methods.method import Batch, Method, Network, State, Tensor, Update, settings_of
from ieg_core.methods.reweighting import clip_weights, weight_meta_gradient


def _update(network: Network, config: Config, state: State, batch: Batch) -> Update:
    settings = settings_of(config, L2RSettings)

    def logits_of(params: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        logits, _, stats = network.forward(params, state.stats, batch.images)
        return logits, stats

    at_batch = backend.linearize(logits_of, state.params)
    logits = at_batch.outputs
    slopes, probe_value = meta_gradient(network, settings, state, batch, at_batch)
    example_weights = clip_weights(slopes, backend.sum_over_replicas)

    per_example_loss = softmax_cross_entropy(logits, batch.labels)
    residuals = ops.softmax(logits) - batch.labels
    gradient = at_batch.backward(example_weights[:, None] * residuals)
    return Update(
        gradients=network.add_decay(gradient, state.params),
        stats=at_batch.auxiliary,
        method=state.method,
        metrics={
            "loss": backend.sum_over_replicas(ops.sum(example_weights * per_example_loss)),
            "probe_loss": probe_value,
        },
        examples={
            "weight": example_weights,
            "given_label_loss": per_example_loss,
            "prediction": ops.softmax(logits),
        },
    )


def meta_gradient(
    network: Network,
    settings: L2RSettings,
    state: State,
    batch: Batch,
    at_batch: backend.Linearization,
) -> tuple[Tensor, Tensor]:
    """Looks one step ahead from w = 0 and differentiates the probe loss there.

    ∂P/∂w_i = −α (softmax(z_i) − y_i)·dz_i

    Args:
      network: The network.
      settings: α.
      state: θ and s.
      batch: Given labels and the probe batch.
      at_batch: f(x) linearized at θ.

    Returns:
      ∂P/∂w, float32 [B], and the mean cross-entropy on the probe batch at θ̂.
    """
    lookahead_params = [
        param - settings.lookahead_lr * slope
        for param, slope in zip(
            state.params,
            network.add_decay([ops.zeros_like(p) for p in state.params], state.params),
            strict=True,
        )
    ]

    def probe_loss(params: Sequence[Tensor]) -> tuple[Tensor, None]:
        logits = network.forward(params, state.stats, batch.probe_images).logits
        return ops.sum(softmax_cross_entropy(logits, batch.probe_labels)) / batch.probe_size, None

    value, _, probe_gradient = backend.gradients(probe_loss, lookahead_params)
    product = at_batch.forward(network.add_decay(probe_gradient, lookahead_params))
    return (
        weight_meta_gradient(at_batch.outputs, batch.labels, product, settings.lookahead_lr),
        value,
    )


L2R = Method(
    update=_update,
    metrics=("loss", "probe_loss"),
    examples=("weight", "given_label_loss", "prediction"),
)
