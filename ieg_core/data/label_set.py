# SPDX-License-Identifier: Apache-2.0
"""Prepared label sets: labels and index sets for a base data set, without its images.

A label set is a folder of two files. `LABEL_ARRAYS` holds the labels and index sets;
`ManifestRecord` records the request, the result and the base data, with a digest of everything. The
same request for the same data produces the same bytes.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ieg_core.data.base import EvalSet, Labels, Source
from ieg_core.data.corruption import (
    corrupt_labels,
    long_tail_counts,
    realized_matrix,
    select_per_class,
    transition_matrix,
)
from ieg_core.data.labels.given import NOT_LISTED, GivenLabels
from ieg_core.draws.generator import generator
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import LABELS, DatasetSpec, parse
from ieg_core.host.files import writable
from ieg_core.host.folders import write_folder
from ieg_core.store.layout import LABEL_ARRAYS
from ieg_core.store.records import ManifestRecord

FORMAT: Final = 1
# Not part of the digest: a label set does not depend on the NumPy version that wrote it.
_UNDIGESTED: Final = ("versions", "digest")

CLEAN_VALIDATION: Final = "clean_validation"
"""The further test set of a trial with a validation set: the part whose labels are clean."""

Ids = NDArray[np.int64]


def _no_ids() -> Ids:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class LabelSet:
    """The data that a run trains and is tested on, as indices into a base data set.

    Attributes:
      name: The folder's name, for example "digits_uniform_0.4-seed0-probe10-1a2b3c4d".
      spec: The data set with its corruption.
      seed: The seed of corruption and probe.
      num_classes: C.
      class_names: C names, by class number.
      image_shape: (height, width, channels).
      noisy_labels: The labels to train on, int32 [N], for every training example of the base.
      clean_labels: The true labels, int32 [N], or the trusted labels if the true ones are unknown;
        for the probe and for monitoring only.
      train_ids: Indices to train on, int64, ascending: kept by the long tail, not in the probe.
      probe_ids: Indices of the clean, class-balanced probe, int64, ascending.
      test_labels: True labels of the test set, int32 [M]; with a validation set the given labels
        of that instead, so that nothing can be measured on the test set.
      digest: SHA-256 over manifest and arrays, hexadecimal.
      manifest: Its manifest; None for a label set that exists in memory only.
      soft_labels: The posterior of a finished run, float32 [N, C], its rows 0 where it judged no
        label; None without one.
      validation_ids: Indices of the training examples that are held out and measured in place of
        the test set, int64, ascending; empty to measure the test set.
      clean_validation_ids: The class-balanced part of them whose clean labels are measured too,
        int64, ascending; empty without a probe.
    """

    name: str
    spec: DatasetSpec
    seed: int
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    noisy_labels: Labels
    clean_labels: Labels
    train_ids: Ids
    probe_ids: Ids
    test_labels: Labels
    digest: str
    manifest: ManifestRecord | None = None
    soft_labels: NDArray[np.float32] | None = None
    validation_ids: Ids = field(default_factory=_no_ids)
    clean_validation_ids: Ids = field(default_factory=_no_ids)

    @property
    def noise_rate(self) -> float | None:
        """Requested share of altered labels; None where that is not known."""
        return self.manifest.noise_rate if self.manifest else None

    @property
    def true_flip_rate(self) -> float | None:
        """Expected share of wrong labels; None where that is not known."""
        return self.manifest.true_flip_rate if self.manifest else None

    def measured(self, source: Source) -> Source:
        """Returns a source whose test images are those that a trial is measured on.

        Args:
          source: The base data.

        Returns:
          The source itself; or, with a validation set, one that reads the images of that as test
          images, in the order of this label set's `test_labels`, and whose only further test set
          is the clean part, if there is one. Its own `test_labels` are still the base data's.
        """
        if not len(self.validation_ids):
            return source
        held_out, clean = self.validation_ids, self.clean_validation_ids
        sets = {}
        if len(clean):
            sets[CLEAN_VALIDATION] = EvalSet(
                self.clean_labels[clean], lambda rows: source.train_images(clean[np.asarray(rows)])
            )
        return replace(
            source,
            test_images=lambda rows: source.train_images(held_out[np.asarray(rows)]),
            eval_sets=sets,
        )


def prepare_label_set(
    spec: DatasetSpec,
    *,
    seed: int,
    probe_per_class: int,
    source: Source,
    label_sets_dir: Path,
    given: GivenLabels | None = None,
    validation_fraction: float = 0.0,
) -> LabelSet:
    """Draws corruption and probe, and writes the label set unless it exists undamaged.

    Noise, long tail, probe and validation set have separate random streams, and each example has
    its own draws, so the noise does not depend on the probe, nor the probe on the noise.

    Args:
      spec: The data set to prepare.
      seed: Seed of all draws.
      probe_per_class: Clean examples of each class to reserve; 0 for no probe. In a long tail, a
        class that is too small gives all of its examples but one.
      source: The base data.
      label_sets_dir: The folder of label sets, created if missing.
      given: The labels of a data set whose labels are not drawn (`data.labels.open.open_given`).
      validation_fraction: Share of each class, by given label, to hold out and to measure in place
        of the test set; 0 for none. It is the same for every method, with a probe or without.

    Returns:
      The label set, as `load_label_set` returns it.

    Raises:
      UserError: When the source is of another base, `given` does not match the spec, the probe is
        not smaller than each class, or the folder cannot be written.
    """
    if source.base != spec.base:
        raise UserError(f"received the data of {source.base!r}: expected {spec.base!r} for {spec}")
    if (spec.given is None) != (given is None):
        raise UserError(
            f"{spec} received {'no labels' if given is None else 'given labels'}: expected "
            f"{'given labels' if given is None else 'labels that are drawn'}"
        )
    arrays = draw_labels(spec, seed, probe_per_class, source, given, validation_fraction)
    manifest = _describe(spec, seed, probe_per_class, source, arrays)
    if given is not None and given.file:
        labels_file = {"name": given.file, "sha256": given.sha256}
        manifest = replace(manifest, labels_file=labels_file)
    if validation_fraction:
        manifest = replace(manifest, validation_fraction=validation_fraction)
    return _write(label_sets_dir, manifest, arrays, source)


def prepare_soft_label_set(
    taught: LabelSet,
    soft_labels: NDArray[np.float32],
    *,
    teacher: str,
    source: Source,
    label_sets_dir: Path,
) -> LabelSet:
    """Adds the posterior of a finished run to its label set, as a label set of its own.

    The images of the run's probe are trained on, too: their soft labels are what the run knew.

    Args:
      taught: The label set of the finished run.
      soft_labels: q, float32 [N, C].
      teacher: The name of the run.
      source: The base data.
      label_sets_dir: The folder of label sets.

    Returns:
      The label set.

    Raises:
      UserError: When the folder cannot be written.
      TypeError: When the finished run's label set has no manifest.
    """
    if taught.manifest is None:
        raise TypeError("expected a label set from a folder, which has a manifest")
    arrays = {name: each for name, each in vars(taught).items() if isinstance(each, np.ndarray)}
    arrays["train_ids"] = np.union1d(taught.train_ids, taught.probe_ids)
    arrays["soft_labels"] = soft_labels
    manifest = replace(taught.manifest, soft_labels_of=teacher, digest="")
    return _write(label_sets_dir, manifest, arrays, source)


def _write(
    label_sets_dir: Path,
    manifest: ManifestRecord,
    arrays: dict[str, NDArray[Any]],
    source: Source,
) -> LabelSet:
    """Writes a label set unless it exists undamaged, and reads it."""
    digest = _digest(manifest.to_value(), arrays)
    share = manifest.validation_fraction
    folder = label_sets_dir / (
        f"{manifest.spec}-seed{manifest.seed}-probe{manifest.probe_per_class}"
        f"{'' if share is None else f'-validation{share:g}'}-{digest[:8]}"
    )
    files = {
        ManifestRecord.NAME: replace(manifest, digest=digest).encode(),
        LABEL_ARRAYS: safetensors.numpy.save(arrays),
    }
    try:
        if not folder.exists():
            write_folder(folder, files)
    except OSError as error:
        raise UserError(
            f"cannot write the label set {folder} ({error.strerror}): expected a writable folder "
            "with free space; free some space or choose another output folder"
        ) from error
    try:
        return load_label_set(folder, source)
    except UserError as error:
        print(f"ieg: {error}; done", file=sys.stderr)
        with writable(folder.parent):
            shutil.rmtree(folder)
            write_folder(folder, files)
        return load_label_set(folder, source)


def load_label_set(folder: Path, source: Source | None = None) -> LabelSet:
    """Reads a label set and verifies its digest.

    Args:
      folder: The label set's folder.
      source: The base data; if given, must be the data that the label set was prepared for.

    Returns:
      The label set.

    Raises:
      UserError: When the label set is missing, altered, in another format, or prepared for other
        data.
    """
    manifest, path = ManifestRecord.read(folder), folder / LABEL_ARRAYS
    if manifest is None or not path.is_file():
        raise UserError(
            f"cannot read the label set {folder}: expected {ManifestRecord.NAME} and "
            f"{LABEL_ARRAYS} in it; delete the folder if it exists and prepare it again"
        )
    if manifest.format != FORMAT:
        raise UserError(
            f"the label set {folder} has format {manifest.format}, expected {FORMAT}: prepare "
            "it again with this version"
        )
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _altered(folder, str(error)) from error
    if manifest.digest != _digest(manifest.to_value(), arrays):
        raise _altered(folder, "its digest does not match its content")
    if source is not None and source.digest != manifest.base_digest:
        raise UserError(
            f"the label set {folder} was prepared for {manifest.base} data with digest "
            f"{manifest.base_digest[:16]}, received data with digest {source.digest[:16]} from "
            f"{source.origin}: use the original data, or prepare it again"
        )
    height, width, channels = manifest.image_shape
    return LabelSet(
        name=folder.name,
        spec=parse(manifest.spec),
        seed=manifest.seed,
        num_classes=manifest.num_classes,
        class_names=tuple(manifest.class_names),
        image_shape=(height, width, channels),
        digest=manifest.digest,
        manifest=manifest,
        **arrays,
    )


def draw_labels(
    spec: DatasetSpec,
    seed: int,
    probe_per_class: int,
    source: Source,
    given: GivenLabels | None,
    validation_fraction: float = 0.0,
) -> dict[str, NDArray[Any]]:
    """Draws the arrays of a label set, named as the attributes of `LabelSet`, and writes nothing.

    Args:
      spec: The data set.
      seed: Seed of all draws.
      probe_per_class: Clean examples of each class to reserve; 0 for no probe.
      source: The base data.
      given: The labels of a data set whose labels are not drawn.
      validation_fraction: See `prepare_label_set`.

    Raises:
      UserError: When a class has no example to train on, or the probe is not smaller than each
        class; in a long tail, where it is as large as the class permits, when a class has a single
        example.
    """
    clean_labels = source.train_labels
    num_examples = len(clean_labels)

    def uniforms(purpose: str) -> NDArray[np.float64]:
        return generator(seed, purpose).random(num_examples)

    num_classes = len(source.class_names)
    reserved = source.probe_ids
    selected = np.arange(num_examples)
    if given is not None:
        # Examples without a label are not trained on; 0 is a placeholder. A reserved probe is
        # trusted.
        listed = given.labels != NOT_LISTED
        selected = np.flatnonzero(listed)
        noisy_labels = np.maximum(given.labels, 0)
        if reserved is not None:
            noisy_labels[reserved] = clean_labels[reserved]
        if not spec.clean_labels_known:
            # Where the file corrects a label, the old one is not a truth to draw a probe from.
            clean_labels = np.where(listed, noisy_labels, clean_labels)
    else:
        transition = transition_matrix(spec, num_classes)
        noisy_labels = corrupt_labels(clean_labels, transition, uniforms("noise"))
    if reserved is not None:
        selected = np.setdiff1d(selected, reserved)
    if spec.imbalance is not None:
        counts = long_tail_counts(
            _class_counts(clean_labels[selected], num_classes), spec.imbalance
        )
        selected = select_per_class(clean_labels, selected, counts, uniforms("long tail"))
    validation: dict[str, NDArray[Any]] = {}
    if validation_fraction:
        # Of the given labels: a choice by them needs no clean label, so it is open to every method.
        class_counts = _class_counts(noisy_labels[selected], num_classes)
        held_out = np.floor(validation_fraction * class_counts + 0.5).astype(np.int64)
        draws = uniforms("validation")
        ids = select_per_class(noisy_labels, selected, held_out, draws)
        if not len(ids):
            raise UserError(
                f"validation_fraction={validation_fraction:g} holds out no example of {spec}, "
                f"whose largest class has {class_counts.max()}: expected a larger share"
            )
        wanted = probe_per_class if spec.clean_labels_known else 0
        known = np.minimum(wanted, _class_counts(clean_labels[ids], num_classes))
        validation = {
            "validation_ids": ids,
            "clean_validation_ids": select_per_class(clean_labels, ids, known, draws),
        }
        selected = np.setdiff1d(selected, ids)
    if reserved is not None:
        # Methods without a probe also train on the probe's examples, so all see the same images.
        probe_ids = reserved if probe_per_class else reserved[:0]
        train_ids = selected if probe_per_class else np.union1d(selected, reserved)
    else:
        class_counts = _class_counts(clean_labels[selected], num_classes)
        # Small classes of a long tail give all but one example, so that the probe has every class.
        wanted = probe_per_class if spec.imbalance is None else min(probe_per_class, 1)
        smallest = source.class_names[int(class_counts.argmin())]
        if not class_counts.min():
            beside = f" beside validation_fraction={validation_fraction:g}" if validation else ""
            fix = "choose a smaller share" if validation else "list some in the label file"
            raise UserError(
                f"class {smallest!r} of {spec} has no training example{beside}: expected at least "
                f"one; {fix}"
            )
        if not 0 <= wanted < class_counts.min():
            raise UserError(
                f"a probe of {probe_per_class} per class cannot be drawn from {spec}: class "
                f"{smallest!r} has {class_counts.min()} training examples; expected from 0 to "
                f"{class_counts.min() - 1}, which leaves one to train on"
            )
        probe_counts = np.minimum(probe_per_class, class_counts - 1)
        probe_ids = select_per_class(clean_labels, selected, probe_counts, uniforms("probe"))
        train_ids = np.setdiff1d(selected, probe_ids)
    return {
        "noisy_labels": noisy_labels,
        "clean_labels": clean_labels,
        "train_ids": train_ids,
        "probe_ids": probe_ids,
        "test_labels": noisy_labels[ids] if validation else source.test_labels,
        **validation,
    }


def probe_note(label_set: LabelSet) -> str:
    """Describes in one line the classes that are short of clean examples; "" if none is."""
    probe = _class_counts(label_set.clean_labels[label_set.probe_ids], label_set.num_classes)
    wanted = label_set.manifest.probe_per_class if label_set.manifest else 0
    short = np.flatnonzero(probe < wanted)
    if label_set.spec.imbalance is None or not len(short):
        return ""
    smallest = int(probe.argmin())
    return (
        f"{label_set.spec}: {len(short)} of {label_set.num_classes} classes are too small for a "
        f"probe of {wanted} and give all of their examples but one, "
        f"{label_set.class_names[smallest]!r} only {probe[smallest]}; the probe has "
        f"{len(label_set.probe_ids)} examples"
    )


def _describe(
    spec: DatasetSpec,
    seed: int,
    probe_per_class: int,
    source: Source,
    arrays: Mapping[str, NDArray[Any]],
) -> ManifestRecord:
    clean, noisy = arrays["clean_labels"], arrays["noisy_labels"]
    num_classes, known = len(source.class_names), spec.clean_labels_known
    used = np.union1d(arrays["train_ids"], arrays["probe_ids"])
    held_out = arrays.get("validation_ids")
    validation_counts = {}
    if held_out is not None:
        used = np.union1d(used, held_out)
        validation_counts["validation"] = _class_counts(noisy[held_out], num_classes).tolist()
    realized = float(np.mean(noisy[used] != clean[used])) if known else None
    # The flip rate of human labels is measured; that of a label file is unknown.
    flips = spec.expected_flip_rate(num_classes) if known else None
    if spec.given not in (None, LABELS):
        flips = realized
    return ManifestRecord(
        format=FORMAT,
        spec=str(spec),
        seed=seed,
        probe_per_class=probe_per_class,
        base=source.base,
        base_version=source.version,
        base_digest=source.digest,
        num_classes=num_classes,
        class_names=list(source.class_names),
        image_shape=list(source.image_shape),
        class_counts={
            "clean": _class_counts(clean[used], num_classes).tolist(),
            "noisy": _class_counts(noisy[used], num_classes).tolist(),
            "train": _class_counts(noisy[arrays["train_ids"]], num_classes).tolist(),
            "probe": _class_counts(clean[arrays["probe_ids"]], num_classes).tolist(),
            **validation_counts,
        },
        clean_labels_known=known,
        noise_rate=spec.noise_rate if known else None,
        true_flip_rate=flips,
        realised_flip_rate=realized,
        transition_asked=None if spec.given else transition_matrix(spec, num_classes).tolist(),
        transition_realised=realized_matrix(clean[used], noisy[used], num_classes).tolist(),
        versions={"numpy": np.__version__},
        notes=dict(source.notes) or None,
    )


def _class_counts(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=num_classes)


def _digest(manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    digested = {key: value for key, value in manifest.items() if key not in _UNDIGESTED}
    digest = hashlib.sha256(json.dumps(digested, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _altered(folder: Path, reason: str) -> UserError:
    return UserError(
        f"the label set {folder} is altered or truncated ({reason}): delete it and prepare it again"
    )
