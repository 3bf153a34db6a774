"""Whether the support of a sparse tensor looks like a box of rows, as the Kronecker prior says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from ...core.arrays import to_numpy
from .observed import observe
from .solution import Solution
from .unstructured import UnstructuredSolution, fit_unstructured


@dataclass(frozen=True)
class SupportEvidence:
    """Evidence of the same measurements under the two priors.

    Parameters
    ----------
    kronecker, unstructured : float
        Log marginal likelihood of each solution. The larger of the two does not decide: the unstructured
        prior may place its k variances in any of ``binomial(N, k)`` ways.
    kronecker_support, unstructured_support : float
        Log probability of each support if all of its size, or sizes, are equally probable:
        ``-sum log binomial(N_i, k_i)`` and ``-log binomial(N, k)``.
    solution : UnstructuredSolution
        What the unstructured prior found.

    Examples
    --------
    >>> SupportEvidence(10.0, 12.0, -1.0, -9.0, None).looks_kronecker
    True
    """

    kronecker: float
    unstructured: float
    kronecker_support: float
    unstructured_support: float
    solution: UnstructuredSolution

    @property
    def log_odds(self) -> float:
        """Log odds of a Kronecker support against any support, beforehand even."""
        both = self.kronecker + self.kronecker_support
        return both - (self.unstructured + self.unstructured_support)

    @property
    def looks_kronecker(self) -> bool:
        """Whether the measurements speak for it, or do not decide."""
        return not self.log_odds < 0


def support_looks_kronecker(
    factors: Sequence[Any],
    Y: Any,
    solution: Solution,
    *,
    noise: float | None = None,
    mask: Any = None,
    max_iter: int = 500,
) -> SupportEvidence:
    """Compare a solution of the Kronecker prior with what the unstructured prior makes of the measurements.

    Parameters
    ----------
    factors : sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I, T)
    solution : Solution
        Of the Kronecker prior, for the same measurements.
    noise : float, optional
        The standard deviation that ``solution`` was given; leave out if it learned it.
    mask : array of bool, shape (M_1, ..., M_I), optional
    max_iter : int
        As in ``fit_unstructured``.

    Returns
    -------
    SupportEvidence

    Raises
    ------
    ShapeError, DataError
        As ``fit_unstructured``.

    Notes
    -----
    Costs one ``fit_unstructured``: meant for up to some 1e5 unknowns. Both fits may have stopped at local
    maxima; a Kronecker fit that did looks as if its assumption were wrong, and deserves the same warning.

    Examples
    --------
    >>> import numpy as np
    >>> A, B = np.eye(4), np.eye(4)
    >>> Y = 0.1 * np.random.default_rng(0).standard_normal((4, 4, 1))
    >>> Y[[0, 1, 2, 3], [0, 1, 2, 3]] += 9.0  # a diagonal
    >>> box = Solution((np.ones(4), 20 * np.ones(4)), 0.01, -51.0, (), 1, True, "")
    >>> support_looks_kronecker([A, B], Y, box).looks_kronecker
    False
    """
    data = observe(factors, Y, mask, "support_looks_kronecker")
    found = fit_unstructured(factors, Y, noise=noise, mask=mask, max_iter=max_iter)
    sizes = data.column_shape
    active = [int(np.count_nonzero(to_numpy(gamma))) for gamma in solution.gammas]
    return SupportEvidence(
        kronecker=solution.evidence,
        unstructured=found.evidence,
        kronecker_support=-sum(log_binomial(n, k) for n, k in zip(sizes, active, strict=True)),
        unstructured_support=-log_binomial(int(np.prod(sizes)), len(found.gammas)),
        solution=found,
    )


def log_binomial(n: int, k: int) -> float:
    """Logarithm of the number of ways to choose ``k`` of ``n``.

    Examples
    --------
    >>> round(np.exp(log_binomial(5, 2)))
    10
    """
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
