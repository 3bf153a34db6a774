"""Kronecker orthogonal matching pursuit: one column of every mode after another, without a prior."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.sparse.inputs import check_noise, is_positive, read_problem
from tenfac.bayes.sparse.recovery import Recovery, recovery_like
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, warn_user
from tenfac.core.progress import Progress
from tenfac.core.report import Report

Array = NDArray[Any]


@door
def kron_omp(
    factors: Any,
    Y: Any,
    *,
    noise: float | None = None,
    tol: float | None = None,
    max_columns: int | None = None,
    normalize: bool = True,
    snapshots: bool = False,
    verbose: int = 0,
) -> Recovery:
    """Recover coefficients on a Kronecker support by orthogonal matching pursuit.

    Takes the largest entry of ``R x_1 A_1^H ... x_I A_I^H`` with the residual ``R``, adds its index to the
    support of every mode, and solves least squares on the box of all supports [1]_.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    noise : float, optional
        Its standard deviation: stop when ``||R||^2 <= noise^2 (n + 2 sqrt(n log n))`` with n real numbers
        (half of that with 2 n for n complex ones), which noise alone exceeds with probability below 1/n [2]_.
    tol : float, optional
        Or stop when ``||R|| <= tol ||Y||``. One of the two must be given; with both, the looser counts.
    max_columns : int, optional
        At most so many columns per mode, by default ``min(M_i, N_i)``.
    normalize : bool
        Divide correlations by the norms of the columns.
    snapshots : bool
        One support for all snapshots; correlations are norms over snapshots.
    verbose : {0, 1, 2}
        1 shows a bar of columns, 2 also logs a line per step (logger ``tenfac``).

    Returns
    -------
    Recovery
        In the library of ``Y``. ``info.rel_error`` is ``||R|| / ||Y||``, ``info.history`` has it for each
        step.

    Raises
    ------
    ShapeError, DataError
        If factors and measurements do not fit or are not finite, or there is nothing to stop at.

    Warns
    -----
    ConvergenceWarning
        If no column was left before the residual was small enough.

    Notes
    -----
    The runs of [3]_ have ``tol=1e-2, max_columns=10, normalize=False``. Below 40 dB that residual is below
    the noise, and up to 1,000 coefficients are fitted to noise: compare with ``noise`` instead.

    References
    ----------
    .. [1] C. F. Caiafa and A. Cichocki, Computing Sparse Representations of Multidimensional Signals Using
       Kronecker Bases, Neural Computation 25 (2013), algorithm 1. doi:10.1162/NECO_a_00385
    .. [2] T. T. Cai and L. Wang, Orthogonal Matching Pursuit for Sparse Signal Recovery With Noise, IEEE
       Transactions on Information Theory 57 (2011), theorem 7. doi:10.1109/TIT.2011.2146090
    .. [3] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024).
       arXiv:2307.14719

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 10)), rng.standard_normal((9, 10))
    >>> Y = 5 * np.outer(A[:, 2], B[:, 7]) + 0.1 * rng.standard_normal((8, 9))
    >>> found = kron_omp([A, B], Y, noise=0.1)
    >>> found.support, found.coef.round(2)
    ((array([2]), array([7])), array([[5.01]]))
    """
    matrices, measured = read_problem(factors, Y, snapshots, "kron_omp")
    size = float(np.linalg.norm(measured))
    bound = _bound(noise, tol, size, measured)
    most = [min(A.shape) for A in matrices]
    if max_columns is not None:
        if isinstance(max_columns, bool) or not isinstance(max_columns, int | np.integer) or max_columns < 1:
            raise DataError(f"kron_omp: max_columns must be a whole number from 1 up; got {max_columns!r}.")
        most = [min(int(max_columns), A.shape[1]) for A in matrices]
    with Progress("kron_omp", max(most), verbose, unit="column") as progress:
        chosen, coef, history = _pursue(matrices, measured, bound, most, normalize, progress)
    error = history[-1]
    order = [np.argsort(columns) for columns in chosen]
    support = tuple(np.sort(np.asarray(columns, dtype=int)) for columns in chosen)
    coef = coef[np.ix_(*order)]
    settled = error <= bound
    notes: tuple[str, ...] = ()
    if not settled:
        notes = (
            f"kron_omp: the relative residual is {error / size:.3g}, above {bound / size:.3g}, and no column "
            "is left to add. Raise noise, tol or max_columns.",
        )
        warn_user(notes[0])
    info = Report(
        settled,
        "the residual is small enough" if settled else "no column left to add",
        n_iter=len(history) - 1,
        rel_error=error / size if size else 0.0,
        history=tuple(r / size for r in history) if size else (),
        warnings=notes,
    )
    sizes = tuple(A.shape[1] for A in matrices)
    return recovery_like(Y, support, coef if snapshots else coef[..., 0], sizes, info)


def _bound(noise: float | None, tol: float | None, size: float, Y: Array) -> float:
    if noise is None and tol is None:
        raise DataError(
            "kron_omp: needs the noise or a relative residual to stop at; got neither. Pass noise= or tol=."
        )
    if tol is not None and not (is_positive(tol) and tol < 1):
        raise DataError(f"kron_omp: `tol` must be between 0 and 1, a relative residual; got {tol!r}.")
    n, parts = (2 * Y.size, 2) if np.iscomplexobj(Y) else (Y.size, 1)
    most = n + 2 * math.sqrt(n * math.log(n))
    level = 0.0 if noise is None else check_noise(noise, "kron_omp") * math.sqrt(most / parts)
    return max(level, 0.0 if tol is None else tol * size)


def _pursue(
    matrices: list[Array],
    Y: Array,
    bound: float,
    most: list[int],
    normalize: bool,
    progress: Progress,
) -> tuple[list[list[int]], Array, list[float]]:
    """Columns in the order they were chosen, coefficients, and the norm of the residual after each step."""
    weight = [np.linalg.norm(A, axis=0) if normalize else np.ones(A.shape[1]) for A in matrices]
    atoms = [A.conj().T / np.where(w > 0, w, 1.0)[:, None] for A, w in zip(matrices, weight, strict=True)]
    chosen: list[list[int]] = [[] for _ in matrices]
    coef, residual = np.zeros((*(0 for _ in matrices), Y.shape[-1]), dtype=Y.dtype), Y
    history = [float(np.linalg.norm(Y))]
    while history[-1] > bound:
        gain = np.linalg.norm(contract(residual, [*atoms, None], xp=np), axis=-1)
        best = np.unravel_index(int(np.argmax(gain)), gain.shape)
        new = [j not in c and len(c) < k for j, c, k in zip(best, chosen, most, strict=True)]
        if not any(new):
            break
        for columns, j, add in zip(chosen, best, new, strict=True):
            columns += [int(j)] if add else []
        taken = [A[:, c] for A, c in zip(matrices, chosen, strict=True)]
        coef = contract(Y, [*map(np.linalg.pinv, taken), None], xp=np)
        residual = Y - contract(coef, [*taken, None], xp=np)
        history.append(float(np.linalg.norm(residual)))
        progress(history[-1] / (history[0] or 1.0))
        progress.log("step %d: relative residual %.3g", progress.n_iter, progress.history[-1])
    return chosen, coef, history
