"""Sparse Bayesian learning with one variance per unknown, for any support; matrix-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from tenfac.bayes.sparse.inputs import check_noise, give_back
from tenfac.bayes.sparse.observed import NOISE_FLOOR, Observed, check_resolved, observe
from tenfac.bayes.sparse.sequential import Sequential
from tenfac.core.arrays import byte_guard
from tenfac.core.errors import DataError, warn_user

_FIRST_NOISE = 0.1
_STARTS = ((1.0,), (0.25, 0.5, 1.0))  # price of a column, stage by stage


@dataclass(frozen=True)
class UnstructuredSolution:
    """A sparse vector with its posterior, one prior variance per unknown.

    Parameters
    ----------
    indices : array of int, shape (k, I)
        Where the unknowns that are not zero stand, one index per mode, in row-major order.
    mean : array, shape (k, T)
        Posterior mean there.
    covariance : array, shape (k, k)
        Posterior covariance there, of each snapshot.
    gammas : array, shape (k,)
        Their prior variances.
    noise_variance : float
        Variance of the noise, learned or given; ``noise`` is its root.
    evidence : float
        Log marginal likelihood of all snapshots with all its constants.
    trace : tuple of float
        The evidence less the price of the columns (nothing with ``prune_alpha=None``) after every round of
        the last stage. It never decreases.
    n_iter : int
        Rounds of all stages of the start that was kept.
    converged : bool
    reason : str
        Why it stopped, in words.
    starts : tuple of float
        Evidence less the price of the columns that each start reached.

    Examples
    --------
    >>> import numpy as np
    >>> empty = np.zeros((0, 1))
    >>> UnstructuredSolution(empty, empty, empty, empty, 1.0, -3.0, (), 0, True, "", ()).noise
    1.0
    """

    indices: Any
    mean: Any
    covariance: Any
    gammas: Any
    noise_variance: float
    evidence: float
    trace: tuple[float, ...]
    n_iter: int
    converged: bool
    reason: str
    starts: tuple[float, ...]

    @property
    def noise(self) -> float:
        """Standard deviation of the noise."""
        return math.sqrt(self.noise_variance)


class _Stop(NamedTuple):
    """When to stop: rounds, evidence per measurement, bytes."""

    max_iter: int
    tol: float
    max_bytes: float


class _Path(NamedTuple):
    """A state that was reached, and how."""

    state: Sequential
    trace: tuple[float, ...]
    n_iter: int
    converged: bool
    reason: str


def fit_unstructured(
    factors: Sequence[Any],
    Y: Any,
    *,
    noise: float | None = None,
    mask: Any = None,
    prune_alpha: float | None = 0.05,
    n_starts: int = 2,
    max_iter: int = 500,
    tol: float = 1e-6,
    max_bytes: float = 2e9,
) -> UnstructuredSolution:
    """Recover a sparse tensor from ``Y = X x_1 A_1 ... x_I A_I + noise`` without assuming where it is sparse.

    Every unknown has its own prior variance; the variances, most of them zero, maximise the evidence, one
    after the other, the one that gains most first [1]_.

    Parameters
    ----------
    factors : sequence of arrays, shapes (M_i, N_i)
        Real or complex.
    Y : array, shape (M_1, ..., M_I, T)
        Measurements; the T snapshots share the support.
    noise : float, optional
        Standard deviation of the noise; learned if not given.
    mask : array of bool, shape (M_1, ..., M_I), optional
        True where measured, for all snapshots. What ``Y`` holds elsewhere is not read.
    prune_alpha : float or None
        A column is kept if its gain in evidence is significant at this level among all N (Bonferroni). None:
        if it gains at all, the classic rule, which keeps many columns that fit noise.
    n_starts : 1 or 2
        2: also with a price of a column that rises in three stages; the better of both is kept.
    max_iter : int
        Rounds of each stage, of at most ``max(10, k)`` changes of a variance and a noise step.
    tol : float
        Stop when a round gains less evidence than this per measurement.
    max_bytes : float
        What statistics of all N columns, and the columns that are active, may take.

    Returns
    -------
    UnstructuredSolution
        Arrays of the library and precision of ``Y``.

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, a value is not finite, the noise is not positive, or memory does not suffice.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` rounds were not enough.

    Notes
    -----
    A change of a variance costs one product with ``A^H`` and O(M k), a round k products more. Memory:
    ``N (T + 4) + k M`` numbers. Computed in double precision. The learned noise goes down to 1e-14 of the
    mean square of the measurements. Multiplying ``Y`` by a number changes nothing else.

    References
    ----------
    .. [1] M. E. Tipping and A. C. Faul, Fast marginal likelihood maximisation for sparse Bayesian models,
       AISTATS 2003

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 12)), rng.standard_normal((9, 12))
    >>> X = np.zeros((12, 12))
    >>> X[3, 5], X[7, 2] = 1.0, -2.0
    >>> Y = A @ X @ B.T + 0.01 * rng.standard_normal((8, 9))
    >>> fit_unstructured([A, B], Y[..., None]).indices
    array([[3, 5],
           [7, 2]])
    """
    if prune_alpha is not None and not 0 < prune_alpha < 1:
        raise DataError(f"KroneckerSBL: prune_alpha must be in (0, 1), or None; got {prune_alpha!r}.")
    if n_starts not in (1, 2):
        raise DataError(f"KroneckerSBL: n_starts must be 1 or 2; got {n_starts!r}.")
    if noise is not None:
        noise = check_noise(noise, "KroneckerSBL") ** 2
    data = observe(factors, Y, mask, "KroneckerSBL")
    check_resolved(data, noise, "KroneckerSBL")
    cost = column_cost(math.prod(data.column_shape), prune_alpha)
    found = best_path(data, noise, cost, n_starts, _Stop(max_iter, tol, max_bytes))
    if not found.path.converged:
        warn_user(
            f"KroneckerSBL: not converged, {found.path.reason}. Raise max_iter (now {max_iter}) or tol "
            f"(now {tol:g})."
        )
    return _solution(found, Y, noise)


def column_cost(size: int, prune_alpha: float | None) -> float:
    """Evidence that a column must gain to be significant among ``size``; 0 for None.

    Twice the gain of a column that is not there is 0 or chi-squared of one degree, half and half.

    Examples
    --------
    >>> round(column_cost(3375, 0.05), 2)
    8.72
    """
    return 0.0 if prune_alpha is None else float(chi2.isf(min(2 * prune_alpha / size, 1.0), 1)) / 2


class Found(NamedTuple):
    """The best of all starts, with what each reached.

    Examples
    --------
    >>> Found(None, (1.0, 2.0)).starts
    (1.0, 2.0)
    """

    path: Any
    starts: tuple[float, ...]


def best_path(data: Observed, noise: float | None, cost: float, n_starts: int, stop: Any) -> Found:
    """Go all starts and keep the one with most evidence less the price of its columns.

    Examples
    --------
    >>> import numpy as np
    >>> data = observe([np.eye(2)], np.array([[3.0], [0.0]]))
    >>> best_path(data, 0.1, 0.0, 1, _Stop(10, 1e-6, 1e9)).path.state.active
    array([0])
    """
    size = (math.prod(data.column_shape), data.snapshots + 4)
    byte_guard(size, data.values.itemsize, stop.max_bytes, "KroneckerSBL", "Raise max_bytes.")
    first = _FIRST_NOISE if noise is None else noise / data.scale**2
    schedules = _STARTS[: n_starts if cost else 1]
    paths = []
    for schedule in schedules if np.any(data.values) else ():
        state, rounds = Sequential(data, first), 0
        for part in schedule:
            path = _climb(state, part * cost, noise is None, stop)
            rounds += path.n_iter
        paths.append(path._replace(n_iter=rounds))
    if not paths:
        empty = Sequential(data, first)
        return Found(_Path(empty, (empty.evidence,), 0, True, "the measurements are zero"), ())
    return Found(max(paths, key=lambda path: path.trace[-1]), tuple(path.trace[-1] for path in paths))


def _climb(state: Sequential, cost: float, learn: bool, stop: _Stop) -> _Path:
    """Change variances and noise until nothing gains."""
    data = state.data
    least = stop.tol * data.size * data.snapshots
    state.refresh()
    trace = [_worth(state, cost)]
    for n in range(1, stop.max_iter + 1):
        before = state.kept()
        _round(state, cost, least, stop.max_bytes)
        state.weigh()
        if _worth(state, cost) < trace[-1]:  # rounding: the statistics of an ill-conditioned set of columns
            state.restore(before)
            return _Path(state, tuple(trace), n, True, "no change of a variance gains beyond rounding")
        if learn:
            _learn_noise(state)
        state.refresh()
        trace.append(_worth(state, cost))
        if trace[-1] - trace[-2] < least:
            return _Path(state, tuple(trace), n, True, "tolerance met")
    return _Path(state, tuple(trace), stop.max_iter, False, f"{stop.max_iter} rounds done")


def _worth(state: Sequential, cost: float) -> float:
    return float(state.evidence - cost * len(state.active))


def _round(state: Sequential, cost: float, least: float, max_bytes: float) -> None:
    """Make the best changes, one after the other."""
    for _ in range(max(10, len(state.active))):
        j, gamma, gain = state.best_action(cost)
        if gain < least:
            return
        size = (len(state.active) + 1, state.data.size)
        byte_guard(
            size,
            state.columns.itemsize,
            max_bytes,
            "KroneckerSBL",
            "Raise max_bytes, or lower prune_alpha.",
        )
        state.set(j, gamma)


def _learn_noise(state: Sequential) -> None:
    """Take the fixed point of the noise if it does not lower the evidence, else the step of EM."""
    before, evidence = state.kept(), state.evidence
    for step in state.noise_steps():
        state.noise = max(step, NOISE_FLOOR)
        state.weigh()
        if state.evidence >= evidence:
            return
    state.restore(before)


def _solution(found: Found, like: Any, noise: float | None) -> UnstructuredSolution:
    state, scale = found.path.state, found.path.state.data.scale
    order = np.argsort(state.active)
    indices = np.stack(np.unravel_index(state.active[order], state.data.column_shape), axis=-1)
    zero = not np.any(state.data.values)
    learned = 0.0 if zero else state.noise * scale**2
    return UnstructuredSolution(
        indices=give_back(indices, like),
        mean=give_back(state.mean[order] * scale, like),
        covariance=give_back(state.covariance[np.ix_(order, order)] * scale**2, like),
        gammas=give_back(state.gammas[order] * scale**2, like),
        noise_variance=learned if noise is None else float(noise),
        evidence=math.inf if zero and noise is None else state.evidence,
        trace=found.path.trace,
        n_iter=found.path.n_iter,
        converged=found.path.converged,
        reason=found.path.reason,
        starts=found.starts,
    )
