# SPDX-License-Identifier: Apache-2.0
"""`ieg_core.fit` with a pre-trained network: a classifier on its features.

The audit's posterior q replaces the given labels, and a small head is trained on it
(`ieg_core.features.head`) in this process; once features are computed, this takes seconds.
"""

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.from_python import open_python
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.inputs import Opened
from ieg_core.audit.label_audit import audit_labels
from ieg_core.auditing import AuditResult, compute_all, input_side
from ieg_core.errors import UserError, unknown_name
from ieg_core.experiment import feature_sources
from ieg_core.experiment.feature_sources import SIZE
from ieg_core.features.classifier import FeatureClassifier, UsedFeatures
from ieg_core.features.head import Head, HeadSettings, train_head
from ieg_core.features.network import find_networks
from ieg_core.features.reduction import Reduction
from ieg_core.host.files import expand
from ieg_core.store.layout import HEAD

METHOD = "retrain"
GIVEN = "features"
"""In place of a network: the caller passes features, not images."""
# 300 photos in batches of 256 are one step an epoch, far too few (docs/RESULTS.md, "Retraining on
# the posterior").
_LEAST_BATCH = 16
_LEAST_STEPS = 20  # in an epoch


def is_of_features(network: object) -> bool:
    """Returns whether a network's name stands for features: built-in ones, alone or with others."""
    return isinstance(network, str) and bool(
        set(feature_sources.BUILT_IN).intersection(map(str.strip, re.split("[+,]", network)))
    )


@dataclass(frozen=True)
class FeatureFitted:
    """A classifier on features.

    Attributes:
      class_names: C names, by class number.
      accuracy: Accuracy on the test set, in [0, 1]; without a test set, agreement with the given
        labels of the training images.
      audit: The training labels, most suspicious first.
      network: The network that computes features; `GIVEN` if the caller passes them.
      reduction: How features are reduced.
      head: The classifier on reduced features.
    """

    class_names: tuple[str, ...]
    accuracy: float
    audit: AuditResult
    network: Any
    reduction: Reduction
    head: Head

    def predict(self, images: Any) -> NDArray[np.float32]:
        """Predicts the classes of images.

        Args:
          images: Anything that `ieg_core.audit` takes, one file name or one PIL image; labels are
            ignored. For a classifier that was trained on the caller's features, features [m, D].

        Returns:
          Probabilities, float32 [m, C]; rows in the order of the images.

        Raises:
          UserError: When `images` are not images, a file cannot be decoded, or features have
            another length than in training.
        """
        is_file = isinstance(images, str | Path) and not expand(images).is_dir()
        data = [images] if is_file or hasattr(images, "convert") else images
        opened = open_python(data, size=_side(self.network), needs_labels=False)
        if opened.images.notes and "cannot be decoded" in opened.images.notes[0]:
            raise UserError(f"{opened.images.notes[0]}: repair them or leave them out")
        return self._predict(opened)

    def _predict(self, opened: Opened) -> NDArray[np.float32]:
        length = len(self.reduction.mean)
        features, _ = _compute(opened, self.network, length=length, progress=False)
        return self.head.predict(self.reduction.apply(features) * self.reduction.scale)

    def save(self, path: str | Path) -> None:
        """Writes the classifier to a file for `ieg predict`, replacing it.

        Args:
          path: The file, ending in ".safetensors".

        Raises:
          UserError: When the path has another ending or is not writable, or the features are the
            caller's or those of a function.
        """
        file = expand(path)
        if file.suffix != Path(HEAD).suffix:
            raise UserError(f"cannot save to {file}: expected a name that ends as {HEAD}")
        if self.network == GIVEN:
            raise UserError(
                "the classifier was trained on features that were passed to it: expected a network "
                "by name, such as efficientnet-lite0, which ieg predict can compute features with"
            )
        if not isinstance(self.network, str):
            raise UserError(
                f"the features are of {type(self.network).__name__}, which has no name that a file "
                "can keep: expected a network by name, such as efficientnet-lite0"
            )
        networks = find_networks(feature_sources.parse(self.network))
        FeatureClassifier(
            class_names=self.class_names,
            features=tuple(UsedFeatures(each.name, each.sha256, each.size) for each in networks),
            reduction=self.reduction,
            head=self.head,
            method=METHOD,
        ).write(file)

    def __repr__(self) -> str:
        return f"Classifier on {self.network}, accuracy {self.accuracy:.1%}\n{self.audit!r}"


def fit_on_features(
    images: Any,
    labels: Any,
    network: Any,
    *,
    test: tuple[Any, Any] | None = None,
    probe: tuple[Any, Any] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    progress: bool = True,
) -> FeatureFitted:
    """Trains a classifier on features of images, some of which may be mislabeled.

    Args:
      images: Images of any kind that `ieg_core.audit` takes.
      labels: Their labels, of any kind that `ieg_core.audit` takes.
      network: The network that computes features, as `ieg_core.audit` takes it; `GIVEN` if
        `images` are features.
      test: Images and true labels to evaluate on.
      probe: Images with correct labels.
      class_names: Names by class number.
      seed: Seed of the folds and the head.
      settings: Values, as text, of fields of `ieg_core.features.head.HeadSettings`. By default a
        batch has a twentieth of the images, between 16 and 256.
      progress: Whether to show progress.

    Returns:
      The classifier.

    Raises:
      UserError: When an argument is invalid or features do not predict labels better than chance.
    """
    head_settings = _head_settings(settings or {})
    side = _side(network)
    opened = open_python(images, labels, size=side, class_names=class_names, progress=progress)
    features, names = _compute(opened, network, progress=progress)
    length = sum(each.shape[1] for each in features)
    training = opened.images
    if probe is not None:
        checked = open_python(*probe, size=side, class_names=training.class_names)
        more, _ = _compute(checked, network, length=length, progress=progress)
        features = [np.concatenate(pair) for pair in zip(features, more, strict=True)]
        training = _with_probe(training, checked.images)
    judged = audit_labels(training, features, feature_names=names, seed=seed)
    reduction, q = judged.evidence.reduction, judged.evidence.q
    inputs = reduction.apply(features) * reduction.scale
    if "batch_size" not in (settings or {}):
        few = max(_LEAST_BATCH, len(inputs) // _LEAST_STEPS)
        batch_size = min(head_settings.batch_size, few)
        head_settings = replace(head_settings, batch_size=batch_size)
    head = train_head(inputs, q, head_settings, seed=seed)
    if test is None:
        predicted, truth = head.predict(inputs[: len(opened.images)]).argmax(1), opened.images.given
    else:
        tested = open_python(*test, size=side, class_names=training.class_names)
        more, _ = _compute(tested, network, length=length, progress=progress)
        known = set(training.digests or ())
        if shared := sum(digest in known for digest in tested.images.digests or ()):
            print(
                f"fit: {shared} of {len(tested.images)} test images are also trained on, so "
                "accuracy is too high"
            )
        predicted = head.predict(reduction.apply(more) * reduction.scale).argmax(1)
        truth = tested.images.given
    is_labeled = truth != MISSING
    return FeatureFitted(
        class_names=training.class_names,
        accuracy=float((predicted == truth)[is_labeled].mean()),
        audit=AuditResult(**vars(judged)),
        network=network,
        reduction=reduction,
        head=head,
    )


def _side(network: Any) -> int:
    return SIZE if network == GIVEN else input_side(network)


def _compute(
    opened: Opened, network: Any, *, length: int = 0, progress: bool
) -> tuple[list[np.ndarray], list[str]]:
    """Computes features of images, or takes those that are given; refuses another length."""
    if network == GIVEN and opened.features is None:
        raise UserError("received images for a classifier on features: expected features [m, D]")
    features, names = compute_all(opened, network, progress=progress)
    received = sum(each.shape[1] for each in features)
    if length and received != length:
        raise UserError(f"received {received} features an image: expected {length}, as in training")
    return features, names


def _with_probe(images: LabeledImages, probe: LabeledImages) -> LabeledImages:
    """Appends a probe, whose labels are trusted; its indices are ("probe", index)."""
    count, read, read_probe = len(images), images.read, probe.read
    unlabeled = np.full((len(probe), images.labels.shape[1]), MISSING, np.int32)
    indices = range(count) if images.indices is None else images.indices
    probe_indices = range(len(probe)) if probe.indices is None else probe.indices

    def read_either(place: int) -> NDArray[np.uint8]:
        chosen, index = (read, place) if place < count else (read_probe, place - count)
        if chosen is None:
            raise UserError(f"received no image {place}, only features: expected images")
        return chosen(index)

    return LabeledImages(
        names=(*images.names, *(f"probe {name}" for name in probe.names)),
        class_names=images.class_names,
        labels=np.concatenate([images.labels, unlabeled]),
        annotators=images.annotators,
        trusted=np.concatenate([images.trusted, probe.given]),
        read=read_either,
        digests=images.digests and probe.digests and (*images.digests, *probe.digests),
        notes=(*images.notes, *probe.notes),
        indices=[*indices, *(("probe", index) for index in probe_indices)],
    )


def _head_settings(settings: Mapping[str, str]) -> HeadSettings:
    kinds: dict[str, Any] = typing.get_type_hints(HeadSettings)
    values = {}
    for name, text in settings.items():
        if name not in kinds:
            raise unknown_name("setting of a classifier on features", name, kinds)
        try:
            values[name] = kinds[name](text)
        except ValueError as error:
            raise UserError(
                f"setting {name}: expected {'a whole number' if kinds[name] is int else 'a number'}"
                f", got {text!r}"
            ) from error
    return HeadSettings(**values)
