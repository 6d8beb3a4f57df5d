# SPDX-License-Identifier: Apache-2.0
"""The prepared label set: labels and index sets that lie over a base data set, without its images.

A folder of two files. `arrays.safetensors` holds the labels and index sets; `manifest.json` says
what was asked for, what came out and over which data, with a digest of all of it. The same
request over the same data gives the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ieg_core.data.base import Labels, Source
from ieg_core.data.corruption import (
    corrupt_labels,
    long_tail_counts,
    realised_matrix,
    select_per_class,
    transition_matrix,
)
from ieg_core.data.labels.given import NOT_LISTED, GivenLabels
from ieg_core.draws.generator import generator
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import LABELS, DatasetSpec, parse
from ieg_core.host.folders import write_folder
from ieg_core.store.records import Record

FORMAT: Final = 1
ARRAYS: Final = "arrays.safetensors"
# Not part of the digest: the same label set made by another numpy is the same label set.
_UNDIGESTED: Final = ("versions", "digest")

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ManifestRecord(Record):
    """What a label set was made of, and what came out.

    Attributes:
      format: `FORMAT`.
      spec: The data set with its corruption.
      seed: The seed of corruption and probe.
      probe_per_class: Clean examples of each class that were set aside.
      base: The base data set.
      base_version: Its version.
      base_digest: Its digest.
      num_classes: C.
      class_names: C names, by class number.
      image_shape: [height, width, channels].
      class_counts: Examples by class, each [C]: "clean" and "noisy" count the kept examples, probe
        included, by that label; "train" counts by noisy label, "probe" by clean label.
      clean_labels_known: Whether the true labels are known. If not, the clean ones are those of the
        label file, or those that the data come with.
      noise_rate: Requested share of altered labels; None where the true labels are not known.
      true_flip_rate: Expected share of wrong labels; None where the true labels are not known.
      realised_flip_rate: Actual share of wrong labels; None where the true labels are not known.
      transition_asked: Requested T[true, observed], [C, C]; None for labels from elsewhere.
      transition_realised: Actual T[true, observed], [C, C].
      versions: Versions of the libraries; not part of the digest.
      digest: SHA-256 over manifest and arrays, hexadecimal.
      notes: What reading the data brought to light (`ieg_core.data.base.Source`).
      labels_file: Name and SHA-256 of the label file.
    """

    NAME: ClassVar[str] = "manifest.json"

    format: int
    spec: str
    seed: int
    probe_per_class: int
    base: str
    base_version: str
    base_digest: str
    num_classes: int
    class_names: Sequence[str]
    image_shape: Sequence[int]
    class_counts: Mapping[str, Sequence[int]]
    clean_labels_known: bool
    noise_rate: float | None
    true_flip_rate: float | None
    realised_flip_rate: float | None
    transition_asked: Sequence[Sequence[float]] | None
    transition_realised: Sequence[Sequence[float]]
    versions: Mapping[str, str]
    digest: str = ""
    notes: Mapping[str, Any] | None = None
    labels_file: Mapping[str, str] | None = None

    def encode(self) -> bytes:
        """Returns the file's content: one line a key, not one for each number of a matrix."""
        lines = [f'"{key}": {json.dumps(value)}' for key, value in self.to_value().items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


@dataclass(frozen=True)
class LabelSet:
    """What a run trains and is tested on, as indices into a base data set.

    Attributes:
      name: The folder's name, for example "digits_uniform_0.4-seed0-probe10-1a2b3c4d".
      spec: The data set with its corruption.
      seed: The seed of corruption and probe.
      num_classes: C.
      class_names: C names, by class number.
      image_shape: (height, width, channels).
      noisy_labels: The labels to train on, int32 [N], for every training example of the base.
      clean_labels: The true labels, int32 [N], or where nobody knows them those that are trusted;
        for the probe and for monitoring only.
      train_ids: Indices to train on, int64, ascending: kept by the long tail, not in the probe.
      probe_ids: Indices of the clean, class-balanced probe, int64, ascending.
      test_labels: True labels of the test set, int32 [M].
      digest: SHA-256 over manifest and arrays, hexadecimal.
      manifest: What it was made of; None for one that is in memory alone.
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

    @property
    def noise_rate(self) -> float | None:
        """Requested share of altered labels; None where that is not known."""
        return self.manifest.noise_rate if self.manifest else None

    @property
    def true_flip_rate(self) -> float | None:
        """Expected share of wrong labels; None where that is not known."""
        return self.manifest.true_flip_rate if self.manifest else None


def prepare_label_set(
    spec: DatasetSpec,
    *,
    seed: int,
    probe_per_class: int,
    source: Source,
    label_sets_dir: Path,
    given: GivenLabels | None = None,
) -> LabelSet:
    """Draws corruption and probe, and writes the label set unless it is there already.

    Noise, long tail and probe have streams of their own, and each example its own draws. So the
    noise does not depend on the probe, nor the probe on the noise.

    Args:
      spec: What to prepare.
      seed: Seed of every draw here.
      probe_per_class: Clean examples of each class to set aside; 0 for no probe.
      source: The base data.
      label_sets_dir: The folder of label sets, made if need be.
      given: The labels of a data set that has them from elsewhere (`data.labels.open.open_given`).

    Returns:
      The label set, as `load_label_set` reads it.

    Raises:
      UserError: The source is of another base, the probe is larger than a class, the folder
        cannot be written, or a label set of that name is there and altered.
    """
    if source.base != spec.base:
        raise UserError(f"{spec} needs the data of {spec.base!r}, received {source.base!r}")
    if (spec.given is None) != (given is None):
        raise UserError(f"{spec} with {'no' if given is None else 'some'} labels given to it")
    arrays = _draw(spec, seed, probe_per_class, source, given)
    manifest = _describe(spec, seed, probe_per_class, source, arrays)
    if given is not None and given.file:
        labels_file = {"name": given.file, "sha256": given.sha256}
        manifest = replace(manifest, labels_file=labels_file)
    digest = _digest(manifest.to_value(), arrays)
    folder = label_sets_dir / f"{spec}-seed{seed}-probe{probe_per_class}-{digest[:8]}"
    if not folder.exists():
        content = replace(manifest, digest=digest).encode()
        files = {ManifestRecord.NAME: content, ARRAYS: safetensors.numpy.save(arrays)}
        try:
            write_folder(folder, files)
        except OSError as error:
            raise UserError(
                f"cannot write the label set {folder} ({error.strerror}): expected a folder that "
                "can be written to, with room for it; make room or choose another output folder"
            ) from error
    return load_label_set(folder, source)


def load_label_set(folder: Path, source: Source | None = None) -> LabelSet:
    """Reads a label set and proves that it is whole.

    Args:
      folder: The label set's folder.
      source: The base data; if given, they must be those that the label set was made over.

    Returns:
      The label set.

    Raises:
      UserError: Missing, altered, of another format, or made over other data.
    """
    path = ManifestRecord.path(folder)
    try:
        content = path.read_bytes()
        arrays = safetensors.numpy.load((folder / ARRAYS).read_bytes())
        said = json.loads(content)
    except OSError as error:
        raise UserError(
            f"cannot read the label set {folder} ({error.strerror}): expected {path.name} and "
            f"{ARRAYS} there; delete the folder if it exists and prepare it again"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise _altered(folder, str(error)) from error
    if not isinstance(said, dict) or said.get("digest") != _digest(said, arrays):
        raise _altered(folder, "its digest does not fit its content")
    if said["format"] != FORMAT:
        raise UserError(
            f"the label set {folder} has format {said['format']}, expected {FORMAT}: prepare "
            "it again with this version"
        )
    manifest = ManifestRecord.parse(said, str(path))
    if source is not None and source.digest != manifest.base_digest:
        raise UserError(
            f"the label set {folder} was made over {manifest.base} data of digest "
            f"{manifest.base_digest[:16]}, received data of digest {source.digest[:16]} from "
            f"{source.origin}: use the data it was made over, or prepare it again"
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


def _draw(
    spec: DatasetSpec, seed: int, probe_per_class: int, source: Source, given: GivenLabels | None
) -> dict[str, NDArray[Any]]:
    clean_labels = source.train_labels
    num_examples = len(clean_labels)

    def uniforms(purpose: str) -> NDArray[np.float64]:
        return generator(seed, purpose).random(num_examples)

    num_classes = len(source.class_names)
    own_probe = source.probe_ids
    kept = np.arange(num_examples)
    if given is not None:
        # Who has no label is not trained on; a 0 fills the place. The data's own probe is trusted.
        listed = given.labels != NOT_LISTED
        kept = np.flatnonzero(listed)
        noisy_labels = np.maximum(given.labels, 0)
        if own_probe is not None:
            noisy_labels[own_probe] = clean_labels[own_probe]
        if not spec.clean_labels_known:
            # What the file corrects is no truth to go by, nor to draw a probe from.
            clean_labels = np.where(listed, noisy_labels, clean_labels)
    else:
        asked = transition_matrix(spec, num_classes)
        noisy_labels = corrupt_labels(clean_labels, asked, uniforms("noise"))
    if own_probe is not None:
        kept = np.setdiff1d(kept, own_probe)
    if spec.imbalance is not None:
        counts = long_tail_counts(_class_counts(clean_labels[kept], num_classes), spec.imbalance)
        kept = select_per_class(clean_labels, kept, counts, uniforms("long tail"))
    if own_probe is not None:
        # Methods without a probe train on its examples too: all see the same images.
        probe_ids = own_probe if probe_per_class else own_probe[:0]
        return {
            "noisy_labels": noisy_labels,
            "clean_labels": clean_labels,
            "train_ids": kept if probe_per_class else np.union1d(kept, own_probe),
            "probe_ids": probe_ids,
            "test_labels": source.test_labels,
        }

    smallest = _class_counts(clean_labels[kept], num_classes)
    if not 0 <= probe_per_class < smallest.min():
        scarce = source.class_names[int(smallest.argmin())]
        raise UserError(
            f"a probe of {probe_per_class} a class cannot be taken from {spec}: class {scarce!r} "
            f"has {smallest.min()} training examples; expected from 0 to {smallest.min() - 1}, "
            "which leaves one to train on"
        )
    probe_counts = np.full(num_classes, probe_per_class)
    probe_ids = select_per_class(clean_labels, kept, probe_counts, uniforms("probe"))
    return {
        "noisy_labels": noisy_labels,
        "clean_labels": clean_labels,
        "train_ids": np.setdiff1d(kept, probe_ids),
        "probe_ids": probe_ids,
        "test_labels": source.test_labels,
    }


def _describe(
    spec: DatasetSpec,
    seed: int,
    probe_per_class: int,
    source: Source,
    arrays: Mapping[str, NDArray[Any]],
) -> ManifestRecord:
    clean, noisy = arrays["clean_labels"], arrays["noisy_labels"]
    kept = np.union1d(arrays["train_ids"], arrays["probe_ids"])
    num_classes, known = len(source.class_names), spec.clean_labels_known
    realised = float(np.mean(noisy[kept] != clean[kept])) if known else None
    # How many of people's labels are wrong is a fact about them; of a file's nobody knows.
    flips = spec.expected_flip_rate(num_classes) if known else None
    if spec.given not in (None, LABELS):
        flips = realised
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
            "clean": _class_counts(clean[kept], num_classes).tolist(),
            "noisy": _class_counts(noisy[kept], num_classes).tolist(),
            "train": _class_counts(noisy[arrays["train_ids"]], num_classes).tolist(),
            "probe": _class_counts(clean[arrays["probe_ids"]], num_classes).tolist(),
        },
        clean_labels_known=known,
        noise_rate=spec.noise_rate if known else None,
        true_flip_rate=flips,
        realised_flip_rate=realised,
        transition_asked=None if spec.given else transition_matrix(spec, num_classes).tolist(),
        transition_realised=realised_matrix(clean[kept], noisy[kept], num_classes).tolist(),
        versions={"numpy": np.__version__},
        notes=dict(source.notes) or None,
    )


def _class_counts(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=num_classes)


def _digest(manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    said = {key: value for key, value in manifest.items() if key not in _UNDIGESTED}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _altered(folder: Path, reason: str) -> UserError:
    return UserError(
        f"the label set {folder} is altered or truncated ({reason}): delete it and prepare it again"
    )
