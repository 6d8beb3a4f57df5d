# SPDX-License-Identifier: Apache-2.0
"""How suspect a label is, from what a method believed the example to be.

    s_i = r_i / (r_i + p̄_i(y_i)),  r_i = max_{c ≠ y_i} p̄_i(c)

p̄_i is what the averaged parameters of ieg and fsr predict for the example at the end, and the mean
of what the network of another method predicted at each of the example's visits, over the whole run
(training.history says why). s is in [0, 1]: the probability of the strongest rival, were only it
and the given class left; above ½ the rival is the label to suggest.

docs/RESULTS.md, "Label audit", compares this score with others on known mistakes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ieg_core.data.corruption import realised_matrix
from ieg_core.errors import UserError

FORMULA = "r / (r + p̄(given class)), r = max p̄(other class)"


@dataclass(frozen=True)
class Scores:
    """What is thought of each training example's label.

    Attributes:
      suggested: The most believed class, int32 [n]; the given one where the example was not seen.
      score: s, float64 [n] in [0, 1]; NaN where the example was not seen.
      visits: How often it was seen, in the last epochs or in what was averaged, int32 [n].
      belief: Where p̄ comes from, in words.
    """

    suggested: np.ndarray
    score: np.ndarray
    visits: np.ndarray
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
    if "final_prediction" in examples:
        believed, visits = examples["final_prediction"], examples["visits"]
        seen = np.ones(len(given), bool)
        belief = "the averaged network's predictions, at the end"
    elif "prediction" in examples:
        believed, visits = examples["prediction"], examples["all_visits"]
        seen = visits > 0
        belief = "the network's predictions, over the whole run"
    else:
        raise UserError(
            "this run recorded no beliefs about its examples: it was trained by an older version; "
            "train it again"
        )
    return Scores(
        suggested=np.where(seen, believed.argmax(1), given).astype(np.int32),
        score=np.where(seen, rival_share(believed, given), np.nan),
        visits=visits.astype(np.int32),
        belief=belief,
    )


def rival_share(believed: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Returns s of distributions p̄, float [n, C], and given labels, int [n]; float64 [n].

    It is ½ where both classes have a probability of 0.
    """
    rows = np.arange(len(given))
    others = believed.astype(np.float64)
    own = others[rows, given]
    others[rows, given] = -np.inf
    rival = others.max(1)
    both = rival + own
    return np.divide(rival, both, where=both > 0, out=np.full(len(given), 0.5))


def estimated_transition(suggested: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    """T̂[true, observed] with the suggested labels for the true ones, each row summing to 1."""
    return realised_matrix(suggested, given, num_classes)
