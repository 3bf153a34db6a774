"""What could be reached if the support were known: the yardsticks of sparse recovery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from tenfac.bayes.sparse.estep import posterior
from tenfac.bayes.sparse.inputs import (
    check_noise,
    check_support,
    is_positive,
    read_problem,
)
from tenfac.bayes.sparse.recovery import Recovery, recovery_like
from tenfac.core.contract import contract
from tenfac.core.errors import DataError, nearest_name
from tenfac.core.report import Report
from tenfac.decompose.hooi import hooi

Array = NDArray[Any]


def oracle_least_squares(
    factors: Any, Y: Any, support: Sequence[Any], *, values: str = "free", snapshots: bool = False
) -> Recovery:
    """Least squares on a known Kronecker support, by the pseudoinverse of every factor.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    support : sequence of int arrays, shapes (k_i,)
        True columns of every mode.
    values : {"free", "rank1"}
        ``"rank1"`` fits an outer product of one vector per mode, the truth of the paper's synthetic data:
        there free values are no lower bound of the error. Snapshots count as a mode.
    snapshots : bool

    Returns
    -------
    Recovery

    Raises
    ------
    ShapeError, DataError
        If the parts do not fit, or the columns of a mode are more than its measurements with ``"rank1"``.

    Notes
    -----
    Not a bound where the columns on the support are nearly dependent: the posterior mean
    (``oracle_posterior_mean``) has less error there.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), oracle LS.
       arXiv:2307.14719

    Examples
    --------
    >>> A, B = np.eye(3), np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> oracle_least_squares([A, B], np.outer([0.0, 2.0, 9.0], [3.0, 0.0]), [[1], [0]]).coef
    array([[6.]])
    """
    where = "oracle_least_squares"
    matrices, measured, columns, sizes = _on_support(factors, Y, support, snapshots, where)
    if values == "free":
        coef = contract(measured, [*map(np.linalg.pinv, matrices), None], xp=np)
    elif values == "rank1":
        coef = _rank_one(matrices, measured)
    else:
        raise DataError(
            f"{where}: `values` must be 'free' or 'rank1'; got {values!r}."
            f"{nearest_name(values, ['free', 'rank1'])}"
        )
    fit = contract(coef, [*matrices, None], xp=np)
    info = _report("least squares on the given support", measured, fit)
    return recovery_like(Y, columns, coef if snapshots else coef[..., 0], sizes, info)


def oracle_posterior_mean(
    factors: Any,
    Y: Any,
    support: Sequence[Any],
    noise: float,
    *,
    variance: float | None = None,
    snapshots: bool = False,
) -> Recovery:
    """Posterior mean on a known Kronecker support, with one prior variance for all its values.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    support : sequence of int arrays, shapes (k_i,)
        True columns of every mode.
    noise : float
        Standard deviation of the noise.
    variance : float, optional
        Prior variance of a value; that of highest evidence if not given.
    snapshots : bool

    Returns
    -------
    Recovery
        The estimate of least mean squared error if values are Gaussian of that variance.

    Examples
    --------
    >>> oracle_posterior_mean([np.eye(2)], np.array([4.0, 9.0]), [[0]], 1.0, variance=3.0).coef
    array([3.])
    """
    where = "oracle_posterior_mean"
    matrices, measured, columns, sizes = _on_support(factors, Y, support, snapshots, where)
    sigma2 = check_noise(noise, where) ** 2
    if variance is not None and not is_positive(variance):
        raise DataError(f"{where}: `variance` must be positive and finite; got {variance!r}.")
    ones = [np.ones(A.shape[1]) for A in matrices]

    def given(v: float) -> Any:
        return posterior(matrices, [v * ones[0], *ones[1:]], measured, sigma2, variances=False)

    if variance is None:
        power = float((np.abs(measured) ** 2).sum()) or sigma2
        guess = np.log(power / max(float(np.prod([np.linalg.norm(A) for A in matrices])) ** 2, 1e-300))
        best = minimize_scalar(lambda t: -given(np.exp(t)).evidence, bounds=(guess - 15, guess + 15))
        variance = float(np.exp(best.x))
    found = given(variance)
    rel_error = float(np.sqrt(found.residual) / (np.linalg.norm(measured) or 1.0))
    info = Report(True, f"posterior mean on the given support, variance {variance:.3g}", rel_error=rel_error)
    return recovery_like(Y, columns, found.mean if snapshots else found.mean[..., 0], sizes, info)


def _on_support(
    factors: Any, Y: Any, support: Sequence[Any], snapshots: bool, where: str
) -> tuple[list[Array], Array, tuple[Array, ...], tuple[int, ...]]:
    matrices, measured = read_problem(factors, Y, snapshots, where)
    sizes = tuple(A.shape[1] for A in matrices)
    columns = check_support(support, sizes, where)
    return [A[:, c] for A, c in zip(matrices, columns, strict=True)], measured, columns, sizes


def _rank_one(matrices: Sequence[Array], Y: Array) -> Array:
    """Best outer product of one vector per mode: a rank-one fit of what the columns span."""
    for i, A in enumerate(matrices):
        if A.shape[1] > A.shape[0]:
            raise DataError(
                f"oracle_least_squares: values='rank1' needs no more columns than measurements; mode {i} has "
                f"{A.shape[1]} columns and {A.shape[0]} measurements. Use values='free'."
            )
    parts = [np.linalg.qr(A) for A in matrices]
    projected = contract(Y, [*(Q.conj().T for Q, _ in parts), None], xp=np)
    if not projected.any():
        return projected
    best = hooi(projected, 1, max_iter=1000, tol=1e-12)
    vectors = [
        np.linalg.lstsq(R, u, rcond=None)[0] for (_, R), u in zip(parts, best.factors[:-1], strict=True)
    ]
    return contract(best.core, [*vectors, best.factors[-1]], xp=np)


def _report(reason: str, Y: Array, fit: Array) -> Report:
    return Report(True, reason, rel_error=float(np.linalg.norm(Y - fit) / (np.linalg.norm(Y) or 1.0)))
