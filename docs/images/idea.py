"""Draws ``idea.svg``: a core, one factor per mode, and five kinds of factor.

Run: ``python docs/images/idea.py``.
"""

from __future__ import annotations

import math
from pathlib import Path

INK, CORE, FACTOR, FAINT = "#1f2933", "#d97706", "#2563eb", "#dbe4f3"


def text(x: float, y: float, words: str, size: int = 14, weight: str = "normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="middle" fill="{INK}">{words}</text>'
    )


def box(x: float, y: float, w: float, h: float, fill: str, opacity: float = 1.0) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" '
        f'fill-opacity="{opacity:g}" stroke="{INK}" stroke-width="1"/>'
    )


def polygon(points: list[tuple[float, float]], fill: str, opacity: float = 1.0) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polygon points="{path}" fill="{fill}" fill-opacity="{opacity:g}" stroke="{INK}"/>'


def curve(points: list[tuple[float, float]], color: str, width: float = 2.0) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"/>'


def cube(x: float, y: float, size: float, slant: float, fill: str) -> list[str]:
    top = [(x, y), (x + slant, y - slant), (x + size + slant, y - slant), (x + size, y)]
    side = [(x + size, y), (x + size + slant, y - slant), (x + size + slant, y + size - slant)]
    return [
        box(x, y, size, size, fill),
        polygon(top, fill, 0.6),
        polygon([*side, (x + size, y + size)], fill, 0.8),
    ]


def tucker() -> list[str]:
    """The tensor, and what it is made of."""
    parts = [*cube(90, 75, 120, 42, FAINT), text(150, 142, "X", 22, "bold"), text(300, 125, "=", 30)]
    parts += [text(78, 140, "i"), text(150, 213, "j"), text(246, 190, "k")]
    parts += [box(365, 65, 46, 120, FACTOR, 0.75), text(388, 132, "A", 20, "bold"), text(353, 130, "i")]
    parts += [*cube(430, 110, 48, 18, CORE), text(454, 141, "G", 20, "bold")]
    parts += [box(514, 112, 120, 44, FACTOR, 0.75), text(574, 141, "B", 20, "bold"), text(574, 174, "j")]
    skewed = [(452, 82), (500, 82), (560, 22), (512, 22)]
    parts += [polygon(skewed, FACTOR, 0.75), text(506, 58, "C", 20, "bold"), text(572, 34, "k")]
    parts += [
        text(780, 100, "a core G, and one factor per mode:", 15),
        text(780, 124, "row i of A is what index i", 15),
    ]
    return [*parts, text(780, 148, "stands for", 15)]


def rows(x: float, y: float) -> list[str]:
    shades = [0.9, 0.2, 0.5, 0.3, 0.8, 0.4, 0.6, 0.1, 0.7, 0.2, 0.5, 0.9]
    return [box(x + 35 + 30 * (n % 3), y + 25 * (n // 3), 30, 25, FACTOR, s) for n, s in enumerate(shades)]


def polynomials(x: float, y: float) -> list[str]:
    grid = [n / 50 - 1 for n in range(101)]
    return [
        curve(
            [(x + 80 + 70 * t, y + 50 - 45 * math.cos(k * math.acos(t))) for t in grid], FACTOR, 2.6 - 0.5 * k
        )
        for k in (1, 2, 3)
    ]


def process(x: float, y: float) -> list[str]:
    grid = [n / 60 for n in range(61)]
    places = (0.08, 0.2, 0.3, 0.72, 0.85)

    def mean(t: float) -> float:
        return y + 50 - 26 * math.sin(6.5 * t + 0.4)

    def width(t: float) -> float:
        return 5 + 85 * min(abs(t - p) for p in places)

    over = [(x + 10 + 140 * t, mean(t) - width(t)) for t in grid]
    under = [(x + 10 + 140 * t, mean(t) + width(t)) for t in reversed(grid)]
    band = f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in over + under)}" fill="{FAINT}"/>'
    line = curve([(x + 10 + 140 * t, mean(t)) for t in grid], FACTOR)
    dots = [f'<circle cx="{x + 10 + 140 * t:.1f}" cy="{mean(t):.1f}" r="3.5" fill="{INK}"/>' for t in places]
    return [band, line, *dots]


def dictionary(x: float, y: float) -> list[str]:
    return [box(x + 8 + 12 * n, y + 5, 12, 90, FACTOR, 0.85 if n in (3, 8) else 0.08) for n in range(12)]


def weight(x: float, y: float) -> list[str]:
    stack = [box(x + 15 + 8 * n, y + 26 - 8 * n, 56, 66, "#e5e7eb") for n in (2, 1, 0)]
    update = [box(x + 112, y + 14, 12, 62, FACTOR, 0.75), box(x + 126, y + 14, 12, 12, CORE)]
    return [
        *stack,
        text(x + 43, y + 64, "W"),
        text(x + 100, y + 56, "+", 20),
        *update,
        box(x + 140, y + 14, 14, 12, FACTOR, 0.75),
    ]


KINDS = (
    (rows, "labels, rows, pixels", "a row of numbers"),
    (polynomials, "a point of an interval", "polynomials"),
    (process, "a time, a dose", "Gaussian process"),
    (dictionary, "a dictionary's columns", "few of them active"),
    (weight, "a layer's channels", "update of a weight"),
)


def picture() -> str:
    """The whole drawing as SVG."""
    parts = ['<rect width="960" height="420" rx="8" fill="white"/>', *tucker()]
    for n, (draw, index, what) in enumerate(KINDS):
        x = 30 + 185 * n
        parts += [*draw(x, 258), text(x + 80, 382, index, 14, "bold"), text(x + 80, 402, what, 14)]
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 420" width="960" height="420" '
        f'font-family="Helvetica, Arial, sans-serif">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_name("idea.svg").write_text(picture(), encoding="utf-8")
