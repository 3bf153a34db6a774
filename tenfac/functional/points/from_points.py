"""``chebyshev_from_points``: a function through scattered, noisy values."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from tenfac.core.arrays import is_array, to_numpy
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, RankError, ShapeError, warn_user
from tenfac.core.interchange import refuse_decomposed
from tenfac.core.modes.chebyshev import Chebyshev, check_interval
from tenfac.core.modes.discrete import Discrete
from tenfac.core.progress import Progress
from tenfac.core.rank import tucker_rank
from tenfac.core.report import Report
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.functional.points.search import MODELS, Found, Model, Search
from tenfac.functional.points.start import first_fit

_WHERE = "chebyshev_from_points"
# Standard deviation, in units of the mean, of values that differ by rounding only.
_EQUAL = 4 * np.finfo(float).eps
# Largest degree tried for one and two variables, and for more.
_DEGREES, _DEGREE = {1: 128, 2: 64}, 32
# Relative fall of the objective at which the last fit stops.
_SETTLED = 1e-6
# Of the error of a constant: what a function must be below to count as found.
_OF_CONSTANT = 0.98
# Share of the validation error that cutting the last coefficients may cost, and ranks; these at least.
_CHOP, _LEAST_CHOP = 1e-3, 1e-15


@door
def chebyshev_from_points(
    X: Any,
    y: Any,
    domain: Sequence[Any] | None = None,
    *,
    rank: int | Sequence[int] | None = None,
    degree: int | Sequence[int] | None = None,
    ridge: float | None = None,
    weights: Any = None,
    max_iter: int = 100,
    verbose: int = 0,
) -> Tucker:
    """Fit a function of several variables to values at scattered points, with noise or without.

    ``y_i ~ sum G[p, q, ...] u_p(x_i0) v_q(x_i1) ...`` with polynomials ``u, v, ...``. Ranks, degrees and the
    strength of smoothing are chosen by how well rows are predicted that were left out.

    Parameters
    ----------
    X : array, shape (N, D)
        One row per point. At least D + 2 different rows.
    y : array, shape (N,)
        Real and finite.
    domain : sequence of D entries, optional
        An interval ``(a, b)``, None for the range of the column, or an integer K: that column holds row
        numbers 0 to K - 1 of a table and has no order. All None if not given; ``F.domain`` says what was
        taken.
    rank : int or sequence of D int, optional
        Chosen if not given.
    degree : int or sequence of D int, optional
        Chosen if not given, up to 128 for one variable, 64 for two, 32 for more. Not used for row numbers.
    ridge : float, optional
        Weight of the penalty, 0 or more; chosen if not given.
    weights : array, shape (N,), optional
        How much each row counts: the reciprocal variance of its noise. 0 or more.
    max_iter : int
        Steps of the last fit, at most.
    verbose : {0, 1, 2}
        1 shows a bar of models, 2 also logs a line per model (logger ``tenfac``).

    Returns
    -------
    Tucker
        With ``Chebyshev`` modes (``Discrete`` for row numbers) and orthonormal factors, float64 numpy.
        ``info.validation_error`` is the root mean square error at rows left out, ``info.rel_error`` that at
        the rows given, both over the root mean square of ``y``; ``info.n_iter`` counts the steps of the last
        fit. The same input gives the same numbers.

    Raises
    ------
    ShapeError
        If ``X``, ``y``, ``weights`` or ``domain`` do not fit each other.
    DataError
        If values are not finite and real, a point lies outside the domain, a column is constant, there are
        too few rows, or an option is out of range.
    RankError
        If ``rank`` is not valid.

    Warns
    -----
    ConvergenceWarning
        If a constant predicts rows left out as well, or ``max_iter`` is reached.

    Notes
    -----
    *Model.* Minimises ``mean w (y - f)^2 + ridge * sum_k (c_k / s_k)^2`` for ``y`` of mean square 1, over the
    coefficients ``c`` of Tucker tensors, all but the constant, with ``s_k = prod_n decay_n ** -k_n``: the
    higher the degree, the smaller a coefficient is expected to be. Decays, 1.02 to 2.5, are chosen too. Rows
    of a table are drawn to their mean.

    *Method.* A polynomial of low total degree is fitted first. Its singular values show which ranks to try;
    each is fitted by Gauss-Newton steps on the tensors of that rank, which unlike alternating least squares
    move core and factors at once. Models are judged by the residuals of rows left out, linearised at the fit
    (exact if the model were linear). Rows with one and the same point are merged before.

    *Cost.* About 20 to 40 models, each of some ``10 N P^2`` operations for ``P = prod R + sum R (K - R)``
    numbers, at most 1200; memory ``N sum K`` numbers and blocks of 32 MB. The search ends at 80 models, and
    ``info.warnings`` says so if it would have gone on.

    *Limits.* What a polynomial of low total degree (300 terms) does not see at all may be missed: waves with
    several periods along a diagonal in three or more variables. A cusp or a step is smoothed.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(0, 1, (500, 3))
    >>> y = np.exp(X[:, 0] - X[:, 1]) * np.sin(X[:, 2]) + 0.01 * rng.standard_normal(500)
    >>> F = chebyshev_from_points(X, y, [(0, 1)] * 3)
    >>> F.rank, bool(abs(F.at(0.2, 0.5, 0.7) - np.exp(-0.3) * np.sin(0.7)) < 0.005)
    ((1, 1, 1), True)
    """
    start = time.perf_counter()
    data = _data(X, y, domain, weights)
    _check_options(ridge, max_iter)
    progress = Progress(_WHERE, MODELS, verbose, unit="model")
    sizes = _sizes(degree, data)
    ranks = None if rank is None else _ranks(rank, sizes)
    if not data.spread:
        return _constant(data, start)
    search, model = _search(data, sizes, ranks, degree is not None, ridge)
    with progress:
        search.progress = progress
        best = search.run(model)
    found, steps, settled = search.settled(best, max_iter, _SETTLED)
    result = _finished(found, data, ranks is None)
    info = _report(result, found, data, (steps, settled, max_iter), start)
    if search.exhausted:
        note = f"{_WHERE}: the search ended after {search.tried} models; pass rank or degree if known."
        info = replace(info, warnings=(*info.warnings, note))
    return replace(result, info=info)


@dataclass(frozen=True)
class _Data:
    """Distinct points, the means of the values there in units of ``scale``, and what the rows add."""

    points: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    modes: tuple[Any, ...]
    scale: float
    within: float  # weighted mean square of values about the mean of their point
    spread: float  # weighted standard deviation of values

    @property
    def discrete(self) -> list[bool]:
        return [mode.domain is None for mode in self.modes]


# --- input ------------------------------------------------------------------------------------------------


def _data(X: Any, y: Any, domain: Any, weights: Any) -> _Data:
    points, values = _array(X, "X"), _array(y, "y")
    if points.ndim != 2 or points.shape[1] == 0:
        raise ShapeError(
            f"{_WHERE}: `X` must have shape (N, D), one row per point; got {points.shape}. For one variable "
            "pass x.reshape(-1, 1)."
        )
    n_rows, d = points.shape
    if n_rows == 0:
        raise ShapeError(f"{_WHERE}: `X` must have rows; got shape {points.shape}. Pass measured points.")
    if values.shape != (n_rows,):
        raise ShapeError(
            f"{_WHERE}: `y` must have shape ({n_rows},), one number per row of `X`; got {values.shape}."
        )
    heavy = np.ones(n_rows) if weights is None else _array(weights, "weights")
    if heavy.shape != (n_rows,):
        raise ShapeError(f"{_WHERE}: `weights` must have shape ({n_rows},); got {heavy.shape}.")
    if (heavy < 0).any() or not heavy.any():
        raise DataError(
            f"{_WHERE}: `weights` must be 0 or more, and not all 0; the least is {heavy.min():g}. Pass "
            "reciprocal variances."
        )
    modes = _modes(points, domain)
    kept = heavy > 0
    points, values, heavy = points[kept], values[kept], heavy[kept] / heavy.max()
    points, place = np.unique(points, axis=0, return_inverse=True)
    if len(points) < d + 2:
        raise DataError(
            f"{_WHERE}: at least {d + 2} different points are needed for {d} variables; got {len(points)}. "
            "Add rows or leave out columns."
        )
    return _merged(points, values, heavy, place.reshape(-1), modes)


def _merged(
    points: np.ndarray, values: np.ndarray, heavy: np.ndarray, place: np.ndarray, modes: tuple[Any, ...]
) -> _Data:
    """One row per point, in units of the root mean square."""
    largest = float(np.abs(values).max()) or 1.0
    values = values / largest
    total = np.bincount(place, heavy)
    means = np.bincount(place, heavy * values) / total
    square = float(heavy @ values**2) / heavy.sum()
    scale = math.sqrt(square) or 1.0
    mean = float(heavy @ values) / heavy.sum()
    spread = math.sqrt(float(heavy @ (values - mean) ** 2) / heavy.sum())
    if spread <= _EQUAL * abs(mean):
        spread = 0.0
    within = float(heavy @ (values - means[place]) ** 2) / heavy.sum() / scale**2
    return _Data(points, means / scale, total / total.mean(), modes, scale * largest, within, spread / scale)


def _array(values: Any, name: str) -> np.ndarray:
    """Finite real numbers in float64."""
    refuse_decomposed(values, _WHERE, name)
    array = to_numpy(values) if is_array(values) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{_WHERE}: `{name}` must hold real numbers; got dtype {array.dtype}.")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise DataError(
            f"{_WHERE}: `{name}` must be finite; got {bad:,} of {array.size:,} values that are NaN or "
            "infinite. Leave these rows out."
        )
    return array.astype(float)


def _modes(points: np.ndarray, domain: Any) -> tuple[Any, ...]:
    """One mode per column; sizes of continuous ones are not known yet."""
    d = points.shape[1]
    entries = [None] * d if domain is None else list(domain)
    if len(entries) != d:
        raise ShapeError(
            f"{_WHERE}: `domain` must have one entry per column of `X`, {d}; got {len(entries)}."
        )
    return tuple(_mode(points[:, n], entry, n) for n, entry in enumerate(entries))


def _mode(column: np.ndarray, entry: Any, n: int) -> Any:
    if isinstance(entry, Integral) and not isinstance(entry, bool):
        if entry < 1:
            raise DataError(
                f"{_WHERE}: domain[{n}] must be an interval (a, b), None, or a number of rows of 1 or more; "
                f"got {entry}. Write [(a, b)] * D for one interval in all D columns."
            )
        bad = np.flatnonzero((column < 0) | (column >= entry) | (column != np.floor(column)))
        if len(bad):
            raise DataError(
                f"{_WHERE}: column {n} of `X` must hold row numbers 0 to {entry - 1}, as domain[{n}]={entry} "
                f"says; got {column[bad[0]]:g} in row {bad[0]}. Number the labels first."
            )
        return Discrete(int(entry))
    if entry is None:
        if column.min() == column.max():
            raise DataError(
                f"{_WHERE}: column {n} of `X` must vary; all its values are {column[0]:g}. Leave it out, or "
                "give domain an interval for it."
            )
        entry = (column.min(), column.max())
    interval = check_interval(entry, f"{_WHERE}: domain[{n}]")
    bad = np.flatnonzero((column < interval[0]) | (column > interval[1]))
    if len(bad):
        raise DataError(
            f"{_WHERE}: column {n} of `X` must lie in the domain [{interval[0]:g}, {interval[1]:g}]; got "
            f"{column[bad[0]]:g} in row {bad[0]} ({len(bad):,} such rows). Extend the domain, or leave them "
            "out."
        )
    return Chebyshev(1, interval)


def _check_options(ridge: Any, max_iter: Any) -> None:
    if ridge is not None and not (isinstance(ridge, Real) and 0 <= float(ridge) < math.inf):
        raise DataError(f"{_WHERE}: ridge must be a finite number of 0 or more, or None; got {ridge!r}.")
    if isinstance(max_iter, bool) or not isinstance(max_iter, Integral) or max_iter < 1:
        raise DataError(f"{_WHERE}: `max_iter` must be an integer of 1 or more; got {max_iter!r}.")


def _sizes(degree: Any, data: _Data) -> tuple[int, ...]:
    """Coefficients a mode may have."""
    d = len(data.modes)
    if degree is None:
        most = _DEGREES.get(d, _DEGREE) + 1
        distinct = [len(np.unique(column)) for column in data.points.T]
        given = [min(most, count) for count in distinct]
    else:
        entries = [degree] * d if isinstance(degree, Integral) else list(degree)
        bad = [k for k in entries if isinstance(k, bool) or not isinstance(k, Integral) or k < 0]
        if len(entries) != d or bad:
            raise DataError(
                f"{_WHERE}: `degree` must be an integer of 0 or more, or {d} of them; got {degree!r}."
            )
        given = [int(k) + 1 for k in entries]
    return tuple(
        mode.size if labels else size
        for mode, labels, size in zip(data.modes, data.discrete, given, strict=True)
    )


def _ranks(rank: Any, sizes: tuple[int, ...]) -> tuple[int, ...]:
    ranks = tucker_rank(rank, sizes, _WHERE)
    total = math.prod(ranks)
    for n, r in enumerate(ranks):
        if r * r > total:
            raise RankError(
                f"{_WHERE}: the rank of mode {n} must be at most the product of the others, {total // r}; "
                f"got {ranks}."
            )
    return ranks


# --- fit --------------------------------------------------------------------------------------------------


def _search(
    data: _Data, sizes: tuple[int, ...], ranks: Any, degree_given: bool, ridge: float | None
) -> tuple[Search, Model]:
    bases = [
        _basis(mode, column, size)
        for mode, column, size in zip(data.modes, data.points.T, sizes, strict=True)
    ]
    first, prior, chosen = first_fit(bases, data.discrete, data.values, data.weights)
    least = ranks or (1,) * len(sizes)
    begin = [
        most if degree_given or labels else min(max(size, r), most)
        for most, size, r, labels in zip(sizes, first.shape, least, data.discrete, strict=True)
    ]
    fixed = {
        "rank": ranks is not None or len(sizes) == 1,
        "sizes": degree_given,
        "ridge": ridge is not None,
    }
    search = Search(bases, data.values, data.weights, first, [name for name, given in fixed.items() if given])
    return search, Model(least, tuple(begin), prior, chosen if ridge is None else ridge * len(data.values))


def _basis(mode: Any, column: np.ndarray, size: int) -> np.ndarray:
    """Basis functions at points, the constant first: (N, size)."""
    if mode.domain is None:
        return _contrasts(size)[column.astype(int)]
    return np.ascontiguousarray(Chebyshev(size, mode.domain).basis(column, np))


def _contrasts(size: int) -> np.ndarray:
    """Orthogonal functions of a row number, of mean square 1, the constant first: cosines."""
    angles = np.pi * (np.arange(size)[:, None] + 0.5) * np.arange(size) / size
    return np.cos(angles) * np.where(np.arange(size) > 0, math.sqrt(2), 1.0)


def _finished(found: Found, data: _Data, free: bool) -> Tucker:
    """Orthonormal factors; coefficients, and ranks that are free, are cut where they do not matter."""
    core, factors, modes = found.core * data.scale, [], []
    budget = _CHOP * math.sqrt(found.score) * data.scale
    for n, (factor, mode) in enumerate(zip(found.factors, data.modes, strict=True)):
        labels = mode.domain is None
        flat = np.moveaxis(core, n, 0).reshape(core.shape[n], -1)
        heights = np.abs(factor @ flat).sum(axis=1)
        kept = int((np.cumsum(heights[::-1]) > budget).sum())  # what the last ones add up to only grows
        size = len(factor) if labels else max(kept, factor.shape[1])
        rows = _contrasts(size) @ factor if labels else factor[:size]
        basis, triangle = np.linalg.qr(rows)
        core = contract(core, [triangle if m == n else None for m in range(core.ndim)])
        factors.append(basis)
        modes.append(mode if labels else Chebyshev(size, mode.domain))
    if free:
        core, turns, _ = truncate(core, None, max(_CHOP * math.sqrt(found.score), _LEAST_CHOP))
        factors = [factor @ turn for factor, turn in zip(factors, turns, strict=True)]
    return Tucker(core, factors, modes)


def _constant(data: _Data, start: float) -> Tucker:
    """All values are one."""
    core = np.full((1,) * len(data.modes), data.values.mean() * data.scale)
    sizes = [mode.size if labels else 1 for mode, labels in zip(data.modes, data.discrete, strict=True)]
    core = core * math.sqrt(math.prod(sizes))
    factors = [np.full((size, 1), 1 / math.sqrt(size)) for size in sizes]
    info = Report(
        True,
        "all values are equal",
        n_iter=0,
        rel_error=0.0,
        validation_error=0.0,
        seconds=time.perf_counter() - start,
    )
    return Tucker(core, factors, data.modes, info=info)


def _report(result: Tucker, found: Found, data: _Data, steps: tuple[int, bool, int], start: float) -> Report:
    n_iter, settled, max_iter = steps
    columns = [
        column.astype(int) if labels else column
        for column, labels in zip(data.points.T, data.discrete, strict=True)
    ]
    residual = result.at(*columns) / data.scale - data.values
    rel_error = math.sqrt(float(data.weights @ residual**2) / len(residual) + data.within)
    validation = math.sqrt(found.score + data.within)
    notes = []
    if validation > _OF_CONSTANT * data.spread:
        notes.append(
            f"{_WHERE}: rows left out are predicted no better than by a constant (relative error "
            f"{validation:.2g}, {data.spread:.2g} by the constant). The values are noise in these variables, "
            "or the rows too few: add rows or leave out columns."
        )
    if not settled:
        notes.append(f"{_WHERE}: the fit still improved after max_iter={max_iter} steps. Raise max_iter.")
    for note in notes:
        warn_user(note)
    reason = (
        "tolerance met" if not notes else "max_iter reached" if not settled else "no better than a constant"
    )
    ridge = found.model.ridge / len(data.values)
    return Report(
        converged=not notes,
        reason=f"{reason}, ridge {ridge:.1g}",
        n_iter=n_iter,
        rel_error=rel_error,
        validation_error=validation,
        seconds=time.perf_counter() - start,
        warnings=tuple(notes),
    )
