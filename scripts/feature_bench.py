# SPDX-License-Identifier: Apache-2.0
"""Measures the label posterior on features, and heads retrained on it, on CIFAR-10 and CIFAR-100.

    python -m scripts.feature_bench --data-dir DIR --networks efficientnet-lite0
    python -m scripts.feature_bench --data-dir DIR --datasets cifar100_human --without-heads

DIR holds cifar-10-batches-bin/ or cifar-100-binary/, and cifar-n/. For people's labels (CIFAR-N,
worst and aggregate) and drawn ones (uniform 0.4 and 0.8, asymmetric 0.4): average precision and
AUROC of the score for finding the wrong labels of the 50,000 training images, beside the best of
cleanlab's scores on the posterior's own out-of-fold probabilities of step 1; the number of wrong
labels that the scores expect; and test accuracy of linear heads, plain and forward-corrected, and
of those retrained on q. No clean label takes part in any choice.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ieg_core.audit.feature_posterior import Evidence, judge_labels
from ieg_core.audit.measures import auroc, average_precision
from ieg_core.data.base import Source
from ieg_core.data.corruption import corrupt_labels, transition_matrix
from ieg_core.data.labels.cifar_n import human_labels
from ieg_core.data.open import open_source
from ieg_core.draws.generator import generator
from ieg_core.experiment.dataset_spec import parse
from ieg_core.features.extract import extract_features
from ieg_core.features.head import HeadSettings, train_head
from ieg_core.features.linear import NO_FOLD, fit, predict
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.store.names import DEFAULT_ROOT
from scripts.tables import Row, to_table

DATASETS = (
    "cifar10_human_worst",
    "cifar10_human_aggregate",
    "cifar10_uniform_0.4",
    "cifar10_uniform_0.8",
    "cifar10_asymmetric_0.4",
)
ANNOTATORS = ("cifar10_human_random1", "cifar10_human_random2", "cifar10_human_random3")
CLEANLAB_SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def given_labels(dataset: str, source: Source, data_dir: Path, seed: int) -> np.ndarray:
    """Returns people's labels, or draws them as a sweep with that seed does not: int32 [n].

    Args:
      dataset: Name of a data set.
      source: Its base images.
      data_dir: The folder with CIFAR-N's labels.
      seed: Of the draws; people's labels have none.
    """
    spec = parse(dataset)
    if spec.given is not None:
        return human_labels(spec, source, data_dir)
    uniforms = generator(seed, "feature bench").random(len(source.train_labels))
    return corrupt_labels(source.train_labels, transition_matrix(spec), uniforms)


def cleanlab_precision(given: np.ndarray, evidence: Evidence, wrong: np.ndarray) -> float:
    """Returns the best average precision of cleanlab's scores on step 1's probabilities."""
    from cleanlab.rank import get_label_quality_scores

    precisions = []
    for name in CLEANLAB_SCORES:
        for adjusted in (False, True):
            if adjusted and name == "confidence_weighted_entropy":
                continue  # cleanlab refuses it
            quality = get_label_quality_scores(
                given, evidence.plain, method=name, adjust_pred_probs=adjusted
            )
            precisions.append(average_precision(wrong, -quality))
    return float(max(each for each in precisions if each is not None))


def head_accuracies(
    evidence: Evidence,
    given: np.ndarray,
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    test_labels: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Returns test accuracies of heads on all examples, by name.

    Args:
      evidence: The labels' posterior, with its reduction and precisions.
      given: int32 [n].
      train: Features float32 [n, D] of each network, of the training images.
      test: The same of the m test images.
      test_labels: int32 [m], true.
      seed: Of the heads' initial values and batches.
    """
    reduction, classes = evidence.reduction, evidence.q.shape[1]
    inputs, further = reduction.apply(train), reduction.apply(test)
    nowhere, own = np.full(len(given), NO_FOLD), np.eye(classes, dtype=np.float32)
    start = np.zeros((1, inputs.shape[1] + 1, classes))
    accuracies = {}
    layers = start
    for name, matrix, precision in (
        ("plain", own, evidence.precisions[0]),
        ("forward", evidence.transitions[0].astype(np.float32), evidence.precisions[1]),
    ):
        scaled = precision / reduction.variances
        layers = fit(inputs, matrix.T[given], nowhere, scaled, layers)
        guessed = predict(layers, further, np.full(len(further), NO_FOLD)).argmax(1)
        accuracies[name] = float((guessed == test_labels).mean())
    scale = reduction.scale
    for name, settings in (
        ("retrain, linear", HeadSettings(hidden=0)),
        ("retrain, 256 hidden", HeadSettings(hidden=256)),
    ):
        head = train_head(inputs * scale, evidence.q, settings, seed=seed)
        accuracies[name] = float((head.predict(further * scale).argmax(1) == test_labels).mean())
    return accuracies


def measure(
    dataset: str,
    source: Source,
    data_dir: Path,
    features: Sequence[Sequence[np.ndarray]],
    seed: int,
    *,
    annotators: bool = False,
    heads: bool = True,
) -> dict[str, float]:
    """Measures one data set and seed.

    Args:
      dataset: Name of a data set.
      source: Its base images.
      data_dir: The folder with CIFAR-N's labels.
      features: Features float32 [n, D] of each network: of the training images and, for heads, of
        the test images.
      seed: Of drawn labels, folds and heads.
      annotators: Whether all three people's labels are used.
      heads: Whether heads are trained and tested, too.

    Returns:
      Figures by name; CPU seconds are those of the posterior alone.
    """
    given = given_labels(dataset, source, data_dir, seed)
    labels = given
    if annotators:
        columns = [given_labels(name, source, data_dir, seed) for name in ANNOTATORS]
        labels = np.column_stack(columns)
    started = time.process_time()
    evidence = judge_labels(features[0], labels, len(source.class_names), seed=seed)
    seconds = time.process_time() - started
    wrong = given != source.train_labels
    score = evidence.score(given)
    figures = {
        "wrong": float(wrong.mean()),
        "expected wrong": float(score.mean()),
        "average precision": float(average_precision(wrong, score) or 0),
        "AUROC": float(auroc(wrong, score) or 0),
        "λ, plain": evidence.precisions[0],
        "λ": evidence.precisions[1],
        "components": float(evidence.components),
        "CPU seconds": seconds,
        "suggestion right": float((evidence.suggested == source.train_labels).mean()),
    }
    if importlib.util.find_spec("cleanlab") is not None:
        figures["cleanlab, best"] = cleanlab_precision(given, evidence, wrong)
    if heads and not annotators:
        figures |= head_accuracies(
            evidence, given, features[0], features[1], source.test_labels, seed
        )
    return figures


@program("ieg")
def main(arguments: Sequence[str] | None = None) -> int:
    """Computes features, measures, prints the table and keeps it in <out>/feature_bench/."""
    parser = Parser(description=__doc__)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--networks", default="efficientnet-lite0")
    parser.add_argument("--mirrored", default="", help="networks that see mirror images too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="auto", help="of the network: bfloat16 or float32")
    parser.add_argument("--without-heads", action="store_true")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", default=DEFAULT_ROOT)
    asked = parser.parse_args(arguments)
    set_environment(Runtime(threads=asked.threads))
    if importlib.util.find_spec("cleanlab") is None:
        print(
            "cleanlab is not installed, so nothing is measured of it: expected the group bench of "
            "pyproject.toml; run .venv/bin/uv pip install --python .venv/bin/python --group bench",
            file=sys.stderr,
        )

    def show(done: int, total: int, rate: float) -> None:
        print(f"\r{done:,} of {total:,} images, {rate:.0f} a second ", end="", file=sys.stderr)

    rows_by_name: dict[str, list[Row]] = {}
    data_dir = Path(asked.data_dir)
    datasets = asked.datasets.split(",")
    source = open_source(parse(datasets[0]).base, data_dir)
    sides = [(source.train_images, source.train_labels)]
    if not asked.without_heads:
        sides.append((source.test_images, source.test_labels))
    features = [
        [
            extract_features(
                read,
                len(labels),
                network=network,
                mirrored=network in asked.mirrored.split(","),
                dtype=asked.dtype,
                progress=show,
            )
            for network in asked.networks.split(",")
        ]
        for read, labels in sides
    ]
    for dataset in datasets:
        # People's labels are what they are: seeds only deal out other folds.
        several = (False, True) if dataset == "cifar10_human_aggregate" else (False,)
        for annotators in several:
            for seed in map(int, asked.seeds.split(",")):
                row = measure(
                    dataset,
                    source,
                    data_dir,
                    features,
                    seed,
                    annotators=annotators,
                    heads=not asked.without_heads,
                )
                name = f"{dataset}, three annotators" if annotators else dataset
                rows_by_name.setdefault(name, []).append(row)
                print(json.dumps({"dataset": name, "seed": seed, **row}), flush=True)
    text = to_table(rows_by_name)
    write_bytes_atomic(Path(asked.out) / "feature_bench" / "table.md", f"{text}\n".encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
