"""The posterior mean as a Tucker tensor: Chebyshev polynomials of continuous indices, tables of labels.

The mean is a sum of C products of one function per mode (CP): products of basis functions times coefficient
functions of the exact mode, main effects, a constant. Every mode is interpolated on its own, on nested
Chebyshev grids, until lines of the mean through points of the other modes are met; what the products have in
common is then found by singular values, mode by mode, and the core is rounded.
"""

from __future__ import annotations

import math
import time
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
from tenfac.bayes.mean_gp import Moving, basis_functions, gp_mode
from tenfac.core.cp import CP
from tenfac.core.errors import DataError, warn_user
from tenfac.core.modes.chebyshev import Chebyshev, coefficients
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.gp import GP
from tenfac.core.modes.still import Constant
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker

Array = NDArray[Any]
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
        level = np.full((place.size, 1), self.response.offset)
        return np.hstack([self.response.spread * (self._means(place) @ self.post.factor.T), level])

    def gp(self, mode: int) -> tuple[GP, Array]:
        """The functions of a continuous mode, exactly: a GP mode and its factor (K, C)."""
        index, problem, hyper = self.modes[mode], self.post.problem, self.post.hyper
        parts: list[tuple[Moving, int]] = []
        if mode == problem.exact:
            prior, level = self.post.exact_prior, self._exact_parts(parts)
        else:
            prior = problem.prior(hyper, mode)
            levels: list[Array] = []
            for term in problem.terms:
                levels.append(_level(term, problem.others, mode, parts, sum(map(len, levels))))
            level = np.append(np.concatenate(levels), 1.0)
        wide = []
        for part, start in parts:
            knots = _observed(index, part.knots)
            wide.append(Moving(part.process, knots, _placed(part.values, start, level.size)))
        domain = (float(index.values[0]), float(index.values[-1]))
        return gp_mode(wide, level, prior, index.start, index.span, domain)

    def _exact_parts(self, parts: list[Any]) -> Array:
        """Levels of the coefficients of the exact mode; adds what moves, at all observed indices."""
        problem, spread = self.post.problem, self.response.spread
        groups = [group for term in problem.terms for group in term.groups(self.post.hyper)]
        knots = self.modes[problem.exact].positions(self.modes[problem.exact].values)
        means = self._means(self.post.exact_prior.bend(knots))
        level, start = np.zeros(self.post.factor.shape[0]), 0
        for process, size in groups:
            columns = slice(start, start + size)
            values = spread * (means[:, columns] @ self.post.factor[:, columns].T)
            if isinstance(process, Constant):
                level += values[0]
            else:
                parts.append((Moving(process, knots, values), 0))
            start += size
        return np.append(level, self.response.offset)

    def _means(self, place: Array) -> Array:
        """Means of the whitened coefficients along the exact mode, at places on its axis."""
        blocks = [place[start : start + _BLOCK] for start in range(0, place.size, _BLOCK)]
        return np.concatenate([self.post.posterior.at(block)[0] for block in blocks])


def _level(term: Any, others: list[int], mode: int, parts: list[Any], start: int) -> Array:
    """Levels of a term's functions of one mode; adds what moves and at which column it begins."""
    if isinstance(term, Product):
        m = others.index(mode)
        kept: Any = term.basis
        basis, index = kept.bases[m], kept.index[:, m]
    elif isinstance(term, Main) and term.mode == mode:
        basis, index = term.basis, np.arange(term.width)
    else:
        return np.ones(term.width)
    level, moving = basis_functions(basis.prior, basis.nodes, basis.half)
    parts.append((Moving(basis.prior.process(), basis.nodes, moving[:, index]), start))
    return level[index]


def _observed(index: ModeIndex, positions: Array) -> Array:
    """Indices at scaled positions; the observed ones to the last digit."""
    known = index.positions(index.values)
    near = np.clip(np.searchsorted(known, positions - 1e-12), 0, known.size - 1)
    return np.where(
        np.abs(known[near] - positions) <= 1e-12, index.values[near], index.start + index.span * positions
    )


def _placed(values: Array, start: int, width: int) -> Array:
    """Columns among zeros."""
    out = np.zeros((values.shape[0], width))
    out[:, start : start + values.shape[1]] = values
    return out


class _Resolved(NamedTuple):
    """One mode, its factor (K, C), and the largest error on the lines, relative to the largest value."""

    mode: Discrete | Chebyshev | GP
    factor: Array
    error: float


def mean_tucker(products: MeanProducts, tol: float, max_degree: int, kind: str = "chebyshev") -> Tucker:
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
        if kind == "gp" and not index.discrete:
            parts.append(_Resolved(*products.gp(n), 0.0))
            continue
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
        basis: Any = term.basis
        return basis.bases[m].rows(positions)[:, basis.index[:, m]]
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
    scales = [
        mode.metric(f)[:, None] if isinstance(mode, GP) else 1.0
        for mode, f in zip(made.modes, made.factors, strict=True)
    ]
    scaled = [scale * factor for scale, factor in zip(scales, made.factors, strict=True)]
    lengths = np.array([np.linalg.norm(factor, axis=0) for factor in scaled])
    bases, inner = [], []
    for n, factor in enumerate(scaled):
        weights = np.prod(np.delete(lengths, n, axis=0), axis=0)
        left, sigma, _ = np.linalg.svd(factor * weights, full_matrices=False)
        rank = max(1, int(np.sum(sigma > cut / math.sqrt(made.rank))))
        bases.append(left[:, :rank] / scales[n])
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
            'indices: give modes="gp", which has them, raise `max_degree` or `tol`, or fit with a smoother '
            "`kernel`."
        )
        notes.append(note)
        warn_user(note)
    return Report(converged=met, reason=reason, rel_error=error, seconds=seconds, warnings=tuple(notes))
