# SPDX-License-Identifier: Apache-2.0
"""What the audit of a finished trial finds, from the files in its folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ieg_core.audit.measures import auroc, average_precision, precision_recall
from ieg_core.audit.scores import Scores, score_examples
from ieg_core.data.base import Source
from ieg_core.data.corruption import realized_matrix
from ieg_core.data.label_set import LabelSet, load_label_set
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import from_dict
from ieg_core.experiment.methods import METHODS
from ieg_core.host.files import read_json
from ieg_core.store.layout import label_sets_folder

EXAMPLES = "examples.safetensors"
RECORD = {"base", "trial", "config", "dataset", "method", "label_set", "seed"}
THRESHOLD = 0.5


@dataclass(frozen=True)
class Audit:
    """What an audit found, the most suspect example first.

    Attributes:
      record: The trial's config.json.
      label_set: Its prepared data set.
      source: The images under it.
      ids: Indices of its training examples in the base data set, int [n].
      given: Their given labels, int32 [n].
      scores: Their scores, in the same order.
      clean: Their true labels where these are known and differ from the given ones at all, else
        None.
      threshold: From which score on a label is called wrong.
    """

    record: Mapping[str, Any]
    label_set: LabelSet
    source: Source
    ids: np.ndarray
    given: np.ndarray
    scores: Scores
    clean: np.ndarray | None
    threshold: float

    @property
    def flagged(self) -> np.ndarray:
        """Which labels are called wrong, bool [n]: high score, and another class to suggest."""
        return (self.scores.score >= self.threshold) & (self.scores.suggested != self.given)


def is_available(folder: Path) -> bool:
    """Returns whether a trial can be audited: trained, by a method that sees the noisy set."""
    return (folder / EXAMPLES).exists()


def read_audit(folder: Path, data_dir: Path, threshold: float) -> Audit:
    """Scores the training examples of a finished trial.

    Raises:
      UserError: See `ieg_core.audit.write.audit_trial`.
    """
    record = read_json(folder / "config.json")
    if record is None or folder.parent.name != "trials":
        raise UserError(
            f"{folder} is no run: expected a folder such as runs/trials/…, with a config.json in "
            "it, or a sweep's, such as runs/latest"
        )
    if not isinstance(record, dict) or not record.keys() >= RECORD:
        raise UserError(
            f"{folder / 'config.json'} is damaged: it lacks {', '.join(sorted(RECORD))} or some of "
            "them; train the trial again"
        )
    method = record["method"]
    if method in METHODS and not METHODS[method].trains_on_noisy:
        raise UserError(
            f"an audit of {method} is not available: it never sees the noisy labels; audit another "
            "method's run"
        )
    if not (folder / EXAMPLES).exists():
        state = "is from an older version" if (folder / "training.json").exists() else "is not done"
        raise UserError(
            f"{folder} has no {EXAMPLES}: its training {state}; run ieg train or make sweep again"
        )
    try:
        examples = load((folder / EXAMPLES).read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder / EXAMPLES} is damaged ({error}): train the trial again"
        ) from error
    source = open_source(record["base"], data_dir, from_dict(record["config"]).images)
    label_set = load_label_set(
        label_sets_folder(folder.parent.parent) / record["label_set"], source
    )
    num_examples = len(label_set.noisy_labels)
    if any(len(values) != num_examples for values in examples.values()):
        raise UserError(f"{folder / EXAMPLES} is not of {num_examples} examples: train it again")

    ids = label_set.train_ids
    given = label_set.noisy_labels[ids]
    scores = score_examples({name: values[ids] for name, values in examples.items()}, given)
    # NaN, what was never seen, sorts last; equal scores keep the order of the data.
    order = np.argsort(-scores.score, kind="stable")
    clean = label_set.clean_labels[ids] if _clean_known(label_set) else None
    return Audit(
        record=record,
        label_set=label_set,
        source=source,
        ids=ids[order],
        given=given[order],
        scores=replace(
            scores,
            suggested=scores.suggested[order],
            score=scores.score[order],
            visits=scores.visits[order],
        ),
        clean=None if clean is None else clean[order],
        threshold=threshold,
    )


def _clean_known(label_set: LabelSet) -> bool:
    """Returns whether true labels other than the given ones are known.

    Without noise the given labels are all there is, right or not.
    """
    spec = label_set.spec
    altered = bool(spec.noise and spec.noise_rate) or spec.given is not None
    return altered and bool(label_set.manifest.get("clean_labels_known", True))


def summarize(found: Audit) -> dict[str, Any]:
    """Makes summary.json: counts, matrices, and measures where true labels are known."""
    scores, given, clean = found.scores, found.given, found.clean
    seen = ~np.isnan(scores.score)
    summary: dict[str, Any] = {
        "trial": found.record["trial"],
        "dataset": found.record["dataset"],
        "method": found.record["method"],
        "seed": found.record["seed"],
        "class_names": list(found.label_set.class_names),
        "formula": scores.formula,
        "belief": scores.belief,
        "threshold": found.threshold,
        "examples": len(given),
        "not_seen": int((~seen).sum()),
        "flagged": int(found.flagged.sum()),
        "transition_estimated": scores.transition.tolist(),
        "clean_labels_known": clean is not None,
    }
    if clean is None:
        return summary
    wrong = given != clean
    precision, recall = precision_recall(wrong[seen], found.flagged[seen])
    true_matrix = realized_matrix(clean, given, found.label_set.num_classes)
    right_suggestions = scores.suggested[wrong & seen] == clean[wrong & seen]
    return summary | {
        "wrong": int(wrong.sum()),
        "average_precision": average_precision(wrong[seen], scores.score[seen]),
        "auroc": auroc(wrong[seen], scores.score[seen]),
        "precision": precision,
        "recall": recall,
        # Of the wrongly labelled, whose suggested label is the true one.
        "suggested_right": float(right_suggestions.mean()) if len(right_suggestions) else None,
        "transition_true": true_matrix.tolist(),
        "transition_error": float(np.abs(scores.transition - true_matrix).mean()),
    }


def table(found: Audit) -> dict[str, np.ndarray | list[Any]]:
    """Makes the columns of audit.csv and audit.parquet; a clean label only where it is known."""
    names = found.label_set.class_names

    def named(labels: np.ndarray) -> list[str]:
        return [names[label] for label in labels]

    columns: dict[str, np.ndarray | list[Any]] = {
        "index": found.ids,
        "given": found.given,
        "given_name": named(found.given),
        "suggested": found.scores.suggested,
        "suggested_name": named(found.scores.suggested),
        "score": [None if math.isnan(score) else float(score) for score in found.scores.score],
        "visits": found.scores.visits,
    }
    if found.source.paths:
        columns["path"] = [found.source.paths[index] for index in found.ids]
    if found.clean is not None:
        columns["clean"] = found.clean
        columns["clean_name"] = named(found.clean)
    return columns


def cleaned_labels(found: Audit) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels to go on with: indices, ascending, and a class each.

    A flagged example gets its suggested label, the others keep theirs; an example of the probe has
    the clean label that the run was given.
    """
    labels = np.where(found.flagged, found.scores.suggested, found.given)
    ids = np.concatenate([found.ids, found.label_set.probe_ids])
    labels = np.concatenate([labels, found.label_set.clean_labels[found.label_set.probe_ids]])
    order = np.argsort(ids)
    return ids[order], labels[order]
