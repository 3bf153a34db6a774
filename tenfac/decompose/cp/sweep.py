"""Alternating least squares for CP from several starts at once, with extrapolation between sweeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from tenfac.core.arrays import to_numpy
from tenfac.decompose.cp.nonnegative import nonnegative_step

# Weight of the old factor in a least-squares step, in roundings: makes singular systems harmless.
_PROXIMAL = 100
# An error of this many roundings is no more than rounding.
_EXACT = 10
# An error below this power of the rounding is that of the residual itself, not a difference of squares; then
# it is known to so many roundings, else its square is known to one.
_SMALL_ERROR, _KNOWN = 0.25, 4
# The share of the last step that a sweep goes ahead: the first, what it and its ceiling grow by after a sweep
# that lowers the error, what it shrinks by after one that does not.
_AHEAD, _GROWTH, _CEILING_GROWTH, _SHRINKAGE = 0.3, 1.3, 1.05, 0.5


class Starts:
    """Several starts of ALS and how far each has come.

    A sweep starts from the last two iterates extended; one that raises the error is taken back, and the next
    goes without. The extension grows while it works, so that long narrow valleys ("swamps") are crossed in
    tens of sweeps instead of thousands [1]_.

    Parameters
    ----------
    target : DenseTensor or SparseTensor
    factors : sequence of D arrays, shapes (S, R, I_n)
        In ``target.wide``.
    tol : float
        A start is done when two sweeps in a row lower its error by less than this share of it.
    nonnegative : bool, default False
        Keep factors, then given as such, at zero or above.

    Attributes
    ----------
    errors : numpy array, shape (S,)
        Relative errors.
    done : numpy array of bool, shape (S,)
    history : list of numpy arrays, shapes (S,)

    References
    ----------
    .. [1] A. M. S. Ang, J. E. Cohen, N. Gillis and L. T. K. Hien, Accelerating block coordinate descent for
       nonnegative tensor factorization, Numer. Linear Algebra Appl. 28 (2021), algorithm 3.
       doi:10.1002/nla.2373

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> factors = [np.ones((1, 1, 2)), np.ones((1, 1, 3)), np.ones((1, 1, 4))]
    >>> starts = Starts(DenseTensor(np.ones((2, 3, 4))), factors, tol=1e-6)
    >>> starts.advance(5)
    >>> bool(starts.errors[0] < 1e-15), bool(starts.done[0])
    (True, True)
    """

    def __init__(self, target: Any, factors: Sequence[Any], tol: float, *, nonnegative: bool = False) -> None:
        count = factors[0].shape[0]
        self.target = target
        self.tol = tol
        self.nonnegative = nonnegative
        self.factors = list(factors)
        self.errors = np.full(count, math.inf)
        self.history: list[np.ndarray] = []
        self._previous = self.factors
        self._step = np.full(count, _AHEAD)
        self._ceiling = np.ones(count)
        self._extend = np.zeros(count, dtype=bool)
        self._small = np.zeros(count, dtype=int)

    @property
    def done(self) -> np.ndarray:
        return (self._small >= 2) | self.exact

    @property
    def exact(self) -> np.ndarray:
        """Whether the error is no more than rounding."""
        return self.errors <= _EXACT * self.target.rounding

    def advance(self, n_iter: int, watch: Callable[[float], Any] | None = None) -> None:
        """Sweep ``n_iter`` times, or until all are done or ``watch(best error)`` is true."""
        for _ in range(n_iter):
            if self.done.all():
                break
            self._sweep()
            if watch is not None and watch(float(self.errors.min())):
                break

    def keep(self, chosen: np.ndarray) -> None:
        """Go on with some starts only."""
        where = [int(n) for n in chosen]
        xp = self.target.xp
        self.factors = [xp.stack([factor[n, ...] for n in where]) for factor in self.factors]
        self._previous = [xp.stack([factor[n, ...] for n in where]) for factor in self._previous]
        for name in ("errors", "_step", "_ceiling", "_extend", "_small"):
            setattr(self, name, getattr(self, name)[chosen])
        self.history = [errors[chosen] for errors in self.history]

    def _sweep(self) -> None:
        share = self._column(self._step * self._extend)
        pairs = zip(self.factors, self._previous, strict=True)
        tried = [a + share * (a - b) for a, b in pairs] if self._extend.any() else self.factors
        if self.nonnegative:
            tried = [self.target.xp.clip(factor, 0) for factor in tried]
        factors, errors = sweep(self.target, tried, self.nonnegative)
        raised = ~(errors <= self.errors) & self._extend  # NaN too
        self._ceiling = np.where(raised, self._step, np.minimum(_CEILING_GROWTH * self._ceiling, 1.0))
        grown = np.minimum(_GROWTH * self._step, self._ceiling)
        self._step = np.where(raised, _SHRINKAGE * self._step, grown)
        fall = self.errors - errors
        rounding = self.target.rounding
        with np.errstate(divide="ignore"):
            noise = np.where(_cancelled(errors, rounding), _KNOWN * rounding, rounding / errors)
        small = fall <= np.maximum(self.tol * errors, noise)
        self._small = np.where(raised, self._small, np.where(small, self._small + 1, 0))
        self._extend = ~raised & bool(self.history)
        if raised.any():
            back, xp = self._column(raised) != 0, self.target.xp
            self._previous = self.factors
            self.factors = [xp.where(back, a, b) for a, b in zip(self.factors, factors, strict=True)]
        else:
            self._previous, self.factors = self.factors, factors
        self.errors = np.where(raised, self.errors, errors)
        self.history.append(self.errors)

    def _column(self, values: np.ndarray) -> Any:
        xp, target = self.target.xp, self.target
        return xp.asarray(values[:, None, None], dtype=target.wide, device=target.device)


def sweep(target: Any, factors: Sequence[Any], nonnegative: bool = False) -> tuple[list[Any], np.ndarray]:
    """One sweep of ALS over all modes, for several starts.

    Parameters
    ----------
    target : DenseTensor or SparseTensor
    factors : sequence of D arrays, shapes (S, R, I_n)
    nonnegative : bool, default False

    Returns
    -------
    factors : list of arrays, shapes (S, R, I_n)
        Each component has the same norm in every mode.
    errors : numpy array, shape (S,)
        Relative errors.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> X = DenseTensor(np.ones((2, 3)))
    >>> bool(sweep(X, [np.ones((1, 1, 2)), np.ones((1, 1, 3))])[1][0] < 1e-15)
    True
    """
    xp = target.xp
    own, weights = unit(factors, target)
    grams = [None, *(gram(factor, target) for factor in own[1:])]
    ridge = _PROXIMAL * target.wide_rounding
    eye = ridge * xp.eye(weights.shape[-1], dtype=target.wide, device=target.device)
    last: Any = None

    def visit(n: int, product: Any) -> Any:
        nonlocal weights, last
        others = reduce(lambda a, b: a * b, grams[:n] + grams[n + 1 :])
        old = weights[..., None] * own[n]
        if nonnegative:
            factor = xp.asarray(nonnegative_step(others, product, old), device=target.device)
        else:
            factor = xp.linalg.solve(others + eye, product + ridge * old)
        last = (factor, product, others)
        (own[n],), weights = unit([factor], target)
        grams[n] = gram(own[n], target)
        return own[n]

    target.sweep(own, visit)
    factor, product, others = last
    square = target.norm**2 + _inner(factor, others @ factor - 2 * product, target)
    errors = np.sqrt(np.maximum(square, 0.0)) / target.norm
    share = weights ** (1 / len(own))
    balanced = [factor * share[..., None] for factor in own]
    for s in np.flatnonzero(_cancelled(errors, target.rounding)):
        errors[s] = target.distance([factor[int(s), ...] for factor in balanced]) / target.norm
    return balanced, errors


def unit(factors: Sequence[Any], target: Any) -> tuple[list[Any], Any]:
    """Components ``(..., R, I_n)`` of norm 1, and their norms ``(..., R)`` multiplied; zero stays zero.

    Examples
    --------
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> unit([np.ones((1, 4)), np.ones((1, 9))], DenseTensor(np.ones((4, 9))))[1]
    array([6.])
    """
    xp = target.xp
    weights: Any = 1.0
    scaled = []
    for factor in factors:
        norms = xp.sqrt(xp.sum(_products(factor, factor, target), axis=-1))
        scaled.append(factor / xp.where(norms > 0, norms, 1.0)[..., None])
        weights = norms * weights
    return scaled, weights


def gram(factor: Any, target: Any) -> Any:
    """``conj(a_r) . a_s`` of components ``(..., R, I)``.

    Examples
    --------
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> gram(np.ones((1, 4)), DenseTensor(np.ones((4, 9))))
    array([[4.]])
    """
    adjoint = target.xp.conj(factor) if target.is_complex else factor
    return adjoint @ target.xp.matrix_transpose(factor)


def _cancelled(errors: np.ndarray, rounding: float) -> np.ndarray:
    """Where a difference of squares has so few digits left that the residual itself is formed."""
    return errors < rounding**_SMALL_ERROR


def _products(a: Any, b: Any, target: Any) -> Any:
    """Real part of ``conj(a) * b``."""
    return target.xp.real(target.xp.conj(a) * b) if target.is_complex else a * b


def _inner(a: Any, b: Any, target: Any) -> np.ndarray:
    """Real part of ``sum conj(a) * b`` of each start."""
    return np.array(to_numpy(target.xp.sum(_products(a, b, target), axis=(-2, -1))), dtype=float)
