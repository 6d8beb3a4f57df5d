# SPDX-License-Identifier: Apache-2.0
"""Compares the label audit with cleanlab's on known mistakes.

    .venv/bin/uv pip install --python .venv/bin/python --group bench
    .venv/bin/python -m scripts.audit_bench --datasets digits_uniform_0.4 --seeds 0,1,2

cleanlab gets the out-of-sample probabilities that it needs from the plain baseline in five-fold
cross-validation. Each fold is trained for as many steps as a whole run, or for --fold-steps so that
both sides cost the same. All are compared on the same examples, those in no method's probe.
Finished runs and folds are kept.
"""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ieg_core.audit.findings import THRESHOLD, is_available, read_audit
from ieg_core.audit.measures import auroc, average_precision, precision_recall
from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet, load_label_set
from ieg_core.data.open import open_source
from ieg_core.draws.generator import fold_numbers
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.host import files
from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.store import arrays
from ieg_core.store.layout import LOG, label_sets_folder, read_planned, trial_folder
from ieg_core.store.names import DEFAULT_ROOT
from ieg_core.sweep import plan, worker
from ieg_core.sweep.request import SweepRequest
from ieg_core.sweep.slots import Slot
from scripts.tables import Row, to_table

DATASETS = ("digits_uniform_0.2", "digits_uniform_0.4", "digits_asymmetric_0.2",
            "digits_asymmetric_0.4")  # fmt: skip
BASELINE = "supervised"
CLEANLAB_SCORES = ("normalized_margin", "self_confidence", "confidence_weighted_entropy")
MEASURES = ("average precision", "AUROC", "precision", "recall")


@dataclasses.dataclass(frozen=True)
class Folds:
    """The training of cleanlab's networks.

    Attributes:
      number: Number of networks.
      steps: Training steps of each; 0 for those of the plain baseline's run.
    """

    number: int
    steps: int = 0

    @property
    def label(self) -> str:
        """The name of their results."""
        return f"{self.number}-folds" + (f"-of-{self.steps}-steps" if self.steps else "")


def out_of_sample(
    trial: str, root: Path, data_dir: Path, folds: Folds, runtime: Runtime
) -> tuple[LabelSet, np.ndarray]:
    """Predicts each training example of a planned trial with a network that never saw it.

    Args:
      trial: A planned trial of the baseline.
      root: The results root; probabilities and unfinished folds are stored in audit_bench/.
      data_dir: Folder of the base data sets.
      folds: The networks to train.
      runtime: How to compute.

    Returns:
      The label set, and probabilities float32 [N, C], 0 outside its training examples.
    """
    record = read_planned(root, trial)
    source = open_source(record.base, data_dir, record.settings.images)
    label_set = load_label_set(label_sets_folder(root) / record.label_set, source)
    kept = root / "audit_bench" / trial / f"{folds.label}.safetensors"
    if known := arrays.read_cached(kept):
        return label_set, known[0]["probabilities"]
    ids = label_set.train_ids
    numbers = fold_numbers(label_set.noisy_labels[ids], folds.number, label_set.seed)
    config = dataclasses.replace(record.settings, evaluations=1)
    if folds.steps:
        config = override(config, [f"schedule.num_steps={folds.steps}"])
    probabilities = np.zeros((len(label_set.noisy_labels), label_set.num_classes), np.float32)
    for fold in range(folds.number):
        held_out = ids[numbers == fold]
        part = dataclasses.replace(label_set, train_ids=ids[numbers != fold])
        folder = kept.parent / f"{folds.label}-{fold + 1}"
        logits = _train_and_predict(trial, config, part, source, folder, held_out, runtime)
        probabilities[held_out] = softmax(logits.astype(np.float64), axis=1)
        print(f"{trial}: fold {fold + 1} of {folds.number} done", file=sys.stderr, flush=True)
    files.write_bytes_atomic(kept, arrays.encode({"probabilities": probabilities}))
    return label_set, probabilities


def _train_and_predict(
    trial: str,
    config: Config,
    label_set: LabelSet,
    source: Source,
    folder: Path,
    held_out: np.ndarray,
    runtime: Runtime,
) -> np.ndarray:
    from ieg_core.store import leases
    from ieg_core.training.evaluation import build_predictor
    from ieg_core.training.loop import train
    from ieg_core.training.step import build_model

    with leases.owned(folder) as lease:
        trained = train(config, label_set, source, lease, trial, runtime, lambda report: None)
    predict = build_predictor(build_model(config, label_set.num_classes, label_set.image_shape))
    return predict(trained.state["ema"], trained.state["stats"], source.train_images(held_out))


def cleanlab_rows(
    given: np.ndarray, probabilities: np.ndarray, compared: np.ndarray, wrong: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """Measures cleanlab on probabilities of all its training examples.

    Args:
      given: Given labels, int [n].
      probabilities: Out-of-sample probabilities, float [n, C].
      compared: Whether each example is part of the comparison, bool [n].
      wrong: Whether each compared example is mislabeled, bool.

    Returns:
      For each of its scores, measures of the ranking, with precision and recall of
      `find_label_issues`; and of the ranking by that score with those findings first.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(given, probabilities, n_jobs=1)
    precision, recall = precision_recall(wrong, issues[compared])
    rows = {}
    for name in CLEANLAB_SCORES:
        suspicion = -get_label_quality_scores(given, probabilities, method=name)
        rows[f"cleanlab, {name}"] = _measure(wrong, suspicion[compared], precision, recall)
        first = suspicion + 2.0 * issues  # scores are in [-1, 0]
        rows[f"cleanlab, find_label_issues by {name}"] = _measure(
            wrong, first[compared], precision, recall
        )
    return rows


def compare(
    request: SweepRequest, folds: Folds, runtime: Runtime, with_cleanlab: bool
) -> tuple[dict[str, dict[str, float | None]], list[str]]:
    """Trains what is missing and measures every audit of one data set and seed.

    Args:
      request: A sweep of one data set and seed; its methods are audited.
      folds: How cleanlab's probabilities are cross-validated.
      runtime: Threads of each training.
      with_cleanlab: Whether cleanlab's audits are measured too.

    Returns:
      Measures by name of the audit, and the names of the trials.
    """
    root, data_dir = Path(request.results), Path(request.data_dir)
    trials = {read_planned(root, name).method: name for name in plan.plan(request).trials}
    folders = {}
    for method, trial in trials.items():
        folders[method] = trial_folder(root, trial)
        if not is_available(folders[method]):
            slot = Slot(runtime.threads, ())
            if worker.run_step("train", trial, root, data_dir, slot=slot, echo=False):
                raise UserError(f"{trial} could not be trained: see {folders[method] / LOG}")
    audits = {name: read_audit(folder, data_dir, THRESHOLD) for name, folder in folders.items()}
    shared = sorted(set.intersection(*(set(a.ids.tolist()) for a in audits.values())))
    rows = {}
    for method, audit in audits.items():
        place = {index: row for row, index in enumerate(audit.ids.tolist())}
        chosen = np.array([place[index] for index in shared])
        if audit.clean is None:
            raise UserError(
                f"{request.dataset} has no known mistakes to compare audits on: expected drawn "
                "noise, or people's labels of images whose true ones are known"
            )
        wrong = (audit.given != audit.clean)[chosen]
        score = np.nan_to_num(audit.scores.score[chosen])
        precision, recall = precision_recall(wrong, audit.flagged[chosen])
        rows[method] = _measure(wrong, score, precision, recall)
    if with_cleanlab:
        label_set, probabilities = out_of_sample(trials[BASELINE], root, data_dir, folds, runtime)
        ids = label_set.train_ids
        given, compared = label_set.noisy_labels[ids], np.isin(ids, shared)
        wrong = (given != label_set.clean_labels[ids])[compared]
        rows |= cleanlab_rows(given, probabilities[ids], compared, wrong)
    return rows, list(trials.values())


def _measure(
    wrong: np.ndarray, score: np.ndarray, precision: float | None, recall: float | None
) -> dict[str, float | None]:
    values = (average_precision(wrong, score), auroc(wrong, score), precision, recall)
    return dict(zip(MEASURES, values, strict=True))


@program("ieg")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison, prints its table and writes it to <out>/audit_bench/."""
    parser = Parser(description=__doc__)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="ieg,fsr,supervised")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--fold-steps", type=int, default=0, help="steps of each fold; 0: as a run")
    parser.add_argument("--steps", type=int, default=0, help="steps of each run; 0: the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", default=DEFAULT_ROOT)
    parser.add_argument("--without-cleanlab", action="store_true")
    options = parser.parse_args(arguments)
    with_cleanlab = not options.without_cleanlab
    if with_cleanlab and importlib.util.find_spec("cleanlab") is None:
        raise UserError(
            "cleanlab is not installed: expected the group bench of pyproject.toml; "
            "run .venv/bin/uv pip install --python .venv/bin/python --group bench"
        )
    runtime = Runtime(threads=options.threads)
    set_environment(runtime)
    if with_cleanlab:
        from ieg_core import backend

        backend.start(runtime)
    methods = tuple(dict.fromkeys([*options.methods.split(","), BASELINE]))
    folds = Folds(options.folds, options.fold_steps)
    rows_by_name: dict[str, list[Row]] = {}
    for dataset in options.datasets.split(","):
        for seed in options.seeds.split(","):
            request = SweepRequest(
                str(parse(dataset)),
                methods=methods,
                seeds=(int(seed),),
                steps=options.steps,
                settings=tuple(options.set),
                data_dir=options.data_dir,
                results=options.out,
            )
            rows, trials = compare(request, folds, runtime, with_cleanlab)
            for name, row in rows.items():
                rows_by_name.setdefault(f"{dataset} | {name}", []).append(row)
            line = {"dataset": dataset, "seed": int(seed), "trials": trials, **rows}
            print(json.dumps(line), flush=True)
    text = to_table(rows_by_name, "data | audit")
    files.write_bytes_atomic(Path(options.out) / "audit_bench" / "table.md", f"{text}\n".encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
