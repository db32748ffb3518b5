"""Line plots and strips of pictures, drawn with Pillow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Points = Sequence[tuple[float, float]]

_COLORS = ("#1f6fb4", "#d1495b", "#2e8b57", "#e08a1e", "#7a4fa3", "#6b6b6b", "#b0793a", "#17a2b8")
_SCALE = 2  # drawn larger and reduced, for smooth lines
_FONT = 13
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 16, 34, 52
_LEGEND = 240
_TICKS = 5
_GAP = 4


def plot_lines(
    lines: Mapping[str, Points],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_log: bool = False,
    y_log: bool = False,
    y_line: float | None = None,
    size: tuple[int, int] = (840, 400),
) -> Image.Image:
    """Plot lines with a legend.

    Args:
        lines: Points of each, by what the legend calls it.
        title: Above.
        x_label: Below.
        y_label: Above the left axis.
        x_log: Whether the horizontal axis is logarithmic.
        y_log: The same of the vertical one.
        y_line: Where to draw a dashed line across.
        size: Width and height in pixels.
    """
    width, height = (side * _SCALE for side in size)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    points = [point for line in lines.values() for point in line]
    extra = [] if y_line is None else [y_line]
    across = _Axis([x for x, _ in points], x_log, _LEFT, size[0] - _RIGHT - _LEGEND)
    up = _Axis([y for _, y in points] + extra, y_log, size[1] - _BOTTOM, _TOP)
    _draw_frame(draw, across, up, title=title, x_label=x_label, y_label=y_label, size=size)
    if y_line is not None:
        y = up.place(y_line)
        for left in range(int(across.start), int(across.end), 10):
            _line(draw, [(left, y), (left + 5, y)], "#888888", 1)
    for number, (name, line) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        placed = [(across.place(x), up.place(y)) for x, y in line]
        if len(placed) > 1:
            _line(draw, placed, color, 2)
        for x, y in placed:
            box = [(x - 2.5) * _SCALE, (y - 2.5) * _SCALE, (x + 2.5) * _SCALE, (y + 2.5) * _SCALE]
            draw.ellipse(box, fill=color)
        left, top = size[0] - _LEGEND + 4, _TOP + 4 + number * 20
        _line(draw, [(left, top + 7), (left + 20, top + 7)], color, 3)
        _text(draw, (left + 26, top), name)
    return image.resize(size, Image.Resampling.LANCZOS)


def lay_out(
    rows: Mapping[str, Sequence[np.ndarray]], *, columns: Sequence[str], side: int
) -> Image.Image:
    """Pictures in rows, with names at the left and above.

    Args:
        rows: Pictures as RGB bytes, as many in each row as there are columns.
        columns: Names of the columns.
        side: To which pictures are resized, in pixels.
    """
    font = _font(_FONT, 1)
    left = 10 + int(max(font.getlength(name) for name in rows))
    top = 24
    image = Image.new(
        "RGB", (left + len(columns) * (side + _GAP), top + len(rows) * (side + _GAP)), "white"
    )
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(columns):
        name = _cut(name, font, side)
        draw.text((left + column * (side + _GAP), 4), name, fill="black", font=font)
    for row, (name, pictures) in enumerate(rows.items()):
        y = top + row * (side + _GAP)
        draw.text((4, y + side // 2 - 8), name, fill="black", font=font)
        for column, picture in enumerate(pictures):
            shown = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            image.paste(shown, (left + column * (side + _GAP), y))
    return image


def ticks_of(low: float, high: float, is_log: bool) -> list[float]:
    """Round numbers within a range, for the marks of an axis."""
    if is_log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1, 2, 5) if last - first <= 2 else (1,)
        marks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        return [mark for mark in marks if low <= mark * 1.0001 and mark <= high * 1.0001]
    step = _round_step((high - low) / _TICKS)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


class _Axis:
    """Numbers to pixels."""

    def __init__(self, values: Sequence[float], is_log: bool, start: float, end: float):
        self.is_log, self.start, self.end = is_log, start, end
        self.low, self.high = min(values), max(values)
        if not is_log:
            self.low = min(0.0, self.low)
        if self.low == self.high:
            self.high = self.low + 1 if not is_log else self.low * 10

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return ticks_of(self.low, self.high, self.is_log)


def _draw_frame(
    draw: Any,
    across: _Axis,
    up: _Axis,
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int],
) -> None:
    for tick in up.ticks:
        y = up.place(tick)
        _line(draw, [(across.start, y), (across.end, y)], "#e4e4e4", 1)
        _text(draw, (across.start - 8, y - 8), f"{tick:.4g}", anchor="ra")
    for tick in across.ticks:
        x = across.place(tick)
        _line(draw, [(x, up.start), (x, up.start + 5)], "#333333", 1)
        _text(draw, (x, up.start + 8), f"{tick:.4g}", anchor="ma")
    _line(draw, [(across.start, up.start), (across.end, up.start)], "#333333", 1)
    _line(draw, [(across.start, up.start), (across.start, up.end)], "#333333", 1)
    _text(draw, (across.start, 4), f"{title}: {y_label}")
    _text(draw, ((across.start + across.end) / 2, size[1] - 20), x_label, anchor="ma")


def _line(draw: Any, points: Points, color: str, width: int) -> None:
    scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
    draw.line(scaled, fill=color, width=width * _SCALE, joint="curve")


def _text(draw: Any, place: tuple[float, float], text: str, *, anchor: str = "la") -> None:
    x, y = place
    draw.text((x * _SCALE, y * _SCALE), text, fill="#222222", font=_font(_FONT), anchor=anchor)


def _cut(text: str, font: Any, width: int) -> str:
    """As much of a text as fits."""
    while font.getlength(text) > width:
        text = text.rstrip("…")[:-1].rstrip() + "…"
    return text


def _font(size: int, scale: int = _SCALE) -> Any:
    return ImageFont.load_default(size=size * scale)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= rough * 0.999)
