"""Two-factor degeneracy of a CP tensor: components that grow while they cancel each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

# Congruence of two components, and their share of the norm of the tensor, from which they cancel.
_OPPOSED = -0.9


def degeneracy(weights: np.ndarray, factors: Sequence[np.ndarray], norm: float) -> str | None:
    """Say whether two components of a fit cancel each other.

    Parameters
    ----------
    weights : array, shape (R,)
        Not negative.
    factors : sequence of D arrays, shapes (I_n, R)
        Unit columns.
    norm : float
        Of the tensor fitted.

    Returns
    -------
    str or None
        None unless the congruence of two components, the product of their cosines over modes, is below -0.9
        and both are larger than the tensor itself.

    References
    ----------
    .. [1] W. P. Krijnen, T. K. Dijkstra and A. Stegeman, On the non-existence of optimal solutions and the
       occurrence of "degeneracy" in the CANDECOMP/PARAFAC model, Psychometrika 73 (2008), section 1.
       doi:10.1007/s11336-008-9056-1

    Examples
    --------
    >>> A = np.array([[1.0, 1.0], [0.0, 1e-3]])
    >>> degeneracy(np.array([9.0, 9.0]), [A, -A, A], 10.0) is None
    True
    """
    congruence = reduce(lambda a, b: a * b, [np.real(np.conj(factor.T) @ factor) for factor in factors])
    large = weights > norm
    opposed = np.where(large[:, None] & large, congruence, math.inf)
    r, s = np.unravel_index(np.argmin(opposed), opposed.shape)
    if opposed[r, s] > _OPPOSED:
        return None
    return (
        f"cp: components {r} and {s} cancel each other (congruence {congruence[r, s]:.4f}, weights "
        f"{weights[r] / norm:.3g} and {weights[s] / norm:.3g} times the norm of X): two-factor degeneracy, X "
        "may have no best approximation of this rank. Use a lower rank, or nonnegative=True where it fits."
    )
