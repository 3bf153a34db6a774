"""AM-KroSBL and SVD-KroSBL of He and Joseph, iteration for iteration, with the thresholds of their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.sparse.box import outer
from tenfac.bayes.sparse.estep import Posterior, posterior
from tenfac.bayes.sparse.inputs import check_noise, give_back, read_problem
from tenfac.bayes.sparse.solution import Solution
from tenfac.core.errors import ShapeError

Array = NDArray[Any]
MStep = Callable[[Array, list[Array], list[Array]], list[Array]]


@dataclass(frozen=True)
class Rules:
    """When columns are pruned and when iterations stop.

    Parameters
    ----------
    relative : float or tuple of float
        Before every expectation step, column j of mode i goes if ``g_i[j] < relative * max g_i``; one number,
        or one for each mode.
    floor : float
        It also goes below this number, whatever the scale of the data.
    tol : float
        Stop when the variances of all unknowns, ``g_1 o ... o g_I``, change by no more than this fraction.
    max_iter : int
    inner_tol : float
        The same for the cycles within one maximization step.
    inner_relative : bool
        False measures the inner change in the square of the data's unit, as the paper's synthetic runs do.
    inner_max_iter : int or None

    Examples
    --------
    >>> AM_SYNTHETIC.relative, SVD_SYNTHETIC.relative, AM_IRS.relative
    (0.01, 0.001, (0.01, 0.1, 0.001))
    """

    relative: float | tuple[float, ...]
    floor: float = 0.0
    tol: float = 1e-4
    max_iter: int = 150
    inner_tol: float = 1e-5
    inner_relative: bool = False
    inner_max_iter: int | None = None


AM_SYNTHETIC = Rules(1e-2)
SVD_SYNTHETIC = Rules(1e-3)
AM_SYNTHETIC_LEARNED = Rules(5e-3)  # where the noise is learned
SVD_SYNTHETIC_LEARNED = Rules(5e-4)
AM_IRS = Rules((1e-2, 1e-1, 1e-3), floor=1e-4, inner_tol=1e-4, inner_relative=True)
SVD_IRS = Rules(0.0, floor=1e-4)  # below 25 dB; from there on relative=1e-3


def em_am(
    factors: Any, Y: Any, noise: float | None = None, *, rules: Rules | None = None, snapshots: bool = False
) -> tuple[Solution, Array]:
    """AM-KroSBL: expectation maximization whose maximization step alternates over the modes.

    Cycles ``g_i <- (N_i / N) sum over the other indices of L / (product of the other g)`` with the second
    moments ``L`` of the unknowns, until the product stands still.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    noise : float, optional
        Standard deviation of the noise; learned from 0.1 times the variance of ``Y`` if not given.
    rules : Rules, optional
        Those of the paper's synthetic experiments if not given: ``AM_SYNTHETIC``, or ``AM_SYNTHETIC_LEARNED``
        without ``noise``. ``AM_IRS`` are those of its channels.
    snapshots : bool
        Moments are averages over snapshots. The paper has one snapshot.

    Returns
    -------
    Solution
    X : ndarray, shape (N_1, ..., N_I) or (N_1, ..., N_I, T)
        Posterior mean, zero where pruned.

    Notes
    -----
    Variances start at one in any unit: bring the data to order one. The expectation step is exact and costs
    mode products, not the covariance of all unknowns: the iterates are those of the published code but for
    rounding, some 1,000 times sooner. Its steps are short by a factor ``N / N_i``; ``KroneckerSBL`` with its
    own update needs a fraction of the iterations.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), AM-KroSBL.
       arXiv:2307.14719

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 10)), rng.standard_normal((9, 10))
    >>> Y = 5 * np.outer(A[:, 2], B[:, 7]) + 0.1 * rng.standard_normal((8, 9))
    >>> solution, X = em_am([A, B], Y, noise=0.1)
    >>> [np.flatnonzero(g).tolist() for g in solution.gammas], X.shape
    ([[2], [7]], (10, 10))
    """
    chosen = rules or (AM_SYNTHETIC_LEARNED if noise is None else AM_SYNTHETIC)

    def m_step(target: Array, gammas: list[Array], _: list[Array]) -> list[Array]:
        return alternate(target, gammas, chosen, [None] * len(gammas))

    return expectation_maximization(factors, Y, noise, chosen, m_step, snapshots=snapshots, where="em_am")


def em_svd(
    factors: Any, Y: Any, noise: float | None = None, *, rules: Rules | None = None, snapshots: bool = False
) -> tuple[Solution, Array]:
    """SVD-KroSBL: expectation maximization whose second step takes the leading singular vectors.

    The second moments are unfolded to ``N_1`` rows, ``g_1`` is the magnitude of the leading left singular
    vector, and the right one, times its singular value, is folded and split further; the last mode takes the
    scale. This is a rank-one fit in the Frobenius norm, not the maximization step, so the evidence may fall.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    noise : float, optional
        As in ``em_am``.
    rules : Rules, optional
        By default ``SVD_SYNTHETIC``, or ``SVD_SYNTHETIC_LEARNED`` without ``noise``; ``SVD_IRS`` is for
        channels.
    snapshots : bool

    Returns
    -------
    Solution
    X : ndarray, shape (N_1, ..., N_I) or (N_1, ..., N_I, T)

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), SVD-KroSBL.
       arXiv:2307.14719

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 10)), rng.standard_normal((9, 10))
    >>> Y = 5 * np.outer(A[:, 2], B[:, 7]) + 0.1 * rng.standard_normal((8, 9))
    >>> solution, X = em_svd([A, B], Y)
    >>> bool(abs(X[2, 7] - 5) < 0.1), 0.07 < solution.noise < 0.14
    (True, True)
    """
    chosen = rules or (SVD_SYNTHETIC_LEARNED if noise is None else SVD_SYNTHETIC)
    return expectation_maximization(
        factors, Y, noise, chosen, lambda target, *_: split(target), snapshots=snapshots, where="em_svd"
    )


def expectation_maximization(
    factors: Any,
    Y: Any,
    noise: float | None,
    rules: Rules,
    m_step: MStep,
    *,
    snapshots: bool,
    where: str,
    start: Sequence[Array] | None = None,
) -> tuple[Solution, Array]:
    """Prune, take the posterior, renew the variances by ``m_step(moments, gammas, kept columns)``; repeat.

    Examples
    --------
    >>> plain = lambda target, *_: [target]
    >>> expectation_maximization([np.eye(2)], np.array([3.0, 0.0]), 1.0, AM_SYNTHETIC, plain, snapshots=False,
    ...     where="toy")[1].round(3)
    array([2.667, 0.   ])
    """
    like = Y
    matrices, Y = read_problem(factors, Y, snapshots, where)
    sizes = [A.shape[1] for A in matrices]
    learn = noise is None
    sigma2 = start_noise(Y) if noise is None else check_noise(noise, where) ** 2
    ratios = _ratios(rules.relative, len(sizes), where)
    gammas = [np.ones(n) for n in sizes] if start is None else [np.asarray(g, dtype=float) for g in start]
    keep = [np.arange(n) for n in sizes]
    if not Y.any():
        gammas, keep = _no_columns(len(sizes))
    trace: list[float] = []
    change, n_iter = np.inf, 0
    while n_iter < rules.max_iter and change > rules.tol and keep[0].size:
        before = outer(_full(gammas, keep, sizes))
        gammas, keep = _pruned(gammas, keep, ratios, rules.floor)
        found = posterior(_columns(matrices, keep), gammas, Y, sigma2)
        trace.append(found.evidence)
        if not keep[0].size:
            break
        gammas = m_step(second_moments(found), gammas, keep)
        sigma2 = learned_noise(found, sigma2, Y) if learn else sigma2
        change = float(np.linalg.norm(outer(_full(gammas, keep, sizes)) - before) / np.linalg.norm(before))
        n_iter += 1
    X = np.zeros((*sizes, Y.shape[-1]), dtype=Y.dtype)
    evidence = np.inf  # of zeros without noise
    if sigma2 > 0:
        found = posterior(_columns(matrices, keep), gammas, Y, sigma2, variances=False)
        evidence = found.evidence
        X[np.ix_(*keep)] = found.mean
    converged, reason = _ending(change <= rules.tol, n_iter, bool(keep[0].size), bool(Y.any()))
    solution = Solution(
        tuple(give_back(g, like) for g in _full(gammas, keep, sizes)),
        sigma2,
        evidence,
        (*trace[1:], evidence),
        n_iter,
        converged,
        reason,
    )
    return solution, give_back(X if snapshots else X[..., 0], like)


def alternate(
    target: Array, gammas: Sequence[Array], rules: Rules, solve: Sequence[Callable[[Array], Array] | None]
) -> list[Array]:
    """Maximize over one mode's variances after another until their product stands still.

    Parameters
    ----------
    target : ndarray, shape (N_1, ..., N_I)
        Second moments of the unknowns.
    gammas : sequence of ndarray, shapes (N_i,)
    rules : Rules
    solve : sequence of callable or None
        What turns the average of ``target`` over the other modes into variances of a mode; None takes it.

    Examples
    --------
    >>> found = alternate(np.array([[1.0, 2.0], [2.0, 4.0]]), [np.ones(2)] * 2, AM_SYNTHETIC, [None, None])
    >>> outer(found).round(6)
    array([[1., 2.],
           [2., 4.]])
    """
    gammas = list(gammas)
    d, new = target.ndim, outer(gammas)
    most = np.inf if rules.inner_max_iter is None else rules.inner_max_iter
    cycles, change, bound = 0, np.inf, 0.0
    while change > bound and cycles < most:
        old, cycles = new, cycles + 1
        for i in range(d):
            mean = _averaged(target, gammas, i)
            step = solve[i]
            gammas[i] = mean if step is None else step(mean)
        for i in range(d - 1):
            norm = np.linalg.norm(gammas[i])
            gammas[i], gammas[-1] = gammas[i] / norm, gammas[-1] * norm
        new = outer(gammas)
        size = float(np.linalg.norm(old))
        change = float(np.linalg.norm(new - old)) / (size if rules.inner_relative else 1.0)
        # rounding alone changes large variances by more than an absolute tolerance
        bound = rules.inner_tol if rules.inner_relative else max(rules.inner_tol, 1e-14 * size)
    return gammas


def split(target: Array) -> list[Array]:
    """Fit ``target`` by one outer product, one singular value decomposition after another.

    Examples
    --------
    >>> split(np.array([[3.0, 6.0], [4.0, 8.0]]))
    [array([0.6, 0.8]), array([ 5., 10.])]
    """
    gammas, rest = [], target
    while rest.ndim > 1:
        U, s, V = np.linalg.svd(rest.reshape(rest.shape[0], -1), full_matrices=False)
        gammas.append(np.abs(U[:, 0]))
        rest = np.abs(s[0] * V[0]).reshape(rest.shape[1:])
    return [*gammas, rest]


def second_moments(found: Posterior) -> Array:
    """Posterior variance plus squared magnitude of the mean, averaged over snapshots.

    Examples
    --------
    >>> second_moments(Posterior(np.array([[1.0, 3.0]]), np.ones(1), 0.0, 0.0, 0.0))
    array([6.])
    """
    return found.variance + np.mean(np.abs(found.mean) ** 2, axis=-1)


def start_noise(Y: Array) -> float:
    """A tenth of the variance of the measurements, of their mean square where they do not vary.

    Examples
    --------
    >>> start_noise(np.array([[1.0], [3.0]])), start_noise(np.array([[2.0]]))
    (0.2, 0.4)
    """
    variance = float(np.var(Y, ddof=1)) if Y.size > 1 else 0.0
    return 0.1 * (variance or float(np.mean(np.abs(Y) ** 2)))


def learned_noise(found: Posterior, noise: float, Y: Array) -> float:
    """``(||Y - A mean||^2 + noise * sum_j (1 - variance_j / g_j)) / M``, squares averaged over snapshots."""
    T = Y.shape[-1]
    return (found.residual / T + noise * found.fitted) * T / Y.size


_EMPTY = (
    "every column of a mode fell below the thresholds, whose floor assumes data of order one; scale the "
    "data, or lower floor"
)


_STUCK = (
    "the first iteration changed nothing: variances start at one in any unit, far below these data; scale "
    "the data to order one"
)


def _ending(settled: bool, n_iter: int, columns: bool, data: bool) -> tuple[bool, str]:
    """Whether that is convergence, and why it ended."""
    if not columns:
        return (False, _EMPTY) if data else (True, "the measurements are zero")
    if settled:
        return (True, "the variances stand still") if n_iter > 1 else (False, _STUCK)
    return False, "max_iter reached"


def _ratios(relative: float | tuple[float, ...], d: int, where: str) -> tuple[float, ...]:
    if isinstance(relative, (int, float)):
        return (float(relative),) * d
    if len(relative) != d:
        raise ShapeError(
            f"{where}: rules.relative must be one number, or one for each of {d} modes; got {len(relative)}."
        )
    return tuple(relative)


def _pruned(
    gammas: list[Array], keep: list[Array], ratios: Sequence[float], floor: float
) -> tuple[list[Array], list[Array]]:
    stay = [(g >= r * g.max()) & (g >= floor) for g, r in zip(gammas, ratios, strict=True)]
    if not all(s.any() for s in stay):
        return _no_columns(len(gammas))
    return [g[s] for g, s in zip(gammas, stay, strict=True)], [k[s] for k, s in zip(keep, stay, strict=True)]


def _no_columns(d: int) -> tuple[list[Array], list[Array]]:
    return [np.zeros(0)] * d, [np.arange(0)] * d


def _columns(matrices: Sequence[Array], keep: Sequence[Array]) -> list[Array]:
    return [A[:, k] for A, k in zip(matrices, keep, strict=True)]


def _full(gammas: Sequence[Array], keep: Sequence[Array], sizes: Sequence[int]) -> list[Array]:
    full = [np.zeros(n) for n in sizes]
    for g, k, wide in zip(gammas, keep, full, strict=True):
        wide[k] = g
    return full


def _averaged(target: Array, gammas: Sequence[Array], mode: int) -> Array:
    """Mean over the other modes of ``target`` divided by their variances."""
    for k in range(target.ndim - 1, mode, -1):
        target = target @ (1 / gammas[k]) / gammas[k].size
    for k in range(mode):
        target = np.tensordot(1 / gammas[k], target, axes=1) / gammas[k].size
    return target
