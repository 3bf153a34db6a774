"""Kronecker sparse Bayesian learning when some measurements are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.bayes.sparse.inputs import check_noise, give_back
from tenfac.bayes.sparse.masked import Masked, check_memory
from tenfac.bayes.sparse.observed import NOISE_FLOOR, Array, Observed, check_resolved, observe
from tenfac.bayes.sparse.solution import Solution
from tenfac.bayes.sparse.starts import evened
from tenfac.bayes.sparse.unstructured import column_cost
from tenfac.core.errors import ShapeError, warn_user

_GAMMA_FLOOR = 1e-8  # of the most that a column of the mode adds to the variance; below, it is left out
_FIRST_NOISE = 0.1

_WHERE = "KroneckerSBL.fit"


def fit_masked(
    factors: Sequence[Any],
    Y: Any,
    mask: Any,
    *,
    noise: float | None = None,
    prune_alpha: float | None = 0.05,
    gammas: Sequence[Any] | None = None,
    max_iter: int = 500,
    tol: float = 1e-6,
    max_bytes: float = 2e9,
) -> Solution:
    """Maximise the evidence of the measurements that are there under a Kronecker prior.

    The same model and the same block fixed point as without a mask, on the exact evidence of what was
    measured (see ``Masked``): nothing is imputed. Rows of a mode without any measurement are cut from its
    factor first.

    Parameters
    ----------
    factors : sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I, T)
    mask : array of bool, shape (M_1, ..., M_I)
        True where measured. What ``Y`` holds elsewhere is not read.
    noise : float, optional
        Standard deviation of the noise; learned if not given.
    prune_alpha : float or None
        At convergence a column whose deletion costs less evidence than is significant at this level among the
        columns of all modes (Bonferroni) is deleted, and the sweeps go on. None: no such test.
    gammas : sequence of arrays, shapes (N_i,), optional
        Variances to start from; all equal if not given.
    max_iter : int
        Sweeps over all modes and the noise.
    tol : float
        Stop when a sweep gains less evidence than this per measurement.
    max_bytes : float
        What a square matrix over the missing, or the present, measurements may take.

    Returns
    -------
    Solution
        Its trace never decreases but where columns are pruned.

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, a value is not finite, the noise is not positive, or memory does not suffice.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` sweeps were not enough.

    Notes
    -----
    A sweep costs ``m M sum M_i + m^3`` or ``n^3`` operations, whichever of the ``m = M - n`` missing and the
    ``n`` measured are fewer.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 12)), rng.standard_normal((9, 12))
    >>> X = np.zeros((12, 12))
    >>> X[np.ix_([3, 7], [2, 5])] = [[1.0, -2.0], [3.0, 1.0]]
    >>> Y = (A @ X @ B.T + 0.01 * rng.standard_normal((8, 9)))[..., None]
    >>> found = fit_masked([A, B], Y, rng.random((8, 9)) < 0.8)
    >>> [np.flatnonzero(gamma).tolist() for gamma in found.gammas]
    [[3, 7], [2, 5]]
    """
    if noise is not None:
        noise = check_noise(noise, _WHERE) ** 2
    data = cut_rows(observe(factors, Y, mask, _WHERE))
    check_memory(data, max_bytes, _WHERE)
    if not np.any(data.values):
        return _nothing(data, noise, Y)
    check_resolved(data, noise, _WHERE)
    state = Masked(
        data, _first(data, gammas, noise), _FIRST_NOISE if noise is None else noise / data.scale**2
    )
    trace: list[float] = []
    converged = False
    while not converged:
        state, converged = _sweeps(state, noise is None, trace, max_iter, tol)
        pruned = _pruned(state, prune_alpha) if converged else state
        converged, state = converged and pruned is state, pruned
        if len(trace) >= max_iter:
            break
    if not converged:
        warn_user(f"fit_masked: not converged in {max_iter} sweeps. Raise max_iter, or tol (now {tol:g}).")
    scaled = normalised(state.gammas, data.scale)
    return Solution(
        gammas=tuple(give_back(gamma, Y) for gamma in scaled),
        noise_variance=state.noise * data.scale**2 if noise is None else float(noise),
        evidence=state.evidence,
        trace=tuple(trace),
        n_iter=len(trace),
        converged=converged,
        reason="tolerance met" if converged else f"{max_iter} sweeps done",
    )


def cut_rows(data: Observed) -> Observed:
    """Cut the rows of every mode that no measurement needs; exact, since they say nothing.

    Examples
    --------
    >>> import numpy as np
    >>> data = observe([np.eye(3)], np.ones((3, 1)), np.array([True, False, True]))
    >>> cut_rows(data).row_shape
    (2,)
    """
    rows = np.unravel_index(data.places, data.row_shape)
    kept = [np.unique(r, return_inverse=True) for r in rows]
    shape = tuple(len(used) for used, _ in kept)
    places = np.ravel_multi_index(tuple(new.reshape(-1) for _, new in kept), shape)
    factors = tuple(factor[used] for factor, (used, _) in zip(data.factors, kept, strict=True))
    return Observed(factors, data.values, places, data.scale)


def normalised(gammas: Sequence[Array], scale: float) -> list[Array]:
    """Unit 2-norm of all variances but the last, which takes the scale of the measurements too.

    Examples
    --------
    >>> import numpy as np
    >>> normalised([np.array([2.0]), np.array([3.0])], 10.0)
    [array([1.]), array([600.])]
    """
    norms = [float(np.linalg.norm(gamma)) for gamma in gammas[:-1]]
    first = [gamma / norm for gamma, norm in zip(gammas, norms, strict=False)]
    return [*first, gammas[-1] * math.prod(norms) * scale**2]


def _nothing(data: Observed, noise: float | None, like: Any) -> Solution:
    """What zero measurements say: no unknown is needed."""
    gammas = tuple(give_back(np.zeros(size), like) for size in data.column_shape)
    count = data.size * data.snapshots
    evidence = math.inf if noise is None else data.log_constant() - data.weight * count * math.log(noise)
    return Solution(gammas, noise or 0.0, evidence, (evidence,), 0, True, "the measurements are zero")


def _first(data: Observed, gammas: Sequence[Any] | None, noise: float | None) -> list[Array]:
    """Variances to start from, scaled so that what they predict has the energy of the measurements."""
    if gammas is None:
        found = [evened(lengths, np) for lengths in _lengths(data)]
    else:
        found = [np.asarray(gamma, dtype=float) for gamma in gammas]
        sizes = tuple(gamma.shape[0] if gamma.ndim == 1 else -1 for gamma in found)
        if sizes != data.column_shape or any((g < 0).any() or not g.any() for g in found):
            raise ShapeError(
                f"{_WHERE}: gammas must be nonnegative vectors of lengths {data.column_shape}, none all "
                f"zero; got lengths {sizes}. Leave them out to start from equal ones."
            )
    unit = [gamma / gamma.max() for gamma in found]
    explained = np.prod([np.mean(abs(f) ** 2 @ g) for f, g in zip(data.factors, unit, strict=True)])
    share = 1.0 - _FIRST_NOISE if noise is None else max(1.0 - noise / data.scale**2, 0.1)
    unit[-1] = unit[-1] * share / explained
    return unit


def _sweeps(state: Masked, learn: bool, trace: list[float], max_iter: int, tol: float) -> tuple[Masked, bool]:
    """Sweep until nothing gains; the evidence after every sweep goes to ``trace``."""
    least = tol * state.data.size * state.data.snapshots
    last = state.evidence
    while len(trace) < max_iter:
        state = _better(state, learn)
        trace.append(state.evidence)
        if state.evidence - last < least:
            return state, True
        last = state.evidence
    return state, False


def _better(state: Masked, learn: bool) -> Masked:
    """The fixed point of all variances at once if that does not lower the evidence, else one by one."""
    pairs, noise = state.statistics()
    ratios = [_ratio(a, b) for a, b in pairs]
    total = float(_ratio(pairs[-1][0].sum(), pairs[-1][1].sum()))  # of all modes: the scale they share
    if total > 0:
        shared = [*(ratio / total for ratio in ratios[:-1]), ratios[-1]]
        steps = zip(state.gammas, shared, _lengths(state.data), strict=True)
        gammas = [_floored(g * ratio, lengths) for g, ratio, lengths in steps]
        if all(g.any() for g in gammas):
            found = Masked(state.data, gammas, _noise(state, noise, 1.0) if learn else state.noise)
            if found.evidence >= state.evidence:
                return found
    for i in range(len(state.gammas)):
        state = _better_mode(state, i)
    return _better_noise(state) if learn else state


def _ratio(a: Any, b: Any) -> Any:
    return np.where(b > 0, a / np.where(b > 0, b, 1.0), 0.0)


def _lengths(data: Observed) -> list[Array]:
    """Squared lengths of the columns of each factor."""
    return [np.sum(abs(factor) ** 2, axis=0) for factor in data.factors]


def _floored(gammas: Array, lengths: Array) -> Array:
    added = gammas * lengths
    return np.where(added < _GAMMA_FLOOR * added.max(), 0.0, gammas)


def _better_mode(state: Masked, i: int) -> Masked:
    """The fixed point of one mode's variances if it does not lower the evidence, else its root."""
    ratio = _ratio(*state.statistics()[0][i])
    for power in (1.0, 0.5):
        new = _floored(state.gammas[i] * ratio**power, _lengths(state.data)[i])
        found = state.with_mode(i, new) if new.any() else state
        if found is not state and found.evidence >= state.evidence:
            return found
    return state


def _better_noise(state: Masked) -> Masked:
    """The same for the noise."""
    pair = state.statistics()[1]
    for power in (1.0, 0.5):
        found = state.with_noise(_noise(state, pair, power))
        if found.evidence >= state.evidence:
            return found
    return state


def _noise(state: Masked, pair: tuple[float, float], power: float) -> float:
    return max(state.noise * float(_ratio(*np.array(pair))) ** power, NOISE_FLOOR)


def _pruned(state: Masked, prune_alpha: float | None) -> Masked:
    """Delete, one after the other, the columns whose deletion costs less than is significant."""
    if prune_alpha is None:
        return state
    price = column_cost(sum(len(gammas) for gammas in state.gammas), prune_alpha)
    for i in range(len(state.gammas)):
        for j in np.argsort(state.gammas[i]):
            less = state.gammas[i].copy()
            less[j] = 0.0
            if state.gammas[i][j] == 0 or not less.any():
                continue
            found = state.with_mode(i, less)
            if state.evidence - found.evidence < price:
                state = found
    return state
