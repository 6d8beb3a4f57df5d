# SPDX-License-Identifier: Apache-2.0
"""Writes photos like your own, a folder per class, and swaps 15 % of the labels.

python docs/examples/photos_as_files.py FOLDER [DATA_DIR]

FOLDER/train has 1,000 photos, 15 % of them in the folder of another class, FOLDER/test has 250 with
right labels. They are CIFAR-10's if DATA_DIR (data by default) holds it, otherwise Fashion-MNIST's
from DATA_DIR, Debian's package dataset-fashion-mnist or TensorFlow Datasets, and scikit-learn's
digits where there is none of these. FOLDER/truth.csv holds the true label of each
training image; no command but answers.py reads it.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ieg_core.data.base import Source
from ieg_core.data.open import open_source
from ieg_core.errors import UserError

NUM_TRAIN, NUM_TEST = 1000, 250
SWAPPED = 0.15
CIFAR = ("cifar-10-batches-bin", "cifar10", "tfds/cifar10")


def main(folder: Path, data_dir: Path) -> None:
    """Writes all files."""
    base, source = find_source(data_dir)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(source.train_labels))[:NUM_TRAIN]
    truth = source.train_labels[order]
    swapped = rng.permutation(NUM_TRAIN) < round(SWAPPED * NUM_TRAIN)
    others = rng.integers(1, len(source.class_names), NUM_TRAIN)
    given = np.where(swapped, (truth + others) % len(source.class_names), truth)
    names = write(folder, "train", source.train_images(order), given, source)
    with (folder / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows(zip(names, (source.class_names[label] for label in truth), strict=True))
    tests = np.arange(NUM_TEST)
    write(folder, "test", source.test_images(tests), source.test_labels[tests], source)
    print(
        f"{NUM_TRAIN} images of {base} in {folder}/train, {swapped.sum()} with a wrong "
        f"label, and {len(tests)} in {folder}/test"
    )


def find_source(data_dir: Path) -> tuple[str, Source]:
    """Opens the first of the data sets that is there; returns its name, too."""
    bases = ["fashion_mnist"]
    if any((data_dir / name).is_dir() for name in CIFAR):
        bases.insert(0, "cifar10")
    for base in bases:
        try:
            return base, open_source(base, data_dir)
        except UserError as error:
            print(error)
    return "digits", open_source("digits", data_dir)


def write(
    folder: Path, part: str, images: np.ndarray, labels: np.ndarray, source: Source
) -> list[str]:
    """Writes images of a part to the folders of their labels; returns their names."""
    names = []
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        name = f"{part}/{source.class_names[label]}/{number:04}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.squeeze()).save(path)
        names.append(name)
    return names


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "data"))
