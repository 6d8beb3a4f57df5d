# SPDX-License-Identifier: Apache-2.0
"""How suspect a label is, from what a method believed the example to be.

For ieg and fsr, the probability that the label is wrong:

    s_i = 1 − q_i(y_i)

q_i is the distribution over the classes given the image and its label y_i
(`training.label_posterior`). For other methods, the probability of the strongest rival, were only
it and the given class left:

    s_i = r_i / (r_i + p̄_i(y_i)),  r_i = max_{c ≠ y_i} p̄_i(c)

p̄_i is the mean of what the network predicted at each of the example's visits, over the whole run
(training.history says why). s is in [0, 1]; up to ½ the given class is the most believed one.

How classes were mistaken, T̂[true, observed], is counted with the likeliest class of each example
for its true one; from q, each example counts for every class with its probability.

docs/RESULTS.md, "Label audit", compares these scores with others on known mistakes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ieg_core.data.corruption import expected_matrix, realized_matrix
from ieg_core.errors import UserError

OF_POSTERIOR = "1 − q(given class)"
OF_PREDICTION = "p̄(rival) / (p̄(rival) + p̄(given class)), the rival being the likeliest other class"


@dataclass(frozen=True)
class Scores:
    """What is thought of each training example's label.

    Attributes:
      suggested: The most believed class, int32 [n]; the given one where the example was not seen.
      score: s, float64 [n] in [0, 1]; NaN where the example was not seen.
      visits: How often it was seen, in the last epochs or in what was averaged, int32 [n].
      transition: T̂[true, observed], float64 [C, C], each row summing to 1 (0 for an empty class).
      formula: How it is computed.
      belief: What the distribution in the formula is, in words.
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
      examples: What the method said of them (`training.history`), one row each.
      given: Their given labels, int [n].

    Returns:
      The scores.

    Raises:
      UserError: No distribution over the classes was recorded.
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
            "this run recorded no beliefs about its examples: it was trained by an older version; "
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
    """Returns the rival's share in distributions p̄, float [n, C]; given labels, int [n].

    Returns:
      float64 [n]; ½ where both classes have a probability of 0.
    """
    rows = np.arange(len(given))
    others = believed.astype(np.float64)
    own = others[rows, given]
    others[rows, given] = -np.inf
    rival = others.max(1)
    both = rival + own
    return np.divide(rival, both, where=both > 0, out=np.full(len(given), 0.5))
