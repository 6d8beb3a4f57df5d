# SPDX-License-Identifier: Apache-2.0
"""The layout of a plot: positions of every line, marker and label; the template makes it SVG.

Not matplotlib: that takes 1.5 s to import, cannot take its colors from the page's style sheet (for
dark mode), and does not give the same bytes for the same input.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Point = tuple[float, float]

MARKERS = ("circle", "square", "diamond", "triangle", "wedge", "cross")
NUM_COLORS = 8
SIDE_STEP = 7.0
"""Distance in SVG units between series drawn side by side, so that error bars do not overlap."""
LOG_SPAN = 50.0
"""The ratio of the largest to the smallest value from which on an axis is logarithmic."""
TICK_STEP = 28.0
"""Minimum distance in SVG units between labels of the x axis."""


@dataclass(frozen=True)
class Style:
    """A method's color and dash (CSS classes `c0`… and `d0`…) and marker, each enough alone."""

    color: str
    dash: str
    marker: str


@dataclass(frozen=True)
class Values:
    """One line of a plot before it is drawn.

    Attributes:
      x, y: Points, in data units, x increasing.
      deviation: Half-height of the band or bars at each point; None where unknown.
      labels: The hover text of each point; may be empty.
    """

    name: str
    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    deviation: tuple[float | None, ...]
    labels: tuple[str, ...] = ()
    end_label: str = ""


@dataclass(frozen=True)
class Frame:
    """A plot's size in SVG units and its margins."""

    width: float
    height: float
    left: float = 46
    right: float = 12
    top: float = 12
    bottom: float = 40


@dataclass(frozen=True)
class Tick:
    """A position along an axis and its label."""

    position: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A marker with its error bar (y of both ends, None without one) and hover text."""

    x: float
    y: float
    bar: Point | None
    label: str


@dataclass(frozen=True)
class Line:
    """One drawn series: SVG path data and positions.

    Attributes:
      end: The label at its end, moved so that no two overlap.
      end_x, end_y: Where the line ends.
    """

    name: str
    style: Style
    path: str
    band: str
    marks: tuple[Mark, ...]
    end: Tick | None
    end_x: float
    end_y: float


@dataclass(frozen=True)
class Chart:
    """A plot, ready for the template."""

    title: str
    frame: Frame
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Gives each label a color, a dash and a marker by its position in the list.

    Args:
      labels: Methods in their fixed order.

    Returns:
      A style for each; after `NUM_COLORS`, colors repeat with another marker.
    """
    return {
        label: Style(f"c{i % NUM_COLORS}", f"d{i % NUM_COLORS}", MARKERS[i % len(MARKERS)])
        for i, label in enumerate(labels)
    }


def looks(labels: Mapping[str, str], methods: Sequence[str]) -> dict[str, Style]:
    """Gives each line of a report its style; a method has the same style in every report.

    Args:
      labels: The lines, each with its method; several lines may have the same method.
      methods: All methods in their fixed order.

    Returns:
      A style for each label: the first line of a method has the method's style, further ones have
      the styles of methods that are absent.
    """
    first = {method: label for label, method in reversed(list(labels.items()))}
    further = [label for label, method in labels.items() if first[method] != label]
    further += [label for method, label in first.items() if method not in methods]
    places = [first.get(method) or (further.pop(0) if further else method) for method in methods]
    return styles([*places, *further])


def ticks(low: float, high: float, most: int) -> list[float]:
    """Finds at most `most` round numbers (steps of 1, 2 or 5 times a power of ten) in [low, high].

    Args:
      low: Lower end.
      high: Upper end, above `low`.
      most: The largest number of ticks wanted, at least 2.

    Returns:
      The numbers, increasing.
    """
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Finds round numbers in [low, high] for a logarithmic axis.

    Args:
      low: Lower end, above 0.
      high: Upper end, above `low`.

    Returns:
      The powers of ten, thinned to at most six; with fewer than three of them, also their doubles
      and fivefolds.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1)
    inside = [10.0**power for power in decades if low <= 10.0**power <= high]
    if len(inside) < 3:
        inside = [f * 10.0**power for power in decades for f in (1, 2, 5)]
    every = -(-len(inside) // 6) if len(inside) > 6 and last - first > 3 else 1
    return [value for value in inside[::every] if low <= value <= high]


def spans_decades(series: Sequence[Values]) -> bool:
    """Returns whether values are positive and so far apart that a linear axis hides most."""
    values = [y for each in series for y in each.y]
    return bool(values) and min(values) > 0 and max(values) / min(values) >= LOG_SPAN


def build_chart(
    series: Sequence[Values],
    frame: Frame,
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_values: Sequence[float] = (),
    x_start: float | None = None,
    y_range: Point | None = None,
    bars: bool = False,
    log: bool = False,
) -> Chart:
    """Lays out a plot: lines with either a shaded band or markers with error bars.

    Args:
      series: The lines.
      frame: The plot's size.
      title: The title, also for screen readers.
      x_label: Name of the x axis, with its unit.
      y_label: Name of the y axis, with its unit.
      x_values: Positions of the x ticks; round numbers if empty or too close together.
      x_start: Where the x axis starts, in data units; at the first point if None.
      y_range: Ends of the y axis in data units; from the data if None.
      bars: Whether to draw markers with error bars, series side by side, instead of bands.
      log: Whether the y axis is logarithmic; all values and `y_range` are then above 0.

    Returns:
      The plot; without lines if there is no data.
    """
    series = [values for values in series if values.x]
    if not series:
        return Chart(title, frame, x_label, y_label, (), (), ())
    starts = [] if x_start is None else [x_start]
    span = _span([*starts, *(x for values in series for x in values.x)], 0.06 if bars else 0.0)
    x_axis = _Axis(*span, frame.left, frame.width - frame.right)
    y_span = y_range or value_range(series)
    y_axis = _Axis(*y_span, frame.height - frame.bottom, frame.top, log)
    middle = (len(series) - 1) / 2
    gap = _least_gap([x_axis.at(x) for values in series for x in values.x])
    # All series at one x stay within half of the distance to the next x.
    side = min(SIDE_STEP, gap / (2 * len(series))) if bars else 0.0
    lines = [
        _line(values, x_axis, y_axis, bars, side * (index - middle))
        for index, values in enumerate(series)
    ]
    exact = sorted(set(x_values))
    fits = exact and _least_gap([x_axis.at(x) for x in exact]) >= TICK_STEP
    x_ticks = [
        Tick(x_axis.at(x), f"{x:,g}") for x in (exact if fits else ticks(*span, 9 if exact else 5))
    ]
    y_values = log_ticks(*y_span) if log else ticks(*y_span, 6)
    y_ticks = [Tick(y_axis.at(y), f"{y:,g}") for y in y_values]
    return Chart(
        title,
        frame,
        x_label,
        y_label,
        tuple(x_ticks),
        tuple(y_ticks),
        tuple(_spread_ends(lines, frame)),
    )


def value_range(series: Sequence[Values], ceiling: float = math.inf, *, log: bool = False) -> Point:
    """Finds the y axis that fits all points and deviations with a margin.

    Args:
      series: The lines; at least one point among them.
      ceiling: The upper limit of the axis, for example 100 for percent.
      log: Whether the axis is logarithmic; it then fits the points alone.

    Returns:
      Lower and upper end.
    """
    if log:
        powers = [math.log10(y) for values in series for y in values.y]
        lower, upper = _span([min(powers), max(powers)], 0.06)
        return 10**lower, 10**upper
    low = min(y - (d or 0) for v in series for y, d in zip(v.y, v.deviation, strict=True))
    high = max(y + (d or 0) for v in series for y, d in zip(v.y, v.deviation, strict=True))
    low, high = _span([low, high], 0.06)
    return low, min(high, ceiling) if ceiling > low else high


def thin(values: Sequence[Mapping[str, float]], most: int) -> list[Mapping[str, float]]:
    """Keeps at most `most` records, evenly spaced, including the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _least_gap(positions: Sequence[float]) -> float:
    places = sorted(set(positions))
    return min((b - a for a, b in itertools.pairwise(places)), default=math.inf)


def _span(values: Sequence[float], air: float) -> Point:
    low, high = min(values), max(values)
    if high - low < 1e-12:
        half = abs(low) * 0.1 or 0.5
        return low - half, high + half
    return low - air * (high - low), high + air * (high - low)


@dataclass(frozen=True)
class _Axis:
    """Maps [low, high] in data units to [start, stop] in SVG units; values outside are clipped."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        clipped = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(clipped / self.low) / math.log(self.high / self.low)
        else:
            share = (clipped - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 2)


def _line(values: Values, x_axis: _Axis, y_axis: _Axis, bars: bool, offset: float) -> Line:
    xs = [round(x_axis.at(x) + offset, 2) for x in values.x]
    ys = [y_axis.at(y) for y in values.y]
    ends = [
        None if d is None else (y_axis.at(y - d), y_axis.at(y + d))
        for y, d in zip(values.y, values.deviation, strict=True)
    ]
    texts = values.labels or ("",) * len(xs)
    # A line of one point is invisible.
    marked = bars or len(xs) == 1
    marks = [Mark(*mark) for mark in zip(xs, ys, ends, texts, strict=True)] if marked else []
    end = Tick(ys[-1], values.end_label) if values.end_label else None
    band = "" if bars else _band(xs, ends)
    return Line(values.name, values.style, _path(xs, ys), band, tuple(marks), end, xs[-1], ys[-1])


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in zip(xs, ys, strict=True))


def _band(xs: Sequence[float], ends: Sequence[Point | None]) -> str:
    known = [(x, *pair) for x, pair in zip(xs, ends, strict=True) if pair is not None]
    if len(known) < 2:
        return ""
    upper = [(x, high) for x, _, high in known]
    lower = [(x, low) for x, low, _ in reversed(known)]
    outline = upper + lower
    return _path([x for x, _ in outline], [y for _, y in outline]) + "Z"


def _spread_ends(lines: Sequence[Line], frame: Frame, gap: float = 17.0) -> list[Line]:
    """Moves the labels at the lines' ends apart, so that none overlap or leave the frame."""
    order = sorted((i for i, line in enumerate(lines) if line.end), key=lambda i: -_end_y(lines[i]))
    result, floor = list(lines), frame.height - frame.bottom + gap / 2
    heights = []
    for index in order:  # upward from the lowest
        floor = min(_end_y(lines[index]), floor - gap)
        heights.append(floor)
    ceiling = frame.top
    for index, height in reversed(list(zip(order, heights, strict=True))):  # and back down
        place = max(height, ceiling)
        ceiling = place + gap
        end = lines[index].end
        if end:
            result[index] = replace(lines[index], end=replace(end, position=place))
    return result


def _end_y(line: Line) -> float:
    return line.end.position if line.end else 0.0
