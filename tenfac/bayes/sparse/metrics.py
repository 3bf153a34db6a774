"""How well a sparse recovery did, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenfac.core.arrays import is_array, to_numpy
from tenfac.core.errors import DataError, ShapeError


def nmse(estimate: Any, truth: Any) -> float:
    """Normalized mean squared error, ``||estimate - truth||^2 / ||truth||^2``.

    Parameters
    ----------
    estimate, truth : arrays of one shape

    Returns
    -------
    float

    Raises
    ------
    ShapeError
        If the shapes differ.
    DataError
        If the truth is zero everywhere.

    Examples
    --------
    >>> nmse([1.0, 2.0, 2.0], [1.0, 2.0, 0.0])
    0.8
    """
    got, want = _pair(estimate, truth, "nmse")
    power = float((np.abs(want) ** 2).sum())
    if power == 0:
        raise DataError("nmse: `truth` must not be zero everywhere, as the error is divided by its power.")
    return float((np.abs(got - want) ** 2).sum()) / power


def support_recovery_rate(estimate: Any, truth: Any, *, threshold: float = 1e-3) -> float:
    """Share of the columns found or true that are both, ``|S and S*| / |S or S*|``.

    ``S`` are the entries of the estimate above ``threshold`` times its largest magnitude, ``S*`` the nonzero
    entries of the truth, as in the published code of [1]_. With a Kronecker support, one column too many in
    one mode counts as many entries.

    Parameters
    ----------
    estimate, truth : arrays of one shape
    threshold : float

    Returns
    -------
    float
        From 0 to 1; 1 if both supports are empty.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), support
       recovery rate. arXiv:2307.14719

    Examples
    --------
    >>> support_recovery_rate([1.0, 2.0, 1e-6, 0.0], [1.0, 0.0, 0.0, 3.0])
    0.3333333333333333
    """
    got, want = (np.abs(values) for values in _pair(estimate, truth, "support_recovery_rate"))
    found, true = got > threshold * got.max(initial=0.0), want > 0
    either = int((found | true).sum())
    return int((found & true).sum()) / either if either else 1.0


def _pair(estimate: Any, truth: Any, where: str) -> tuple[Any, Any]:
    got, want = (to_numpy(a) if is_array(a) else np.asarray(a) for a in (estimate, truth))
    if got.shape != want.shape:
        raise ShapeError(
            f"{where}: `estimate` and `truth` must have one shape; got {got.shape} and {want.shape}. "
            "Reshape one."
        )
    return got, want
