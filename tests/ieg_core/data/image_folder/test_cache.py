# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from ieg_core.data.image_folder import cache

BAD = [f"bad{number:02d}.png" for number in range(12)]
PATHS = ["good.png", *BAD]


@pytest.fixture
def folder(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    for name in BAD:
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


@pytest.fixture
def read(folder, monkeypatch):
    """Reads the images; returns them, the reasons and the files that were opened for it."""
    opened = []
    read_file = cache.read_file
    monkeypatch.setattr(cache, "read_file", lambda path: opened.append(path) or read_file(path))

    def again():
        opened.clear()
        entries = cache.index_files(folder, PATHS, 90, decode=True)
        images, reasons = cache.decoded_images(folder, PATHS, entries, 8, 1, 90)
        return images, reasons, list(opened)

    return again


def test_what_is_cached_is_not_read_again(read):
    images, reasons, opened = read()
    assert len(opened) == 2 * len(PATHS)
    assert list(reasons) == BAD
    cached, cached_reasons, opened = read()
    assert opened == []
    assert cached_reasons == reasons
    np.testing.assert_array_equal(cached, images)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_flipped_bit_makes_the_cache_new(folder, read, suffix):
    images, reasons, _ = read()
    (path,) = (folder / cache.FOLDER).glob(f"*{suffix}")
    before = path.read_bytes()
    content = bytearray(before)
    content[-20] ^= 1
    path.write_bytes(content)
    again, again_reasons, opened = read()
    assert len(opened) == len(PATHS)
    assert again_reasons == reasons
    np.testing.assert_array_equal(again, images)
    assert path.read_bytes() == before
