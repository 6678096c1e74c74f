"""Renders plots as SVG: no script, no inline style, colours by CSS class."""

from collections.abc import Callable, Sequence
from typing import Final

import markupsafe
import msgspec

WIDTH: Final = 640
HEIGHT: Final = 190
LEFT: Final = 46
BOTTOM: Final = 24
TOP: Final = 10
SERIES_CLASSES: Final = 8
"""The number of colours in the style sheet; further series share the last one."""
LABELS_MAX: Final = 6


class Series(msgspec.Struct, frozen=True):
    """One series of a stacked plot: a value for each bucket."""

    name: str
    values: tuple[float, ...]


def stacked(
    title: str, labels: Sequence[str], series: Sequence[Series], written: Callable[[float], str]
) -> markupsafe.Markup:
    """A stacked bar chart over time: one bar per bucket, one segment per series. `written` formats a value."""
    count = max(len(labels), 1)
    totals = [sum(one.values[index] for one in series) for index in range(len(labels))]
    top = _round_up(max(totals, default=0))
    wide, high = WIDTH - LEFT - 6, HEIGHT - BOTTOM - TOP
    step = wide / count
    parts = [_opening(title, f"{written(sum(totals))} in total"), *_grid(top, high, written)]
    for index, label in enumerate(labels):
        y = float(TOP + high)
        for number, one in enumerate(series):
            value = one.values[index]
            if value <= 0:
                continue
            tall = value / top * high
            y -= tall
            parts.append(
                markupsafe.Markup(
                    '<rect class="s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5">'
                    "<title>{} · {}: {}</title></rect>"
                ).format(
                    min(number, SERIES_CLASSES - 1),
                    LEFT + index * step + step * 0.12,
                    y,
                    max(step * 0.76, 1.5),
                    max(tall, 0.8),
                    label,
                    one.name,
                    written(value),
                )
            )
        if index % max(1, -(-count // LABELS_MAX)) == 0:
            parts.append(
                markupsafe.Markup('<text class="axis" x="{:.1f}" y="{}">{}</text>').format(
                    LEFT + index * step, HEIGHT - 6, label
                )
            )
    parts.append(markupsafe.Markup("</svg>"))
    return markupsafe.Markup("").join(parts)


def bars(title: str, rows: Sequence[tuple[str, float]], unit: str) -> markupsafe.Markup:
    """A horizontal bar chart."""
    from hive.dashboard.view import compact

    line, top = 22, max((value for _, value in rows), default=0) or 1
    high = max(len(rows), 1) * line + 8
    parts = [
        markupsafe.Markup('<svg class="plot" viewBox="0 0 {} {}" role="img"><title>{}</title>').format(
            WIDTH, high, title
        )
    ]
    for index, (name, value) in enumerate(rows):
        y = index * line + 4
        parts.append(
            markupsafe.Markup(
                '<text class="name" x="150" y="{}">{}</text><rect class="s{}" x="158" y="{}" width="{:.1f}" height="12"'
                ' rx="2"><title>{}: {} {}</title></rect><text class="value" x="{:.1f}" y="{}">{}</text>'
            ).format(
                y + 13,
                name if len(name) <= 22 else f"{name[:21]}…",
                index % SERIES_CLASSES,
                y + 3,
                max(value / top * (WIDTH - 230), 2),
                name,
                compact(value),
                unit,
                166 + max(value / top * (WIDTH - 230), 2),
                y + 13,
                compact(value),
            )
        )
    parts.append(markupsafe.Markup("</svg>"))
    return markupsafe.Markup("").join(parts)


def _opening(title: str, about: str) -> markupsafe.Markup:
    return markupsafe.Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>'
    ).format(WIDTH, HEIGHT, title, about)


def _grid(top: float, high: int, written: Callable[[float], str]) -> list[markupsafe.Markup]:
    lines = []
    for part in (0.0, 0.5, 1.0):
        y = TOP + high - high * part
        lines.append(
            markupsafe.Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}" y="{:.1f}">{}</text>'
            ).format(LEFT, WIDTH - 6, y, y, LEFT - 6, y + 4, written(top * part))
        )
    return lines


def _round_up(value: float) -> float:
    """Round up to one, two or five times a power of ten."""
    if value <= 0:
        return 1
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value)
