"""Log evidence of a Kronecker prior as a function of everything in it, with its derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from tenfac.core.door import door

from ...core.arrays import is_array, namespace_of, promote, to_number, triangular_factor
from ...core.contract import adjoint, contract
from ...core.errors import DataError, ShapeError
from ...core.precision import astype, dtype_name
from ...core.tracing import constant, is_traced
from .box import outer
from .problem import factors_of, measured_of
from .statistics import squared

_WHERE = "kronecker_log_evidence"


@door
def kronecker_log_evidence(
    operator: Any, measured: Any, gammas: Sequence[Any], noise: Any, *, snapshots: bool = False
) -> Any:
    """Log marginal likelihood of measurements ``Y = X x_0 A_0 x_1 A_1 ... + noise`` with a Gaussian ``X``.

    ``-c (log det S + y^H S^-1 y + M log(pi / c))`` with ``S = noise^2 I + kron(A_i diag(gammas_i) A_i^H)``
    and c = 1/2 for real, 1 for complex (circular) numbers, summed over the snapshots.

    Parameters
    ----------
    operator : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    measured : array, shape (M_0, ..., M_{I-1}) or (M,)
        With ``snapshots`` and one more axis, last.
    gammas : sequence of arrays, shapes (N_i,)
        Nonnegative variances per mode: that of ``X[j, k, ...]`` is ``gammas[0][j] * gammas[1][k] * ...``.
    noise : float or real 0-d array
        Standard deviation of the noise, positive.
    snapshots : bool, default False
        Whether the last axis of ``measured`` are independent draws with the same hyperparameters.

    Returns
    -------
    real 0-d array

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, or a variance is not what variances are.

    Notes
    -----
    Cost: ``O(M max M_i + sum M_i^2 N_i)``; no array of the size of ``X`` is formed. First derivatives by any
    argument (torch and JAX) are exact and do not go through eigenvectors: equal eigenvalues do no harm, and
    a variance may be 0. Second derivatives are not available.

    Examples
    --------
    >>> import numpy as np
    >>> float(kronecker_log_evidence([np.eye(1)], np.zeros(1), [np.ones(1)], 1.0).round(4))
    -1.2655
    """
    factors: Sequence[Any] = factors_of(operator, _WHERE)
    xp = namespace_of(*factors, measured)
    _check_variances(gammas, factors, noise, xp)
    promoted = list(promote(*factors, measured, gammas[0], where=_WHERE))
    factors, measured, first = promoted[:-2], promoted[-2], promoted[-1]
    gammas = [astype(g, _real(first, xp).dtype, xp) for g in gammas]
    y = measured_of(measured, [factor.shape[0] for factor in factors], snapshots, _WHERE, xp)
    complex_ = xp.isdtype(y.dtype, "complex floating")
    half, count = (1.0 if complex_ else 0.5), math.prod(y.shape)
    pairs = list(zip(factors, gammas, strict=True))
    axes = [_axes(constant(a), constant(g), xp) for a, g in pairs]
    turned = [adjoint(u, xp) @ a for u, a in zip(axes, factors, strict=True)]
    covariances = [(b * g) @ adjoint(b, xp) for b, (_, g) in zip(turned, pairs, strict=True)]
    lengths = [xp.sum(squared(b, xp) * g, axis=1) for b, (_, g) in zip(turned, pairs, strict=True)]
    variance = noise * noise
    spread = outer(lengths) + variance
    still = constant(spread)
    logdet = xp.sum(xp.log(still)) + xp.sum((spread - still) / still)
    rotated = contract(y, [*(adjoint(u, xp) for u in axes), None], xp=xp)
    whitened = constant(rotated) / still[..., None]
    smoothed = contract(whitened, [*covariances, None], xp=xp) + variance * whitened
    back = xp.conj(whitened) if complex_ else whitened
    quadratic = 2 * xp.sum(_real(back * rotated, xp)) - xp.sum(_real(back * smoothed, xp))
    return -half * (y.shape[-1] * logdet + quadratic + count * math.log(math.pi / half))


def _real(array: Any, xp: Any) -> Any:
    return xp.real(array) if xp.isdtype(array.dtype, "complex floating") else array


def _axes(factor: Any, gammas: Any, xp: Any) -> Any:
    """Eigenvectors of ``A diag(gammas) A^H``, all of them, from the singular vectors of its root."""
    scaled = factor * xp.sqrt(gammas)
    if factor.shape[1] > factor.shape[0]:
        scaled = adjoint(triangular_factor(adjoint(scaled, xp)), xp)
    return xp.linalg.svd(scaled, full_matrices=True)[0]


def _check_variances(gammas: Any, factors: Sequence[Any], noise: Any, xp: Any) -> None:
    if is_array(gammas) or len(gammas) != len(factors):
        got = type(gammas).__name__ if is_array(gammas) else len(gammas)
        raise ShapeError(
            f"{_WHERE}: gammas must be a list with one array per factor, {len(factors)} in all; got {got}."
        )
    namespace_of(factors[0], *gammas)
    for n, (g, factor) in enumerate(zip(gammas, factors, strict=True)):
        if tuple(g.shape) != (factor.shape[1],):
            raise ShapeError(
                f"{_WHERE}: gammas[{n}] must have shape ({factor.shape[1]},), the columns of factors[{n}]; "
                f"got {tuple(g.shape)}."
            )
        if xp.isdtype(g.dtype, "complex floating"):
            raise DataError(f"{_WHERE}: gammas[{n}] must be real variances; got {dtype_name(g.dtype)}.")
        if not is_traced(g) and not (to_number(xp.min(g)) >= 0 and to_number(xp.max(g)) < math.inf):
            raise DataError(
                f"{_WHERE}: gammas[{n}] must be nonnegative and finite; got {to_number(xp.min(g)):.3g} to "
                f"{to_number(xp.max(g)):.3g}."
            )
    if is_traced(noise):
        return
    if not (isinstance(noise, Real) or is_array(noise)) or not 0 < to_number(noise) < math.inf:
        raise DataError(f"{_WHERE}: `noise` must be a positive standard deviation; got {noise!r}.")
