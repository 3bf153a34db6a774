"""The posterior of a Kronecker-structured Gaussian prior with all its variances: exact, by mode products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.sparse.box import outer
from tenfac.core.contract import contract

Array = NDArray[Any]


@dataclass(frozen=True)
class Posterior:
    """Moments of ``X`` given ``Y = X x_1 A_1 ... x_I A_I + noise``.

    Parameters
    ----------
    mean : ndarray, shape (N_1, ..., N_I, T)
    variance : ndarray, shape (N_1, ..., N_I)
        The same for every snapshot; None where it was not asked for.
    evidence : float
        Log marginal likelihood with all constants.
    residual : float
        ``||Y - A mean||^2``, all snapshots.
    fitted : float
        Parameters that the measurements determine, ``sum_j (1 - variance_j / g_j)``.

    Examples
    --------
    >>> Posterior(np.zeros((2, 1)), np.ones(2), -1.0, 0.0, 0.0).fitted
    0.0
    """

    mean: Array
    variance: Any
    evidence: float
    residual: float
    fitted: float


def posterior(
    factors: Sequence[Array], gammas: Sequence[Array], Y: Array, noise: float, *, variances: bool = True
) -> Posterior:
    """Compute mean, variances and evidence from one singular value decomposition per mode.

    With ``A_i diag(g_i)^(1/2) = U_i diag(s_i) V_i^H`` (U_i and V_i square), ``P = s_1^2 o ... o s_I^2`` and
    ``W = Y x_i U_i^H``: ``mean = (W / (P + noise)) x_i diag(g_i)^(1/2) V_i diag(s_i)``, ``variance = (noise /
    (P + noise)) x_i |diag(g_i)^(1/2) V_i|^2``. No difference of nearly equal numbers is taken. He and Joseph
    [1]_ use the same eigenvectors, but form the covariance of all ``N`` unknowns.

    Parameters
    ----------
    factors : sequence of ndarray, shapes (M_i, N_i)
    gammas : sequence of ndarray, shapes (N_i,)
        Nonnegative prior variances of the modes.
    Y : ndarray, shape (M_1, ..., M_I, T)
    noise : float
    variances : bool

    Returns
    -------
    Posterior

    Notes
    -----
    ``sum (M_i^2 N_i + M_i N_i^2 + N_i^3)`` operations and the mode products; memory of ``M T + N T``.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), the
       expectation step. arXiv:2307.14719

    Examples
    --------
    >>> found = posterior([np.eye(2)], [np.array([1.0, 3.0])], np.array([[2.0], [4.0]]), 1.0)
    >>> found.mean[:, 0], found.variance
    (array([1., 3.]), array([0.5 , 0.75]))
    """
    roots = [np.sqrt(g) for g in gammas]
    parts = [np.linalg.svd(A * root) for A, root in zip(factors, roots, strict=True)]
    rank = [s.size for _, s, _ in parts]
    W = contract(Y, [*(U.conj().T for U, _, _ in parts), None], xp=np)
    total = outer([_padded(s, U.shape[0]) ** 2 for U, s, _ in parts]) + noise
    D = 1 / total
    weighted = W * D[..., None]
    inner = tuple(slice(r) for r in rank)
    maps = [root[:, None] * V[:r].conj().T * s for root, r, (_, s, V) in zip(roots, rank, parts, strict=True)]
    mean = contract(weighted[inner], [*maps, None], xp=np)
    variance = None
    if variances:
        shrink = noise / (outer([_padded(s, V.shape[0]) ** 2 for _, s, V in parts]) + noise)
        squares = [
            np.abs(root[:, None] * V.conj().T) ** 2 for root, (_, _, V) in zip(roots, parts, strict=True)
        ]
        variance = contract(shrink, squares, xp=np)
    power = np.abs(W) ** 2
    T = Y.shape[-1]
    c, kappa = (1.0, 1.0) if np.iscomplexobj(Y) else (0.5, 2.0)
    logs = float(np.log(total).sum()) + total.size * math.log(kappa * math.pi)
    evidence = -c * (T * logs + float((power * D[..., None]).sum()))
    residual = float((noise**2 * power * D[..., None] ** 2).sum())
    return Posterior(mean, variance, evidence, residual, float(((total - noise) * D).sum()))


def _padded(values: Array, size: int) -> Array:
    return np.concatenate([values, np.zeros(size - values.size)])
