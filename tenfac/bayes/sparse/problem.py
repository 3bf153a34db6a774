"""Factors and measurements as given, checked, and brought to one library, one dtype and one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tenfac.bayes.sparse.statistics import Sizes, energy
from tenfac.core.arrays import (
    as_float,
    device_of,
    eps,
    is_array,
    library_name,
    namespace_of,
    promote,
    to_number,
)
from tenfac.core.decomposed import array_instead
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.interchange import refuse_decomposed
from tenfac.core.precision import dtype_name
from tenfac.core.tracing import constant, is_traced
from tenfac.kron.operator import KroneckerOperator


@dataclass(frozen=True, eq=False)
class Problem:
    """``measured = factors[0] x factors[1] x ... applied to X, plus noise``, all of about unit size.

    Parameters
    ----------
    factors : tuple of arrays, shapes (M_i, N_i)
        The factors as given divided by ``factor_scales``, float64 or complex128.
    measured : array, shape (M_0, ..., M_{I-1}, T)
        The measurements divided by ``scale``, of the same dtype.
    coupling : tuple of arrays, shapes (N_i, m_i), or None
        None for a mode whose variances are free.
    scale : float
    factor_scales : tuple of float
        Powers of two, as is ``scale``: nothing is rounded.
    snapshots : bool
        Whether the user gave an axis of snapshots.
    dtype : dtype
        That of the results.
    xp : module

    Examples
    --------
    >>> import numpy as np
    >>> problem_of([np.eye(2), np.ones((1, 3))], np.array([[4.0], [0.0]])).scale
    4.0
    """

    factors: tuple[Any, ...]
    measured: Any
    coupling: tuple[Any, ...]
    scale: float
    factor_scales: tuple[float, ...]
    snapshots: bool
    dtype: Any
    xp: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes ``(N_0, N_1, ...)`` of the unknown array."""
        return tuple(factor.shape[1] for factor in self.factors)

    @property
    def sizes(self) -> Sizes:
        """What the engine needs to know of the measurements."""
        xp, measured = self.xp, self.measured
        real = not xp.isdtype(measured.dtype, "complex floating")
        ones = xp.ones(measured.shape[-1], dtype=xp.float64, device=device_of(measured))
        least = self.total / math.prod(measured.shape) * 16 * eps(measured.dtype)
        pairs = zip(self.factors, self.coupling, strict=True)
        counts = tuple((factor if one is None else one).shape[1] for factor, one in pairs)
        return Sizes(math.prod(measured.shape[:-1]), ones, 0.5 if real else 1.0, least, counts)

    @property
    def total(self) -> float:
        """Energy of the scaled measurements."""
        return energy(self.measured, self.xp)

    @property
    def unit(self) -> float:
        """What turns scaled unknowns into those of the user."""
        return self.scale / math.prod(self.factor_scales)


def factors_of(operator: Any, where: str) -> tuple[Any, ...]:
    """Factors of an operator, of a sequence of matrices, or of one matrix.

    Raises
    ------
    ShapeError, DataError
        If one is not a matrix, is empty, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> len(factors_of([np.eye(2), np.eye(3)], "fit"))
    2
    """
    if isinstance(operator, KroneckerOperator):
        factors: tuple[Any, ...] = operator.factors
    elif is_array(operator):
        factors = (operator,)
    elif isinstance(operator, Sequence) and len(operator):
        factors = tuple(operator)
    else:
        raise ShapeError(
            f"{where}: the first argument must be a KroneckerOperator or a list of its factors; got "
            f"{type(operator).__name__}. Write [A_0, A_1, ...], first mode first."
        )
    for n, factor in enumerate(factors):
        if not is_array(factor):
            raise TypeError(
                f"{where}: factors[{n}] must be an array; got {type(factor).__name__}. "
                f"{array_instead(factor)}"
            )
        if factor.ndim != 2 or 0 in factor.shape:
            raise ShapeError(
                f"{where}: factors[{n}] must be a matrix with at least one entry; got shape "
                f"{tuple(factor.shape)}. Its rows are measurements, its columns unknowns."
            )
        _check_finite(factor, f"factors[{n}]", where)
    return factors


def problem_of(
    operator: Any, measured: Any, *, snapshots: bool = False, coupling: Any = None, where: str = "fit"
) -> Problem:
    """Check and scale what the user gave (see ``Problem``).

    Parameters
    ----------
    operator : KroneckerOperator, array or sequence of arrays
    measured : array, shape (M_0, ..., M_{I-1}) or (M,), with ``snapshots`` and one more axis (T)
    snapshots : bool
    coupling : None or sequence of arrays or None
    where : str
        Name of the caller, for messages.

    Raises
    ------
    ShapeError, DataError, TypeError
        Naming the mode that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> problem_of([np.eye(2), np.eye(3)], np.arange(6)).measured.shape
    (2, 3, 1)
    """
    _check_array(measured, where)
    if library_name(measured) == "jax":
        raise TypeError(
            f"{where}: arrays must be of numpy or torch; got JAX. Convert them with numpy.asarray; "
            "kronecker_log_evidence and its gradient take JAX."
        )
    factors = factors_of(operator, where)
    xp = namespace_of(*factors, measured)
    plain = [constant(one) for one in promote(*factors, measured, where=where)]
    measured = plain.pop()
    dtype = measured.dtype
    measured = measured_of(measured, [factor.shape[0] for factor in plain], snapshots, where, xp)
    wide = xp.complex128 if xp.isdtype(dtype, "complex floating") else xp.float64
    factors = tuple(xp.astype(factor, wide, copy=False) for factor in plain)
    measured = xp.astype(measured, wide, copy=False)
    scales = tuple(power_of_two(one, f"factors[{n}]", where, xp) for n, one in enumerate(factors))
    scale = power_of_two(measured, "Y", where, xp)
    _check_unit(scale, scales, dtype, where)
    return Problem(
        factors=tuple(factor / one for factor, one in zip(factors, scales, strict=True)),
        measured=measured / scale,
        coupling=_couplings(coupling, factors, where, xp),
        scale=scale,
        factor_scales=scales,
        snapshots=snapshots,
        dtype=dtype,
        xp=xp,
    )


def measured_of(measured: Any, rows: list[int], snapshots: bool, where: str, xp: Any) -> Any:
    """Measurements as ``(M_0, ..., M_{I-1}, T)``.

    Raises
    ------
    ShapeError
        Naming the mode that does not fit.
    DataError, TypeError
        If they are not finite, or not an array.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> measured_of(xp.ones(6), [2, 3], False, "fit", xp).shape
    (2, 3, 1)
    """
    _check_array(measured, where)
    if not isinstance(snapshots, bool):
        raise TypeError(f"{where}: snapshots must be True or False; got {snapshots!r}.")
    shape, count = tuple(measured.shape), math.prod(rows)
    if 0 in shape:
        raise ShapeError(f"{where}: Y must hold at least one number; got shape {shape}.")
    _check_finite(measured, "Y", where)
    lead = shape[:-1] if snapshots else shape
    if lead == (count,) or lead == tuple(rows):
        return xp.reshape(measured, (*rows, shape[-1] if snapshots else 1))
    wanted = f"{tuple(rows)} or ({count},)" + (", and an axis of snapshots" if snapshots else "")
    remedy = "the factors in the order of the axes of Y?"
    if snapshots and shape in ((count,), tuple(rows)):
        remedy = "Leave out snapshots=True, or add an axis, last."
    elif lead != shape or len(shape) != len(rows) + 1:
        wrong = [n for n, (m, got) in enumerate(zip(rows, lead, strict=False)) if m != got]
        if len(lead) == len(rows) and wrong:
            n = wrong[0]
            remedy = f"Mode {n} has {lead[n]} measurements, factors[{n}] has {rows[n]} rows. Are {remedy}"
        else:
            remedy = f"Are {remedy}"
    else:
        remedy = "If the last axis are snapshots, say snapshots=True."
    raise ShapeError(f"{where}: Y must have shape {wanted}, the rows of the factors; got {shape}. {remedy}")


def _check_array(measured: Any, where: str) -> None:
    refuse_decomposed(measured, where, "Y")
    if not is_array(measured):
        raise TypeError(
            f"{where}: Y must be an array; got {type(measured).__name__}. {array_instead(measured)}"
        )


def _check_unit(scale: float, factor_scales: Sequence[float], dtype: Any, where: str) -> None:
    """Refuse units in which variances of the coefficients are beyond the range of the dtype."""
    exponent = math.log2(scale) - sum(math.log2(one) for one in factor_scales)
    if abs(exponent) > (55 if eps(dtype) > 1e-10 else 480):
        raise DataError(
            f"{where}: coefficients are of a size about 1e{exponent * math.log10(2):.0f}, and their "
            f"variances are outside the range of {dtype_name(dtype)}; got factors of sizes "
            f"{', '.join(f'{one:.1g}' for one in factor_scales)}, and Y of {scale:.1g}. Take other units."
        )


def _check_finite(array: Any, name: str, where: str) -> None:
    if is_traced(array):
        return
    xp = namespace_of(array)
    array = as_float(array, where)
    finite = xp.isfinite(array)
    if not to_number(xp.all(finite)):
        bad = int(xp.sum(xp.astype(~finite, xp.int64)))
        raise DataError(
            f"{where}: {name} must be finite; got {bad} NaN or infinite entries of {math.prod(array.shape)}. "
            "Correct or leave out what was not measured."
        )


def power_of_two(array: Any, name: str, where: str, xp: Any) -> float:
    """The power of two just below the largest magnitude; 1 for zeros.

    Raises
    ------
    DataError
        If its square is near the end of the range of float64.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> power_of_two(xp.asarray([3.0, -5.0]), "Y", "fit", xp)
    4.0
    """
    largest = to_number(xp.max(xp.abs(array)))
    if largest > 0 and not 1e-50 < largest < 1e50:
        raise DataError(
            f"{where}: {name} must be zero or of a size from 1e-50 to 1e50; got a largest entry of "
            f"{largest:.3g}. Take another unit."
        )
    return 2.0 ** (math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def _couplings(coupling: Any, factors: Sequence[Any], where: str, xp: Any) -> tuple[Any, ...]:
    """One nonnegative matrix, or None, per mode."""
    if coupling is None:
        return (None,) * len(factors)
    if is_array(coupling) or not isinstance(coupling, Sequence) or len(coupling) != len(factors):
        got = len(coupling) if isinstance(coupling, Sequence) else type(coupling).__name__
        raise ShapeError(
            f"{where}: `coupling` must be None or a list with one matrix or None per mode, {len(factors)} in "
            f"all; got {got}. Write None for a mode without coupling."
        )
    return tuple(
        None if one is None else _coupling(one, factors[n], n, where, xp) for n, one in enumerate(coupling)
    )


def _coupling(one: Any, factor: Any, n: int, where: str, xp: Any) -> Any:
    one = xp.asarray(one, device=device_of(factor))
    columns = factor.shape[1]
    if one.ndim != 2 or one.shape[0] != columns or one.shape[1] == 0:
        raise ShapeError(
            f"{where}: coupling[{n}] must have shape ({columns}, m), a row per column of factors[{n}]; got "
            f"{tuple(one.shape)}."
        )
    _check_finite(one, f"coupling[{n}]", where)
    if xp.isdtype(one.dtype, "complex floating") or to_number(xp.min(one)) < 0:
        raise DataError(
            f"{where}: coupling[{n}] must be nonnegative: it turns learned weights into variances; got "
            "negative or complex entries."
        )
    used = xp.sum(xp.astype(one > 0, xp.int64), axis=0)
    if not to_number(xp.all(used > 0)):
        raise DataError(f"{where}: coupling[{n}] must have no column of zeros; got one. Leave it out.")
    return xp.astype(one, xp.float64)
