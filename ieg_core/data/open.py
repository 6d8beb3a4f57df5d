# SPDX-License-Identifier: Apache-2.0
"""Opens a base data set by its name."""

import contextlib
from pathlib import Path

from ieg_core.data.base import Source, in_memory_source
from ieg_core.data.image_folder.arrays import ARRAYS, open_arrays
from ieg_core.data.image_folder.dataset import open_folder
from ieg_core.data.public.cifar import (
    LAYOUTS,
    CifarLayout,
    altered_file,
    read_records,
    split_of,
    write_records,
)
from ieg_core.data.public.digits import open_digits
from ieg_core.data.public.fashion_mnist import open_fashion_mnist
from ieg_core.data.public.webvision import open_webvision
from ieg_core.errors import UserError, unknown_name
from ieg_core.experiment.base_datasets import BASES
from ieg_core.experiment.config import ImagesConfig


def open_source(base: str, data_dir: Path, images: ImagesConfig | None = None) -> Source:
    """Opens a base data set.

    Args:
      base: Name of the base data set.
      data_dir: The data directory, also the target of downloads; not used by `digits`.
      images: How user image files are read; None for the defaults.

    Returns:
      The source.

    Raises:
      UserError: When the name is unknown, or the data are missing, truncated or altered.
    """
    match base:
        case "digits":
            return open_digits()
        case "cifar10" | "cifar100":
            return open_cifar(LAYOUTS[base], data_dir)
        case "fashion_mnist":
            return open_fashion_mnist(data_dir)
        case "folder":
            if (data_dir / ARRAYS).is_file():
                return open_arrays(base, data_dir, images or ImagesConfig())
            return open_folder(base, data_dir, images or ImagesConfig(), holds_out=True)
        case "webvisionmini":
            return open_webvision(data_dir, images or ImagesConfig(size=224))
    raise unknown_name("data set", base, BASES)


def open_cifar(layout: CifarLayout, data_dir: Path) -> Source:
    """Opens a CIFAR data set from the official binary folder if it exists, otherwise from TFDS.

    Data read from TFDS are saved as the official binary folder, which later opens within a second
    and without TensorFlow. If that folder cannot be written, TFDS is read every time.

    Args:
      layout: The layout of the data set on disk.
      data_dir: The data directory.

    Returns:
      The source; identical, including its digest, for both origins.

    Raises:
      UserError: When the data are missing, truncated or altered.
    """
    if not data_dir.is_dir() and (data_dir.exists() or not data_dir.absolute().parent.is_dir()):
        raise UserError(
            f"there is no data directory {data_dir}: expected a folder with {layout.folder}/ or "
            f"{layout.archive}, or a path where a folder for a download can be created"
        )
    folder = data_dir / layout.folder
    official = folder.is_dir()
    if official:
        train, test = (read_records(folder, split, layout) for split in ("train", "test"))
    else:
        from ieg_core.data.public.cifar_tfds import read_tfds

        train, test = read_tfds(data_dir, layout)
    source = in_memory_source(
        layout.base,
        version="official",
        origin=str(folder) if official else f"TFDS in {data_dir}",
        train=split_of(train, layout),
        test=split_of(test, layout),
    )
    if layout.digest not in (None, source.digest):
        if official:
            raise altered_file(folder, layout)
        raise UserError(
            f"the TFDS data set {layout.base} in {data_dir} is altered: its digest is "
            f"{source.digest}, expected {layout.digest}; delete the data set and run again"
        )
    if not official:
        with contextlib.suppress(OSError):
            write_records(folder, train, test, layout)
    return source
