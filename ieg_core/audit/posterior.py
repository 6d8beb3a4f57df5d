# SPDX-License-Identifier: Apache-2.0
"""Which class an example is of, given its image and the label it came with.

A network that trained on an example says too much of what that example's label told it, and one
whose training was short says too little of what it has learnt. So its last layer is corrected, with
noise in the model, on the features φ of the averaged network, and always without the example it is
asked about:

    h(x) = softmax(log p(x) + Wφ(x) + b),   T[c, k] = P(given label k | true class c)
    W, b minimise  −Σ_i log Σ_c h_c(x_i) T[c, y_i]  +  λ/2 ‖W‖²     over the other folds
    T    maximises  Σ_i log Σ_c h_c(x_i) T[c, y_i]                  by EM, h held fixed
    q_i(c) ∝ h_c(x_i) T[c, y_i]                                      the posterior

p is what the averaged network predicts. The loss is the forward correction of Patrini et al. (CVPR
2017), equation 7. T is first found with p in h's place, which knows right labels from wrong ones by
the method that trained it, and then once more from h. λ is the precision of a normal prior on the
corrections, features being standardised: the more examples there are, the less it binds.
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
    """Returns whether a posterior can be made in about 2 GiB of memory: n (D + 4 C) ≤ 2²⁸.

    Twice the features of all examples are held in float32, and four times their distributions over
    the classes in float64.
    """
    return examples * (features + 4 * classes) <= MOST_NUMBERS


def label_posterior(
    features: np.ndarray, given: np.ndarray, own: np.ndarray, seed: int
) -> np.ndarray:
    """Estimates the distribution over the classes of each example, given its label.

    Args:
      features: φ, float32 [n, D]; standardised in place.
      given: Given labels y, int [n].
      own: p, the network's own predictions, float32 [n, C], rows summing to 1.
      seed: Of the folds.

    Returns:
      q, float32 [n, C]; with p in h's place where there are fewer examples than folds.
    """
    predicted, transition = own, estimate_transition(own, given)
    if len(given) >= FOLDS:
        features -= features.mean(0)
        features /= features.std(0) + _LEAST_DEVIATION
        logits = np.log(own + _TINY, dtype=np.float32)
        folds = fold_numbers(given, FOLDS, seed)
        layers = np.zeros((FOLDS, features.shape[1] + 1, own.shape[1]))
        for _ in range(ROUNDS):
            predicted, layers = predict_out_of_fold(
                features, logits, given, transition, folds, layers
            )
            transition = estimate_transition(predicted, given)
    return posterior(predicted, given, transition).astype(np.float32)


def estimate_transition(predicted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Finds the T under which the given labels are likeliest, by EM.

        q_i(c) ∝ h_c(x_i) T[c, y_i];   T[c, k] = (1/C + Σ_{i: y_i = k} q_i(c)) / (1 + Σ_i q_i(c))

    Args:
      predicted: h, float [n, C].
      given: Given labels y, int [n].

    Returns:
      T, float64 [C, C], rows summing to 1: after 30 steps from four fifths on the diagonal. One
      example's worth of the uniform distribution keeps the row of an empty class one.
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
    """Predicts each example by a correction that was fitted to the other folds.

    Args:
      features: φ, float32 [n, D], standardised.
      logits: log p, float32 [n, C].
      given: Given labels y, int [n].
      transition: T, [C, C].
      folds: Each example's fold, int [n].
      layers: Where the fits start: W and, in the last row, b of each fold, [folds, D + 1, C].

    Returns:
      h, float32 [n, C], and the fitted layers, float64, after at most 100 steps of L-BFGS each.
    """
    predicted = np.zeros((len(given), len(transition)), np.float32)
    fitted = np.zeros(layers.shape)
    for fold, start in enumerate(layers):
        own, others = folds == fold, folds != fold
        seen = (features[others], logits[others], given[others], transition)
        fitted[fold] = _fit(start, *seen)
        predicted[own] = _predict(fitted[fold], features[own], logits[own])
    return predicted, fitted


def negative_log_likelihood(
    layer: np.ndarray,
    features: np.ndarray,
    logits: np.ndarray,
    given: np.ndarray,
    transition: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Returns what W and b minimise, over the number of examples, and its gradient.

    Args:
      layer: W and, in the last row, b; float [D + 1, C].
      features: φ, float [n, D]; what is as large as they are is computed in their precision.
      logits: log p, float [n, C].
      given: Given labels y, int [n].
      transition: T, [C, C].

    Returns:
      The mean loss, and float64 [D + 1, C]. By a logit z_c, the loss of an example has the
      derivative h_c − q(c).
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
    found: Any = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.reshape(found.x, start.shape)


def _predict(layer: np.ndarray, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    own = layer.astype(features.dtype)
    return softmax(features @ own[:-1] + own[-1] + logits, axis=1)
