"""The posterior mean as a Tucker tensor: Chebyshev polynomials of continuous indices, tables of labels.

The mean is a sum of C products of one function per mode (CP): products of basis functions times coefficient
functions of the exact mode, main effects, a constant. Every mode is interpolated on its own, on nested
Chebyshev grids, until lines of the mean through points of the other modes are met; what the products have in
common is then found by singular values, mode by mode, and the core is rounded.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.cells import CellBasis
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.terms import Main, Product
from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.likelihoods.response import Response
from tenfac.core.cp import CP
from tenfac.core.errors import ConvergenceWarning, DataError
from tenfac.core.modes.chebyshev import Chebyshev, coefficients
from tenfac.core.modes.discrete import Discrete
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker

Array = NDArray[np.float64]
_WHERE = "FunctionalTucker.mean_tucker"
_LINES = 100  # of the mean, per mode, that must be met
_LOOKED_AT = 200  # observed indices, and as many places between them, where lines are compared
_CHECKS = 2000  # points where the result is compared
_BLOCK = 128  # indices of the exact mode at a time: each has a covariance of its coefficients
_LARGEST = 5e7  # numbers of a core before it is rounded


@dataclass(frozen=True)
class MeanProducts:
    """The mean as a sum of products: per mode, values of C functions at its indices.

    Parameters
    ----------
    post : Prediction
    modes : list of ModeIndex
    response : Response
        The identity, which only shifts and scales.
    """

    post: Prediction
    modes: list[ModeIndex]
    response: Response

    def at(self, mode: int, x: NDArray[Any]) -> Array:
        """Values of the functions of a mode at indices or labels (N,), shape (N, C)."""
        positions, problem = self.modes[mode].positions(x), self.post.problem
        if mode != problem.exact:
            parts = [_rows(term, problem.others, mode, positions) for term in problem.terms]
            return np.hstack([*parts, np.ones((positions.size, 1))])
        place = self.post.exact_prior.bend(positions)
        blocks = [place[start : start + _BLOCK] for start in range(0, place.size, _BLOCK)]
        means = np.concatenate([self.post.posterior.at(block)[0] for block in blocks])
        level = np.full((place.size, 1), self.response.offset)
        return np.hstack([self.response.spread * (means @ self.post.factor.T), level])


class _Resolved(NamedTuple):
    """One mode, its factor (K, C), and the largest error on the lines, relative to the largest value."""

    mode: Discrete | Chebyshev
    factor: Array
    error: float


def mean_tucker(products: MeanProducts, tol: float, max_degree: int) -> Tucker:
    """Interpolate every mode, find the rank, and compare with the mean at points."""
    started = time.perf_counter()
    _check(products)
    rng, modes = np.random.default_rng(0), products.modes
    anchors = [products.at(n, _some(index, _LINES, rng)) for n, index in enumerate(modes)]
    scale = float(np.abs(reduce(np.multiply, anchors).sum(axis=1)).max()) or 1.0
    parts = []
    for n, index in enumerate(modes):
        lines = reduce(np.multiply, [a for m, a in enumerate(anchors) if m != n], np.ones_like(anchors[0]))
        cut = tol * scale / (4 * len(modes))
        parts.append(_resolved(products, n, index, lines, cut, max_degree))
    made = _compressed(CP(None, [p.factor for p in parts], [p.mode for p in parts]), 1e-3 * tol * scale)
    made = made.round(tol=max(tol / 2, 1e-14))
    error = _error(products, made, rng)
    unmet = [index.name for index, part in zip(modes, parts, strict=True) if part.error > tol * scale]
    return replace(made, info=_report(products, error, tol, unmet, time.perf_counter() - started))


def _rows(term: Any, others: list[int], mode: int, positions: Array) -> Array:
    """Values of a term's functions of one mode, shape (N, width); one where it does not depend on it."""
    if isinstance(term, Product):
        m = others.index(mode)
        return term.basis.bases[m].rows(positions)[:, term.basis.index[:, m]]
    if isinstance(term, Main) and term.mode == mode:
        return term.basis.rows(positions)
    return np.ones((positions.size, term.width))


def _check(products: MeanProducts) -> None:
    if products.response.kind != "identity":
        raise DataError(
            f"{_WHERE}: the mean of y must be a sum of products; got response={products.response.kind!r}, "
            "or a likelihood of counts or probabilities, which bends it. Give `predict` to chebyshev_tucker, "
            "or fit with response='identity'."
        )
    if isinstance(products.post.problem.basis, CellBasis):
        raise DataError(
            f"{_WHERE}: the model must be made of functions of single modes; this one has joint functions of "
            "several, as the rows lie in few cells of them. Give `predict` to chebyshev_tucker instead, or "
            "fit with a number as `rank`."
        )
    for index in products.modes:
        if not index.discrete and index.size == 1:
            raise DataError(
                f"{_WHERE}: a continuous mode must have an interval; mode {index.name!r} has one index. Name "
                "it in `discrete`, or leave the column out."
            )


def _some(index: ModeIndex, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Indices of a mode: observed ones, and of a continuous mode every second one anywhere."""
    seen = rng.choice(index.values, count)
    if index.discrete:
        return seen
    anywhere = rng.uniform(index.values[0], index.values[-1], count)
    return np.where(rng.random(count) < 0.5, anywhere, seen)


def _resolved(
    products: MeanProducts, n: int, index: ModeIndex, lines: Array, cut: float, max_degree: int
) -> _Resolved:
    """Grids of 17, 33, 65, ... points, until the next one and the observed indices are met by the lines."""
    if index.discrete:
        return _Resolved(Discrete(index.size), products.at(n, index.values), 0.0)
    domain = (float(index.values[0]), float(index.values[-1]))
    seen = index.values[np.unique(np.linspace(0, index.size - 1, _LOOKED_AT).astype(int))]
    seen = np.concatenate([seen, (seen[1:] + seen[:-1]) / 2])
    wanted = products.at(n, seen)
    mode = Chebyshev(17, domain)
    values = products.at(n, mode.nodes())
    while True:
        factor = coefficients(values)
        error = _distance(mode.rows(factor, seen), wanted, lines)
        if 2 * mode.size - 2 > max_degree:
            return _Resolved(mode, factor, error)
        finer = Chebyshev(2 * mode.size - 1, domain)
        nodes, found = finer.nodes(), np.empty((finer.size, values.shape[1]))
        found[::2], found[1::2] = values, products.at(n, nodes[1::2])
        error = max(error, _distance(mode.rows(factor, nodes[1::2]), found[1::2], lines))
        if error <= cut:
            return _chopped(finer, coefficients(found), lines, cut, error)
        mode, values = finer, found


def _distance(rows: Array, others: Array, lines: Array) -> float:
    return float(np.abs((rows - others) @ lines.T).max())


def _chopped(mode: Chebyshev, factor: Array, lines: Array, cut: float, error: float) -> _Resolved:
    """Without the last coefficients that change no line by more than the tolerance."""
    tails = np.cumsum(np.abs(factor @ lines.T)[::-1], axis=0)[::-1].max(axis=1)
    size = max(1, int(np.sum(tails > cut)))
    return _Resolved(Chebyshev(size, mode.domain), factor[:size], error)


def _compressed(made: CP, cut: float) -> Tucker:
    """Tucker of the same tensor, up to a change of about ``cut`` in a value."""
    lengths = np.array([np.linalg.norm(factor, axis=0) for factor in made.factors])
    bases, inner = [], []
    for n, factor in enumerate(made.factors):
        weights = np.prod(np.delete(lengths, n, axis=0), axis=0)
        left, sigma, _ = np.linalg.svd(factor * weights, full_matrices=False)
        rank = max(1, int(np.sum(sigma > cut / math.sqrt(made.rank))))
        bases.append(left[:, :rank])
        inner.append(left[:, :rank].T @ factor)
    sizes = [basis.shape[1] for basis in bases]
    if math.prod(sizes) > _LARGEST:
        raise DataError(
            f"{_WHERE}: the core would have shape {tuple(sizes)}, too large to compress. Raise `tol`, or fit "
            "with a smaller `rank`."
        )
    return Tucker(CP(None, inner).to_tensor(), bases, made.modes)


def _error(products: MeanProducts, made: Tucker, rng: np.random.Generator) -> float:
    """Largest difference to the mean that is found at points, over the largest value there."""
    places, columns = [], []
    for n, index in enumerate(products.modes):
        distinct, codes = np.unique(_some(index, _CHECKS // 4, rng), return_inverse=True)
        codes = codes[rng.integers(0, codes.size, _CHECKS)]
        columns.append(products.at(n, distinct)[codes])
        places.append(np.searchsorted(index.values, distinct)[codes] if index.discrete else distinct[codes])
    mean = reduce(np.multiply, columns).sum(axis=1)
    largest = float(np.abs(mean).max())
    return float(np.abs(made.at(*places) - mean).max()) / (largest or 1.0)


def _report(products: MeanProducts, error: float, tol: float, unmet: list[str], seconds: float) -> Report:
    notes = []
    if products.post.problem.residual is not None:
        notes.append("the residual within slices is left out: it is no sum of products of functions")
    met = error <= tol and not unmet
    reason = "tolerance met"
    if not met:
        where = f", in mode {', '.join(map(repr, unmet))}" if unmet else ""
        reason = f"max_degree reached{where}" if unmet else "the tolerance is missed at some points"
        note = (
            f"{_WHERE}: {reason}; the error is {error:.2g}, tol={tol:g}. The mean has kinks at observed "
            "indices: raise `max_degree` or `tol`, or fit with a smoother `kernel`."
        )
        notes.append(note)
        warnings.warn(note, ConvergenceWarning, stacklevel=4)
    return Report(converged=met, reason=reason, rel_error=error, seconds=seconds, warnings=tuple(notes))
