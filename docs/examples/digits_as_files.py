# SPDX-License-Identifier: Apache-2.0
"""Writes scikit-learn's digits like your own images: a folder per class, some labels wrong.

python docs/examples/digits_as_files.py FOLDER

FOLDER/train has 1,300 images, every fourth of them in the folder of another digit. FOLDER/probe has
ten checked images per class, FOLDER/test 397 images. Some are JPEG, some gray, some RGB, and their
sizes differ. FOLDER/truth.csv holds the true digit of each training image; only the page that this
example belongs to reads it.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NUM_TRAIN = 1300
PROBE_PER_CLASS = 10


def main(folder: Path) -> None:
    """Writes all files."""
    pixels, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(truth))
    left_for_probe = dict.fromkeys(range(10), PROBE_PER_CLASS)
    written = 0
    lines = ["path,label"]
    for number, index in enumerate(order):
        label = int(truth[index])
        part = "test"
        if left_for_probe[label]:
            left_for_probe[label] -= 1
            part = "probe"
        elif written < NUM_TRAIN:
            written += 1
            part = "train"
        shown = label
        if part == "train" and written % 4 == 0:
            shown = int((label + rng.integers(1, 10)) % 10)
        name = f"{part}/{shown}/{number:04}.{'jpg' if number % 3 == 0 else 'png'}"
        image = Image.fromarray(np.rint(pixels[index] * 255 / 16).astype(np.uint8).reshape(8, 8))
        side = int(rng.integers(24, 64))
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("RGB") if number % 2 else image).save(path)
        if part == "train":
            lines.append(f"{name},{label}")
    (folder / "truth.csv").write_text("\n".join(lines) + "\n")
    print(f"{len(order)} images in {folder}, {NUM_TRAIN // 4} of {NUM_TRAIN} with a wrong label")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
