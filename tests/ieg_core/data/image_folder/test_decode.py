# SPDX-License-Identifier: Apache-2.0
import io
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ieg_core.data.image_folder import decode
from ieg_core.data.image_folder.decode import (
    Budget,
    UnreadableImageError,
    central_square,
    crop_box,
    evaluated_square,
    read_original,
    read_pixels,
)
from tests.ieg_core.data.trees import bomb

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def whole(width: int, height: int):
    return 0, 0, width, height


def two_by_two(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (2, 2))
    for place, color in {(0, 0): RED, (1, 0): GREEN, (0, 1): BLUE, (1, 1): (9, 9, 9)}.items():
        image.putpixel(place, color)
    return image.convert(mode)


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels))
    np.testing.assert_array_equal(read_pixels(content, 32, central_square), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_kind_is_found_in_the_content(kind):
    content = encoded(Image.new("RGB", (20, 10), (200, 100, 50)), kind)
    pixels = read_pixels(content, 4, central_square)
    assert pixels.shape == (4, 4, 3)
    np.testing.assert_allclose(pixels, np.tile([200, 100, 50], (4, 4, 1)), atol=6)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.new("L", (4, 4), 77), (77, 77, 77), id="gray"),
        pytest.param(Image.new("1", (4, 4), 1), (255, 255, 255), id="black and white"),
        pytest.param(Image.new("RGB", (4, 4), RED).quantize(4), RED, id="palette"),
        pytest.param(Image.new("RGBA", (4, 4), (*RED, 0)), (255, 255, 255), id="transparent"),
        # Half of (255, 0, 0) and half of white.
        pytest.param(Image.new("RGBA", (4, 4), (*RED, 128)), (255, 127, 127), id="half"),
        pytest.param(Image.new("LA", (4, 4), (50, 255)), (50, 50, 50), id="gray with alpha"),
        # 0x4D12 of 16 bits is 0x4D of 8.
        pytest.param(
            Image.fromarray(np.full((4, 4), 0x4D12, np.uint16)), (0x4D,) * 3, id="16 bits"
        ),
    ],
)
def test_every_mode_becomes_rgb(image, expected):
    pixels = read_pixels(encoded(image), 4, central_square)
    np.testing.assert_allclose(pixels, np.tile(expected, (4, 4, 1)), atol=1)


@pytest.mark.parametrize("top", [255, 4095, 8191, 16383])
def test_16_bits_that_would_become_dark_are_refused(top):
    ramp = np.linspace(0, top, 16).reshape(4, 4).astype(np.uint16)
    for read in (read_original, lambda content: read_pixels(content, 4, central_square)):
        with pytest.raises(UnreadableImageError, match=f"are all below {top + 1:,}, which is dark"):
            read(encoded(Image.fromarray(ramp)))
    ramp[0, 0] = 16384
    assert read_pixels(encoded(Image.fromarray(ramp)), 4, central_square).max() == 64


def test_a_palette_with_a_transparent_entry_becomes_white_there():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    pixels = read_pixels(encoded(image, transparency=0), 2, whole)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == list(BLUE)


def test_cmyk_jpegs_have_the_colors_of_print():
    content = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG")  # cyan ink alone
    pixels = read_pixels(content, 4, central_square)
    assert (pixels[..., 0] < 30).all()
    assert (pixels[..., 1:] > 225).all()


def test_gray_is_asked_for():
    pixels = read_pixels(encoded(Image.new("RGB", (4, 4), RED)), 4, central_square, channels=1)
    assert pixels.shape == (4, 4, 1)
    assert (pixels == 76).all()  # 0.299 · 255


@pytest.mark.parametrize(
    ("orientation", "top_left"),
    [(1, RED), (2, GREEN), (3, (9, 9, 9)), (4, BLUE), (5, RED), (6, BLUE), (7, (9, 9, 9)),
     (8, GREEN)],
)  # fmt: skip
def test_exif_says_which_way_is_up(orientation, top_left):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_pixels(encoded(two_by_two(), exif=exif), 2, whole)
    assert pixels[0, 0].tolist() == list(top_left)


def test_a_box_is_cut_from_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (30, 10), RED)
    wide.paste(BLUE, (20, 0, 30, 10))
    content = encoded(wide, exif=exif)
    seen = []

    def box(width, height):
        seen.append((width, height))
        return 0, 20, 10, 30

    # Turned clockwise the picture is 10 wide and 30 high, its right end below.
    pixels = read_pixels(content, 4, box)
    # The filter of the first row reaches over the edge of the box.
    assert (pixels[1:] == BLUE).all()
    assert seen == [(10, 30)]


def test_the_filter_averages_over_what_it_skips():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    pixels = read_pixels(encoded(Image.fromarray(stripes)), 8, central_square)
    np.testing.assert_allclose(pixels, 100, atol=5)


def test_a_large_jpeg_decoded_at_a_fraction_is_the_same_picture():
    ramp = np.tile(np.linspace(0, 255, 512).astype(np.uint8)[None, :, None], (512, 1, 3))
    content = encoded(Image.fromarray(ramp), "JPEG", quality=95)
    exact = read_pixels(encoded(Image.fromarray(ramp)), 16, central_square)
    np.testing.assert_allclose(
        read_pixels(content, 16, central_square).astype(int), exact.astype(int), atol=4
    )


def test_squares():
    assert central_square(30, 10) == (10, 0, 20, 10)
    assert central_square(9, 14) == (0, 2, 9, 11)
    # 7/8 of 256 is 224, and (300 − 224) / 2 = 38.
    assert evaluated_square(300, 256) == (38, 16, 262, 240)


def test_a_crop_by_hand():
    # Half the area of 80×60, square: side √2400, at a quarter and three quarters of the room.
    side = 2400**0.5
    expected = (
        0.25 * (80 - side),
        0.75 * (60 - side),
        0.25 * (80 - side) + side,
        0.75 * (60 - side) + side,
    )
    draw = np.array([0.5, 0.5, 0.25, 0.75])
    assert crop_box(draw, 80, 60, 0.0) == pytest.approx(expected)


def test_crops_stay_inside_and_have_the_areas_asked_for():
    draws = np.random.default_rng(0).random((2000, 4))
    boxes = np.array([crop_box(draw, 300, 200, 0.08) for draw in draws])
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert right.max() <= 300
    assert bottom.max() <= 200
    share = (right - left) * (bottom - top) / 60_000
    assert share.min() > 0.07
    assert abs(np.median(share) - 0.5) < 0.06
    ratio = (right - left) / (bottom - top)
    assert (ratio < 4 / 3 * 1.15).all()
    assert (ratio > 3 / 4 / 1.0001).all()


PNG = encoded(Image.effect_noise((64, 64), 50))
JPEG = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(
            b"GIF89a" + bytes(100), "it is not a JPEG, PNG or WebP file", id="another kind"
        ),
        pytest.param(JPEG[: len(JPEG) // 2], "truncated", id="half a JPEG"),
        pytest.param(PNG[: len(PNG) // 2], "truncated", id="half a PNG"),
        pytest.param(encoded(two_by_two(), "WEBP")[:20], ".", id="half a WebP"),
        pytest.param(b"\xff\xd8\xff" + bytes(50), ".", id="no JPEG inside"),
        pytest.param(bomb(), "30000×30000 pixels exceed 90 megapixels", id="bomb"),
    ],
)
def test_what_cannot_be_decoded_says_why_in_one_line(content, reason):
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read_pixels(content, 8, central_square)
    assert "\n" not in str(caught.value)


def test_noise_is_never_anything_but_a_picture_or_an_error():
    rng = np.random.default_rng(0)
    starts = [JPEG, encoded(two_by_two()), encoded(two_by_two(), "WEBP")]
    decoded = 0
    for number in range(300):
        content = bytearray(starts[number % 3])
        for place in rng.integers(0, len(content), 5):
            content[place] = rng.integers(0, 256)
        try:
            shape = read_pixels(bytes(content), 8, central_square).shape
        except UnreadableImageError:
            continue
        assert shape == (8, 8, 3)
        decoded += 1
    assert 0 < decoded < 300


def test_threads_together_decode_no_more_than_the_limit():
    budget = Budget()
    entered = [threading.Event() for _ in range(3)]

    def work(number, megapixels):
        with budget.held(megapixels, limit=90):
            entered[number].set()

    with ThreadPoolExecutor(3) as pool, budget.held(60.1, limit=90):
        for number, megapixels in enumerate((40, 29, 200)):
            pool.submit(work, number, megapixels)
        assert entered[1].wait(30)
        # The others wait for the one that is held here, and the largest for all others.
        assert not entered[0].wait(0.2)
        assert not entered[2].is_set()
    assert all(event.is_set() for event in entered)


def test_what_is_held_is_what_a_file_decodes_to(monkeypatch):
    held = []

    class Recorded(Budget):
        def held(self, megapixels, limit):
            held.append((round(megapixels, 3), limit))
            return super().held(megapixels, limit)

    monkeypatch.setattr(decode, "_DECODING", Recorded())
    picture = Image.new("RGB", (1600, 800))
    for kind, options in (("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})):
        read_pixels(encoded(picture, kind, **options), 100, central_square)
    # A plain JPEG is decoded at an eighth of its size; the others are as large as they are.
    assert held == [(1.28, 90), (0.02, 90), (1.28, 90)]


def test_a_line_of_pixels_is_refused_before_it_is_decoded():
    long = bytearray(encoded(Image.new("L", (1, 1))))
    long[16:20] = (80_000_000).to_bytes(4, "big")
    long[29:33] = zlib.crc32(long[12:29]).to_bytes(4, "big")
    with pytest.raises(UnreadableImageError, match=r"80000000×1 pixels exceed 65,535 on a side"):
        read_pixels(bytes(long), 8, central_square)


def test_metadata_of_any_size_do_not_matter():
    image = Image.new("RGB", (8, 8), RED)
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "x" * (2 << 20), zip=True)
    info.add_itxt("more", "x" * (2 << 20), zip=True)
    large = encoded(image, pnginfo=info, icc_profile=bytes(2 << 20))
    expected = read_pixels(encoded(image), 8, central_square)
    np.testing.assert_array_equal(read_pixels(large, 8, central_square), expected)
    oriented = image.getexif()
    oriented[0x0112] = 6
    plain = encoded(image, exif=oriented)
    assert decode._without_large_metadata(plain) == plain


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "JPEG", progressive=True, comment=b"\xff\xda" * 200)
    content = file.getvalue()
    assert decode.read_original(content).shape == (16, 16, 1)
    assert decode.read_original(content + b"\xff\xda" * 200).shape == (16, 16, 1)  # after its end
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableImageError, match="it has 106 scans, at most 100 are read"):
        decode.read_original(content[:-2] + 100 * scan + content[-2:])
