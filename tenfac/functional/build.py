"""``chebyshev_tucker``: a function of several variables as a Tucker tensor with Chebyshev modes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from tenfac.core.arrays import generator, seed_of
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError, cannot_take, warn_user
from tenfac.core.modes.chebyshev import Chebyshev, check_interval
from tenfac.core.progress import Progress
from tenfac.core.report import Report
from tenfac.core.train import TuckerTrain
from tenfac.core.tucker import Tucker
from tenfac.functional.cross.cross import Cross
from tenfac.functional.cross.evaluator import Evaluator, OutOfEvaluationsError
from tenfac.functional.cross.train_core import TrainCore
from tenfac.functional.finish import shortened, shortened_train

# Shares of the tolerance that rounding and shortening may use: at most, and where the residual leaves less.
_ROUNDING, _LEAST = 0.3, 0.1
# Variables up to which points see the largest error; with more of them a smaller one is aimed at, not below
# one where rounding is in the way.
_WELL_SEEN, _ROUGH = 4, 1e-12
# Largest value of a function below which the squares of its errors would vanish.
_SMALLEST = 1e-120
_WHERE = "chebyshev_tucker"


@door
def chebyshev_tucker(
    f: Callable[..., Any],
    domain: Sequence[tuple[float, float]],
    tol: float = 1e-10,
    *,
    hints: Any = None,
    max_evals: int = 3_000_000,
    max_degree: int = 2048,
    vectorized: bool = True,
    executor: Executor | None = None,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> Tucker | TuckerTrain:
    """Approximate a function by a core and one matrix of Chebyshev coefficients per variable.

    ``f(x, y, ...) ~ sum G[p, q, ...] u_p(x) v_q(y) ...`` with polynomials ``u, v, ...``: the hybrid
    Chebyshev-Tucker format [1]_, of degrees and ranks found from the function, by an adaptive cross
    approximation in the manner of Chebfun3F [2]_. The tensor of values on a grid is never formed.

    Parameters
    ----------
    f : callable
        ``f(x, y, ...)`` of D arrays of shape (N,), to N real finite numbers; see ``vectorized``.
    domain : sequence of D pairs (a, b)
        The box, ``a < b``. D from 1 to about 10.
    tol : float
        Largest error to allow, as a share of the largest ``|f|``: 1e-15 to below 1.
    hints : array, shape (N, D), optional
        Points where something happens that few would hit: narrow peaks.
    max_evals : int
        Largest number of values of ``f``.
    max_degree : int
        Largest degree in a variable, 16 or more; rounded down to a power of 2.
    vectorized : bool
        False calls ``f`` with D floats at a time.
    executor : concurrent.futures.Executor, optional
        Pool that computes the values, for a slow ``f``; a process pool needs an ``f`` that can be sent to
        another process. The result does not depend on it.
    random_state : int, numpy.random.Generator or None
        For the points where the approximation is looked at. The same seed gives the same object.
    verbose : {0, 1, 2}
        1 shows a bar of evaluations, 2 also logs a line per round (logger ``tenfac``).

    Returns
    -------
    Tucker, or TuckerTrain where that is smaller and D > 4
        With ``Chebyshev`` modes: ``F.at(x, y, ...)`` evaluates. Orthonormal factors, float64. ``info`` holds
        ``n_evals``, ``rel_error`` (the largest residual found, not a bound) and ``converged``.

    Raises
    ------
    ShapeError
        If ``domain`` or ``hints`` does not have the shape, or ``f`` does not return one number per point.
    DataError
        If an interval is empty, ``tol`` or a limit is out of range, or ``f`` returns what is no finite real
        number (the place is named), or has values so large or small that their squares are none.

    Warns
    -----
    ConvergenceWarning
        If the residual is not below ``tol``: a kink or a step (the mode is named), no evaluations left, or
        rounding errors of ``f`` above ``tol``. The best approximation is returned.

    Notes
    -----
    *Method.* Lines through few points are sampled in each mode on nested grids until their Chebyshev
    coefficients decay below the tolerance; a line that the others span is sampled only in part. Rows chosen
    by pivoting index the core, and are kept when it grows. The next points are the worst of 100 new random
    ones and of all lines. Before the result counts as converged, it must pass a search along lines and in a
    cloud around the largest value and the largest residual. What is as narrow as 1e-3 of the box and seen by
    none of these points is missed: pass ``hints``.

    *Many variables.* Beyond four the core is found as a tensor train [3]_: of a core of R^D entries, only
    blocks at nested prefixes and suffixes of the index, which are added where random entries of a bond, or of
    the whole core, are not met. Where bonds grow, small matrices of values tell which variables should be
    neighbors, and the train is begun again in that order: 1/sqrt(|x - y|^2 + 1) of six variables to 1e-6 took
    48,000 to 61,000 evaluations and bonds of 15, 7, 46, 7, 14; in the order x, y they are 57, 210, 57. Points
    see less of a larger box, so ``4 tol / D`` is aimed at: 10 to 15 % more evaluations of eight variables.

    *Cost.* About ``1000 + 1.3 prod(R) + 2 sum(K R)`` evaluations for ranks R and K coefficients, and as many
    times ``R`` operations. With a train of bonds S, 3 to 5 times ``sum S R S`` in the place of ``prod(R)``.

    *Full tensors.* A function that costs nothing may be sampled on a whole grid and given to
    ``chebyshev_from_grid`` (the algorithm of [1]_): 2 to 300 times as many evaluations, in one
    call, and you choose the grid; between 26 times faster and 27 times slower on the functions tried.

    References
    ----------
    .. [1] P. Benner, B. N. Khoromskij, V. Khoromskaia and B. Sun, Mesh-free hybrid Chebyshev-Tucker tensor
       format, arXiv:2503.01696 (2025).
    .. [2] S. Dolgov, D. Kressner and C. Stroessner, Functional Tucker approximation using Chebyshev
       interpolation, SIAM J. Sci. Comput. 43 (2021). doi:10.1137/20M1356944
    .. [3] C. Strössner, B. Sun and D. Kressner, Approximation in the extended functional tensor train format
       (2022). arXiv:2211.11338

    Examples
    --------
    >>> import numpy as np
    >>> F = chebyshev_tucker(lambda x, y, z: 1 / (2 + x * y + z), [(0, 1)] * 3, tol=1e-8)
    >>> bool(abs(F.at(0.1, 0.2, 0.3) - 1 / 2.32) < 1e-8), F.info.converged
    (True, True)

    A function of one variable has ranks of 1 whatever the number of variables:

    >>> chebyshev_tucker(lambda x, y, z: np.exp(x), [(0, 1)] * 3).rank
    (1, 1, 1)
    """
    start = time.perf_counter()
    box = _check(domain, tol, max_evals, max_degree)
    _check_function(f, len(box))
    progress = Progress(_WHERE, None, verbose, unit="evaluation")
    if executor is not None and not hasattr(executor, "map"):
        raise TypeError(
            f"{_WHERE}: `executor` must have a method `map`, as ProcessPoolExecutor() of concurrent.futures; "
            f"got {type(executor).__name__}. Leave it out to evaluate in this process."
        )
    evaluator = Evaluator(f, box, max_evals, vectorized, executor, progress.move)
    cross = Cross(
        evaluator, len(box), _aim(tol, len(box)), generator(random_state), int(math.log2(max_degree))
    )
    reason = "tolerance met"
    try:
        with progress:
            cross.run(_hints(hints, evaluator), progress.log)
    except OutOfEvaluationsError:
        reason = f"max_evals={max_evals} reached. Raise it, or tol"
    _check_size(cross.scale)
    result, lost = _finished(cross, box)
    residual = (cross.residual + lost) / cross.scale if cross.scale else cross.residual
    if cross.unresolved:
        reason = _unresolved(cross, box)
    elif reason == "tolerance met" and residual > tol:
        reason = _stalled(cross)
    converged = reason == "tolerance met"
    notes = () if converged else (f"{_WHERE}: {reason}; the residual is {residual:.2g}, tol={tol:g}.",)
    for note in notes:
        warn_user(note)
    info = Report(
        converged=converged,
        reason=reason,
        n_iter=cross.rounds,
        n_evals=evaluator.n_evals,
        rel_error=residual,
        seconds=time.perf_counter() - start,
        random_state=seed_of(random_state),
        warnings=notes,
    )
    return replace(result, info=info)


def _aim(tol: float, ndim: int) -> float:
    """The tolerance at points that are looked at, for one at those that are not."""
    return max(tol * _WELL_SEEN / max(ndim, _WELL_SEEN), min(tol, _ROUGH))


def _check(domain: Any, tol: Any, max_evals: Any, max_degree: Any) -> list[tuple[float, float]]:
    pairs = list(domain) if hasattr(domain, "__iter__") else []
    if not pairs or not all(hasattr(pair, "__len__") and len(pair) == 2 for pair in pairs):
        raise ShapeError(
            f"{_WHERE}: `domain` must be a sequence of intervals (a, b), one per variable; got {domain!r}. "
            "Write [(-1, 1)] * 3 for a cube."
        )
    if not (isinstance(tol, Real) and 1e-15 <= float(tol) < 1):
        raise DataError(f"{_WHERE}: tol must be from 1e-15 (float64 gives no more) to below 1; got {tol!r}.")
    for name, value, least in (("max_evals", max_evals, 1), ("max_degree", max_degree, 16)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise DataError(f"{_WHERE}: `{name}` must be an integer of {least} or more; got {value!r}.")
    return [check_interval(pair, _WHERE) for pair in pairs]


def _check_function(f: Any, variables: int) -> None:
    """Refuse what cannot be called with one argument per interval."""
    if not callable(f):
        raise TypeError(
            f"{_WHERE}: `f` must be a function of {variables} variables; got {type(f).__name__}. For values "
            "on a grid use chebyshev_from_grid."
        )
    wrong = cannot_take(f, variables)
    if wrong:
        raise ShapeError(
            f"{_WHERE}: `f` must take one argument per interval of `domain`, {variables}; got a function "
            f"with {wrong}. Give one interval per variable."
        )


def _check_size(largest: float) -> None:
    if 0 < largest < _SMALLEST:
        raise DataError(
            f"{_WHERE}: `f` must reach {_SMALLEST:g} in magnitude, for its square not to vanish, or be 0 "
            f"everywhere; the largest value seen is {largest:g}. Divide f by {largest:.0e}, or pass "
            "hints where it is larger."
        )


def _hints(hints: Any, evaluator: Evaluator) -> np.ndarray:
    """Hinted points on the cube."""
    d = len(evaluator.low)
    if hints is None:
        return np.empty((0, d))
    try:
        points = np.atleast_2d(np.asarray(hints, dtype=float))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{_WHERE}: `hints` must be points, rows of {d} numbers; got {hints!r}. Write [[...], [...]]."
        ) from error
    if points.ndim != 2 or points.shape[1] != d:
        raise ShapeError(
            f"{_WHERE}: `hints` must have shape (N, {d}); got {points.shape}. One row is one point."
        )
    inside = (points >= evaluator.low) & (points <= evaluator.high)
    if not inside.all():
        place = points[~inside.all(axis=1)][0].tolist()
        raise DataError(
            f"{_WHERE}: `hints` must lie in the domain; got {place}. Leave it out, or extend the domain."
        )
    return 2 * (points - evaluator.low) / (evaluator.high - evaluator.low) - 1


def _unresolved(cross: Cross, box: list[tuple[float, float]]) -> str:
    """Which modes are not smooth, and about where: at the largest second difference of a fibre."""
    parts = []
    for n, spot in sorted(cross.unresolved.items()):
        a, b = box[n]
        parts.append(
            f"mode {n} needs a degree above {2**cross.max_level} (near {a + (spot + 1) * (b - a) / 2:.4g})"
        )
    return (
        f"{', '.join(parts)}: f has a kink, a step, a pole or noise there. Split the domain at that place, "
        "or raise tol or max_degree"
    )


def _stalled(cross: Cross) -> str:
    n = max(range(cross.ndim), key=lambda n: cross.axes[n].level)
    degree = cross.axes[n].size - 1
    return (
        f"larger ranks no longer lower the residual (mode {n} is the hardest, degree {degree}): "
        "a kink, a very narrow peak, or rounding errors of f. Split the domain there, or raise tol"
    )


def _finished(cross: Cross, box: list[tuple[float, float]]) -> tuple[Tucker | TuckerTrain, float]:
    """The function of a cross, shortened, and the largest change that made."""
    if not cross.scale or 0 in cross.core.shape:
        return Tucker(
            np.zeros((1,) * len(box)), [np.ones((1, 1))] * len(box), [Chebyshev(1, ab) for ab in box]
        ), 0.0
    left = cross.tol - cross.residual / cross.scale
    budget = min(max(left, _LEAST * cross.tol), _ROUNDING * cross.tol) * cross.scale
    factors, place = [axis.factor for axis in cross.axes], cross.evaluate.place
    if isinstance(cross.core, TrainCore):
        return _finished_train(cross.core, factors, budget, place, box)
    core, factors, lost = shortened(cross.core.entries, factors, budget, place)
    return Tucker(core, factors, _modes(factors, box)), lost


def _finished_train(
    core: TrainCore,
    factors: list[np.ndarray],
    budget: float,
    place: np.ndarray,
    box: list[tuple[float, float]],
) -> tuple[Tucker | TuckerTrain, float]:
    """The same of a train: a train, or a Tucker tensor where that is smaller."""
    order = core.order
    cores, along, lost = shortened_train(core.cores, [factors[n] for n in order], budget, place[order])
    spots = [order.index(n) for n in range(len(box))]
    cores, factors = [cores[p] for p in spots], [along[p] for p in spots]
    train = TuckerTrain(cores, factors, _modes(factors, box), order=order)
    smaller = math.prod(train.rank) <= sum(core.size for core in cores)
    return (train.to_tucker() if smaller else train), lost


def _modes(factors: list[np.ndarray], box: list[tuple[float, float]]) -> list[Chebyshev]:
    return [Chebyshev(len(factor), ab) for factor, ab in zip(factors, box, strict=True)]
