# SPDX-License-Identifier: Apache-2.0
"""The colors of report.css, for readers who see all colors and for those who do not."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from ieg_core.experiment.methods import DEFAULT_METHODS, METHODS
from ieg_core.report.html import page
from ieg_core.report.html.charts import looks

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
