# SPDX-License-Identifier: Apache-2.0
"""CIFAR-N: human labels for CIFAR's training images.

Reference: Wei et al., ICLR 2022, arXiv 2110.12088; the authors' files are CC BY-NC 4.0.
"""

import io
import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from ieg_core.data.base import Labels, Source
from ieg_core.data.labels.restricted_pickle import NotArraysError, read_arrays
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import DatasetSpec

FOLDER: Final = "cifar-n"
FILES: Final = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}
HOMEPAGE: Final = "https://github.com/UCSC-REAL/cifar-10-100n"
MAX_BYTES: Final = 64 << 20

# The names in the published files (and, for the human sets, in TFDS).
_CLEAN: Final = "clean_label"
_KEYS: Final = {
    ("cifar10", "human_aggregate"): "aggre_label",
    ("cifar10", "human_random1"): "random_label1",
    ("cifar10", "human_random2"): "random_label2",
    ("cifar10", "human_random3"): "random_label3",
    ("cifar10", "human_worst"): "worse_label",
    ("cifar100", "human"): "noisy_label",
}
_TFDS_KEYS: Final = {"noisy_label": "noise_label"}


def human_labels(spec: DatasetSpec, source: Source, data_dir: Path) -> Labels:
    """Reads one of the label sets of CIFAR-N.

    Reads <data_dir>/cifar-n/CIFAR-10_human.pt (or -100) if it exists, otherwise the TFDS data set
    cifar10_n (or cifar100_n) prepared in data_dir/tfds or data_dir; the labels are identical. Code
    in the file is never executed.

    Args:
      spec: The data set; `spec.given` is one of the base's HUMAN_SETS.
      source: The base data; their labels must equal the clean labels in the file.
      data_dir: The data directory.

    Returns:
      The labels, int32 [N], in the official order.

    Raises:
      UserError: When both are missing, or the data are not these labels.
    """
    key = _KEYS[spec.base, str(spec.given)]
    path = data_dir / FOLDER / FILES[spec.base]
    if path.exists():
        arrays, origin = _read_file(path), str(path)
    else:
        arrays, origin = _read_tfds(spec.base, key, path, data_dir)
    num_examples = len(source.train_labels)
    for name in (_CLEAN, key):
        values = arrays.get(name)
        if values is None or values.shape != (num_examples,):
            raise _not_cifar_n(
                origin,
                f"{name!r} is missing" if values is None else f"{name!r} has shape {values.shape}",
            )
    labels = arrays[key]
    if labels.min() < 0 or labels.max() >= spec.num_classes:
        raise _not_cifar_n(origin, f"{key!r} ranges from {labels.min()} to {labels.max()}")
    if not np.array_equal(arrays[_CLEAN], source.train_labels):
        raise _not_cifar_n(origin, f"its clean labels are not those of {source.origin}")
    return labels.astype(np.int32)


def _read_file(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a published file: a pickle, bare or inside a PyTorch zip archive."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): expected a readable file"
        ) from error
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                (member,) = [m for m in archive.infolist() if m.filename.endswith("data.pkl")]
                if member.file_size > MAX_BYTES:
                    raise _not_cifar_n(str(path), f"it unpacks to {member.file_size} bytes")
                content = archive.read(member)
        return read_arrays(content)
    except NotArraysError as error:
        raise _not_cifar_n(str(path), f"{error}; no code in it was run") from error
    except UserError:
        raise
    # zipfile does not document which exceptions a damaged archive can cause.
    except Exception as error:
        raise _not_cifar_n(str(path), f"damaged ({str(error)[:80]})") from error


def _read_tfds(
    base: str, key: str, path: Path, data_dir: Path
) -> tuple[dict[str, np.ndarray], str]:
    from ieg_core.data.public.tfds import examples, find_prepared

    name = f"{base}_n"
    fix = f"prepare it again, or put {path.name} from {HOMEPAGE} into {path.parent}"
    builder = find_prepared(name, (data_dir / "tfds", data_dir), fix)
    if builder is None:
        raise UserError(
            f"there are no human labels for {base} in {data_dir}: expected {path} or the TFDS data "
            f"set {name}; put {path.name} from {HOMEPAGE} into {path.parent}, or prepare {name} in "
            f"{data_dir / 'tfds'}"
        )
    rows = sorted(
        (
            int(row["id"].decode().removeprefix("train_")),
            row["label"],
            row[_TFDS_KEYS.get(key, key)],
        )
        for row in examples(builder, "train", fix=fix)
    )
    ids, clean, labels = np.array(rows, np.int64).T
    if not np.array_equal(ids, np.arange(len(ids))):
        raise _not_cifar_n(str(builder.data_path), "its ids are not those of the official files")
    return {_CLEAN: clean, key: labels}, f"the TFDS data set in {builder.data_path}"


def _not_cifar_n(origin: str, reason: str) -> UserError:
    return UserError(
        f"{origin} is not CIFAR-N's published label file ({reason}): get it again from {HOMEPAGE}"
    )
