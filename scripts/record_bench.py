# SPDX-License-Identifier: Apache-2.0
"""Which per-example record of a run finds wrong labels best, and does a learned combination?

    python -m scripts.record_bench runs/trials/*-fsr-seed*

Every trial of one method whose true labels are known gives, for each training example outside its
probe, the records of `ieg_core.training.history` and what follows from them; each is turned so that
a high value is suspicious. A combination is a logistic regression on the records' normal scores
Φ⁻¹((rank − ½) / n) within the trial. It is fitted to the trials of all other kinds of noise
(uniform, asymmetric, people's), so that nothing about the kind that it judges has been seen; kinds
weigh the same. Average precision for finding the wrong labels, mean ± sample deviation over seeds.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression

from ieg_core.audit.findings import read_examples
from ieg_core.audit.measures import average_precision
from ieg_core.audit.scores import rival_share
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.host.program import Parser, program
from scripts.tables import Row, to_table

SIGNS = {"weight": -1, "label_coefficient": -1, "margin": -1, "given_label_loss": 1}
POSTERIOR = "1 − q(given)"
ALL, WITHOUT = "all, combined", "all but q, combined"
_TINY = 1e-12


@dataclass(frozen=True)
class Records:
    """What a trial recorded about its training examples.

    Attributes:
      dataset: Its data set.
      suspicion: Scores by the record's name, float [n], high where the label looks wrong.
      wrong: Whether the label is wrong, bool [n].
    """

    dataset: str
    suspicion: Mapping[str, np.ndarray]
    wrong: np.ndarray

    @property
    def kind(self) -> str:
        """The kind of noise: "uniform", "asymmetric" or "people's"."""
        return parse(self.dataset).noise or "people's"

    def scores(self, names: Sequence[str]) -> np.ndarray:
        """Returns the normal scores of some records, float [n, records]."""
        size = len(self.wrong)
        ranks = [rankdata(self.suspicion[name]) for name in names]
        return np.stack([norm.ppf((rank - 0.5) / size) for rank in ranks], axis=1)


def suspicions(examples: Mapping[str, np.ndarray], given: np.ndarray) -> dict[str, np.ndarray]:
    """Turns records into scores.

    Args:
      examples: What the method recorded, one row an example.
      given: Their given labels, int [n].

    Returns:
      Scores by name, float [n], high where the label looks wrong.
    """
    rows = np.arange(len(given))
    found = {}
    for name, sign in SIGNS.items():
        if name in examples:
            found[name if sign > 0 else f"−{name}"] = sign * examples[name].astype(np.float64)
    for name, letter in (("prediction", "p̄"), ("final_prediction", "p")):
        if name in examples:
            believed = examples[name].astype(np.float64)
            found[f"1 − {letter}(given)"] = 1 - believed[rows, given]
            found[f"rival's share of {letter}"] = rival_share(believed, given)
            found[f"entropy of {letter}"] = -(believed * np.log(believed + _TINY)).sum(1)
    if "label_posterior" in examples:
        found[POSTERIOR] = 1 - examples["label_posterior"][rows, given].astype(np.float64)
    return found


def read(folder: Path, data_dir: Path) -> Records:
    """Reads a trial; raises UserError when it cannot be audited or its true labels are unknown."""
    record, label_set, _, examples = read_examples(folder, data_dir)
    if not label_set.spec.clean_labels_known:
        raise UserError(f"{folder} has no known mistakes: expected a trial with drawn noise")
    ids = np.setdiff1d(label_set.train_ids, label_set.probe_ids)
    given = label_set.noisy_labels[ids]
    found = suspicions({name: values[ids] for name, values in examples.items()}, given)
    return Records(record.dataset, found, given != label_set.clean_labels[ids])


def combine(trials: Sequence[Records], judged: Records, names: Sequence[str]) -> np.ndarray | None:
    """Scores a trial by a regression fitted to the trials of the other kinds of noise.

    Returns:
      The score, float [n]; None if there is no other kind.
    """
    others = [trial for trial in trials if trial.kind != judged.kind]
    if not others:
        return None
    sizes = {kind: sum(len(t.wrong) for t in others if t.kind == kind) for kind in
             {trial.kind for trial in others}}  # fmt: skip
    weights = np.concatenate([np.full(len(t.wrong), 1 / sizes[t.kind]) for t in others])
    model = LogisticRegression(max_iter=1000)
    model.fit(
        np.concatenate([trial.scores(names) for trial in others]),
        np.concatenate([trial.wrong for trial in others]),
        sample_weight=weights / weights.mean(),
    )
    return model.decision_function(judged.scores(names))


def measure(trials: Sequence[Records]) -> dict[str, list[Row]]:
    """Returns the average precision of every record and combination: by record, a row a trial."""
    names = [name for name in trials[0].suspicion if all(name in t.suspicion for t in trials)]
    combinations = {ALL: names}
    if POSTERIOR in names:
        combinations = {WITHOUT: [name for name in names if name != POSTERIOR], ALL: names}
    found: dict[str, list[Row]] = {}
    for trial in trials:
        scores = {name: trial.suspicion[name] for name in names}
        for label, used in combinations.items():
            if (score := combine(trials, trial, used)) is not None:
                scores[label] = score
        for name, score in scores.items():
            row = {trial.dataset: average_precision(trial.wrong, score)}
            found.setdefault(name, []).append(row)
    return found


@program("ieg")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of the trials of one method, or with --json an object for each figure."""
    parser = Parser(description=__doc__)
    parser.add_argument("trials", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--json", action="store_true", help="print a JSON object for each figure")
    asked = parser.parse_args(arguments)
    found = measure([read(folder, asked.data_dir) for folder in asked.trials])
    if not asked.json:
        print(to_table(found, "record"))
        return 0
    for record, rows in found.items():
        for row in rows:
            for dataset, value in row.items():
                print(json.dumps({"dataset": dataset, record: value}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
