# SPDX-License-Identifier: Apache-2.0
import hashlib

import numpy as np
import pytest
from PIL import Image

from ieg_core.audit.inputs import open_files
from ieg_core.data.base import ImageFiles
from ieg_core.data.image_folder.dataset import open_folder
from ieg_core.data.image_folder.labeled_files import list_labeled_files
from ieg_core.data.image_folder.squares import read_squares, square_keys
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig


@pytest.fixture
def folder(tmp_path):
    """Images whose middle square is red or blue, with a green margin."""
    for part, count in (("train", 3), ("test", 2), ("more", 1)):
        for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            for number in range(count):
                pixels = np.zeros((20, 40, 3), np.uint8)
                pixels[:] = (0, 255, 0)
                pixels[:, 10:30] = color
                pixels[0, 10] = number
                path = tmp_path / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return tmp_path


def test_squares_are_the_middle_and_keys_those_of_contents(folder):
    path = folder / "train" / "red" / "2.png"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    files = ImageFiles(folder, ["train/blue/0.png", "train/red/2.png"], ["0" * 64, digest])
    (square,) = read_squares(files, 32, [1])
    assert square.shape == (32, 32, 3)
    assert (square[8:, 4:-4] == (255, 0, 0)).all()  # at the edges, the filter looks further
    key = hashlib.sha256(f"central square, bicubic, 1 32 {digest}".encode()).hexdigest()
    assert square_keys(files, 32)[1] == key
    with pytest.raises(UserError, match=r"0.png has changed: expected the files to stay unchanged"):
        read_squares(files, 32, [0])
    path.unlink()
    with pytest.raises(UserError, match="can no longer be read"):
        read_squares(files, 32, [1])


@pytest.mark.parametrize("size", [16, 160])
def test_a_training_reads_the_files_that_an_audit_reads(folder, size):
    source = open_folder("folder", folder, ImagesConfig(size=size, eval_sets=("more",)))
    assert {name: len(files.paths) for name, files in source.files.items()} == {
        "train": 6,
        "test": 4,
        "more": 2,
    }
    opened = open_files(list_labeled_files(folder), 160)
    assert opened.images.names == tuple(source.files["train"].paths)
    assert opened.keys == square_keys(source.files["train"], 160)
    np.testing.assert_array_equal(
        opened.read_batch(np.arange(6)), read_squares(source.files["train"], 160, np.arange(6))
    )
