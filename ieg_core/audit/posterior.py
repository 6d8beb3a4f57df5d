# SPDX-License-Identifier: Apache-2.0
"""The distribution over the classes of an example, given its image and its label.

A network that trained on an example reproduces that example's label too readily, and one that
trained only briefly is not confident enough. Its last layer is therefore corrected with a model of
the noise, on the features φ of the averaged network, and always without the example in question:

    h(x) = softmax(log p(x) + Wφ(x) + b),   T[c, k] = P(given label k | true class c)
    W, b minimize  −Σ_i log Σ_c h_c(x_i) T[c, y_i]  +  λ/2 ‖W‖²     over the other folds
    T    maximizes  Σ_i log Σ_c h_c(x_i) T[c, y_i]                  by EM, h held fixed
    q_i(c) ∝ h_c(x_i) T[c, y_i]                                      the posterior

p is the prediction of the averaged network. The loss is the forward correction of Patrini et al.
(CVPR 2017), equation 7. T is first estimated with p in place of h, because p already separates
right labels from wrong ones, and then once more with h. λ is the precision of a normal prior on the
corrections of standardized features; the more examples there are, the weaker it is.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from ieg_core.data.corruption import expected_matrix
from ieg_core.draws.generator import fold_numbers

FOLDS = 5
ROUNDS = 2
PRIOR_PRECISION = 40.0
MOST_NUMBERS = 2**28
_FIT_STEPS = 100
_EM_STEPS = 30
_LEAST_DEVIATION = 1e-6
_TINY = 1e-12


def is_affordable(examples: int, features: int, classes: int) -> bool:
    """Returns whether a posterior fits into about 2 GiB of memory: n (D + 4 C) ≤ 2²⁸.

    It needs the features of all examples twice in float32, and their distributions over the classes
    four times in float64.
    """
    return examples * (features + 4 * classes) <= MOST_NUMBERS


def label_posterior(
    features: np.ndarray, given: np.ndarray, network: np.ndarray, seed: int
) -> np.ndarray:
    """Estimates the distribution over the classes of each example, given its label.

    Args:
      features: φ, float32 [n, D]; standardized in place.
      given: Given labels y, int [n].
      network: p, the network's predictions, float32 [n, C], rows summing to 1.
      seed: The seed of the folds.

    Returns:
      q, float32 [n, C]; with p in place of h if there are fewer examples than folds.
    """
    predicted, transition = network, estimate_transition(network, given)
    if len(given) >= FOLDS:
        features -= features.mean(0)
        features /= features.std(0) + _LEAST_DEVIATION
        logits = np.log(network + _TINY, dtype=np.float32)
        folds = fold_numbers(given, FOLDS, seed)
        layers = np.zeros((FOLDS, features.shape[1] + 1, network.shape[1]))
        for _ in range(ROUNDS):
            predicted, layers = predict_out_of_fold(
                features, logits, given, transition, folds, layers
            )
            transition = estimate_transition(predicted, given)
    return posterior(predicted, given, transition).astype(np.float32)


def estimate_transition(predicted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Estimates the T that maximizes the likelihood of the given labels, by EM.

        q_i(c) ∝ h_c(x_i) T[c, y_i];   T[c, k] = (1/C + Σ_{i: y_i = k} q_i(c)) / (1 + Σ_i q_i(c))

    Args:
      predicted: h, float [n, C].
      given: Given labels y, int [n].

    Returns:
      T, float64 [C, C], rows summing to 1, after 30 steps from 0.8 on the diagonal. One example's
      weight of the uniform distribution keeps the row of an empty class a distribution.
    """
    classes = predicted.shape[1]
    transition = 0.8 * np.eye(classes) + 0.2 / classes
    for _ in range(_EM_STEPS):
        transition = expected_matrix(posterior(predicted, given, transition), given, prior=1.0)
    return transition


def posterior(predicted: np.ndarray, given: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Returns q, float64 [n, C], for h [n, C], given labels y, int [n], and T [C, C]."""
    joint = predicted * transition.T[given] + _TINY
    return joint / joint.sum(1, keepdims=True)


def predict_out_of_fold(
    features: np.ndarray,
    logits: np.ndarray,
    given: np.ndarray,
    transition: np.ndarray,
    folds: np.ndarray,
    layers: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts each example with a correction that was fitted to the other folds.

    Args:
      features: φ, float32 [n, D], standardized.
      logits: log p, float32 [n, C].
      given: Given labels y, int [n].
      transition: T, [C, C].
      folds: Each example's fold, int [n].
      layers: The starting points: W and, in the last row, b of each fold, [folds, D + 1, C].

    Returns:
      h, float32 [n, C], and the fitted layers, float64, after at most 100 steps of L-BFGS each.
    """
    predicted = np.zeros((len(given), len(transition)), np.float32)
    fitted = np.zeros(layers.shape)
    for fold, start in enumerate(layers):
        inside, outside = folds == fold, folds != fold
        seen = (features[outside], logits[outside], given[outside], transition)
        fitted[fold] = _fit(start, *seen)
        predicted[inside] = _predict(fitted[fold], features[inside], logits[inside])
    return predicted, fitted


def negative_log_likelihood(
    layer: np.ndarray,
    features: np.ndarray,
    logits: np.ndarray,
    given: np.ndarray,
    transition: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Returns the loss of W and b, per example, and its gradient.

    Args:
      layer: W and, in the last row, b; float [D + 1, C].
      features: φ, float [n, D]; arrays of their size are computed in their precision.
      logits: log p, float [n, C].
      given: Given labels y, int [n].
      transition: T, [C, C].

    Returns:
      The mean loss, and its gradient, float64 [D + 1, C]. The derivative of an example's loss by
      the logit z_c is h_c − q(c).
    """
    predicted = _predict(layer, features, logits)
    joint = predicted * transition.T[given].astype(features.dtype) + _TINY
    likelihood = joint.sum(1, keepdims=True)
    errors = predicted - joint / likelihood
    gradient = np.vstack([features.T @ errors, errors.sum(0)]).astype(np.float64)
    gradient[:-1] += PRIOR_PRECISION * layer[:-1]
    loss = PRIOR_PRECISION / 2 * np.sum(layer[:-1] ** 2) - np.log(likelihood).sum(dtype=np.float64)
    return float(loss) / len(given), gradient / len(given)


def _fit(start: np.ndarray, *seen: np.ndarray) -> np.ndarray:
    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = negative_log_likelihood(flat.reshape(start.shape), *seen)
        return value, gradient.ravel()

    options = {"maxiter": _FIT_STEPS}
    optimum: Any = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.reshape(optimum.x, start.shape)


def _predict(layer: np.ndarray, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    layer = layer.astype(features.dtype)
    return softmax(features @ layer[:-1] + layer[-1] + logits, axis=1)
