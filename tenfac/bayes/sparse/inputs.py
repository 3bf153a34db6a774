"""Dictionaries and measurements as the dense methods take them: numpy, double precision, snapshots last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.sparse.problem import factors_of, measured_of, power_of_two
from tenfac.core.arrays import as_float, device_of, eps, is_array, namespace_of, to_numpy
from tenfac.core.decomposed import array_instead
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.interchange import refuse_decomposed

Array = NDArray[Any]


def read_problem(factors: Any, Y: Any, snapshots: bool, where: str) -> tuple[list[Array], Array]:
    """Read factors ``(M_i, N_i)`` and measurements as arrays of one real or complex double dtype.

    Parameters
    ----------
    factors : KroneckerOperator or sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I) or (prod M_i,), with a trailing axis T if ``snapshots``
    snapshots : bool
    where : str
        What to call the caller in errors.

    Returns
    -------
    factors : list of ndarray
    Y : ndarray, shape (M_1, ..., M_I, T)

    Raises
    ------
    ShapeError
        If they do not fit; the message names the mode.
    DataError
        If an entry is NaN or infinite, or all are too large or too small to be squared.

    Examples
    --------
    >>> A, Y = read_problem([np.ones((2, 4)), np.ones((3, 5))], np.arange(6), False, "toy")
    >>> Y.shape, str(Y.dtype)
    ((2, 3, 1), 'float64')
    """
    matrices = [to_numpy(A) for A in factors_of(factors, where)]
    refuse_decomposed(Y, where, "Y")
    if not is_array(Y):
        raise TypeError(f"{where}: Y must be an array; got {type(Y).__name__}. {array_instead(Y)}")
    measured = to_numpy(as_float(Y, where))
    measured = measured_of(measured, [A.shape[0] for A in matrices], snapshots, where, namespace_of(measured))
    for name, array in (("Y", measured), *((f"factors[{n}]", A) for n, A in enumerate(matrices))):
        power_of_two(array, name, where, namespace_of(array))
    dtype = np.result_type(np.float64, measured, *matrices)
    return [A.astype(dtype) for A in matrices], measured.astype(dtype)


def give_back(array: Array, like: Any) -> Any:
    """Bring a result to the library, device and precision of what was given.

    Examples
    --------
    >>> give_back(np.ones(2), np.ones(3, dtype=np.float32)).dtype
    dtype('float32')
    """
    if not is_array(like):
        return array
    xp = namespace_of(like)
    narrow = xp.isdtype(like.dtype, ("real floating", "complex floating")) and eps(like.dtype) > 1e-8
    if narrow and array.dtype.kind in "fc":
        array = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    return array if isinstance(like, np.ndarray) else xp.asarray(array, device=device_of(like))


def check_noise(noise: Any, where: str) -> float:
    """Refuse a standard deviation of the noise that is not a positive number.

    Examples
    --------
    >>> check_noise(2, "em_am")
    2.0
    """
    if not is_positive(noise):
        raise DataError(
            f"{where}: `noise` is the standard deviation of the noise and must be positive and finite; got "
            f"{noise!r}."
        )
    return float(noise)


def is_positive(value: Any) -> bool:
    """Whether a value is one finite number above zero.

    Examples
    --------
    >>> is_positive(0.5), is_positive(float("inf")), is_positive("1")
    (True, False, False)
    """
    number = np.asarray(value)
    return number.ndim == 0 and number.dtype.kind in "iuf" and bool(0 < number < math.inf)


def check_support(support: Any, sizes: Sequence[int], where: str) -> tuple[Array, ...]:
    """Read one sorted array of distinct column numbers per mode."""
    if not isinstance(support, Sequence):
        raise ShapeError(
            f"{where}: `support` must have one index array per mode; got {type(support).__name__}."
        )
    if len(support) != len(sizes):
        raise ShapeError(
            f"{where}: `support` must have one index array for each of {len(sizes)} modes; got "
            f"{len(support)}."
        )
    found = []
    for i, (entries, size) in enumerate(zip(support, sizes, strict=True)):
        rows = np.unique(np.asarray(entries))
        if rows.size == 0 or rows.dtype.kind not in "iu" or rows[0] < 0 or rows[-1] >= size:
            raise DataError(
                f"{where}: support[{i}] must hold integers from 0 to {size - 1}, at least one; got "
                f"{entries!r}."
            )
        found.append(rows)
    return tuple(found)
