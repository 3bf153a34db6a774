"""CP and Tucker decomposition from the observed entries of a tensor."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from ..core.arrays import eps, generator, to_numpy
from ..core.cp import CP
from ..core.errors import ConvergenceWarning, DataError, RankError
from ..core.rank import check_tol, cp_rank, tucker_rank
from ..core.report import Report
from ..core.truncate import truncate
from ..core.tucker import Tucker
from .cp_completion import CPProblem, normalized
from .observed import Observed, observed_entries
from .row_blocks import squared
from .tucker_completion import TuckerProblem

# The ridge falls geometrically from a share of the mean diagonal to the last: for starts from these in turn
# (a large one finds its way where entries are few, a small one keeps weak components), for repairs in order.
_RIDGE_STARTS, _RIDGE_REPAIRS, _RIDGE_LAST = (0.5, 0.05, 0.005), (1e-2, 1e-3), 1e-6
# Sweeps while the ridge of a repair falls; a start says its own.
_REPAIR_SWEEPS = 15
# Sweeps after the ridge has fallen, at most, and the change of the training error that ends them.
_SETTLE, _SETTLED = 30, 2e-3
# Changes of the error are averaged over this many sweeps.
_CALM = 3
# Growth of the momentum in each sweep.
_MOMENTUM = 0.25
# Two starts whose validation errors are this near have found the same fit, and a repair must gain this much.
_SAME, _GAIN = 1.02, 0.995
# Validation errors below this are success whatever the training error.
_SUCCESS = 1e-5
# A fit has failed when its validation error is above these shares of the errors of predicting zero and of
# predicting the mean, or this many times its training error: the smaller number where it is large itself.
_OF_ZERO, _OF_MEAN = 0.95, 1.05
_OVERFIT, _OVERFIT_LARGE = 3.0, 2.0


def cp_complete(
    X: Any,
    rank: int,
    *,
    mask: Any = None,
    n_init: int = 10,
    max_iter: int = 300,
    tol: float = 1e-5,
    holdout: float = 0.1,
    random_state: int | np.random.Generator | None = 0,
) -> CP:
    """Fit a CP tensor to the observed entries of an array.

    ``X[i, j, ...] ~ sum_r w[r] A[i, r] B[j, r] ...`` at observed entries, by regularised alternating least
    squares from several starts; which start is best is judged on entries held out.

    Parameters
    ----------
    X : array, masked array or sparse array, shape (I_0, ..., I_{D-1})
        Array of numpy, torch or JAX in which NaN is missing (or see ``mask``), or a COO array of scipy or
        ``sparse`` whose stored entries, zeros included, are the observed ones. At least two modes.
    rank : int
        Number of terms R; may exceed the sizes.
    mask : array of bool, shape of ``X``, optional
        True where ``X`` is observed; other entries are not read.
    n_init : int
        Starts at most. No more are made once two have reached the best validation error.
    max_iter : int
        Sweeps of the last fit, to all entries, at most.
    tol : float
        The last fit stops when the error changes by less than this share of itself in a sweep.
    holdout : float
        Share of the observed entries on which starts are judged, above 0 and at most 0.5.
    random_state : int, numpy Generator or None
        Draws the held-out entries and the starts.

    Returns
    -------
    CP
        Unit columns, weights in descending order, signs arbitrary. ``info.rel_error`` is the error on the
        observed entries, ``info.validation_error`` that of the best start on held-out entries, both relative
        to the root mean square of what was observed; ``info.history`` has the former for each sweep of the
        last fit. A row of a factor whose index has no observed entry is zero, and ``info.warnings`` says so.

    Raises
    ------
    DataError
        If an observed entry is NaN or infinite, stored twice, there are fewer than two, or the dtype is not
        supported.
    ShapeError
        If there are fewer than two modes, an empty one, or ``mask`` has another shape.
    RankError, TypeError, ValueError
        If ``rank``, ``mask`` or another option is not valid.

    Warns
    -----
    ConvergenceWarning
        If the validation error is more than three times the training error (twice where it is more than half
        of what predicting zero or the mean gives), or no better than predicting zero or the mean; or if
        ``max_iter`` is reached. Then ``info.converged`` is False.

    Notes
    -----
    A sweep costs about ``N D R^2`` multiplications for N observed entries; the dense tensor is never formed.
    A start mixes at random the leading eigenvectors of the Gram matrices of the zero-filled unfoldings, their
    diagonals deleted [1]_. Sweeps follow while the ridge falls, from up to half of the mean diagonal of the
    normal equations to 1e-6 of it. Then, while that helps, the component missed least is replaced by the
    leading one of the residual. The last sweeps, with momentum, have the ridge that makes their end the mode
    of the posterior for Gaussian factors and noise of the variance of the residuals. All is computed in
    float64.

    References
    ----------
    .. [1] C. Cai, G. Li, Y. Chi, H. V. Poor and Y. Chen, Subspace estimation from unbalanced and incomplete
       data matrices, Annals of Statistics 49 (2021), algorithm 1. doi:10.1214/20-AOS1986
    .. [2] G. Tomasi and R. Bro, PARAFAC and missing values, Chemometrics and Intelligent Laboratory Systems
       75 (2005), section 3. doi:10.1016/j.chemolab.2004.07.003

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(1, 2, 12)
    >>> X = np.multiply.outer(np.multiply.outer(x, x), x) + 1
    >>> observed = np.random.default_rng(1).random(X.shape) < 0.3
    >>> t = cp_complete(np.where(observed, X, np.nan), rank=2)
    >>> t
    CP(shape=(12, 12, 12), rank=2, numpy.float64, 74 numbers for 1,728 entries)
    >>> bool(np.abs(t.to_tensor() - X).max() < 1e-6)
    True
    """
    settings = _settings(n_init, max_iter, tol, holdout, random_state, "cp_complete")
    rank = cp_rank(rank, "cp_complete")
    data = observed_entries(X, mask, "cp_complete")

    def make(entries: Observed, rng: np.random.Generator) -> CPProblem:
        return CPProblem(entries, rank, rng)

    factors, report, scale = _complete(make, data, settings)
    weights, factors = normalized(factors, scale)
    arrays = [data.restore(array) for array in (weights, *factors)]
    return _with_error(CP(arrays[0], arrays[1:], info=report), data, scale)


def tucker_complete(
    X: Any,
    rank: int | Sequence[int],
    *,
    mask: Any = None,
    n_init: int = 10,
    max_iter: int = 300,
    tol: float = 1e-5,
    holdout: float = 0.1,
    random_state: int | np.random.Generator | None = 0,
) -> Tucker:
    """Fit a Tucker tensor to the observed entries of an array.

    ``X[i, j, ...] ~ sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...`` at observed entries, by regularised
    alternating least squares from several starts; which start is best is judged on entries held out.

    Parameters
    ----------
    X : array, masked array or sparse array, shape (I_0, ..., I_{D-1})
        Array of numpy, torch or JAX in which NaN is missing (or see ``mask``), or a COO array of scipy or
        ``sparse`` whose stored entries, zeros included, are the observed ones. At least two modes.
    rank : int or sequence of int
        One rank for all modes, or one per mode, at most the number of rows with observed entries.
    mask : array of bool, shape of ``X``, optional
        True where ``X`` is observed; other entries are not read.
    n_init : int
        Starts at most. No more are made once two have reached the best validation error.
    max_iter : int
        Sweeps of the last fit, to all entries, at most.
    tol : float
        The last fit stops when the error changes by less than this share of itself in a sweep.
    holdout : float
        Share of the observed entries on which starts are judged, above 0 and at most 0.5.
    random_state : int, numpy Generator or None
        Draws the held-out entries and the starts.

    Returns
    -------
    Tucker
        Orthonormal columns ordered by energy, signs arbitrary. ``info`` and rows without observed entries as
        for ``cp_complete``.

    Raises
    ------
    DataError
        If an observed entry is NaN or infinite, stored twice, there are fewer than two, or the dtype is not
        supported.
    ShapeError
        If there are fewer than two modes, an empty one, or ``mask`` has another shape.
    RankError, TypeError, ValueError
        If ``rank``, ``mask`` or another option is not valid.

    Warns
    -----
    ConvergenceWarning
        If the validation error is more than three times the training error (twice where it is more than half
        of what predicting zero or the mean gives), or no better than predicting zero or the mean; or if
        ``max_iter`` is reached. Then ``info.converged`` is False.

    Notes
    -----
    A sweep costs about ``N D prod(R)`` multiplications for N observed entries, and some steps of conjugate
    gradients on the core; the dense tensor is never formed. A start has the leading eigenvectors of the Gram
    matrices of the zero-filled unfoldings, their diagonals deleted [1]_, and a random core. The ridge falls
    and is chosen as in ``cp_complete``. All is computed in float64.

    References
    ----------
    .. [1] C. Cai, G. Li, Y. Chi, H. V. Poor and Y. Chen, Subspace estimation from unbalanced and incomplete
       data matrices, Annals of Statistics 49 (2021), algorithm 1. doi:10.1214/20-AOS1986

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(1, 2, 12)
    >>> X = np.log(np.multiply.outer(np.multiply.outer(x, x), x))
    >>> observed = np.random.default_rng(1).random(X.shape) < 0.3
    >>> t = tucker_complete(X, rank=2, mask=observed)
    >>> t
    Tucker(shape=(12, 12, 12), rank=(2, 2, 2), numpy.float64, 80 numbers for 1,728 entries)
    >>> bool(np.abs(t.to_tensor() - X).max() < 1e-6)
    True
    """
    settings = _settings(n_init, max_iter, tol, holdout, random_state, "tucker_complete")
    data = observed_entries(X, mask, "tucker_complete")
    ranks = tucker_rank(rank, data.shape, "tucker_complete")
    _check_supported(ranks, data)

    def make(entries: Observed, rng: np.random.Generator) -> TuckerProblem:
        return TuckerProblem(entries, ranks, rng)

    (core, factors), report, scale = _complete(make, data, settings)
    core, turns, _ = truncate(core * (scale * math.sqrt(math.prod(data.shape))), ranks)
    factors = [f @ turn / math.sqrt(len(f)) for f, turn in zip(factors, turns, strict=True)]
    t = Tucker(data.restore(core), [data.restore(factor) for factor in factors], info=report)
    return _with_error(t, data, scale)


def _with_error(t: Any, data: Observed, scale: float) -> Any:
    """Put the error of the format itself, after rounding to its dtype, into its report."""
    first, factors = t
    same = type(t)(to_numpy(first), [to_numpy(factor) for factor in factors])
    misfit = same.at(*data.indices) / scale - data.values / scale
    return replace(t, info=replace(t.info, rel_error=_rms(misfit)))


@dataclass(frozen=True)
class _Settings:
    n_init: int
    max_iter: int
    tol: float
    holdout: float
    random_state: Any
    where: str


def _settings(n_init: Any, max_iter: Any, tol: Any, holdout: Any, random_state: Any, where: str) -> _Settings:
    """Validate the options that both doors share."""
    for name, value in (("n_init", n_init), ("max_iter", max_iter)):
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{where}: {name} must be an integer of 1 or more; got {value!r}.")
    if (
        isinstance(holdout, (bool, np.bool_))
        or not isinstance(holdout, numbers.Real)
        or not 0 < holdout <= 0.5
    ):
        raise ValueError(
            f"{where}: holdout is a share of the observed entries, above 0 and at most 0.5; got {holdout!r}."
        )
    return _Settings(
        int(n_init), int(max_iter), check_tol(tol, where=where), float(holdout), random_state, where
    )


def _check_supported(ranks: tuple[int, ...], data: Observed) -> None:
    """Refuse a rank above the number of rows that have entries."""
    for n, (r, unseen) in enumerate(zip(ranks, data.unseen(), strict=True)):
        seen = len(unseen) - np.count_nonzero(unseen)
        if r > seen:
            raise RankError(
                f"tucker_complete: the rank of mode {n} must be at most its number of rows with observed "
                f"entries, {seen} of {len(unseen)}; got {r}. Lower it, or drop the rows without entries."
            )


@dataclass(frozen=True)
class _Fit:
    """A fit to the training entries, with its errors relative to the root mean square of all entries."""

    state: Any
    train: float
    validation: float

    def is_sound(self, limit: float) -> bool:
        """Whether it predicts entries it has not seen about as well as those it has, and below a limit."""
        times = _OVERFIT_LARGE if self.validation > limit / 2 else _OVERFIT
        return self.validation <= max(_SUCCESS, min(times * self.train, limit))


def _complete(make: Callable[..., Any], data: Observed, settings: _Settings) -> tuple[Any, Report, float]:
    """Search on part of the entries, then fit all: the state, its report, and the scale of the values."""
    start = perf_counter()
    where, seed = settings.where, settings.random_state
    rng = generator(seed)
    if data.size < 2:
        raise DataError(f"{where}: needs at least two observed entries, one to hold out; got {data.size}.")
    scale = _scale(data.values)
    data = data.divided_by(scale)
    train, held = _split(data, settings.holdout, rng)
    limit = _limit(held, train)
    fit, n_starts = _search(make(train, rng), held, limit, settings.n_init, rng)
    problem = make(data, rng)
    state, history, settled = _settle(
        problem, fit.state, fit.train, settings.max_iter, settings.tol, eps(data.like.dtype)
    )
    notes = _failures(fit, limit, n_starts, problem, settled, settings)
    if notes:
        warnings.warn(notes[0], ConvergenceWarning, stacklevel=3)
    sound = fit.is_sound(limit)
    report = Report(
        converged=not notes,
        reason="no fit that predicts" if not sound else "error settled" if settled else "max_iter reached",
        n_iter=len(history),
        validation_error=fit.validation,
        history=tuple(history),
        seconds=perf_counter() - start,
        random_state=int(seed) if isinstance(seed, numbers.Integral) else None,
        warnings=(*notes, *_notes_on_rows(data, where)),
    )
    return state, report, scale


def _failures(
    fit: _Fit, limit: float, n_starts: int, problem: Any, settled: bool, settings: _Settings
) -> list[str]:
    """What keeps the fit from being one to rely on, worst first."""
    where, notes = settings.where, []
    if not fit.is_sound(limit):
        notes.append(
            f"{where}: the fit does not predict entries it has not seen: relative error {fit.validation:.2g} "
            f"on held-out entries, {fit.train:.2g} on the others, best of {n_starts} starts. There are too "
            f"few entries for this rank ({problem.entries.size:,} for {problem.n_params:,} parameters), the "
            "data have no such structure, or no start was good. Lower rank, add entries, or raise n_init."
        )
    if not settled:
        notes.append(
            f"{where}: the error on observed entries still fell by more than tol={settings.tol:g} of "
            f"itself in a sweep after max_iter={settings.max_iter} sweeps. Raise max_iter or tol."
        )
    return notes


def _notes_on_rows(data: Observed, where: str) -> list[str]:
    """Say which rows have no entries."""
    notes = []
    for n, unseen in enumerate(data.unseen()):
        rows = np.flatnonzero(unseen)
        if len(rows):
            more = ", ..." if len(rows) > 10 else ""
            notes.append(
                f"{where}: {len(rows):,} of {len(unseen):,} rows of mode {n} have no observed entry: "
                f"{', '.join(map(str, rows[:10]))}{more}. They are zero in its factor, and so is every "
                "prediction there."
            )
    return notes


def _scale(values: np.ndarray) -> float:
    """Root mean square, safe from overflow; 1 if all values are zero."""
    largest = float(np.max(np.abs(values)))
    return largest * math.sqrt(squared(values / largest) / values.size) if largest > 0 else 1.0


def _split(data: Observed, holdout: float, rng: np.random.Generator) -> tuple[Observed, Observed]:
    """Training and held-out entries, both in their order."""
    n_held = min(max(round(holdout * data.size), 1), data.size - 1)
    held = np.zeros(data.size, dtype=bool)
    held[rng.permutation(data.size)[:n_held]] = True
    return data.take(~held), data.take(held)


def _limit(held: Observed, train: Observed) -> float:
    """Validation error that predictions of zero, or of the mean, nearly reach."""
    of_zero, of_mean = (_rms(held.values - constant) for constant in (0.0, np.mean(train.values)))
    return min(_OF_ZERO * of_zero, _OF_MEAN * of_mean)


def _rms(values: np.ndarray) -> float:
    return math.sqrt(squared(values) / values.size)


def _search(
    problem: Any, held: Observed, limit: float, n_init: int, rng: np.random.Generator
) -> tuple[_Fit, int]:
    """Start until the best validation error is sound and reached twice; best fit, number of starts."""
    fits: list[_Fit] = []
    for n in range(n_init):
        ridge = _RIDGE_STARTS[n % len(_RIDGE_STARTS)]
        fit = _anneal(problem, problem.start(rng), ridge, problem.sweeps, held)
        fits.append(_repaired(problem, fit, held))
        fits.sort(key=lambda fit: fit.validation)
        best, second = fits[0], fits[min(1, len(fits) - 1)]
        again = len(fits) > 1 and second.validation <= _SAME * best.validation
        if best.validation <= _SUCCESS or (again and best.is_sound(limit)):
            break
    return fits[0], len(fits)


def _repaired(problem: Any, fit: _Fit, held: Observed) -> _Fit:
    """Repair a fit for as long as that lowers its validation error, with less ridge when it does not."""
    ridges = list(_RIDGE_REPAIRS)
    for _ in range(2 * problem.max_repairs):
        if not ridges or fit.validation <= _SUCCESS:
            break
        tried = _anneal(problem, problem.repair(fit.state), ridges[0], _REPAIR_SWEEPS, held)
        if tried.validation < _GAIN * fit.validation:
            fit, ridges = tried, list(_RIDGE_REPAIRS)
        else:
            ridges.pop(0)
    return fit


def _anneal(problem: Any, state: Any, first: float, sweeps: int, held: Observed) -> _Fit:
    """Sweep while the ridge falls, then a few times with the ridge that the noise calls for."""
    for ridge in np.geomspace(first, _RIDGE_LAST, sweeps):
        state, residual2 = problem.sweep(state, ridge, 0.0)
    train = math.sqrt(residual2 / problem.entries.size)
    state, history, _ = _settle(problem, state, train, _SETTLE, _SETTLED, 0.0)
    return _Fit(state, history[-1], _rms(problem.evaluate(state, held.indices) - held.values))


def _settle(
    problem: Any, state: Any, error: float, max_iter: int, tol: float, precision: float
) -> tuple[Any, list[float], bool]:
    """Sweep until the error changes by less than ``tol`` of itself a sweep; state, errors, whether it did.

    Each sweep starts from a point ahead, in the direction of the last step and ever further; when the error
    rises, the point ahead is given up.
    """
    ahead, momentum, history = state, 0.0, [error]
    for _ in range(max_iter):
        new, residual2 = problem.sweep(ahead, 0.0, _noise2(problem, history[-1]))
        error = math.sqrt(residual2 / problem.entries.size)
        if not error <= history[-1] and ahead is not state:
            ahead, momentum, error = state, 0.0, history[-1]
        else:
            ahead, state = problem.extrapolate(new, state, momentum), new
            momentum += _MOMENTUM
        history.append(error)
        calm = len(history) > _CALM + 1 and history[-1 - _CALM] - error <= _CALM * tol * error
        if calm or error <= 4 * precision:
            return state, history[1:], True
    return state, history[1:], False


def _noise2(problem: Any, error: float) -> float:
    """Variance of the noise: the sum of squared residuals over what the parameters leave free."""
    size = problem.entries.size
    return error**2 * size / max(size - problem.n_params, size / 10)
