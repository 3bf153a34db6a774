"""``gaussian_sum``: a sum of Gaussians on many centers as one Tucker format, its error measured."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfac.core.arrays import device_of, namespace_of, to_numpy
from tenfac.core.door import door
from tenfac.core.errors import warn_user
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker
from tenfac.functional.charges.checks import check_charges, check_tol, share_of
from tenfac.functional.charges.gaussian_basis import GaussianBasis

# Share of the tolerance that one center may use, for the sake of many.
_MANY = 0.3
# Kernel values computed to check a result at centers, and as many at random points.
_CHECKED = 2**20
# Least and most centers checked.
_FEWEST, _MOST = 4, 64
# Of the random points.
_SEED = 0


@door
def gaussian_sum(
    centers: Any,
    amplitudes: Any,
    exponents: Any,
    weights: Any = None,
    *,
    domain: Sequence[tuple[float, float]],
    tol: float = 1e-10,
) -> Tucker:
    """Sum Gaussians of given widths over many centers, as a function in Tucker format.

    ``F(x) = sum_nu z_nu sum_k w_k exp(-tau_k |x - s_nu|^2)``, for x in a box: without a sample on a
    grid, at a cost in which N and K add and do not multiply, and at a rank that does not depend on N.

    Parameters
    ----------
    centers : array, shape (N, D)
        ``s_nu``, in the box; numpy or torch.
    amplitudes : array, shape (N,)
        ``z_nu``.
    exponents : array, shape (K,)
        ``tau_k``, 0 or more, in 1 / length^2.
    weights : array, shape (K,), optional
        ``w_k``; 1 if not given.
    domain : sequence of (float, float)
        The box, one interval per variable.
    tol : float
        Largest error, relative to the largest value that one center could have; that of many centers,
        relative to the largest value of the sum, is measured and said in ``info``.

    Returns
    -------
    Tucker
        With Chebyshev modes. ``info.rel_error`` is measured at centers and random points of the box.

    Raises
    ------
    DataError, ShapeError
        If an argument is empty, not finite, outside of the box or of the wrong shape.

    Notes
    -----
    For many sums with the same Gaussians keep a ``GaussianBasis``.

    Examples
    --------
    >>> import numpy as np
    >>> centers = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    >>> F = gaussian_sum(centers, np.ones(500), [3.0, 10.0], domain=[(-1, 1)] * 3, tol=1e-8)
    >>> F.info.converged, max(F.rank) < 25
    (True, True)
    """
    start = time.perf_counter()
    tol = check_tol(tol, "gaussian_sum")
    basis = GaussianBasis(exponents, weights, domain=domain, tol=share_of(tol, _MANY))
    made = basis.sum(centers, amplitudes)
    centers, amplitudes = check_charges(centers, amplitudes, basis.domain, "gaussian_sum")
    error = _measured(basis, made, to_numpy(centers), to_numpy(amplitudes))
    info = Report(
        converged=error <= tol,
        reason="tolerance met" if error <= tol else "the terms cancel",
        rel_error=error,
        seconds=time.perf_counter() - start,
    )
    if not info.converged:
        warn_user(
            f"gaussian_sum: the error is {error:.2g} of the largest value, above tol={tol:g}: the terms "
            "cancel, or the dtype is too narrow. Use a smaller tol, or float64."
        )
    return replace(made, info=info)


def _measured(basis: GaussianBasis, made: Tucker, centers: np.ndarray, amplitudes: np.ndarray) -> float:
    """Largest error at some centers and random points, relative to the largest value there."""
    each = min(max(_CHECKED // (len(centers) * len(basis.weights)), _FEWEST), _MOST)
    rng = np.random.default_rng(_SEED)
    low, high = np.array(basis.domain).T
    points = np.concatenate(
        [centers[:: math.ceil(len(centers) / each)], rng.uniform(low, high, (each, len(low)))]
    )
    points = points.astype(centers.dtype).astype(float)
    want = np.array([_direct(basis, point, centers, amplitudes) for point in points])
    like = made.core
    xp = namespace_of(like)
    got = to_numpy(made.at(*xp.asarray(points.T, dtype=like.dtype, device=device_of(like))))
    largest = np.abs(want).max()
    return float(np.abs(got - want).max() / largest) if largest else float(np.abs(got).max())


def _direct(basis: GaussianBasis, point: np.ndarray, centers: np.ndarray, amplitudes: np.ndarray) -> float:
    distances = np.sum((centers.astype(float) - point) ** 2, axis=1)
    return float(
        sum(
            w * (amplitudes @ np.exp(-t * distances))
            for w, t in zip(basis.weights, basis.exponents, strict=True)
        )
    )
