"""A scale of its own for every slice: noise and residual of slice t are multiplied by ``s_t``.

The scales have an inverse-gamma prior, so that a slice is a multivariate Student-t vector given the rest of
the model: a few odd slices (a year with two months of records, a day of failing sensors) tell less, and
spoil nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from scipy.stats import norm
from scipy.stats import t as student_t

Array = NDArray[Any]
# Degrees of freedom: fewer would let the few rows of a slice set its scale alone; beyond the last, scales are
# as good as equal.
_LEAST, _MOST, FEW = 4.0, 100.0, 30.0


def update(squares: Array, counts: Array) -> tuple[Array, float]:
    """Scales from what the model expects of each slice.

    Parameters
    ----------
    squares : array, shape (M,)
        Posterior expectation of the squared norm of the slice's noise and residual, whitened at scale one.
    counts : array, shape (M,)
        Rows of the slice.

    Returns
    -------
    scales : array, shape (M,)
        Inverse of the posterior mean of ``1 / s_t``.
    dof : float
        Degrees of freedom of highest likelihood.

    References
    ----------
    .. [1] K. L. Lange, R. J. A. Little, J. M. G. Taylor, Robust statistical modeling using the t
       distribution, JASA 84 (1989), section 4. doi:10.1080/01621459.1989.10478852
    """

    def loss(log_dof: float) -> float:
        dof = np.exp(log_dof)
        value = gammaln((dof + counts) / 2) - gammaln(dof / 2) - counts / 2 * np.log(dof)
        return -float(np.sum(value - (dof + counts) / 2 * np.log1p(squares / dof)))

    found = minimize_scalar(loss, bounds=(np.log(_LEAST), np.log(_MOST)), method="bounded")
    dof = float(np.exp(found.x))
    return (dof + squares) / (dof + counts), dof


def widened(dof: Array | float) -> Array:
    """Variance of the normal distribution whose central 95 % are those of a Student-t of so many degrees."""
    return (student_t.ppf(0.975, dof) / norm.ppf(0.975)) ** 2
