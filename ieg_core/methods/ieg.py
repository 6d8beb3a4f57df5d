# SPDX-License-Identifier: Apache-2.0
"""IEG: distilling effective supervision from severe label noise.

    ĝ    = sharpen(½ softmax(n(f(x))) + ½ softmax(n(f(x′))))        pseudo-labels from two views
    ỹ    = λ⁰ y + (1 − λ⁰) ĝ,  w⁰ = 1/B
    θ̂    = θ − α (μ m + ∇[Σ w⁰ ℓ(z_i, ỹ_i) + R])                    one look-ahead
    v    = ∇θ̂ [mean CE on the probe batch + R(θ̂)],  dz = (∂z/∂θ)·v
    w    = clip(∂P/∂w),  λ* = 1 where ∂P/∂λ < 0, else 0,  y* = λ* y + (1 − λ*) ĝ
    L    = ½ [mean CE(z, y*) + Σ w_i CE(z_i, ỹ_i)] + L_mix + k·mean KL(softmax z ‖ softmax z′) + R
    L_mix = mean CE(probe block) + p·mean CE(both views' blocks), over MixUp of probe, x and x′

With `centered_pseudo_labels` (not in the paper), ĝ comes from n(z − z̄) and n(z′ − z̄′), z̄ the
batch's mean logits. `ieg_no_lookahead` keeps w = 1/B and λ = λ⁰: it measures the other losses
without the look-ahead.

Reference: Zhang et al., CVPR 2020, arXiv 1910.00701. Differs from the authors' released code: the
pseudo-labels are constant in the look-ahead; MixUp coefficients are Beta(½, ½) exactly; the strong
view starts from the raw image. docs/original-flags.md has the sources.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from keras import ops

from ieg_core import backend
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import IEGSettings
from ieg_core.methods.losses import kl_divergence, normalize_logits, sharpen, softmax_cross_entropy
from ieg_core.methods.method import Batch, Method, Network, State, Tensor, Update, settings_of
from ieg_core.methods.mixup import mix_blocks
from ieg_core.methods.reweighting import clip_weights, label_meta_gradient, weight_meta_gradient


class Supervision(NamedTuple):
    """The decisions of the look-ahead.

    Attributes:
      example_weights: w, float32 [B].
      label_coefficients: λ*, float32 [B], each 0 or 1.
      probe_loss: Mean cross-entropy on the probe batch at θ̂.
    """

    example_weights: Tensor
    label_coefficients: Tensor
    probe_loss: Tensor


class MetaGradient(NamedTuple):
    """The gradients of the look-ahead.

    Attributes:
      example_weights: ∂P/∂w at w⁰ and λ⁰, float32 [B].
      label_coefficients: ∂P/∂λ at w⁰ and λ⁰, float32 [B].
      probe_loss: Mean cross-entropy on the probe batch at θ̂.
    """

    example_weights: Tensor
    label_coefficients: Tensor
    probe_loss: Tensor


def _update(
    network: Network, config: Config, state: State, batch: Batch, *, look_ahead: bool
) -> Update:
    settings = settings_of(config, IEGSettings)

    def logits_of(images: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        logits, _, stats = network.forward(params, state.stats, images)
        return logits, stats

    weak = backend.linearize(functools.partial(logits_of, batch.images), state.params)
    strong = backend.linearize(functools.partial(logits_of, batch.strong_images), state.params)
    weak_logits, strong_logits = weak.outputs, strong.outputs
    if settings.centered_pseudo_labels:
        weak_logits = center_logits(weak_logits, batch.size)
        strong_logits = center_logits(strong_logits, batch.size)
    pseudo_labels = guess_labels(weak_logits, strong_logits, settings.temperature, batch.size)

    share = settings.initial_label_coefficient
    targets = share * batch.labels + (1.0 - share) * pseudo_labels
    probabilities = ops.softmax(weak.outputs)
    if look_ahead:
        supervision = distill(
            meta_gradient(network, settings, state, batch, weak, pseudo_labels, targets)
        )
        trust = supervision.label_coefficients[:, None]
        relabeled = trust * batch.labels + (1.0 - trust) * pseudo_labels
    else:
        even = ops.full_like(probabilities[:, 0], 1.0 / batch.size)
        supervision = Supervision(even, ops.full_like(even, share), ops.zeros(()))
        relabeled = targets

    weights = supervision.example_weights[:, None]
    supervised_slope = 0.5 * (
        (probabilities - relabeled) / batch.size + weights * (probabilities - targets)
    )
    gradient = weak.backward(supervised_slope)
    metrics = {
        "probe_loss": supervision.probe_loss,
        "relabelled_loss": _mean(softmax_cross_entropy(weak.outputs, relabeled), batch.size),
        "weighted_loss": backend.sum_over_replicas(
            ops.sum(supervision.example_weights * softmax_cross_entropy(weak.outputs, targets))
        ),
        "mix_probe_loss": ops.zeros(()),
        "mix_pseudo_label_loss": ops.zeros(()),
        "consistency_loss": ops.zeros(()),
    }

    if settings.pseudo_label_loss_weight:
        mix_gradient, mix_metrics = mix_loss(network, settings, state, batch, pseudo_labels)
        gradient = _add(gradient, mix_gradient)
        metrics |= mix_metrics
    if settings.consistency_loss_weight:
        divergence = kl_divergence(weak.outputs, strong.outputs)
        slope = (ops.softmax(strong.outputs) - probabilities) / batch.size
        gradient = _add(gradient, strong.backward(settings.consistency_loss_weight * slope))
        metrics["consistency_loss"] = _mean(divergence, batch.size)

    metrics["loss"] = (
        0.5 * (metrics["relabelled_loss"] + metrics["weighted_loss"])
        + metrics["mix_probe_loss"]
        + settings.pseudo_label_loss_weight * metrics["mix_pseudo_label_loss"]
        + settings.consistency_loss_weight * metrics["consistency_loss"]
    )
    return Update(
        gradients=network.add_decay(gradient, state.params),
        stats=weak.auxiliary,
        method=state.method,
        metrics=metrics,
        examples={
            "weight": supervision.example_weights,
            "label_coefficient": supervision.label_coefficients,
            "pseudo_label": pseudo_labels,
        },
    )


def center_logits(logits: Tensor, size: int) -> Tensor:
    """Subtracts the mean over the global batch: z − z̄.

    What all images have in common then says nothing about their classes (docs/early-collapse.md).

    Args:
      logits: z, float32 [B, C], this replica's rows.
      size: B of the global batch.

    Returns:
      float32 [B, C].
    """
    return logits - backend.sum_over_replicas(ops.sum(logits, axis=0)) / size


def guess_labels(
    weak_logits: Tensor, strong_logits: Tensor, temperature: float, size: int
) -> Tensor:
    """Computes pseudo-labels from two views: ĝ = sharpen(½ softmax(n(z)) + ½ softmax(n(z′)), T).

    Args:
      weak_logits: z, float32 [B, C].
      strong_logits: z′, float32 [B, C].
      temperature: T.
      size: B of the global batch.

    Returns:
      ĝ, float32 [B, C]; no gradient flows through it.
    """
    guesses = [
        ops.softmax(normalize_logits(logits, size, backend.sum_over_replicas))
        for logits in (weak_logits, strong_logits)
    ]
    return ops.stop_gradient(sharpen(0.5 * (guesses[0] + guesses[1]), temperature))


def meta_gradient(
    network: Network,
    settings: IEGSettings,
    state: State,
    batch: Batch,
    weak: backend.Linearization,
    pseudo_labels: Tensor,
    targets: Tensor,
) -> MetaGradient:
    """Looks one step ahead from w⁰ and λ⁰ and differentiates the probe loss there.

    ∂P/∂w_i = −α (softmax(z_i) − ỹ_i)·dz_i,   ∂P/∂λ_i = −α w⁰_i (ĝ_i − y_i)·dz_i

    Args:
      network: The network.
      settings: α, μ.
      state: θ, m and s.
      batch: Given labels and the probe batch.
      weak: f(x) linearized at θ.
      pseudo_labels: ĝ, float32 [B, C].
      targets: ỹ, float32 [B, C].

    Returns:
      Both gradients, with ĝ held constant, and the probe loss at θ̂.
    """
    residuals = ops.softmax(weak.outputs) - targets
    slopes = network.add_decay(weak.backward(residuals / batch.size), state.params)
    lookahead_params = [
        param - settings.lookahead_lr * (settings.lookahead_momentum * buffer + slope)
        for param, buffer, slope in zip(state.params, state.momentum, slopes, strict=True)
    ]

    def probe_loss(params: Sequence[Tensor]) -> tuple[Tensor, None]:
        logits = network.forward(params, state.stats, batch.probe_images).logits
        losses = softmax_cross_entropy(logits, batch.probe_labels)
        return ops.sum(losses) / batch.probe_size, None

    value, _, probe_gradient = backend.gradients(probe_loss, lookahead_params)
    product = weak.forward(network.add_decay(probe_gradient, lookahead_params))
    return MetaGradient(
        weight_meta_gradient(weak.outputs, targets, product, settings.lookahead_lr),
        label_meta_gradient(
            batch.labels, pseudo_labels, product, 1.0 / batch.size, settings.lookahead_lr
        ),
        value,
    )


def distill(gradient: MetaGradient) -> Supervision:
    """Returns w = clip(∂P/∂w), and λ* = 1 where ∂P/∂λ < 0, else 0."""
    return Supervision(
        clip_weights(gradient.example_weights, backend.sum_over_replicas),
        ops.cast(gradient.label_coefficients < 0, gradient.label_coefficients.dtype),
        gradient.probe_loss,
    )


def mix_loss(
    network: Network,
    settings: IEGSettings,
    state: State,
    batch: Batch,
    pseudo_labels: Tensor,
) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
    """Computes the MixUp loss over probe examples and both views, in one forward pass.

    L_mix = mean CE(n(probe block)) + p·mean CE(n(x block), n(x′ block))

    Args:
      network: The network.
      settings: p.
      state: θ and s.
      batch: Both views, the probe batch, MixUp's draws.
      pseudo_labels: ĝ, the labels of both views, float32 [B, C].

    Returns:
      ∇θ L_mix, and its two means.
    """
    if batch.mixing is None:
        raise TypeError("mixing is None: expected the draws for MixUp")
    probe_images = backend.gather_replicas(batch.probe_images)
    probe_labels = backend.gather_replicas(batch.probe_labels)
    choice = batch.mixing.probe_choice
    images, labels = mix_blocks(
        [ops.take(probe_images, choice, axis=0), batch.images, batch.strong_images],
        [ops.take(probe_labels, choice, axis=0), pseudo_labels, pseudo_labels],
        batch.mixing.partners,
        batch.mixing.coefficients,
        backend.gather_replicas,
    )
    inputs = backend.concatenate(images)

    def loss(params: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits = backend.split(network.forward(params, state.stats, inputs).logits, 3)
        probe, *views = (
            ops.sum(
                softmax_cross_entropy(
                    normalize_logits(block, batch.size, backend.sum_over_replicas), target
                )
            )
            / batch.size
            for block, target in zip(logits, labels, strict=True)
        )
        pseudo = 0.5 * (views[0] + views[1])
        return probe + settings.pseudo_label_loss_weight * pseudo, (probe, pseudo)

    _, (probe, pseudo), gradient = backend.gradients(loss, state.params)
    return gradient, {
        "mix_probe_loss": backend.sum_over_replicas(probe),
        "mix_pseudo_label_loss": backend.sum_over_replicas(pseudo),
    }


def _mean(per_example: Tensor, size: int) -> Tensor:
    return backend.sum_over_replicas(ops.sum(per_example)) / size


def _add(one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]


_METRICS = (
    "loss",
    "relabelled_loss",
    "weighted_loss",
    "mix_probe_loss",
    "mix_pseudo_label_loss",
    "consistency_loss",
    "probe_loss",
)
_EXAMPLES = ("weight", "label_coefficient", "pseudo_label")

IEG = Method(functools.partial(_update, look_ahead=True), _METRICS, _EXAMPLES)
IEG_NO_LOOKAHEAD = Method(functools.partial(_update, look_ahead=False), _METRICS, _EXAMPLES)
