"""Rank-one decomposition, then one sparse Bayesian recovery per mode, for coefficients of rank one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.sparse.box import outer
from tenfac.bayes.sparse.em import Rules, em_am
from tenfac.bayes.sparse.inputs import check_noise, read_problem
from tenfac.bayes.sparse.recovery import Recovery, recovery_like
from tenfac.core.errors import DataError, nearest_name
from tenfac.core.report import Report
from tenfac.decompose.hooi import hooi

Array = NDArray[Any]

DECOMPOSED = Rules(5e-4)  # of the follow-up's runs


def rank_one_sbl(
    factors: Any,
    Y: Any,
    noise: float | str | None = None,
    *,
    decomposition: str = "hooi",
    rules: Rules = DECOMPOSED,
) -> Recovery:
    """Recover ``x_1 o ... o x_I`` mode by mode: fit ``Y`` by an outer product, then each of its vectors.

    ``Y ~ s u_1 o ... o u_I`` with unit vectors, and ``s u_i = A_i x_i + noise`` is solved by sparse Bayesian
    learning with its own variances, the decomposition-based recovery of [1]_.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,)
    noise : float, "per mode" or None
        Standard deviation of the noise of ``Y``. None takes it from what the outer product leaves over,
        ``"per mode"`` learns one for every mode from its M_i numbers, as [1]_ does.
    decomposition : {"hooi", "svd"}
        The best outer product by iteration, or the chain of singular vectors of [1]_.
    rules : Rules

    Returns
    -------
    Recovery
        ``info.rel_error`` is that of the outer product fitted to ``Y``: near 1 the method does not apply.

    Raises
    ------
    ShapeError, DataError
        If the parts do not fit.

    Notes
    -----
    Fast and, where the coefficients are an outer product, more precise than free values; but errors of the
    modes multiply, and on values that are none it fails.

    References
    ----------
    .. [1] Y. He and G. Joseph, Efficient Off-Grid Bayesian Parameter Estimation for Kronecker-Structured
       Signals (2024), the decomposition step. arXiv:2412.00310

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 10)), rng.standard_normal((9, 10))
    >>> Y = 5 * np.outer(A[:, 2], B[:, 7]) + 0.1 * rng.standard_normal((8, 9))
    >>> found = rank_one_sbl([A, B], Y)
    >>> [rows.tolist() for rows in found.support], found.coef.round(2)
    ([[2], [7]], array([[5.01]]))
    """
    where = "rank_one_sbl"
    matrices, measured = read_problem(factors, Y, False, where)
    tensor, sizes = measured[..., 0], tuple(A.shape[1] for A in matrices)
    if not tensor.any():
        none = np.zeros((0,) * len(sizes), tensor.dtype)
        info = Report(True, "the measurements are zero", rel_error=0.0)
        return recovery_like(Y, (np.arange(0),) * len(sizes), none, sizes, info)
    scale, vectors = _outer_product(tensor, decomposition)
    left = float(np.linalg.norm(tensor - scale * outer(vectors)))
    sigma2 = _noise(noise, left, tensor.shape, abs(scale), where)
    found, steps, converged = [], 0, True
    for A, u in zip(matrices, vectors, strict=True):
        size = float(np.linalg.norm(A)) or 1.0  # of what variances of one predict, where they start
        per_mode = None if sigma2 is None else sigma2 * size**2 / abs(scale) ** 2
        solution, x = em_am([A], size * u, per_mode, rules=rules)
        found.append(x / size)
        steps, converged = max(steps, solution.n_iter), converged and solution.converged
    support = tuple(np.flatnonzero(x) for x in found)
    coef = scale * outer([x[rows] for x, rows in zip(found, support, strict=True)])
    reason = "every mode converged" if converged else "max_iter reached in a mode"
    info = Report(converged, reason, n_iter=steps, rel_error=left / float(np.linalg.norm(tensor)))
    return recovery_like(Y, support, coef, sizes, info)


def _outer_product(tensor: Array, decomposition: str) -> tuple[Any, list[Array]]:
    """A number and unit vectors whose outer product is near ``tensor``."""
    if decomposition not in ("hooi", "svd"):
        raise DataError(
            f"rank_one_sbl: `decomposition` must be 'hooi' or 'svd'; got {decomposition!r}."
            f"{nearest_name(decomposition, ['hooi', 'svd'])}"
        )
    if decomposition == "hooi" and tensor.ndim > 1:
        t = hooi(tensor, 1, max_iter=1000)
        return t.core.reshape(-1)[0], [u[:, 0] for u in t.factors]
    vectors, rest = [], tensor
    while rest.ndim > 1:
        U, s, V = np.linalg.svd(rest.reshape(rest.shape[0], -1), full_matrices=False)
        vectors.append(U[:, 0])
        rest = (s[0] * V[0]).reshape(rest.shape[1:])
    scale = float(np.linalg.norm(rest))
    return scale, [*vectors, rest / scale]


def _noise(noise: Any, left: float, shape: tuple[int, ...], scale: float, where: str) -> float | None:
    """Variance of the noise of the tensor, None to learn one per mode."""
    if noise == "per mode":
        return None
    if noise is not None:
        return check_noise(noise, where) ** 2
    free = math.prod(shape) - (sum(shape) - len(shape) + 1)
    return None if free < 1 else max(left**2 / free, 1e-24 * scale**2 / math.prod(shape))
