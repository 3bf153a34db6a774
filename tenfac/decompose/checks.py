"""What the algorithms of this room check at their door: arrays and numbers of iterations."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from tenfac.core.arrays import as_float, namespace_of, to_number
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.precision import double_of, dtype_name
from tenfac.core.truncate import squared_norm

# Squared norms between which squares and their sums keep their digits, by the widest floats of a library.
_IN_RANGE = {"float64": (1e-200, 1e200), "float32": (1e-15, 1e25)}


def checked_array(X: Any, where: str, name: str = "X") -> tuple[Any, float]:
    """Bring an array to a float or complex dtype and refuse one that is empty or not finite.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
    where : str
        Name of the caller, for the message.
    name : str
        Name of the array, for the message.

    Returns
    -------
    X : array
    norm2 : float
        Its squared norm; may overflow to infinity for finite entries.

    Raises
    ------
    DataError, ShapeError
        If it is not finite, of an unsupported dtype, or empty.

    Examples
    --------
    >>> import numpy as np
    >>> checked_array(np.ones((2, 2), dtype=int), "hooi")[1]
    4.0
    """
    namespace_of(X)
    X = as_float(X, where)
    check_shape(tuple(X.shape), where, name)
    norm2 = squared_norm(X)
    if not math.isfinite(norm2):
        check_finite(X, where, name)
    return X, norm2


def check_shape(shape: tuple[int, ...], where: str, name: str = "X") -> None:
    """Refuse an array without modes or with an empty one.

    Raises
    ------
    ShapeError

    Examples
    --------
    >>> check_shape((3, 4), "cp")
    """
    if not shape or 0 in shape:
        raise ShapeError(f"{where}: {name} must have at least one mode and no empty one; got shape {shape}.")


def in_range(norm2: float, xp: Any) -> bool:
    """Whether squares and their sums keep their digits at this squared norm, in the widest floats of ``xp``.

    Examples
    --------
    >>> in_range(1e-30, np), in_range(0.0, np)
    (True, False)
    """
    least, most = _IN_RANGE[dtype_name(double_of(xp))]
    return least < norm2 < most


def rescaled(X: Any, norm2: float) -> tuple[Any, float, float]:
    """Divide an array whose squares would overflow, vanish or lose digits by its largest magnitude.

    Returns
    -------
    X : array
    norm2 : float
        Its squared norm.
    scale : float
        What it was divided by.

    Examples
    --------
    >>> rescaled(np.array([0.0, 1e-200]), 0.0)
    (array([0., 1.]), 1.0, 1e-200)
    """
    xp = namespace_of(X)
    if in_range(norm2, xp):
        return X, norm2, 1.0
    scale = to_number(xp.max(xp.abs(X))) or 1.0
    X = X / scale
    return X, squared_norm(X), scale


def check_finite(X: Any, where: str, name: str = "X") -> None:
    """Refuse NaN and infinite entries, with their number and the first place.

    Raises
    ------
    DataError

    Examples
    --------
    >>> check_finite(np.ones(3), "cp")
    """
    xp = namespace_of(X)
    bad = ~xp.isfinite(X)
    count = int(xp.count_nonzero(bad))
    if count:
        first = tuple(int(index[0]) for index in xp.nonzero(bad))
        what = "NaN" if bool(xp.isnan(X[first])) else "infinite"
        raise DataError(
            f"{where}: every entry must be finite; {name} has {count} of {math.prod(X.shape)} entries that "
            f"are not, the first at {first} ({what}). For missing entries use tucker_complete or "
            "cp_complete, or FunctionalTucker where indices are continuous."
        )


def check_count(value: Any, name: str, where: str, least: int = 1) -> int:
    """Validate an integer setting such as ``max_iter``.

    Raises
    ------
    DataError
        If it is not an integer of ``least`` or more.

    Examples
    --------
    >>> check_count(50, "max_iter", "hooi")
    50
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not whole or value < least:
        raise DataError(f"{where}: {name} must be an integer of {least} or more; got {value!r}.")
    return int(value)
