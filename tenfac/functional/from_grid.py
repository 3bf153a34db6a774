"""``chebyshev_from_grid``: a function through values on a grid: an array, a CP or a Tucker tensor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from tenfac.core.arrays import is_array, to_numpy
from tenfac.core.contract import contract
from tenfac.core.cp import CP
from tenfac.core.decomposed import array_instead
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError, warn_user
from tenfac.core.interchange import as_format
from tenfac.core.modes.chebyshev import Chebyshev, check_interval, coefficients, lobatto
from tenfac.core.modes.discrete import Discrete
from tenfac.core.report import Report
from tenfac.core.train import TuckerTrain
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.functional.finish import FLOOR, shortened
from tenfac.functional.resolution import polynomial_error, spline, spline_error

_WHERE = "chebyshev_from_grid"
# Shares of the tolerance: for the ranks of the data, and for those of the function with its degrees.
_DATA, _ROUNDING = 0.3, 0.3
# Largest core of a train, in bytes.
_BYTES = 2**30
# Entries at which the size of the function and the error of interpolation are looked at.
_ENTRIES = 2000
# Relative distance of places that are Chebyshev points, and nodes per place at which errors are looked at.
_SAME, _FINE = 1e-12, 2
# Entries from which a larger one is looked for along every mode in turn, and how often.
_STARTS, _SWEEPS = 8, 3
_SEED = 0  # of the entries looked at


@door
def chebyshev_from_grid(
    data: Any,
    axes: Sequence[Any],
    tol: float = 1e-10,
    *,
    domain: Sequence[tuple[float, float] | None] | None = None,
) -> Tucker:
    """Turn values on a grid into a function: the factors of their Tucker format become coefficients.

    The algorithms of [1]_ for full tensors, CP and Tucker formats on grids, with a tolerance relative to the
    largest value.

    Parameters
    ----------
    data : array, Tucker, CP or TuckerTrain, shape (I_0, ..., I_{D-1})
        Values ``f(axes[0][i], axes[1][j], ...)``, real and finite. Formats (TensorLy's too) have ``Discrete``
        modes and stay compressed: the dense array is not formed, of a train the core is.
    axes : sequence of D arrays, shapes (I_n,), or None
        Ascending places; None for a mode that stays discrete: labels, channels. Chebyshev-Lobatto points of
        the domain (``Chebyshev(I, (a, b)).nodes()``) are interpolated by the polynomial through them, all
        others by a cubic spline; each mode for itself.
    tol : float
        Allowed error, as a share of the largest value.
    domain : sequence of D pairs (a, b), optional
        One for each mode, None for a discrete one. The first and last places if not given; up to one step
        more than these, for cells with the places in their middle.

    Returns
    -------
    Tucker
        With ``Chebyshev`` (and ``Discrete``) modes and orthonormal factors, float64 numpy.
        ``info.rel_error`` is an estimate: the change by rounding, plus what interpolation loses in each mode:
        what splines on half of the places lose, and how that compares with a quarter of them; or how the last
        coefficients fall.

    Raises
    ------
    ShapeError
        If ``axes`` do not fit the data, or a mode is not discrete.
    DataError
        If places do not ascend, values are not finite and real, or ``tol`` or ``domain`` is out of range.

    Warns
    -----
    ConvergenceWarning
        If the estimate is above ``tol``: the grid is too coarse for it. The mode is named.

    Notes
    -----
    Cost: ST-HOSVD of an array; for a CP tensor of R terms one SVD ``K R^2`` per mode and a core of
    ``R_0 R_1 ...`` numbers.

    References
    ----------
    .. [1] P. Benner, B. N. Khoromskij, V. Khoromskaia and B. Sun, Mesh-free hybrid Chebyshev-Tucker tensor
       format, arXiv:2503.01696 (2025), algorithms 3.1 to 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.core.modes.chebyshev import Chebyshev
    >>> x = Chebyshev(20, (0.0, 1.0)).nodes()
    >>> F = chebyshev_from_grid(np.exp(x[:, None] * x), [x, x], tol=1e-12)
    >>> bool(abs(F.at(0.3, 0.7) - np.exp(0.21)) < 1e-12), F.info.converged
    (True, True)
    """
    start = time.perf_counter()
    if not (isinstance(tol, Real) and 1e-15 <= tol < 1):
        raise DataError(f"{_WHERE}: tol must be from 1e-15 (float64 gives no more) to below 1; got {tol!r}.")
    data = _read(data)
    places, box = _check(data, axes, domain)
    core, factors, size = _compressed(data, tol)
    errors = np.zeros(len(places))
    made = []
    for n, (x, ab) in enumerate(zip(places, box, strict=True)):
        if ab is None:
            made.append(factors[n])
            continue
        found, errors[n] = _interpolated(core, factors, n, x, ab)
        made.append(found)
    counted = [n for n, ab in enumerate(box) if ab is None]
    core, made, lost = shortened(core, made, _ROUNDING * tol, discrete=counted)
    error = float(errors.sum()) + lost + _DATA * tol if size else 0.0
    info = _report(error, errors, tol, start)
    modes = [Chebyshev(len(f), ab) if ab else Discrete(len(f)) for f, ab in zip(made, box, strict=True)]
    return Tucker(core * size, made, modes, info=info)


def _read(data: Any) -> Any:
    """What stands for a format as one, and a train as the Tucker tensor that it is."""
    data = as_format(data)
    return data.to_tucker(max_bytes=_BYTES) if isinstance(data, TuckerTrain) else data


def _check(
    data: Any, axes: Any, domain: Any
) -> tuple[list[np.ndarray | None], list[tuple[float, float] | None]]:
    _check_values(data)
    places = [None if x is None else _places(x, n) for n, x in enumerate(_listed(axes))]
    shapes = [None if x is None else x.shape for x in places]
    if len(shapes) != data.ndim or any(
        s not in (None, (size,)) for s, size in zip(shapes, data.shape, strict=True)
    ):
        raise ShapeError(
            f"{_WHERE}: `axes` must be one array of places per mode, of sizes {tuple(data.shape)} (None "
            f"for a discrete mode); got shapes {shapes}."
        )
    for n, x in enumerate(places):
        if x is not None and (len(x) < 2 or not np.isfinite(x).all() or not (np.diff(x) > 0).all()):
            raise DataError(
                f"{_WHERE}: axes[{n}] must be two or more finite places that ascend. Sort it first."
            )
    pairs = [None if x is None else (x[0], x[-1]) for x in places] if domain is None else list(domain)
    if [pair is None for pair in pairs] != [x is None for x in places]:
        raise ShapeError(
            f"{_WHERE}: `domain` must be {len(places)} intervals, None where `axes` is None; got {domain!r}."
        )
    box = [None if pair is None else check_interval(pair, _WHERE) for pair in pairs]
    for n, (x, ab) in enumerate(zip(places, box, strict=True)):
        if ab is not None:
            _check_reach(x, ab, n)
    return places, box


def _listed(axes: Any) -> list[Any]:
    if not hasattr(axes, "__iter__"):
        raise ShapeError(f"{_WHERE}: `axes` must be a list, one array of places per mode; got {axes!r}.")
    return list(axes)


def _places(x: Any, n: int) -> np.ndarray:
    array = to_numpy(x) if is_array(x) else np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{_WHERE}: axes[{n}] must be real numbers; got dtype {array.dtype}.")
    return array.astype(float)


def _check_values(data: Any) -> None:
    if not isinstance(data, (Tucker, CP)) and not is_array(data):
        raise DataError(
            f"{_WHERE}: `data` must be an array, a Tucker, CP or TuckerTrain tensor; got "
            f"{type(data).__name__}. {array_instead(data)}"
        )
    if isinstance(data, (Tucker, CP)) and not all(isinstance(mode, Discrete) for mode in data.modes):
        raise ShapeError(
            f"{_WHERE}: `data` must have discrete modes; got {data!r}. It is a function already."
        )
    arrays = list(data._arrays().values()) if isinstance(data, (Tucker, CP)) else [data]
    for array in map(to_numpy, arrays):
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise DataError(
                f"{_WHERE}: `data` must be real and finite; got {array.dtype} or values that are not."
            )
    if not data.ndim or 0 in data.shape:
        raise ShapeError(f"{_WHERE}: `data` must have modes and entries; got shape {tuple(data.shape)}.")


def _check_reach(x: Any, ab: tuple[float, float], n: int) -> None:
    a, b = ab
    if a < x[0] - (x[1] - x[0]) or b > x[-1] + (x[-1] - x[-2]) or a > x[0] or b < x[-1]:
        raise DataError(
            f"{_WHERE}: domain[{n}] must hold axes[{n}], from {x[0]:g} to {x[-1]:g}, and at most one "
            f"step more; got ({a:g}, {b:g}). Splines do not extrapolate further."
        )


def _compressed(data: Any, tol: float) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Core and factors of the data over their largest value (of those looked at), and that value."""
    if isinstance(data, Tucker):
        held, own = to_numpy(data.core).astype(float), [to_numpy(f).astype(float) for f in data.factors]
        size = _height(held, own)
        return held / size if size else held, own, size
    if isinstance(data, CP):
        return _from_cp(data, tol)
    values = to_numpy(data).astype(float)
    size = float(np.abs(values).max())
    if not size:
        return np.zeros((1,) * values.ndim), [np.ones((i, 1)) for i in values.shape], 0.0
    values = values / size  # first, for squares of 1e-200 vanish
    norm = float(np.linalg.norm(values))  # in the sup norm an error is at most as large as in the l2 norm
    core, factors, _ = truncate(values, None, max(_DATA * tol / norm, FLOOR))
    return core, list(factors), size


def _from_cp(data: CP, tol: float) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Reduced HOSVD: one SVD per mode, of the columns as heavy as their terms."""
    weights = to_numpy(data.weights).astype(float)
    factors = [to_numpy(f).astype(float) for f in data.factors]
    norms = [np.linalg.norm(f, axis=0) for f in factors]
    size = _cp_height(weights, factors)
    weights = weights / size if size else weights
    columns, bases = [], []
    for n, factor in enumerate(factors):
        heavy = np.abs(weights) * np.prod(np.delete(norms, n, axis=0), axis=0)
        left, sizes, _ = np.linalg.svd(factor * heavy, full_matrices=False)
        tails = np.sqrt(np.cumsum(sizes[::-1] ** 2)[::-1])
        # an error is at most the sum over the terms of what each column loses
        allowed = _DATA * tol / (len(factors) * np.sqrt(len(weights)))
        rank = max(int((tails > max(allowed, FLOOR * tails[0])).sum()), 1)
        bases.append(left[:, :rank])
        columns.append(left[:, :rank].T @ factor)
    return CP(weights, columns).to_tensor(), bases, size


def _cp_height(weights: np.ndarray, factors: Sequence[np.ndarray]) -> float:
    rng = np.random.default_rng(_SEED)
    rows = [f[rng.integers(len(f), size=_ENTRIES)] for f in factors]
    peaks = [f[np.abs(f).argmax(axis=0)] for f in factors]  # where each term is largest
    found = [np.abs(np.prod(rs, axis=0) @ weights).max() for rs in (rows, peaks)]
    return float(max(found))


def _height(core: np.ndarray, factors: Sequence[np.ndarray]) -> float:
    """Largest magnitude: of entries drawn at random, and from the best of them along each mode in turn."""
    rng = np.random.default_rng(_SEED)
    drawn = [
        np.append(rng.integers(len(f), size=_ENTRIES), np.linalg.norm(f, axis=1).argmax()) for f in factors
    ]
    modes = range(core.ndim)
    values = np.abs(contract(core, [f[at] for f, at in zip(factors, drawn, strict=True)], paired=modes))
    found = float(values.max())
    best = [at[np.argsort(values)[-_STARTS:]] for at in drawn]
    for n in [*modes] * _SWEEPS:
        rows = [None if m == n else factors[m][best[m]] for m in modes]
        along = np.abs(contract(core, rows, paired=[m for m in modes if m != n]) @ factors[n].T)
        best[n] = np.atleast_1d(along.argmax(axis=-1))
        found = max(found, float(along.max()))
    return found


def _interpolated(
    core: np.ndarray, factors: Sequence[np.ndarray], n: int, x: np.ndarray, ab: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Chebyshev coefficients of the functions through the columns of a factor, and what they miss."""
    (a, b), factor, count = ab, factors[n], len(x)

    def height(rows: np.ndarray) -> float:
        return _height(core, [rows if m == n else f for m, f in enumerate(factors)])

    if np.abs(Chebyshev(count, ab).nodes() - x).max() <= _SAME * max(abs(a), abs(b)):
        found = coefficients(factor)
        mode = Chebyshev(count)
        return found, polynomial_error(found, mode.rows(np.eye(count), lobatto(_FINE * count)), height)
    size = 2 ** int(np.ceil(np.log2(_FINE * count))) + 1
    nodes = np.clip((a + b) / 2 + (b - a) / 2 * lobatto(size), a, b)
    return coefficients(spline(x, factor)(nodes)), spline_error(x, factor, nodes, height)


def _report(error: float, errors: np.ndarray, tol: float, start: float) -> Report:
    converged = error <= tol
    notes: tuple[str, ...] = ()
    if not converged:
        notes = (
            f"{_WHERE}: the grid is too coarse for tol={tol:g}, most of all in mode {errors.argmax()}: the "
            f"estimated error is {error:.2g}. Give more places there, or a larger tol.",
        )
        warn_user(notes[0])
    return Report(
        converged,
        "tolerance met" if converged else "grid too coarse",
        rel_error=error,
        seconds=time.perf_counter() - start,
        warnings=notes,
    )
