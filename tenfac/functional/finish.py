"""The last step of a construction: ranks and degrees are cut, and the cut is measured in the sup norm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from tenfac.core.contract import contract
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.core.train_cores import Sweep, orthogonal, times
from tenfac.core.truncate import truncate
from tenfac.functional.cross.train_core import chain_values

# Shares of the budget that are tried as Frobenius norm of what is cut, the largest first.
_SHARES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)
_POINTS = 400
_SEED = 0  # of those points
# Smallest relative error of a cut: below it there are rounding errors only.
FLOOR = 1e-16


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

    def values(core: Any, factors: Sequence[np.ndarray]) -> np.ndarray:
        return evaluate(core, factors, points, discrete)

    return _fitting((core, bases), lambda spent: _cut(core, bases, spent, size, discrete), values, budget)


def shortened_train(
    cores: Sequence[np.ndarray],
    factors: Sequence[np.ndarray],
    budget: float,
    place: np.ndarray | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """The same for a core that is a tensor train; all arguments along the train.

    Parameters
    ----------
    cores : sequence of D arrays, shapes (S_before, R_n, S_after)
    factors : sequence of D arrays, shapes (K_n, R_n)
    budget : float
    place : array, shape (D,), optional

    Returns
    -------
    cores, factors : lists of arrays
        Orthonormal factors.
    lost : float

    Examples
    --------
    >>> import numpy as np
    >>> cores = [np.eye(2)[None], np.eye(2)[..., None]]
    >>> factors = [np.eye(9)[:, :2], np.eye(9)[:, :2] * [1, 1e-9]]
    >>> cores, factors, lost = shortened_train(cores, factors, 1e-6)
    >>> [core.shape for core in cores], [f.shape for f in factors], lost <= 1e-6
    ([(1, 1, 1), (1, 1, 1)], [(1, 1), (1, 1)], True)
    """
    pairs = [np.linalg.qr(factor) for factor in factors]
    bases = [basis for basis, _ in pairs]
    whole = [times(core, triangle, xp) for core, (_, triangle) in zip(cores, pairs, strict=True)]
    whole = orthogonal(whole, xp)
    if not np.any(whole[0]):
        return [np.zeros((1, 1, 1))] * len(bases), [np.eye(1)] * len(bases), 0.0
    points = _places(len(bases), place)

    def values(cores: Any, factors: Sequence[np.ndarray]) -> np.ndarray:
        rows = [Chebyshev(f.shape[0]).rows(f, points[:, n]) for n, f in enumerate(factors)]
        return chain_values(cores, rows)

    return _fitting((whole, bases), lambda spent: _cut_train(whole, bases, spent), values, budget)


def _fitting(
    start: tuple[Any, Any], cut: Callable[[float], tuple[Any, Any]], values: Callable[..., Any], budget: float
) -> tuple[Any, Any, float]:
    """The shortest of several cuts that moves no value by more than the budget."""
    before = values(*start)
    for share in _SHARES:
        small, made = cut(share * budget)
        lost = float(np.abs(values(small, made) - before).max())
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
    core, turns, _ = truncate(core, None, max(budget / size, FLOOR))
    factors = [basis @ turn for basis, turn in zip(bases, turns, strict=True)]
    for n, factor in enumerate(factors):
        if n in discrete:
            continue
        factors[n], triangle = _lower(factor, np.moveaxis(core, n, 0), budget)
        core = contract(core, [triangle if m == n else None for m in range(core.ndim)])
    return core, factors


def _cut_train(
    cores: Sequence[np.ndarray], bases: Sequence[np.ndarray], budget: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """From cores whose norm is all in the first."""
    cores, turns = Sweep(cores, budget**2, xp).run(None, None)  # the norm is all in the last
    factors = [basis @ turn for basis, turn in zip(bases, turns, strict=True)]
    for n in reversed(range(len(cores))):
        factors[n], triangle = _lower(factors[n], cores[n].transpose(1, 0, 2), budget)
        cores[n] = times(cores[n], triangle, xp)
        if n:
            shape = cores[n].shape
            basis, triangle = np.linalg.qr(cores[n].reshape(shape[0], -1).T)
            cores[n] = basis.T.reshape(-1, *shape[1:])
            cores[n - 1] = cores[n - 1] @ triangle.T
    return cores, factors


def _lower(factor: np.ndarray, core: np.ndarray, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """A factor without its highest degrees, orthonormal, and its triangle; its mode is the core's first."""
    heights = np.linalg.norm(factor @ core.reshape(len(core), -1), axis=1)
    kept = np.flatnonzero(np.cumsum(heights[::-1])[::-1] > budget)
    return np.linalg.qr(factor[: (kept[-1] + 1 if len(kept) else 1)])


def _places(ndim: int, place: np.ndarray | None) -> np.ndarray:
    """Points of the cube, a third each: anywhere, with coordinates at the ends, around the place."""
    rng = np.random.default_rng(_SEED)
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
