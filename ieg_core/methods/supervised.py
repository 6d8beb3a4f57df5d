# SPDX-License-Identifier: Apache-2.0
"""Plain training, the baselines and two ablations.

    L = Σ_i ℓ_i / B + R
    θ ← momentum step along ∇L

`supervised` takes the weak view of the noisy set, `supervised_strong` the strong one, `mixup` mixes
images and labels first (arXiv 1710.09412; Beta(½, ½), partners and coefficients per example), and
`probe_only` takes the clean probe set alone: with few clean labels, this ablation shows how much of
a method's accuracy comes from the probe set itself.
"""

from collections.abc import Sequence

from keras import ops

from ieg_core import backend
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import SupervisedSettings
from ieg_core.methods.losses import smooth_labels, softmax_cross_entropy
from ieg_core.methods.method import Batch, Method, Network, State, Tensor, Update, settings_of
from ieg_core.methods.mixup import mix_batch


def _step(
    network: Network,
    config: Config,
    state: State,
    images: Tensor,
    labels: Tensor,
    size: int,
    given: Tensor | None,
) -> Update:
    """Makes one step of plain training; `fit_targets` on smoothed labels."""
    smoothing = settings_of(config, SupervisedSettings).label_smoothing
    targets = smooth_labels(labels, smoothing)
    return fit_targets(network, state, images, targets, size, given)


def fit_targets(
    network: Network,
    state: State,
    images: Tensor,
    targets: Tensor,
    size: int,
    given: Tensor | None,
    adjustment: Tensor | None = None,
) -> Update:
    """Makes one step on the cross-entropy with any targets.

    Args:
      network: The network.
      state: The point at which to differentiate.
      images: float32 [B, H, W, channels].
      targets: Distributions over the classes, float32 [B, C].
      size: Number of examples in the global batch.
      given: Given labels of the noisy set's examples, float32 [B, C], for the per-example values;
        None if the batch is not from the noisy set.
      adjustment: Added to the logits in the loss alone, float32 [C]; None for nothing.

    Returns:
      The gradient of Σ ℓ_i / size + R, and the loss without R as the only metric.
    """

    def loss(params: Sequence[Tensor]) -> tuple[Tensor, tuple[Sequence[Tensor], Tensor]]:
        logits, _, stats = network.forward(params, state.stats, images)
        adjusted = logits if adjustment is None else logits + adjustment
        return ops.sum(softmax_cross_entropy(adjusted, targets)) / size, (stats, logits)

    value, (stats, logits), gradient = backend.gradients(loss, state.params)
    return Update(
        gradients=network.add_decay(gradient, state.params),
        stats=stats,
        method=state.method,
        metrics={"loss": value},
        examples={} if given is None else per_example_values(logits, given),
    )


def per_example_values(logits: Tensor, given: Tensor) -> dict[str, Tensor]:
    """Returns the per-example values of a method without weights.

    Args:
      logits: z, float32 [B, C].
      given: Given labels, one-hot float32 [B, C].

    Returns:
      "given_label_loss" [B] and "prediction" [B, C], the softmax of z.
    """
    return {
        "given_label_loss": softmax_cross_entropy(logits, given),
        "prediction": ops.softmax(logits),
    }


def _update_noisy(network: Network, config: Config, state: State, batch: Batch) -> Update:
    return _step(network, config, state, batch.images, batch.labels, batch.size, batch.labels)


def _update_mixed(network: Network, config: Config, state: State, batch: Batch) -> Update:
    images, labels = mix_batch(batch.images, batch.labels, batch.mixing, backend.gather_replicas)
    return _step(network, config, state, images, labels, batch.size, batch.labels)


def _update_probe(network: Network, config: Config, state: State, batch: Batch) -> Update:
    return _step(
        network, config, state, batch.probe_images, batch.probe_labels, batch.probe_size, given=None
    )


PER_EXAMPLE = ("given_label_loss", "prediction")

SUPERVISED = Method(update=_update_noisy, examples=PER_EXAMPLE)
MIXUP = Method(update=_update_mixed, examples=PER_EXAMPLE)
PROBE_ONLY = Method(update=_update_probe)
