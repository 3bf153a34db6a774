"""PC-KroSBL of He and Joseph: variances of neighbouring columns are coupled, for supports in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tenfac.bayes.sparse.em import Rules, alternate, expectation_maximization
from tenfac.bayes.sparse.inputs import read_problem
from tenfac.bayes.sparse.solution import Solution
from tenfac.core.errors import DataError, ShapeError

Array = NDArray[Any]

PC_IRS = Rules((1e-2, 1e-1, 1e-2), floor=1e-4, inner_tol=1e-4, inner_relative=True, inner_max_iter=9)
_LEAST = 1e-5  # added to coupled variances in every step


def em_pattern(
    factors: Any,
    Y: Any,
    noise: float | None = None,
    *,
    coupling: float | Sequence[Any] = 0.8,
    rules: Rules = PC_IRS,
    snapshots: bool = False,
) -> tuple[Solution, Array]:
    """PC-KroSBL: AM-KroSBL with variances ``t_i = C_i h_i``, where C_i couples neighbours.

    In each cycle ``h_i = argmin_{h >= 0} ||C_i h - b_i||`` with the average ``b_i`` that AM-KroSBL takes,
    and ``t_i = 1e-5 + C_i h_i``.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    noise : float, optional
        As in ``em_am``; the paper gives it.
    coupling : float, or one entry per mode: None, float or array (N_i, N_i)
        A number beta is ``I + beta (sub- and superdiagonal)``; None leaves a mode uncoupled. One number
        for all couples every mode but the second of three, as the paper's channel does.
    rules : Rules
    snapshots : bool

    Returns
    -------
    Solution
        ``gammas`` are the coupled variances ``t_i``.
    X : ndarray, shape (N_1, ..., N_I) or (N_1, ..., N_I, T)

    Raises
    ------
    ShapeError, DataError
        If a coupling does not fit its mode or has negative entries.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), PC-KroSBL.
       arXiv:2307.14719

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 10)), rng.standard_normal((9, 10))
    >>> Y = 5 * np.outer(A[:, 2:4].sum(1), B[:, 7]) + 0.1 * rng.standard_normal((8, 9))
    >>> rules = Rules(1e-2, floor=1e-4, inner_tol=1e-4, inner_relative=True, inner_max_iter=9)
    >>> _, X = em_pattern([A, B], Y, 0.1, coupling=[0.8, None], rules=rules)
    >>> np.argwhere(abs(X) > 1).tolist()
    [[2, 7], [3, 7]]
    """
    matrices, Y = read_problem(factors, Y, snapshots, "em_pattern")
    sizes = [A.shape[1] for A in matrices]
    C = _couplings(coupling, sizes)
    start = [np.ones(n) if c is None else c @ np.ones(n) for n, c in zip(sizes, C, strict=True)]

    def m_step(target: Array, gammas: list[Array], keep: list[Array]) -> list[Array]:
        solve: list[Callable[[Array], Array] | None] = [
            None if c is None else partial(_coupled, c[np.ix_(k, k)]) for c, k in zip(C, keep, strict=True)
        ]
        return alternate(target, gammas, rules, solve)

    solution, X = expectation_maximization(
        matrices, Y, noise, rules, m_step, snapshots=True, where="em_pattern", start=start
    )
    return solution, X if snapshots else X[..., 0]


def neighbours(size: int, beta: float) -> Array:
    """Couple every column with the one before and the one after.

    Examples
    --------
    >>> neighbours(3, 0.5)
    array([[1. , 0.5, 0. ],
           [0.5, 1. , 0.5],
           [0. , 0.5, 1. ]])
    """
    beside = np.full(size - 1, float(beta))
    return np.eye(size) + np.diag(beside, 1) + np.diag(beside, -1)


def _coupled(C: Array, mean: Array) -> Array:
    return _LEAST + C @ nnls(C, mean, maxiter=100 * len(mean))[0]


def _couplings(coupling: Any, sizes: Sequence[int]) -> list[Array | None]:
    d = len(sizes)
    if isinstance(coupling, Real):
        coupling = [None if d == 3 and i == 1 else coupling for i in range(d)]
    if coupling is None or len(coupling) != d:
        raise ShapeError(
            f"em_pattern: `coupling` must be a number, or have one entry for each of {d} modes (None, a "
            f"number or a matrix); got {coupling!r}."
        )
    made: list[Array | None] = []
    for i, (entry, size) in enumerate(zip(coupling, sizes, strict=True)):
        C = (
            None
            if entry is None
            else neighbours(size, float(entry))
            if isinstance(entry, Real)
            else np.asarray(entry)
        )
        if C is not None and C.shape != (size, size):
            raise ShapeError(
                f"em_pattern: coupling[{i}] must have shape ({size}, {size}), as factors[{i}] has {size} "
                f"columns; got {C.shape}."
            )
        if C is not None and not (np.isfinite(C).all() and (C >= 0).all() and C.sum(axis=1).all()):
            raise DataError(
                f"em_pattern: coupling[{i}] must be nonnegative and finite, with a positive entry in each "
                "row, as it adds variances; got others. Use 0 where columns are not coupled."
            )
        made.append(C)
    return made
