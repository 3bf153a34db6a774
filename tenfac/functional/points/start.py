"""A first fit to scattered points: polynomials of low total degree with a ridge, all at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Polynomials of several variables at most, and numbers of the box that holds their coefficients.
_TERMS, _BOX = 300, 2**21
# Decay of coefficients per degree that chooses terms; those tried for all modes, then changes for each.
_TYPICAL = 2.0
_DECAYS = (2.5, 2.1, 1.75, 1.5, 1.3, 1.15)
_CHANGES = (0.75, 1.33)
_SLOWEST, _FASTEST = 1.02, 2.5
# A better score is below this share of the best; below the second (mean square of y is 1) all is rounding.
_GAIN, _ROUNDING = 0.99, 1e-15
# Ridges tried, as a share of the number of rows.
_RIDGES = np.geomspace(1e-16, 1e2, 55)
# Share of the rows, at least, that a fit is taken to leave free; ridge of a fit without one, of its scale.
_FREE, _JITTER = 0.02, 1e-15
# Digits to which sums of logarithms must differ, for one term to be likelier than another.
_DIGITS = 9


@dataclass(frozen=True)
class Prior:
    """How fast coefficients decay in each mode: ``decay ** -k`` at degree ``k``; labels of no order alike.

    Examples
    --------
    >>> Prior((2.0, 0.0)).scales((3, 5))
    (array([1.  , 0.5 , 0.25]), array([1.  , 0.25, 0.25, 0.25, 0.25]))
    """

    decays: tuple[float, ...]  # 0 where the mode is discrete

    def scales(self, sizes: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Standard deviations expected, (K_n,) per mode; 1 for the constant."""
        return tuple(
            decay ** -np.arange(size) if decay else np.append(1.0, np.full(size - 1, _of_labels(size)))
            for decay, size in zip(self.decays, sizes, strict=True)
        )

    def changed(self, factor: float, mode: int | None = None) -> Prior:
        """Other decays, in all modes or in one."""
        return Prior(
            tuple(
                min(max(decay * factor, _SLOWEST), _FASTEST) if decay and mode in (None, n) else decay
                for n, decay in enumerate(self.decays)
            )
        )


def _of_labels(size: int) -> float:
    return 0.5 / math.sqrt(max(size - 1, 1))


class PolynomialFit:
    """Ridge regression on the products of basis functions that a prior finds most likely.

    Parameters
    ----------
    bases : sequence of D arrays, shapes (N, K_n)
        Basis functions at the points, the constant first.
    weights : array, shape (N,)
        Mean 1.
    prior : Prior
        Chooses the products.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 20)
    >>> fit = PolynomialFit([np.stack([x**0, x], axis=1)], np.ones(20), Prior((2.0,)))
    >>> fit.coefficients(3 * x - 2, Prior((2.0,)), 1e-12).round(6)
    array([-2.,  3.])
    """

    def __init__(self, bases: Sequence[np.ndarray], weights: np.ndarray, prior: Prior) -> None:
        sizes = tuple(basis.shape[1] for basis in bases)
        limit = max(min(_TERMS, int(0.8 * len(weights))), 2)
        index = _likeliest(prior.scales(sizes), limit)
        while math.prod(index.max(axis=0) + 1) > _BOX:
            limit //= 2
            index = index[:limit]
        self.index, self.roots = index[1:], np.sqrt(weights)  # the constant is fitted apart
        self.shape = tuple(int(size) for size in index.max(axis=0) + 1)
        design = np.ones((len(weights), len(self.index)))
        for basis, column in zip(bases, self.index.T, strict=True):
            design *= basis[:, column]
        self.means = weights @ design / len(weights)
        self.design = (design - self.means) * self.roots[:, None]
        self.gram = self.design.T @ self.design

    def best(self, y: np.ndarray, prior: Prior) -> tuple[float, float]:
        """Generalised cross-validation over ridges: the least mean square, and its ridge."""
        n = len(y)
        scale, target = self._scale(prior), self._target(y)
        values, vectors = np.linalg.eigh(self.gram * scale * scale[:, None])
        values = np.maximum(values, 0.0)[:, None]
        shrunk = values + _RIDGES * n
        found = vectors.T @ (scale * (self.design.T @ target))
        residual = target[:, None] - self.design @ (scale[:, None] * (vectors @ (found[:, None] / shrunk)))
        free = 1 - (1 + (values / shrunk).sum(axis=0)) / n
        scores = (residual**2).sum(axis=0) / n / np.maximum(free, _FREE) ** 2
        scores += _ROUNDING
        k = int(np.flatnonzero(scores <= scores.min() / _GAIN)[-1])  # the smoothest
        return float(scores[k]), float(_RIDGES[k] * n)

    def coefficients(self, y: np.ndarray, prior: Prior, ridge: float) -> np.ndarray:
        """Coefficients of the fit as a tensor."""
        scale, target = self._scale(prior), self._target(y)
        gram = self.gram * scale * scale[:, None]
        gram[np.diag_indices_from(gram)] += max(ridge, _JITTER * np.trace(gram))
        found = scale * np.linalg.solve(gram, scale * (self.design.T @ target))
        tensor = np.zeros(self.shape)
        tensor[tuple(self.index.T)] = found
        tensor[(0,) * tensor.ndim] = self._mean(y) - self.means @ found
        return tensor

    def _scale(self, prior: Prior) -> np.ndarray:
        scales = prior.scales(self.shape)
        return np.prod([s[column] for s, column in zip(scales, self.index.T, strict=True)], axis=0)

    def _mean(self, y: np.ndarray) -> float:
        return float(self.roots**2 @ y) / len(y)

    def _target(self, y: np.ndarray) -> np.ndarray:
        return self.roots * (y - self._mean(y))


def first_fit(
    bases: Sequence[np.ndarray], discrete: Sequence[bool], y: np.ndarray, weights: np.ndarray
) -> tuple[PolynomialFit, Prior, float]:
    """Choose decays and the ridge by cross-validation: the fit, its prior and its ridge.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 40)
    >>> bases = [np.polynomial.chebyshev.chebvander(x, 9)]
    >>> fit, prior, ridge = first_fit(bases, [False], np.exp(x), np.ones(40))
    >>> bool(prior.decays[0] > 2), bool(ridge < 1e-6)
    (True, True)
    """
    fit = PolynomialFit(bases, weights, _prior(_TYPICAL, discrete))
    prior: Prior
    ridge: float
    score = math.inf

    def tried(other: Prior) -> None:
        nonlocal prior, score, ridge
        error, best = fit.best(y, other)
        if error < _GAIN * score:
            prior, score, ridge = other, error, best

    for decay in _DECAYS:
        tried(_prior(decay, discrete))
    if len(bases) > 1:
        for n, change in itertools.product(np.flatnonzero(prior.decays).tolist(), _CHANGES):
            tried(prior.changed(change, n))
    if len(set(filter(None, prior.decays))) > 1:
        fit = PolynomialFit(bases, weights, prior)
        _, ridge = fit.best(y, prior)
    return fit, prior, ridge


def _prior(decay: float, discrete: Sequence[bool]) -> Prior:
    return Prior(tuple(0.0 if labels else decay for labels in discrete))


def _likeliest(scales: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Multi-indices of the largest products of scales, the largest first, (P, D)."""
    index, costs = np.array([[]], dtype=int), np.zeros(1)
    for scale in scales:
        total = costs[:, None] - np.log(scale)
        order = np.argsort(total.round(_DIGITS), axis=None, kind="stable")[:limit]
        rows, columns = np.unravel_index(order, total.shape)
        index, costs = np.concatenate([index[rows], columns[:, None]], axis=1), total[rows, columns]
    return index
