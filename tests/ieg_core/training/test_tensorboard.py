# SPDX-License-Identifier: Apache-2.0
import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from ieg_core.training.pictures import confusion_picture, from_unit_range, grid
from ieg_core.training.tensorboard import FILE_NAME, open_events
from tests.ieg_core.training.events import read_pictures, read_scalars

CURVES = {
    "training": [{"step": 25, "loss": 2.0, "learning_rate": 0.1}],
    "evaluations": [{"step": 25, "accuracy_ema": 0.5}],
}
TAG = "test/confusion_matrix"
RNG = np.random.default_rng(0)


def opened(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def confusion(diagonal: int) -> bytes:
    return confusion_picture(np.array([[diagonal, 2], [0, 8]]))


def test_tensorboard_reads_what_was_written_and_no_step_twice(tmp_path):
    longer = {
        "training": [*CURVES["training"], {"step": 50, "loss": 1.0, "learning_rate": 0.05}],
        "evaluations": CURVES["evaluations"],
    }
    with open_events(tmp_path, 0) as events:
        events.add_curves(CURVES)
        events.add_curves(CURVES)
        events.add_picture(TAG, 25, confusion(6))
        events.add_curves(longer)
    found = read_scalars(tmp_path)
    assert found["train/loss"] == [[25, 2.0], [50, 1.0]]
    assert found["test/accuracy_ema"] == [[25, 0.5]]
    assert read_pictures(tmp_path) == {TAG: [(25, 240, 240, pytest.approx(len(confusion(6)), 2))]}


@pytest.mark.parametrize("lost", [0, 1, 40], ids=["whole", "its-last-byte-lost", "cut-off"])
def test_a_resumed_run_starts_its_file_anew_with_the_pictures_up_to_its_checkpoint(tmp_path, lost):
    for resumed, steps in ((0, (25, 50, 75)), (50, (75, 100))):
        with open_events(tmp_path, resumed) as events:
            assert events.pictures == ({(TAG, 25), (TAG, 50)} if resumed else set())
            events.add_curves(CURVES)
            for step in steps:
                events.add_picture(TAG, step, confusion(step + resumed))
        if not resumed:
            path = tmp_path / FILE_NAME
            path.write_bytes(path.read_bytes()[: path.stat().st_size - lost])
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert read_scalars(tmp_path)["train/loss"] == [[25, 2.0]]
    shown = {step: text for step, _, _, text in read_pictures(tmp_path, content=True)[TAG]}
    assert list(shown) == [25, 50, 75, 100]
    # Of step 75 the second run's: the first had gone beyond its checkpoint.
    expected = [confusion(diagonal) for diagonal in (25, 50, 125, 150)]
    assert [b64decode(text) for text in shown.values()] == expected


def test_a_run_that_starts_anew_keeps_no_picture_of_another(tmp_path):
    with open_events(tmp_path, 0) as events:
        events.add_picture(TAG, 25, confusion(6))
    with open_events(tmp_path, 0) as events:
        assert events.pictures == set()


def test_a_confusion_matrix_is_dark_where_much_of_a_class_is():
    # Shares 1 and 0, ⅛ and ⅞: cube roots 1, 0, ½ and 0.956 of 63 levels.
    picture = opened(confusion_picture(np.array([[8, 0], [1, 7]])))
    assert picture.shape == (240, 240, 3)
    corners = picture[[0, 0, 239], [0, 239, 0]]
    light, dark = np.array([247, 251, 255]), np.array([8, 48, 107])
    assert corners[0].tolist() == dark.tolist()
    assert corners[1].tolist() == light.tolist()
    half = light + 32 / 63 * (dark - light)  # 31.5 is rounded to the even 32
    assert np.abs(corners[2] - half).max() <= 0.5


def test_a_class_without_examples_is_a_light_row():
    picture = opened(confusion_picture(np.array([[5, 0], [0, 0]])))
    assert (picture[239] == [247, 251, 255]).all()


@pytest.mark.parametrize("num_classes", [2, 10, 100, 250, 251, 1000])
def test_a_confusion_matrix_is_small_even_of_noise(num_classes):
    counts = RNG.integers(0, 50, (num_classes, num_classes))
    encoded = confusion_picture(counts)
    assert len(encoded) <= 65536
    assert 125 <= len(opened(encoded)) <= 250


def test_classes_that_share_a_pixel_are_added_up():
    counts = np.zeros((500, 500), np.int64)
    np.fill_diagonal(counts, 3)
    picture = opened(confusion_picture(counts))
    assert (picture[np.arange(250), np.arange(250)] == [8, 48, 107]).all()
    assert (picture[0, 1:] == [247, 251, 255]).all()


@pytest.mark.parametrize("side", [8, 32, 48, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_small_even_of_noise(side, channels):
    images = RNG.integers(0, 256, (16, side, side, channels), dtype=np.uint8)
    encoded = grid(images)
    assert len(encoded) <= 65536
    tile = {8: 32, 32: 32, 48: 48, 224: 64}[side]
    assert opened(encoded).shape == (2 * tile + 2, 8 * tile + 14, 3)


def test_a_grid_shows_the_pixels_row_by_row():
    images = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 1), np.uint8)
    sheet = opened(grid(images))
    assert sheet.shape == (66, 270, 3)
    assert [int(sheet[0, 34 * column, 0]) for column in range(8)] == list(range(8))
    assert int(sheet[34, 0, 0]) == 8
    assert int(sheet[34, 34, 0]) == 255  # no tenth image


def test_the_scale_of_the_network_is_undone_exactly():
    values = np.arange(256, dtype=np.uint8)
    assert (from_unit_range(values.astype(np.float32) / 127.5 - 1.0) == values).all()
