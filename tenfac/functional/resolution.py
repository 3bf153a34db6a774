"""What interpolation from a grid loses, judged from the same data on coarser grids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.interpolate

# Least gain by twice as many places that is believed: a cubic spline of a smooth function gains 16.
_GAIN = 1 / 8
# Places below which a coarser grid is believed more than the gain.
_FEW = 8
# Ratio of the last coefficients to those before up to which they are taken to fall geometrically.
_GEOMETRIC = 0.4
# Fewest coefficients that are looked at together.
_STEP = 2
# Largest ratio of a sequence that is summed.
_SLOW = 0.9
# Share of the largest value, for each coefficient, below which the last ones are rounding errors.
_ROUNDING = 1e-16


def spline(x: np.ndarray, values: np.ndarray) -> scipy.interpolate.BSpline:
    """The cubic spline through values, or the polynomial where there are fewer than four."""
    return scipy.interpolate.make_interp_spline(x, values, k=min(3, len(x) - 1))


def spline_error(
    x: np.ndarray, values: np.ndarray, nodes: np.ndarray, height: Callable[[np.ndarray], float]
) -> float:
    """Error of the spline: what half of the places lose, times what it gained over a quarter of them.

    Parameters
    ----------
    x : array, shape (I,)
    values : array, shape (I, R)
    nodes : array, shape (K,)
        Where splines are compared.
    height : callable
        Size of the function with these rows, shape (K, R), in place of the factor.

    Notes
    -----
    Smooth functions gain 16 from twice as many places, kinks 2, what no grid resolves nothing.
    """
    if len(x) == 2:  # nothing shows that the function is linear
        return height(np.diff(values, axis=0) / 2)
    fine = spline(x, values)(nodes)
    half = max(height(_on(_every(len(x), 2, at), x, values, nodes) - fine) for at in (0, 1))
    quarter = height(_on(_every(len(x), 4, 0), x, values, nodes) - fine)
    beyond = _beyond(x, values, nodes, height)
    if len(x) < _FEW:  # an even function at four places looks like a parabola
        return max(half, quarter, beyond)
    if len(x) < 2 * _FEW or quarter == 0:
        return max(half, beyond)
    return max(half * float(np.clip(half / quarter, _GAIN, 1)), beyond)


def _every(count: int, step: int, start: int) -> np.ndarray:
    """Row numbers from the first on, and always the two ends."""
    return np.unique(np.concatenate([[0], np.arange(start, count, step), [count - 1]]))


def _beyond(
    x: np.ndarray, values: np.ndarray, nodes: np.ndarray, height: Callable[[np.ndarray], float]
) -> float:
    """Error outside of the places, if splines are used there: twice that at an end which is left out."""
    found = 0.0
    for end, rest, outside in ((0, slice(1, None), nodes[0] < x[0]), (-1, slice(-1), nodes[-1] > x[-1])):
        if outside:
            found = max(found, 2 * height((spline(x[rest], values[rest])(x[end]) - values[end])[None]))
    return found


def _on(kept: np.ndarray, x: np.ndarray, values: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    return spline(x[kept], values[kept])(nodes)


def polynomial_error(found: np.ndarray, basis: np.ndarray, height: Callable[[np.ndarray], float]) -> float:
    """Error of a polynomial through Chebyshev points: the sum of the coefficients that it lacks.

    Parameters
    ----------
    found : array, shape (K, R)
        Coefficients.
    basis : array, shape (N, K)
        The polynomials where they are compared.
    height : callable
        As in ``spline_error``.

    Notes
    -----
    Extrapolated from the last coefficients: geometrically, or where they fall slowly by octaves, as powers
    do. Where the last quarter is rounding errors, nothing is lacking.
    """
    size = len(found)
    if size == 2:
        return height(found[1:])

    def window(low: int, high: int) -> float:
        low = max(low, 1)
        return height(basis[:, low:high] @ found[low:high]) if low < high else 0.0

    step = max(size // 8, _STEP)
    last, before, first = (window(size - (k + 1) * step, size - k * step) for k in range(3))
    if max(last, before) <= _ROUNDING * size * height(basis @ found):
        return last
    if last <= _GEOMETRIC * before and before <= _GEOMETRIC * first:
        ratio = last / before
        return 2 * last * max(ratio / (1 - ratio), 0.1)
    last, before = window(size // 2, size), window(size // 4, size // 2)
    ratio = min(last / before, _SLOW) if before else _SLOW
    return last * ratio / (1 - ratio)
