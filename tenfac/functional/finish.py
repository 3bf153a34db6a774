"""The last step of a construction: ranks and degrees are cut, and the cut is measured in the sup norm."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..core.contract import contract
from ..core.modes.chebyshev import Chebyshev
from ..core.truncate import truncate

# Shares of the budget that are tried as Frobenius norm of what is cut, the largest first.
_SHARES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_POINTS = 400


def shortened(
    core: np.ndarray,
    factors: Sequence[np.ndarray],
    budget: float,
    place: np.ndarray | None = None,
    discrete: Collection[int] = (),
) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Cut ranks and degrees of coefficient factors while the function moves by at most ``budget``.

    Parameters
    ----------
    core : array, shape (R_0, ..., R_{D-1})
    factors : sequence of D arrays, shapes (K_n, R_n)
        Chebyshev coefficients; values of ``discrete`` modes.
    budget : float
        Largest change of a value.
    place : array, shape (D,), optional
        Point of the cube [-1, 1]^D around which the function is looked at closely: its peak.
    discrete : collection of int
        Modes whose rows are kept.

    Returns
    -------
    core, factors : arrays
        Orthonormal factors.
    lost : float
        Largest change found, at 400 points: near ``place``, at corners, edges and anywhere.

    Examples
    --------
    >>> import numpy as np
    >>> core, factors, lost = shortened(np.eye(2), [np.eye(9)[:, :2], np.eye(9)[:, :2] * [1, 1e-9]], 1e-6)
    >>> core.shape, [f.shape for f in factors], lost <= 1e-6
    ((1, 1), [(1, 1), (1, 1)], True)
    """
    pairs = [np.linalg.qr(factor) for factor in factors]
    core = contract(core, [triangle for _, triangle in pairs])
    bases = [basis for basis, _ in pairs]
    size = float(np.linalg.norm(core))
    if not size:
        ones = [np.ones((len(basis) if n in discrete else 1, 1)) for n, basis in enumerate(bases)]
        return np.zeros((1,) * core.ndim), ones, 0.0
    points = _places(core.ndim, place)
    before = evaluate(core, bases, points, discrete)
    for share in _SHARES:
        small, made = _cut(core, bases, share * budget, size, discrete)
        lost = float(np.abs(evaluate(small, made, points, discrete) - before).max())
        if lost <= budget:
            break
    return small, made, lost


def evaluate(
    core: np.ndarray, factors: Sequence[np.ndarray], points: np.ndarray, discrete: Collection[int] = ()
) -> np.ndarray:
    """Values at points of the cube, ``(N, D) -> (N,)``; rows of ``discrete`` modes are spread over [-1, 1].

    Examples
    --------
    >>> import numpy as np
    >>> evaluate(np.ones((1, 1)), [np.array([[0.0], [1.0]])] * 2, np.array([[0.5, 0.5]]))
    array([0.25])
    >>> evaluate(np.ones(1), [np.array([[5.0], [6.0], [7.0]])], np.array([[-1.0], [0.0], [1.0]]), [0])
    array([5., 6., 7.])
    """
    rows = [
        f[np.rint((points[:, n] + 1) / 2 * (len(f) - 1)).astype(int)]
        if n in discrete
        else Chebyshev(len(f)).rows(f, points[:, n])
        for n, f in enumerate(factors)
    ]
    return contract(core, rows, paired=range(len(rows)))


def _cut(
    core: np.ndarray, bases: Sequence[np.ndarray], budget: float, size: float, discrete: Collection[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    core, turns, _ = truncate(core, None, max(budget / size, 1e-16))
    factors = [basis @ turn for basis, turn in zip(bases, turns, strict=True)]
    for n, factor in enumerate(factors):
        if n in discrete:
            continue
        flat = np.moveaxis(core, n, 0).reshape(core.shape[n], -1)
        heights = np.linalg.norm(factor @ flat, axis=1)
        kept = np.flatnonzero(np.cumsum(heights[::-1])[::-1] > budget)
        factors[n], triangle = np.linalg.qr(factor[: (kept[-1] + 1 if len(kept) else 1)])
        core = contract(core, [triangle if m == n else None for m in range(core.ndim)])
    return core, factors


def _places(ndim: int, place: np.ndarray | None) -> np.ndarray:
    """Points of the cube, a third each: anywhere, with coordinates at the ends, around the place."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (_POINTS, ndim))
    third = _POINTS // 3
    ends = points[:third]
    ends[rng.random(ends.shape) < 0.6] = 1.0
    ends *= rng.choice([-1.0, 1.0], ends.shape)
    near = np.zeros(ndim) if place is None else place
    shrink = np.geomspace(1e-4, 1, third)[:, None]
    points[third : 2 * third] = np.clip(near + shrink * points[third : 2 * third], -1, 1)
    points[2 * third] = near
    return points
