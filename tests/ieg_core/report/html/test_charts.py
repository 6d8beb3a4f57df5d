# SPDX-License-Identifier: Apache-2.0
import base64
import io
import itertools
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ieg_core
from ieg_core.experiment.methods import DEFAULT_METHODS, METHODS
from ieg_core.report.html import page
from ieg_core.report.html.charts import (
    Frame,
    Values,
    build_chart,
    log_ticks,
    looks,
    spans_decades,
    styles,
    thin,
    ticks,
    value_range,
)
from ieg_core.report.html.matrix import BLUE, build_confusion, picture, row_shares, worst_mixups
from ieg_core.report.html.plots import (
    READINGS,
    diagnostic_charts,
    learning_charts,
    mean_curve,
    noise_chart,
)
from ieg_core.report.summary import group_trials
from ieg_core.report.trials import Trial
from ieg_core.store.records import CurvesRecord
from tests.ieg_core.report.pages import group_rows, row

FRAME = Frame(width=120, height=70, left=10, right=10, top=10, bottom=10)
LOOK = styles(["l2r"])["l2r"]
CSS = Path(page.__file__).with_name("report.css").read_text()
THEMES = dict(zip(("light", "dark"), CSS.split("prefers-color-scheme: dark", 1), strict=True))
SIGHTS = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                 [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
CONTRAST, DIFFERENCE = 4.5, 10.0
"""WCAG's for text; and a difference in CIE 1976 that is seen at a glance (1 is just visible)."""


def test_ticks_are_round_and_inside() -> None:
    assert ticks(61.3, 99.0, 6) == [70, 80, 90]
    assert ticks(0.0, 1.0, 6) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(50, 600, 5) == [200, 400, 600]


def test_a_line_is_scaled_into_the_frame() -> None:
    series = [Values("l2r", LOOK, x=(0, 50, 100), y=(0, 10, 5), deviation=(None, None, None))]
    chart = build_chart(
        series, FRAME, title="t", x_label="x", y_label="y", x_values=(0, 100), y_range=(0, 10)
    )
    # 100 wide and 50 high inside the margins, y downwards
    assert chart.lines[0].path == "M10 60L60 10L110 35"
    assert chart.lines[0].band == ""
    assert [(tick.position, tick.label) for tick in chart.x_ticks] == [(10, "0"), (110, "100")]


def test_the_band_runs_along_the_upper_edge_and_back_along_the_lower() -> None:
    series = [Values("l2r", LOOK, x=(0, 100), y=(5, 5), deviation=(1, 2))]
    chart = build_chart(series, FRAME, title="", x_label="", y_label="", y_range=(0, 10))
    assert chart.lines[0].band == "M10 30L110 25L110 45L10 40Z"


def test_labels_at_the_ends_do_not_overlap() -> None:
    looks = styles(list("abc"))
    series = [
        Values(name, looks[name], (0, 1), (0, y), (None, None), end_label=name)
        for name, y in (("a", 9.9), ("b", 9.8), ("c", 1.0))
    ]
    frame = Frame(width=120, height=200)
    chart = build_chart(series, frame, title="", x_label="", y_label="", y_range=(0, 10))
    a, b, c = (line.end.position for line in chart.lines if line.end)
    assert b - a >= 17
    assert c - b >= 17
    assert a >= frame.top


def test_the_axis_holds_the_deviations_and_stops_at_a_hundred() -> None:
    series = [Values("l2r", LOOK, x=(0, 1), y=(60, 99), deviation=(5, 3))]
    low, high = value_range(series, ceiling=100)
    assert low < 55
    assert high == 100


def test_equal_values_still_have_an_axis() -> None:
    series = [Values("l2r", LOOK, x=(0,), y=(0.0,), deviation=(None,))]
    chart = build_chart(series, FRAME, title="", x_label="", y_label="")
    assert chart.lines[0].path == "M60 35"


def test_looks_differ_in_color_and_in_something_else() -> None:
    found = styles([f"m{i}" for i in range(12)])
    assert len({(look.color, look.marker) for look in found.values()}) == 12


def test_lines_of_one_method_look_unlike_each_other_and_unlike_other_methods() -> None:
    methods = ["supervised", "mixup", "l2r"]
    labels = {"supervised": "supervised", "l2r [A]": "l2r", "l2r [B]": "l2r", "l2r [C]": "l2r"}
    found = looks(labels, methods)
    own = styles(methods)
    # The first of a method has its look, the next that of a method that is not there.
    assert found["supervised"] == own["supervised"]
    assert found["l2r [A]"] == own["l2r"]
    assert found["l2r [B]"] == own["mixup"]
    assert len({found[label].color for label in labels}) == 4


def test_a_line_of_one_point_is_a_marker() -> None:
    series = [Values("l2r", LOOK, x=(50,), y=(5.0,), deviation=(1.0,))]
    chart = build_chart(series, FRAME, title="", x_label="", y_label="", y_range=(0, 10))
    (mark,) = chart.lines[0].marks
    assert (mark.x, mark.y, mark.bar) == (60, 35, (40, 30))


def test_thinning_keeps_both_ends() -> None:
    records = [{"step": i} for i in range(1000)]
    kept = thin(records, 120)
    assert len(kept) == 120
    assert (kept[0], kept[-1]) == (records[0], records[-1])


def test_curves_are_averaged_where_all_seeds_have_a_value() -> None:
    steps, means, deviations = mean_curve([[(10, 1.0), (20, 2.0)], [(10, 3.0), (30, 9.0)]])
    assert (steps, means) == ([10], [2.0])
    assert deviations == pytest.approx([2**0.5])  # sqrt((1 + 1) / 1)
    assert mean_curve([[(10, 1.0)]]) == ([10], [1.0], [None])
    assert mean_curve([]) == ([], [], [])


def test_rows_of_the_confusion_matrix_become_shares() -> None:
    shares = row_shares(np.array([[3, 1], [0, 0]]))
    assert shares.tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_worst_mixups_leave_the_diagonal_out() -> None:
    shares = np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    assert worst_mixups(shares, "abc") == (("c", "a", "25.0 %"), ("a", "b", "10.0 %"))


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA")


def test_the_picture_is_a_png_whose_opacity_is_the_cube_root() -> None:
    image = decode(picture(np.array([[1.0, 0.0], [0.125, 1.0]])))
    assert image.size == (2, 2)
    assert image.getpixel((0, 0)) == (*BLUE, 255)
    assert image.getpixel((1, 0)) == (*BLUE, 0)
    # level round(0.5 * 63) = 32 of 63, as a byte round(255 * 32 / 63) = 130
    assert image.getpixel((0, 1)) == (*BLUE, 130)


def test_the_picture_has_the_pixels_that_a_png_written_chunk_by_chunk_had() -> None:
    shares = row_shares(np.random.default_rng(0).poisson(0.5, (100, 100)))
    levels = np.rint(np.cbrt(shares) * 63).astype(np.uint8)
    opacity = bytes(round(255 * level / 63) for level in range(64))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 100, 100, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(BLUE) * 64),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(np.pad(levels, ((0, 0), (1, 0))).tobytes(), 9)),
        (b"IEND", b""),
    ]
    before = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    uri = picture(shares)
    reference = Image.open(io.BytesIO(before)).convert("RGBA")
    assert len(np.unique(np.asarray(reference))) > 10
    assert np.array_equal(np.asarray(decode(uri)), np.asarray(reference))
    assert len(uri) < 1.01 * (len(before) * 4 / 3 + 30)
    assert picture(shares.copy()) == uri


def test_seeds_are_summed_and_many_classes_are_not_numbered() -> None:
    one = build_confusion("l2r", [np.eye(2), np.array([[0.0, 1.0], [0.0, 1.0]])], ("a", "b"))
    assert [(n.row, n.column, n.text) for n in one.numbers] == [
        (0, 0, "50"),
        (0, 1, "50"),
        (1, 1, "100"),
    ]
    names = tuple(f"class {i}" for i in range(100))
    assert build_confusion("l2r", [np.eye(100)], names).numbers == ()


def test_labels_of_many_noise_rates_do_not_run_into_each_other() -> None:
    frame = Frame(width=420, height=70, left=10, right=10, top=10, bottom=10)
    rates = tuple(range(1, 41))
    lines = [Values(name, LOOK, rates, (5.0,) * 40, (None,) * 40) for name in ("a", "b", "c")]
    options = {"title": "", "x_label": "", "y_label": "", "bars": True}
    chart = build_chart(lines, frame, x_values=rates, **options)
    assert [tick.label for tick in chart.x_ticks] == ["0", "10", "20", "30", "40"]
    # Methods are set side by side within half of the way to the next rate.
    first, _, last = (line.marks for line in chart.lines)
    gap = first[1].x - first[0].x
    assert 0 < last[0].x - first[0].x <= gap / 2
    few = build_chart(lines, frame, x_values=(1, 20, 40), **options)
    assert [tick.label for tick in few.x_ticks] == ["1", "20", "40"]


def test_a_label_without_a_neighbor_stays_at_its_line() -> None:
    looks = styles(list("abc"))
    series = [
        Values(name, looks[name], (0, 1), (0, y), (None, None), end_label=name)
        for name, y in (("a", 10.0), ("b", 9.9), ("c", 3.0))
    ]
    chart = build_chart(series, Frame(120, 200), title="", x_label="", y_label="", y_range=(0, 10))
    ends = {line.name: (line.end.position, line.end_y) for line in chart.lines if line.end}
    assert ends["c"][0] == ends["c"][1]
    assert ends["b"][0] - ends["a"][0] == 17
    assert ends["a"][0] == 12  # the top of the frame


def test_values_over_decades_have_a_logarithmic_axis() -> None:
    series = [Values("l2r", LOOK, x=(0, 1, 2), y=(1.0, 0.1, 0.01), deviation=(None,) * 3)]
    assert spans_decades(series)
    assert not spans_decades([replace(series[0], y=(1.0, 0.1, 0.0))])
    assert not spans_decades([replace(series[0], y=(1.0, 0.5, 0.1))])
    chart = build_chart(
        series, FRAME, title="", x_label="", y_label="", y_range=(0.01, 1.0), log=True
    )
    # 50 high: each factor of ten is half of it
    assert chart.lines[0].path == "M10 10L60 35L110 60"
    assert [tick.label for tick in chart.y_ticks] == ["0.01", "0.1", "1"]
    # 6 % of two decades at each end
    assert value_range(series, log=True) == pytest.approx((10**-2.12, 10**0.12))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9, 110, [1, 10, 100]),
        (0.03, 2.2, [0.05, 0.1, 0.2, 0.5, 1, 2]),
        (1e-9, 1.0, [1e-9, 1e-7, 1e-5, 1e-3, 0.1]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_few_and_round(low, high, expected) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_every_quantity_that_a_method_logs_says_how_to_read_it() -> None:
    """The names in the sources of the methods and of the diagnostics."""
    package = Path(ieg_core.__file__).parent
    names = set()
    for path in (package / "methods").glob("*.py"):
        names |= set(re.findall(r'"((?:\w+_)?loss)"[:\]]', path.read_text()))
    text = (package / "training" / "diagnostics.py").read_text()
    names |= set(re.findall(r'(?:diagnostics\[|_mean_where\(|\{)"(\w+)"', text))
    assert {"loss", "probe_loss", "weight_on_clean", "zero_weights", "clean_share"} <= names
    internal = {"given_label_loss"}  # of each example, not a curve
    assert names - internal <= READINGS.keys()
    for reading in READINGS.values():
        assert reading.unit
        assert reading.note.endswith(".")


def test_a_long_label_has_its_room() -> None:
    rows = [row("probe_only", 0.2, 0.9), row("probe_only", 0.4, 0.9), row("l2r", 0.8, 0.5)]
    chart = noise_chart(group_rows(rows), styles(["probe_only", "l2r"]))
    assert chart is not None
    assert chart.lines[0].end is not None
    label = chart.lines[0].end.label
    assert label == "probe_only 90.0 at 40 %"
    # 8.5 units a character in bold of 14 units
    assert chart.frame.right >= 12 + 8.5 * len(label)


def test_learning_curves_start_at_step_zero() -> None:
    curves = CurvesRecord(training=[], evaluations=[{"step": 80, "accuracy_ema": 0.5}])
    groups = group_trials([Trial(row("l2r", 0.8, 0.5), curves=curves)])
    (chart,) = learning_charts(groups, {"l2r": LOOK})
    assert chart.x_ticks[0].label == "0"
    assert chart.lines[0].end_x == chart.frame.width - chart.frame.right
    assert [line.end.label for line in chart.lines if line.end] == ["l2r"]


def test_a_method_without_a_result_shows_the_curves_of_its_trials() -> None:
    curves = CurvesRecord(training=[{"step": 1, "loss": 2.0}], evaluations=[])
    other = CurvesRecord(training=[{"step": 1, "loss": 1.0}], evaluations=[])
    failed = Trial(row("l2r", 0.8, None), curves=curves)
    (found,) = diagnostic_charts(group_trials([failed]), {"l2r": LOOK})
    assert [found.title, len(found.charts[0].lines)] == ["loss", 1]
    # A finished trial alone counts where there is one.
    both = group_trials([failed, Trial(row("l2r", 0.8, 0.9, 1), curves=other)])
    (found,) = diagnostic_charts(both, {"l2r": LOOK})
    assert found.charts[0].y_label == "loss, nats"
    assert not any(mark.bar for mark in found.charts[0].lines[0].marks)


# The colors of report.css, for readers who see all colors and for those who do not.


def color(theme, name):
    text = re.search(rf"--{name}: #(\w+)", THEMES[theme])[1]
    value = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(linear):
    x, y, z = TO_XYZ @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES)
def test_names_in_a_methods_color_can_be_read(theme):
    paper = TO_XYZ[1] @ color(theme, "paper")
    for i in range(8):
        ink = TO_XYZ[1] @ color(theme, f"c{i}")
        contrast = (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05)
        assert contrast >= CONTRAST, f"c{i}"


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("theme", THEMES)
def test_the_default_methods_are_told_apart_by_color_alone(theme, sight):
    styles = looks({name: name for name in DEFAULT_METHODS}, list(METHODS))
    seen = {name: lab(SIGHTS[sight] @ color(theme, styles[name].color)) for name in DEFAULT_METHODS}
    for one, other in itertools.combinations(DEFAULT_METHODS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= DIFFERENCE, (one, other)
