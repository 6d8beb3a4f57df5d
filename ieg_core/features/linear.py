# SPDX-License-Identifier: Apache-2.0
"""Linear classifiers on features, one for each fold's complement, fitted together.

p(x) = softmax(Wx + b); for each fold f, over the examples outside it,

    W, b minimize  −Σ_i log Σ_c p_c(x_i) E_i(c)  +  ½ Σ_jc λ_j W_jc²

E_i(c) is the probability of what was observed for example i if its class is c. With one label y
and no noise it is 1 at y and 0 elsewhere, which gives logistic regression; with a transition matrix
T it is T[c, y_i], which gives the forward correction of Patrini et al. (CVPR 2017, arXiv
1609.03683, equation 7); with several annotators it is Π_a T_a[c, y_ia].

The fits share no parameters, so a single L-BFGS run over all of them finds the minimum of each,
with a few large matrix products instead of many small ones.
"""

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from ieg_core.features.mapped import release

Layers = NDArray[np.float64]
"""W of each fold, with b as its last row: [F, d + 1, C]."""

NO_FOLD: Final = -1
_BLOCK: Final = 4096
_THREADED_PRODUCT: Final = 1 << 28  # multiplications
_MOST_STEPS: Final = 200
_TOLERANCE: Final = 1e-6
TINY: Final = 1e-12


def fit(
    features: NDArray[np.float32],
    evidence: NDArray[np.float32],
    folds: NDArray[np.int64],
    precision: NDArray[np.float64],
    start: Layers,
) -> Layers:
    """Fits a classifier to the examples outside each fold.

    Args:
      features: float32 [n, d].
      evidence: E, float32 [n, C].
      folds: Each example's fold, int [n] in [0, F); `NO_FOLD` to train all fits on it.
      precision: λ of each feature's weights, float64 [d].
      start: Initial layers, [F, d + 1, C].

    Returns:
      The fitted layers.
    """

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss_and_gradient(
            flat.reshape(start.shape), features, evidence, folds, precision
        )
        return value, gradient.ravel()

    # Threads wait for each other longer than small products take, and all of that time is CPU time.
    product = start.shape[0] * start.shape[2] * start.shape[1] * min(len(features), _BLOCK)
    threads = 1 if product < _THREADED_PRODUCT else None
    options = {"maxiter": _MOST_STEPS, "ftol": _TOLERANCE, "gtol": 0.0}
    with _libraries().limit(limits=threads, user_api="blas"):
        result: Any = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.reshape(result.x, start.shape)


@functools.cache
def _libraries() -> ThreadpoolController:
    """Returns the libraries that have threads: finding them takes longer than a small fit."""
    return ThreadpoolController()


def loss_and_gradient(
    layers: Layers,
    features: NDArray[np.float32],
    evidence: NDArray[np.float32],
    folds: NDArray[np.int64],
    precision: NDArray[np.float64],
) -> tuple[float, Layers]:
    """Returns the objective, summed over folds and divided by the number of examples.

    The derivative of an example's loss with respect to logit z_c is p_c − q(c), q(c) ∝ p_c E(c).

    Args:
      layers: W and b, [F, d + 1, C].
      features: Float [n, d]; their dtype is used for every array of their size.
      evidence: E, float [n, C].
      folds: int [n].
      precision: λ, float64 [d].

    Returns:
      The loss, and its gradient, [F, d + 1, C].
    """
    num_folds, _, classes = layers.shape
    # Classes before examples, so that sums over classes run along whole rows of memory.
    weights = np.ascontiguousarray(layers.transpose(0, 2, 1).reshape(num_folds * classes, -1))
    weights = weights.astype(features.dtype)
    loss = 0.5 * float(np.sum(precision[:, None] * layers[:, :-1] ** 2))
    products = np.zeros_like(weights)
    numbers = np.arange(num_folds)[:, None]
    for begin in range(0, len(features), _BLOCK):
        block = features[begin : begin + _BLOCK]
        fold = folds[begin : begin + _BLOCK]
        seen = (numbers != fold).astype(features.dtype)
        predicted = _softmax(weights, block, num_folds)
        joint = predicted * evidence[begin : begin + _BLOCK].T
        joint += features.dtype.type(TINY)
        likelihood = joint.sum(1)
        loss -= float(np.sum(np.log(likelihood) * seen, dtype=np.float64))
        joint /= likelihood[:, None]
        predicted -= joint
        predicted *= seen[:, None]
        errors = predicted.reshape(num_folds * classes, -1)
        products[:, :-1] += errors @ block
        products[:, -1] += errors.sum(1)
        release(features)
    gradient = products.reshape(num_folds, classes, -1).transpose(0, 2, 1).astype(np.float64)
    gradient[:, :-1] += precision[:, None] * layers[:, :-1]
    return loss / len(features), gradient / len(features)


def predict(
    layers: Layers, features: NDArray[np.float32], folds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Predicts each example with the fit that was not trained on it.

    Args:
      layers: Of each fold, [F, d + 1, C].
      features: float32 [n, d].
      folds: Each example's fold, int [n]; `NO_FOLD` takes the mean over all fits.

    Returns:
      p, float32 [n, C].
    """
    num_folds, _, classes = layers.shape
    weights = layers.transpose(0, 2, 1).reshape(num_folds * classes, -1).astype(features.dtype)
    predicted = np.empty((len(features), classes), features.dtype)
    for begin in range(0, len(features), _BLOCK):
        fold = folds[begin : begin + _BLOCK]
        of_all = _softmax(weights, features[begin : begin + _BLOCK], num_folds)
        chosen = of_all[np.maximum(fold, 0), :, np.arange(len(fold))]
        mean = of_all.mean(0).T
        predicted[begin : begin + _BLOCK] = np.where(fold[:, None] == NO_FOLD, mean, chosen)
        release(features)
    return predicted


def _softmax(weights: np.ndarray, block: np.ndarray, num_folds: int) -> np.ndarray:
    """Returns p, [F, C, n], for weights [F C, d + 1]."""
    logits = weights[:, :-1] @ block.T
    logits += weights[:, -1:]
    logits = logits.reshape(num_folds, -1, len(block))
    logits -= logits.max(1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(1, keepdims=True)
    return logits
