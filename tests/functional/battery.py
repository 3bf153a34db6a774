"""Functions of three variables: eight of the literature, forty with integrals in closed form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erf, spence

CUBE = [(-1.0, 1.0)] * 3
UNIT = [(0.0, 1.0)] * 3


def _gauss10() -> Callable[..., Any]:
    rng = np.random.default_rng(1)
    centers, exponents, weights = rng.uniform(-1, 1, (10, 3)), rng.uniform(5, 60, 10), rng.standard_normal(10)

    def f(x: Any, y: Any, z: Any) -> Any:
        terms = zip(centers, exponents, weights, strict=True)
        return sum(w * np.exp(-e * ((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)) for (a, b, c), e, w in terms)

    return f


def _yukawa(x: Any, y: Any, z: Any) -> Any:
    r = np.sqrt((x + 1.2) ** 2 + (y + 1.2) ** 2 + (z + 1.2) ** 2)
    return np.exp(-r) / r


def _wagon(x: Any, y: Any, z: Any) -> Any:
    waves = np.exp(np.sin(50 * x)) + np.sin(60 * np.exp(y)) * np.sin(60 * z)
    waves = waves + np.sin(70 * np.sin(x)) * np.cos(10 * z) + np.sin(np.sin(80 * y)) - np.sin(10 * (x + z))
    return waves + (x * x + y * y + z * z) / 4


# name: (function, domain, evaluations allowed at tol=1e-13, peak)
EIGHT: dict[str, tuple[Callable[..., Any], list[tuple[float, float]], int, tuple[float, ...]]] = {
    "runge25": (lambda x, y, z: 1 / (1 + 25 * (x * x + y * y + z * z)), CUBE, 33_000, (0, 0, 0)),
    "cosh3": (lambda x, y, z: 1 / np.cosh(3 * (x + y + z)) ** 2, CUBE, 270_000, (0, 0, 0)),
    "tanh5": (lambda x, y, z: np.tanh(5 * (x + z)) * np.exp(y), CUBE, 70_000, (0, 1, 0)),
    "newton": (lambda x, y, z: 1 / np.sqrt(x * x + y * y + z * z), [(0.1, 2.0)] * 3, 26_000, (-1, -1, -1)),
    "yukawa": (_yukawa, CUBE, 20_000, (-1, -1, -1)),
    "gauss10": (_gauss10(), CUBE, 7_500, (0, 0, 0)),
    "cosxyz": (lambda x, y, z: np.cos(2 * np.pi * x * y * z), CUBE, 5_000, (1, 1, 1)),
    "wagon": (_wagon, CUBE, 13_000, (0, 0, 0)),
}


def points_of(domain: Any, peak: Any = None, count: int = 20_000, seed: int = 9) -> np.ndarray:
    """Random points, ``(D, N)``: half at all distances from the peak (of the cube), some at the ends."""
    rng = np.random.default_rng(seed)
    low, high = np.array(domain, dtype=float).T
    points = rng.uniform(-1, 1, (count, len(low)))
    near = np.zeros(len(low)) if peak is None else np.asarray(peak, dtype=float)
    half = count // 2
    points[:half] = np.clip(near + points[:half] * np.exp(rng.uniform(-8, 0, (half, 1))), -1, 1)
    points[-50:] = np.sign(points[-50:])
    return ((low + high) / 2 + (high - low) / 2 * points).T


def wave(*rates: float) -> complex:
    """``integral exp(i (a x + b y + c z))`` over the unit cube."""
    return complex(np.prod([(np.exp(1j * a) - 1) / (1j * a) if a else 1.0 for a in rates]))


def ridge(third: Callable[[float], float], start: float, rates: tuple[float, ...]) -> float:
    """``integral g(start + a x + b y + c z)`` from the antiderivative of ``g`` of as high an order."""
    corners = itertools.product((0, 1), repeat=len(rates))
    total = math.fsum(
        (-1) ** (len(rates) - sum(c)) * third(start + sum(r * k for r, k in zip(rates, c, strict=True)))
        for c in corners
    )
    return total / math.prod(rates)


def power(p: float) -> Callable[[float], float]:
    """Third antiderivative of ``u^p``."""
    return lambda u: u ** (p + 3) / ((p + 1) * (p + 2) * (p + 3))


def series(term: Callable[[int], float]) -> float:
    """``integral of sum_k term(k) (xyz)^k``."""
    return math.fsum(term(k) / (k + 1) ** 3 for k in range(120))


def bell(rate: float, center: float) -> float:
    """``integral exp(-rate (x - center)^2)``."""
    root = math.sqrt(rate)
    return math.sqrt(math.pi) / (2 * root) * float(erf(root * (1 - center)) + erf(root * center))


E, LN2 = math.e, math.log(2)
_THIRD = {
    "1/u": lambda u: u * u / 2 * math.log(u) - 3 * u * u / 4,
    "1/u2": lambda u: u - u * math.log(u),
    "1/u3": lambda u: math.log(u) / 2,
    "log": lambda u: u**3 / 6 * math.log(u) - 11 * u**3 / 36,
}
# (function, integral over the unit cube)
FORTY: dict[str, tuple[Callable[..., Any], float]] = {
    "exp(x+y+z)": (lambda x, y, z: np.exp(x + y + z), (E - 1) ** 3),
    "cos(x+y+z)": (lambda x, y, z: np.cos(x + y + z), wave(1, 1, 1).real),
    "sin(x+y+z)": (lambda x, y, z: np.sin(x + y + z), wave(1, 1, 1).imag),
    "cos(5(x+y+z))": (lambda x, y, z: np.cos(5 * (x + y + z)), wave(5, 5, 5).real),
    "sin(10x+5y+z)": (lambda x, y, z: np.sin(10 * x + 5 * y + z), wave(10, 5, 1).imag),
    "cos(20x-15y+7z)": (lambda x, y, z: np.cos(20 * x - 15 * y + 7 * z), wave(20, -15, 7).real),
    "1/(1+s)": (lambda x, y, z: 1 / (1 + x + y + z), ridge(_THIRD["1/u"], 1, (1, 1, 1))),
    "1/(1+x+2y+3z)": (lambda x, y, z: 1 / (1 + x + 2 * y + 3 * z), ridge(_THIRD["1/u"], 1, (1, 2, 3))),
    "1/(0.5+s)": (lambda x, y, z: 1 / (0.5 + x + y + z), ridge(_THIRD["1/u"], 0.5, (1, 1, 1))),
    "1/(1+s)^2": (lambda x, y, z: (1 + x + y + z) ** -2.0, ridge(_THIRD["1/u2"], 1, (1, 1, 1))),
    "1/(1+x+2y+3z)^3": (lambda x, y, z: (1 + x + 2 * y + 3 * z) ** -3.0, ridge(_THIRD["1/u3"], 1, (1, 2, 3))),
    "1/(1+s)^4": (lambda x, y, z: (1 + x + y + z) ** -4.0, ridge(lambda u: -1 / (6 * u), 1, (1, 1, 1))),
    "sqrt(1+s)": (lambda x, y, z: np.sqrt(1 + x + y + z), ridge(power(0.5), 1, (1, 1, 1))),
    "(2+s)^1.7": (lambda x, y, z: (2 + x + y + z) ** 1.7, ridge(power(1.7), 2, (1, 1, 1))),
    "log(1+s)": (lambda x, y, z: np.log(1 + x + y + z), ridge(_THIRD["log"], 1, (1, 1, 1))),
    "log(1+x+2y+3z)": (lambda x, y, z: np.log(1 + x + 2 * y + 3 * z), ridge(_THIRD["log"], 1, (1, 2, 3))),
    "s^10": (lambda x, y, z: (x + y + z) ** 10, ridge(power(10), 0, (1, 1, 1))),
    "exp(-(x+2y+3z))": (
        lambda x, y, z: np.exp(-x - 2 * y - 3 * z),
        (1 - 1 / E) * (1 - E**-2) * (1 - E**-3) / 6,
    ),
    "exp(-r^2)": (lambda x, y, z: np.exp(-x * x - y * y - z * z), bell(1, 0) ** 3),
    "gauss 50": (
        lambda x, y, z: np.exp(-50 * ((x - 0.3) ** 2 + (y - 0.6) ** 2 + (z - 0.5) ** 2)),
        bell(50, 0.3) * bell(50, 0.6) * bell(50, 0.5),
    ),
    "two gausses": (
        lambda x, y, z: (
            np.exp(-20 * ((x - 0.2) ** 2 + y**2 + z**2)) - np.exp(-9 * (x**2 + (y - 1) ** 2 + z**2))
        ),
        bell(20, 0.2) * bell(20, 0) ** 2 - bell(9, 0) ** 2 * bell(9, 1),
    ),
    "exp(xyz)": (lambda x, y, z: np.exp(x * y * z), series(lambda k: 1 / math.factorial(k))),
    "cos(2xyz)": (
        lambda x, y, z: np.cos(2 * x * y * z),
        series(lambda k: (-1) ** (k // 2) * 2.0**k / math.factorial(k) if k % 2 == 0 else 0.0),
    ),
    "1/(2+xyz)": (lambda x, y, z: 1 / (2 + x * y * z), series(lambda k: (-0.5) ** k / 2)),
    "log(2+xyz)": (
        lambda x, y, z: np.log(2 + x * y * z),
        series(lambda k: LN2 if k == 0 else -((-0.5) ** k) / k),
    ),
    "z/(2+xy)": (lambda x, y, z: z / (2 + x * y), -float(spence(1.5)) / 2),
    "runge product": (
        lambda x, y, z: 1 / ((1 + 25 * x * x) * (1 + 25 * y * y) * (1 + 25 * z * z)),
        (math.atan(5) / 5) ** 3,
    ),
    "1/((1+x)(1+y)(1+z))": (lambda x, y, z: 1 / ((1 + x) * (1 + y) * (1 + z)), LN2**3),
    "near poles": (
        lambda x, y, z: 1 / ((1.1 - x) * (1.2 - y) * (1.3 - z)),
        math.log(11) * math.log(6) * math.log(13 / 3),
    ),
    "sin(pi x) sin(pi y) sin(pi z)": (
        lambda x, y, z: np.sin(np.pi * x) * np.sin(np.pi * y) * np.sin(np.pi * z),
        (2 / math.pi) ** 3,
    ),
    "sin(20x) cos(10y) exp(z)": (
        lambda x, y, z: np.sin(20 * x) * np.cos(10 * y) * np.exp(z),
        (1 - math.cos(20)) / 20 * math.sin(10) / 10 * (E - 1),
    ),
    "tanh(5x) exp(y) z": (
        lambda x, y, z: np.tanh(5 * x) * np.exp(y) * z,
        math.log(math.cosh(5)) / 5 * (E - 1) / 2,
    ),
    "z cosh(3(x-y))": (lambda x, y, z: z * np.cosh(3 * (x - y)), (math.cosh(3) - 1) / 9),
    "sech^2(3(x+y)) exp(z)": (
        lambda x, y, z: np.exp(z) / np.cosh(3 * (x + y)) ** 2,
        ridge(lambda u: math.log(math.cosh(u)), 0, (3, 3)) * (E - 1),
    ),
    "(xy+yz+zx)^2": (lambda x, y, z: (x * y + y * z + z * x) ** 2, 5 / 6),
    "x^15 y^12 z^10": (lambda x, y, z: x**15 * y**12 * z**10, 1 / (16 * 13 * 11)),
    "exp(x) + z sin(y)": (lambda x, y, z: np.exp(x) + z * np.sin(y), E - 1 + (1 - math.cos(1)) / 2),
    "cos(30x) exp(-y) / (1+z^2)": (
        lambda x, y, z: np.cos(30 * x) * np.exp(-y) / (1 + z * z),
        math.sin(30) / 30 * (1 - 1 / E) * math.pi / 4,
    ),
    "atan(x) + log(1+yz)": (
        lambda x, y, z: np.arctan(x) + np.log(1 + y * z),
        math.pi / 4 - LN2 / 2 + math.pi**2 / 12 + 2 * LN2 - 2,
    ),
    "sqrt((1+x)(1+y)) z^3": (
        lambda x, y, z: np.sqrt((1 + x) * (1 + y)) * z**3,
        (2 / 3 * (2**1.5 - 1)) ** 2 / 4,
    ),
}
