# SPDX-License-Identifier: Apache-2.0
"""How suspicious a label is, from the classes that a method predicted for the example.

For ieg and fsr, the probability that the label is wrong:

    s_i = 1 − q_i(y_i)

q_i is the distribution over the classes given the image and its label y_i (`audit.posterior`). For
other methods, the probability of the strongest rival if only it and the given class were possible:

    s_i = r_i / (r_i + p̄_i(y_i)),  r_i = max_{c ≠ y_i} p̄_i(c)

p̄_i is the mean of the network's predictions at the example's visits, over the whole run
(`training.history` gives the reason). s is in [0, 1]; up to ½ the given class is the most likely.

The transition matrix T̂[true, observed] counts the most likely class of each example as its true
one; with q, an example counts for every class with its probability.

docs/RESULTS.md, "Label audit", compares these scores with others on known wrong labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ieg_core.data.corruption import expected_matrix, realized_matrix
from ieg_core.errors import UserError

OF_POSTERIOR = "1 − q(given class)"
OF_PREDICTION = (
    "p̄(rival) / (p̄(rival) + p̄(given class)), the rival being the most likely other class"
)


@dataclass(frozen=True)
class Scores:
    """The scores of the training examples' labels.

    Attributes:
      suggested: The most likely class, int32 [n]; the given one if the example was not seen.
      score: s, float64 [n] in [0, 1]; NaN if the example was not seen.
      visits: Number of visits, in the last epochs or in what was averaged, int32 [n].
      transition: T̂[true, observed], float64 [C, C], each row summing to 1 (0 for an empty class).
      formula: The formula of the score.
      belief: The distribution in the formula, in words.
    """

    suggested: np.ndarray
    score: np.ndarray
    visits: np.ndarray
    transition: np.ndarray
    formula: str
    belief: str


def score_examples(examples: Mapping[str, np.ndarray], given: np.ndarray) -> Scores:
    """Scores the labels of examples.

    Args:
      examples: What the method recorded about them (`training.history`), one row each.
      given: Their given labels, int [n].

    Returns:
      The scores.

    Raises:
      UserError: When no distribution over the classes was recorded.
    """
    if "label_posterior" in examples:
        believed, visits = examples["label_posterior"], examples["visits"]
        seen = np.ones(len(given), bool)
        score = 1 - believed[np.arange(len(given)), given].astype(np.float64)
        formula = OF_POSTERIOR
        belief = "q: the classes' distribution given the image's features and its label"
    elif "final_prediction" in examples:
        believed, visits = examples["final_prediction"], examples["visits"]
        seen = np.ones(len(given), bool)
        score, formula = rival_share(believed, given), OF_PREDICTION
        belief = "p̄: the averaged network's predictions, at the end"
    elif "prediction" in examples:
        believed, visits = examples["prediction"], examples["all_visits"]
        seen = visits > 0
        score, formula = rival_share(believed, given), OF_PREDICTION
        belief = "p̄: the network's predictions, averaged over the whole run"
    else:
        raise UserError(
            "this run has no predictions for its examples: it was trained by an older version; "
            "train it again"
        )
    suggested = np.where(seen, believed.argmax(1), given).astype(np.int32)
    if "label_posterior" in examples:
        transition = expected_matrix(believed, given)
    else:
        transition = realized_matrix(suggested[seen], given[seen], believed.shape[1])
    return Scores(
        suggested=suggested,
        score=np.where(seen, score, np.nan),
        visits=visits.astype(np.int32),
        transition=transition,
        formula=formula,
        belief=belief,
    )


def rival_share(believed: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Computes r / (r + p̄(y)), with r the largest p̄ of a class other than y.

    Args:
      believed: p̄, float [n, C].
      given: Given labels y, int [n].

    Returns:
      float64 [n]; ½ where both classes have a probability of 0.
    """
    rows = np.arange(len(given))
    others = believed.astype(np.float64)
    of_given = others[rows, given]
    others[rows, given] = -np.inf
    rival = others.max(1)
    both = rival + of_given
    return np.divide(rival, both, where=both > 0, out=np.full(len(given), 0.5))
