# SPDX-License-Identifier: Apache-2.0
"""FSR: fast sample re-weighting without reward data.

    z, h  = f(x̃; θ), penultimate features          x̃, ỹ: the batch after MixUp
    Ŵ     = W − α (μ m + ∇W[Σ ℓ_i / B + R])        look-ahead of the dense layer alone
    V, c  = ∇ of the mean CE on a dictionary batch at Ŵ, for kernel and bias, no backbone gradient
    g_i   = ∂P/∂w_i = −α (softmax(z_i) − ỹ_i)·(Vᵀh_i + c)
    w     = clip(g) for noise, shift(g) for imbalance; 1/B before the start epoch
    L     = Σ w_i ℓ_i + weight · mean CE(z_i, softmax(n(q_i)/τ)) + R,  weight 0 before that epoch
    q_i   ← γ n(q_i) + (1 − γ) z_i                 moving logits, from step 0
    r_i   ← β r_i − (1 − β)·[ℓ_i(θ) − ℓ_i(θ̂)]      score; ℓ_i(θ̂) on the unmixed image, own label

After each epoch the dictionary holds the examples with the lowest score of each given class. Label
smoothing is of the dictionary's labels, and of ỹ where nothing is mixed.

Reference: Zhang & Pfister, ICCV 2021, arXiv 2109.03216. Differs from the authors' released code:
the dictionary and the unmixed images are two forward passes, each with its own batch statistics;
the moving weight of a class follows the mean over its examples in the batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from ieg_core import backend
from ieg_core.data.label_set import LabelSet
from ieg_core.draws.generator import generator
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import FSRSettings
from ieg_core.methods.losses import normalize_logits, smooth_labels, softmax_cross_entropy
from ieg_core.methods.method import Batch, Method, Network, State, Tensor, Update, settings_of
from ieg_core.methods.mixup import mix_batch
from ieg_core.methods.reweighting import clip_weights, shift_weights


def _update(network: Network, config: Config, state: State, batch: Batch) -> Update:
    settings = settings_of(config, FSRSettings)
    images, labels = batch.images, smooth_labels(batch.labels, settings.label_smoothing)
    if settings.mixup:
        images, labels = mix_batch(
            batch.images, batch.labels, batch.mixing, backend.gather_replicas
        )

    def logits_of(params: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, Sequence[Tensor]]]:
        logits, features, stats = network.forward(params, state.stats, images)
        return logits, (features, stats)

    at_batch = backend.linearize(logits_of, state.params)
    logits, (features, stats) = at_batch.outputs, at_batch.auxiliary
    residuals = ops.softmax(logits) - labels
    losses = softmax_cross_entropy(logits, labels)

    kernel, bias = lookahead_dense(network, settings, state, features, residuals, batch.size)
    dictionary = network.forward(state.params, state.stats, batch.probe_images).features
    slopes, probe_losses = meta_gradient(
        network, settings, batch, (kernel, bias), dictionary, features, residuals
    )

    weights, class_weights = example_weights(settings, state, batch, slopes)
    started = batch.epoch >= settings.start_epoch
    weights = ops.where(started, weights, 1.0 / batch.size)

    moving = ops.take(state.method["moving_logits"], batch.ids, axis=0)
    moving = normalize_logits(moving, batch.size, backend.sum_over_replicas)
    targets = ops.softmax(moving / settings.pseudo_label_temperature)
    pseudo_weight = ops.where(started, settings.pseudo_label_loss_weight, ops.zeros_like(losses[0]))
    pseudo_slope = pseudo_weight * (ops.softmax(logits) - targets) / batch.size
    gradient = at_batch.backward(weights[:, None] * residuals + pseudo_slope)

    own_features = features
    if settings.mixup:
        own_features = network.forward(state.params, state.stats, batch.images).features
    own_losses = softmax_cross_entropy(own_features @ kernel + bias, batch.labels)
    margin = losses - own_losses

    weighted = backend.sum_over_replicas(ops.sum(weights * losses))
    pseudo = backend.sum_over_replicas(ops.sum(softmax_cross_entropy(logits, targets))) / batch.size
    return Update(
        gradients=network.add_decay(gradient, state.params),
        stats=stats,
        method=_next_state(settings, state, batch, moving, logits, margin, class_weights),
        metrics={
            "loss": weighted + pseudo_weight * pseudo,
            "weighted_loss": weighted,
            "pseudo_label_loss": pseudo,
            "probe_loss": backend.sum_over_replicas(ops.sum(probe_losses)) / batch.probe_size,
        },
        examples={"weight": weights, "margin": margin, "pseudo_label": targets},
    )


def lookahead_dense(
    network: Network,
    settings: FSRSettings,
    state: State,
    features: Tensor,
    residuals: Tensor,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Looks one momentum step ahead with the dense layer only, from w = 1/B.

    ∇W = hᵀ(softmax(z) − ỹ)/B + wd·W,   Ŵ = W − α (μ m + ∇W);   the bias likewise, without decay

    Args:
      network: The positions of the dense layer among the parameters, and wd.
      settings: α, μ.
      state: θ and m.
      features: h, float32 [B, F].
      residuals: softmax(z) − ỹ, float32 [B, C].
      size: B of the global batch.

    Returns:
      Ŵ, float32 [F, C], and the bias, float32 [C].
    """
    kernel_slope, bias_slope = backend.sum_over_replicas(
        [ops.transpose(features) @ residuals / size, ops.sum(residuals, axis=0) / size]
    )
    kernel, bias = (state.params[index] for index in network.head)
    kernel_momentum, bias_momentum = (state.momentum[index] for index in network.head)
    kernel_slope = kernel_slope + network.weight_decay * kernel
    rate, momentum = settings.lookahead_lr, settings.lookahead_momentum
    return (
        kernel - rate * (momentum * kernel_momentum + kernel_slope),
        bias - rate * (momentum * bias_momentum + bias_slope),
    )


def meta_gradient(
    network: Network,
    settings: FSRSettings,
    batch: Batch,
    dense: tuple[Tensor, Tensor],
    dictionary: Tensor,
    features: Tensor,
    residuals: Tensor,
) -> tuple[Tensor, Tensor]:
    """Differentiates the dictionary's loss after the look-ahead with respect to the weights.

    V, c = ∇ [mean CE on the dictionary batch + R] at Ŵ,   g_i = −α (softmax(z_i) − ỹ_i)·(Vᵀh_i + c)

    Args:
      network: wd.
      settings: α, label smoothing.
      batch: Labels and global size of the dictionary batch.
      dense: Ŵ, float32 [F, C], and its bias, float32 [C].
      dictionary: Features of the dictionary batch, float32 [D, F].
      features: Features h of the batch, float32 [B, F].
      residuals: softmax(z) − ỹ of the batch, float32 [B, C].

    Returns:
      g = ∂P/∂w, float32 [B]; and the cross-entropy of each dictionary example at Ŵ, float32 [D].
    """
    kernel, bias = dense
    logits = dictionary @ kernel + bias
    labels = smooth_labels(batch.probe_labels, settings.label_smoothing)
    probe_residuals = (ops.softmax(logits) - labels) / batch.probe_size
    kernel_slope, bias_slope = backend.sum_over_replicas(
        [ops.transpose(dictionary) @ probe_residuals, ops.sum(probe_residuals, axis=0)]
    )
    kernel_slope = kernel_slope + network.weight_decay * kernel
    product = features @ kernel_slope + bias_slope
    return (
        -settings.lookahead_lr * ops.sum(residuals * product, axis=-1),
        softmax_cross_entropy(logits, labels),
    )


def example_weights(
    settings: FSRSettings, state: State, batch: Batch, meta_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Converts the meta-gradient to weights: per example, or the moving weight of its class.

    Args:
      settings: Clip or shift; decay and end epoch of the class weights.
      state: The class weights.
      batch: Labels and epoch.
      meta_gradient: ∂P/∂w, float32 [B].

    Returns:
      w, float32 [B], and the class weights, float32 [C].
    """
    if settings.weighting == "clip":
        weights = clip_weights(meta_gradient, backend.sum_over_replicas)
    else:
        weights = shift_weights(
            meta_gradient,
            batch.size,
            backend.sum_over_replicas,
            lambda values: ops.min(backend.gather_replicas(values)),
        )
    class_weights = state.method["class_weights"]
    if not settings.class_weight_decay:
        return weights, class_weights
    counts, totals = backend.sum_over_replicas(
        [ops.sum(batch.labels, axis=0), ops.sum(batch.labels * weights[:, None], axis=0)]
    )
    decay = settings.class_weight_decay
    moved = decay * class_weights + (1.0 - decay) * totals / ops.maximum(counts, 1.0)
    moves = counts > 0
    if settings.class_weight_end_epoch:
        moves = ops.logical_and(moves, batch.epoch < settings.class_weight_end_epoch)
    class_weights = ops.where(moves, moved, class_weights)
    return ops.sum(batch.labels * class_weights, axis=-1), class_weights


def _next_state(
    settings: FSRSettings,
    state: State,
    batch: Batch,
    moving: Tensor,
    logits: Tensor,
    margin: Tensor,
    class_weights: Tensor,
) -> dict[str, Tensor]:
    """Updates scores and moving logits of the batch's examples, each of which is in it once."""
    scores = ops.take(state.method["scores"], batch.ids, axis=0)
    scores = settings.score_decay * scores - (1.0 - settings.score_decay) * margin
    decay = settings.moving_logits_decay
    rows = backend.gather_replicas(batch.ids)[:, None]

    def put(name: str, values: Tensor) -> Tensor:
        gathered = backend.gather_replicas(ops.stop_gradient(values))
        return ops.scatter_update(state.method[name], rows, gathered)

    return {
        "scores": put("scores", scores),
        "scored": put("scored", ops.ones_like(scores)),
        "moving_logits": put("moving_logits", decay * moving + (1.0 - decay) * logits),
        "class_weights": class_weights,
        "dictionary": state.method["dictionary"],
    }


def init(config: Config, label_set: LabelSet) -> dict[str, Any]:
    """Returns FSR's state at step 0; the dictionary is a random class-balanced draw.

    Returns:
      "scores" and "scored" float32 [N], "moving_logits" float32 [N, C], "class_weights" float32
      [C], and "dictionary" int32 [capacity], class after class.

    Raises:
      UserError: When the capacity does not fit the classes, or no example has one of their labels.
    """
    settings = settings_of(config, FSRSettings)
    settings.check_classes(label_set.num_classes)
    absent = np.setdiff1d(
        np.arange(label_set.num_classes), label_set.noisy_labels[label_set.train_ids]
    )
    if len(absent):
        raise UserError(
            f"no training example of {label_set.spec} is given the label "
            f"{label_set.class_names[absent[0]]!r}: expected examples of every given label for the "
            "dictionary of fsr; lower the noise, or choose another method"
        )
    num_examples = len(label_set.noisy_labels)
    order = generator(config.seed, "first dictionary").random(num_examples)
    first = best_of_each_class(
        order, np.ones(num_examples, bool), label_set, settings.capacity, np.zeros(0, np.int32)
    )
    return {
        "scores": np.zeros(num_examples, np.float32),
        "scored": np.zeros(num_examples, np.float32),
        "moving_logits": np.zeros((num_examples, label_set.num_classes), np.float32),
        "class_weights": np.full(label_set.num_classes, 1 / config.batch_size, np.float32),
        "dictionary": first,
    }


def best_of_each_class(
    scores: np.ndarray,
    eligible: np.ndarray,
    label_set: LabelSet,
    capacity: int,
    present: np.ndarray,
) -> np.ndarray:
    """Picks the examples with the lowest score of each given class.

    Args:
      scores: r, float [N].
      eligible: Which examples may be picked, bool [N]; only training examples ever are.
      label_set: Given labels and training examples.
      capacity: Total number of examples; capacity / C per class.
      present: The current dictionary, [capacity]; a class without an eligible example keeps its
        part.

    Returns:
      Indices, int32 [capacity], class by class; a class with fewer eligible examples than places
      repeats them, starting with its best.
    """
    places = capacity // label_set.num_classes
    pool = label_set.train_ids[eligible[label_set.train_ids]]
    chosen = []
    for number in range(label_set.num_classes):
        members = pool[label_set.noisy_labels[pool] == number]
        if len(members):
            best = members[np.argsort(scores[members], kind="stable")][:places]
            chosen.append(np.resize(best, places))
        else:
            chosen.append(present[number * places : (number + 1) * places])
    return np.concatenate(chosen).astype(np.int32)


def after_epoch(config: Config, label_set: LabelSet, state: dict[str, Any]) -> dict[str, Any]:
    """Refills the dictionary with the examples of lowest score; unscored ones are not eligible."""
    dictionary = best_of_each_class(
        state["scores"],
        state["scored"] > 0,
        label_set,
        settings_of(config, FSRSettings).capacity,
        state["dictionary"],
    )
    return {"dictionary": dictionary}


FSR = Method(
    update=_update,
    metrics=("loss", "weighted_loss", "pseudo_label_loss", "probe_loss"),
    examples=("weight", "margin", "pseudo_label"),
    init=init,
    after_epoch=after_epoch,
)
