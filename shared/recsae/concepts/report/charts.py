"""Plots as SVG: bars, lines with bands, points. Colours are classes, so that light, dark and print can choose them.

Each plot is a figure with a heading, a text for those who do not see it, and a legend where it shows several things.
Not here: what is plotted (`figures`, `causes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsae.concepts.report.markup import Markup, markup, tag
from recsae.concepts.report.scales import Scale

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 10, 40


@dataclass(frozen=True)
class Series:
    """Points of one thing; `style` is a class of the style sheet: "a", "b" ..., or "control".

    `low` and `high`, where given, are the interval of each point. `marks` draws the points, `joined` the line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marks: bool = False
    joined: bool = True
    steps: bool = False


@dataclass(frozen=True)
class Frame:
    """Axes of a plot and their labels; width and height in CSS pixels before scaling."""

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    width: int = 460
    height: int = 250

    def across(self, value: float) -> float:
        """Horizontal place of a value."""
        return _LEFT + self.x.place(value) * (self.width - _LEFT - _RIGHT)

    def up(self, value: float) -> float:
        """Vertical place of a value."""
        return self.height - _BOTTOM - self.y.place(value) * (self.height - _TOP - _BOTTOM)


def bars(frame: Frame, edges: Sequence[float], groups: Sequence[tuple[str, str, Sequence[float]]]) -> Markup:
    """Stacked bars between `edges`; groups are (name, style, one height per bar), the first at the bottom."""
    drawn = []
    base = [0.0] * (len(edges) - 1)
    for name, style, heights in groups:
        for at, height in enumerate(heights):
            if height > 0:
                left, right = frame.across(edges[at]), frame.across(edges[at + 1])
                top, bottom = frame.up(base[at] + height), frame.up(base[at])
                title = tag("title", f"{name}: {height:,.4g}")
                place = {"x": left + 0.75, "width": max(0.5, right - left - 1.5), "y": top, "height": bottom - top}
                drawn.append(tag("rect", title, class_=f"fill {style}", **place))
            base[at] += height
    return markup(drawn)


def lines(frame: Frame, series: Sequence[Series]) -> Markup:
    """Lines, their bands or whiskers, and marks."""
    return markup([_band(frame, one) for one in series] + [_line(frame, one) for one in series])


def vertical(frame: Frame, value: float, text: str) -> Markup:
    """A dashed line across the plot at a value of the x axis, with a word beside it."""
    x = frame.across(value)
    line = tag("line", x1=x, x2=x, y1=_TOP, y2=frame.height - _BOTTOM, class_="rule")
    return markup([line, tag("text", text, x=x + 4, y=_TOP + 10, class_="note")])


def figure(
    title: str, caption: Markup | str, frame: Frame, body: Markup, legend: Sequence[tuple[str, str]] = ()
) -> Markup:
    """The plot with its heading, axes, legend ((name, style) each) and caption."""
    drawing = tag(
        "svg", tag("title", title), _axes(frame), body,
        viewBox=f"0 0 {frame.width} {frame.height}", role="img", aria_label=title,
    )  # fmt: skip
    keys = [tag("span", tag("i", class_=f"key {style}"), name) for name, style in legend]
    shown = tag("p", keys, class_="legend") if keys else None
    return tag("figure", tag("h3", title), shown, drawing, tag("figcaption", caption))


def _axes(frame: Frame) -> Markup:
    bottom, right = frame.height - _BOTTOM, frame.width - _RIGHT
    parts = []
    for value, text in frame.y.ticks:
        y = frame.up(value)
        parts.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", text, x=_LEFT - 6, y=y + 4, class_="tick end"))
    for value, text in frame.x.ticks:
        x = frame.across(value)
        parts.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(tag("text", text, x=x, y=bottom + 16, class_="tick middle"))
    parts.append(tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    middle = (_LEFT + right) / 2
    parts.append(tag("text", frame.x_label, x=middle, y=frame.height - 6, class_="label middle"))
    turned = f"translate(12 {(_TOP + bottom) / 2:.6g}) rotate(-90)"
    parts.append(tag("text", frame.y_label, transform=turned, class_="label middle"))
    return markup(parts)


def _line(frame: Frame, one: Series) -> Markup:
    places = [(frame.across(x), frame.up(y)) for x, y in one.points]
    parts = []
    if one.joined and len(places) > 1:
        parts.append(tag("path", d=_path(places, one.steps), class_=f"line {one.style}"))
    if one.marks or len(places) == 1:
        for (x, y), (value, other) in zip(places, one.points, strict=True):
            title = tag("title", f"{one.name}: {value:.3g}, {other:.3g}")
            parts.append(tag("circle", title, cx=x, cy=y, r=3, class_=f"mark {one.style}"))
    return markup(parts)


def _band(frame: Frame, one: Series) -> Markup | None:
    if not one.low:
        return None
    xs = [frame.across(x) for x, _ in one.points]
    lows, highs = [frame.up(y) for y in one.low], [frame.up(y) for y in one.high]
    if one.joined and len(xs) > 1:
        around = [*zip(xs, highs, strict=True), *reversed(list(zip(xs, lows, strict=True)))]
        return tag("path", d=_path(around, False) + "Z", class_=f"band {one.style}")
    ends = zip(xs, lows, highs, strict=True)
    return markup([tag("line", x1=x, x2=x, y1=low, y2=high, class_=f"line {one.style} thin") for x, low, high in ends])


def _path(places: Sequence[tuple[float, float]], steps: bool) -> str:
    first, *rest = places
    parts = [f"M{first[0]:.1f} {first[1]:.1f}"]
    parts += [f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}" for x, y in rest]
    return "".join(parts)
