"""Integrals of one variable over many rows at once, by the trapezoid rule on a scale where it is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainccinv, gammaincinv, gammaln, logsumexp

Array = NDArray[Any]
_NODES = 241
_BISECTIONS = 100
_REACH = 9.0  # standard deviations


def scale_nodes(shape: Array, outlying: Array, count: int, tail: float = 1e-18) -> tuple[Array, Array]:
    """Logarithms of a Gamma precision of mean one, and log weights, for rows of ``shape`` (N,): (N, count).

    The nodes reach down to the precisions that explain a squared error ``outlying`` (N,), in units of the
    variance at precision one; ``tail`` is the probability beyond each end.
    """
    after = np.log(gammaincinv(shape + 0.5, tail) / (shape + 0.5 * outlying))
    low = np.minimum(np.log(gammaincinv(shape, tail) / shape), after)
    high = np.log(gammainccinv(shape + 0.5, tail) / shape)
    logs = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, count)
    a = shape[:, None]
    weights = a * np.log(a) - gammaln(a) + a * (logs - np.exp(logs))
    return logs, weights + np.log((high - low) / (count - 1))[:, None]


def bisect(decreasing: Callable[[Array], Array], low: Array | float, high: Array | float) -> Array:
    """Roots of decreasing functions, one per row, between ``low`` and ``high``."""
    low, high = (np.array(end, dtype=float) for end in np.broadcast_arrays(low, high))
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        right = decreasing(middle) > 0
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    return 0.5 * (low + high)


def log_integral_beside_mode(
    log_kernel: Callable[[Array], tuple[Array, Array, Array]], center: Array, variance: Array
) -> Array:
    """``log of the integral of exp(log_kernel(x)) N(x; center, variance)`` for log-concave kernels, (N,).

    ``log_kernel`` maps (N,) or (N, K) to value, slope and minus curvature. Nodes are dense where the
    integrand peaks and reach as far as the Gaussian.
    """
    first = variance * log_kernel(center)[1]
    low, high = center + np.minimum(first, 0.0), center + np.maximum(first, 0.0)
    mode = bisect(lambda x: variance * log_kernel(x)[1] - (x - center), low, high)
    std = 1 / np.sqrt(1 / variance + log_kernel(mode)[2])
    reach = np.arcsinh(_REACH * np.sqrt(variance) / std)[:, None]
    t = reach * np.linspace(-1, 1, _NODES)
    x = mode[:, None] + std[:, None] * np.sinh(t)
    width = 2 * reach / (_NODES - 1) * std[:, None] * np.cosh(t)
    gauss = -0.5 * (np.log(2 * np.pi * variance)[:, None] + (x - center[:, None]) ** 2 / variance[:, None])
    return logsumexp(log_kernel(x)[0] + gauss + np.log(width), axis=1)


def mean_beside_step(
    function: Callable[[Array], Array], center: Array, variance: Array, place: Array, width: Array
) -> Array:
    """Means of functions under ``N(center, variance)``, which fall from 1 to 0 around a place, shape (N,).

    ``function`` maps (N, K) to (N, K). Nodes are dense at ``place``, to a part of ``width``, and reach as far
    as the Gaussian.
    """
    std = np.sqrt(variance)
    low, high = center - _REACH * std, center + _REACH * std
    place, width = np.clip(place, low, high), np.minimum(width, std)
    start, end = (np.arcsinh((side - place) / width)[:, None] for side in (low, high))
    t = start + (end - start) * np.linspace(0, 1, _NODES)
    x = place[:, None] + width[:, None] * np.sinh(t)
    weights = np.cosh(t) * np.exp(-0.5 * (x - center[:, None]) ** 2 / variance[:, None])
    return np.sum(weights * function(x), axis=1) / weights.sum(axis=1)
