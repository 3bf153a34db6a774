"""Every accepted form of ``rank`` and ``tol``, validated once."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.core.arrays import dtype_name
from tenfac.core.errors import RankError

# Smallest error that a format of each dtype can have, relative to its norm.
REACHABLE = {
    "bfloat16": 2e-2,
    "float16": 2e-3,
    "float32": 1e-6,
    "complex64": 1e-6,
    "float64": 1e-14,
    "complex128": 1e-14,
}
# Share of the smallest tolerance that one given in single precision may lack.
_SLACK = 1e-6


def _as_int(value: Any, where: str, name: str) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise RankError(f"{where}: {name} must be an integer of 1 or more; got {value!r}.")
    if value < 1:
        raise RankError(f"{where}: {name} must be 1 or more; got {value}.")
    return int(value)


def tucker_rank(rank: Any, shape: Sequence[int], where: str = "tucker") -> tuple[int, ...]:
    """Validate a multilinear rank.

    Parameters
    ----------
    rank : int, sequence of int or integer array
        One rank for all modes, or one per mode. numpy integers are integers.
    shape : sequence of int
        Sizes ``I_n`` of the tensor.
    where : str
        Name of the caller, for the message.

    Returns
    -------
    tuple of int

    Raises
    ------
    RankError
        If the number of ranks is wrong, one is not an integer, is less than 1 or greater than its size.

    Notes
    -----
    A rank above the size cannot improve the fit: at ``R_n = I_n`` the decomposition is exact in that mode.

    Examples
    --------
    >>> tucker_rank(2, (5, 6, 7)), tucker_rank([5, 1, 7], (5, 6, 7))
    ((2, 2, 2), (5, 1, 7))
    """
    shape = tuple(shape)
    if isinstance(rank, numbers.Number) or (isinstance(rank, np.ndarray) and rank.ndim == 0):
        ranks = (_as_int(rank[()] if isinstance(rank, np.ndarray) else rank, where, "rank"),) * len(shape)
    else:
        if isinstance(rank, set | frozenset | str | bytes) or not hasattr(rank, "__iter__"):
            raise RankError(f"{where}: rank must be an int or one int per mode; got {type(rank).__name__}.")
        entries = list(rank)
        if len(entries) != len(shape):
            raise RankError(
                f"{where}: rank must have one entry per mode, {len(shape)} for shape {shape}; got "
                f"{len(entries)}: {tuple(entries)}."
            )
        ranks = tuple(_as_int(r, where, f"rank[{n}]") for n, r in enumerate(entries))
    for n, (r, size) in enumerate(zip(ranks, shape, strict=True)):
        if r > size:
            fitting = tuple(map(min, ranks, shape))
            raise RankError(
                f"{where}: the rank of mode {n} must be at most its size, {size}; got {r} (shape {shape}). "
                f"The nearest rank that fits is {fitting}."
            )
    return ranks


def cp_rank(rank: Any, where: str = "cp") -> int:
    """Validate a CP rank: one integer of 1 or more.

    Raises
    ------
    RankError
        If it is not.

    Examples
    --------
    >>> cp_rank(4)
    4
    """
    return _as_int(rank, where, "rank")


def at_most(value: Any, count: int, where: str, name: str, meaning: str) -> tuple[int, ...]:
    """Validate upper limits: one integer of 1 or more, or ``count`` of them.

    Raises
    ------
    RankError
        If it is neither.

    Examples
    --------
    >>> at_most(3, 2, "round", "train_rank", "one per bond")
    (3, 3)
    """
    if isinstance(value, numbers.Number):
        return (_as_int(value, where, name),) * count
    if isinstance(value, set | frozenset) or not hasattr(value, "__iter__"):
        raise RankError(f"{where}: {name} must be an int or {meaning}; got {type(value).__name__}.")
    given = tuple(_as_int(entry, where, f"{name}[{n}]") for n, entry in enumerate(value))
    if len(given) != count:
        raise RankError(f"{where}: {name} must have {count} entries, {meaning}; got {len(given)}: {given}.")
    return given


def check_tol(tol: Any, dtype: Any = None, where: str = "tucker") -> float:
    """Validate a relative tolerance, and that numbers of ``dtype`` can reach it.

    Parameters
    ----------
    tol : float
        ``0 < tol < 1``.
    dtype : dtype, optional
        float32 data can reach 1e-6, float64 data 1e-14.
    where : str
        Name of the caller, for the message.

    Raises
    ------
    RankError
        If the tolerance is not a number in (0, 1), or below what the dtype can give.

    Examples
    --------
    >>> import numpy as np
    >>> check_tol(1e-6, np.dtype("float32"))
    1e-06
    """
    if isinstance(tol, (bool, np.bool_)) or not isinstance(tol, numbers.Real) or not 0 < float(tol) < 1:
        raise RankError(
            f"{where}: tol is a relative error and must be a number between 0 and 1, such as 1e-3; got "
            f"{tol!r}."
        )
    tol = float(tol)
    name = None if dtype is None else dtype_name(dtype)
    reachable = 0.0 if name is None else REACHABLE.get(name, 0.0)
    best = REACHABLE["float64"]
    if tol < reachable * (1 - _SLACK):
        remedy = f" or convert the data to float64 (reaches {best:g})" if reachable > best else ""
        raise RankError(
            f"{where}: tol must be at least {reachable:g} for {name} data, whose rounding is larger than "
            f"that; got {tol:g}. Raise tol{remedy}."
        )
    return tol


def rank_or_tol(
    rank: Any, tol: Any, shape: Sequence[int], dtype: Any, where: str = "tucker"
) -> tuple[tuple[int, ...] | None, float | None]:
    """Validate that exactly one of ``rank`` and ``tol`` is given, and that one.

    Returns
    -------
    ranks : tuple of int or None
    tol : float or None

    Raises
    ------
    RankError
        If both or none are given, or the given one is not valid.

    Examples
    --------
    >>> import numpy as np
    >>> rank_or_tol(None, 0.1, (3, 4), np.dtype("float64"))
    (None, 0.1)
    """
    if (rank is None) == (tol is None):
        got = "neither" if rank is None else f"rank={rank!r} and tol={tol!r}"
        largest = math.prod(shape)
        raise RankError(
            f"{where}: give either rank (an int, or one per mode) or tol (a relative error), not "
            f"{'neither' if rank is None else 'both'}; got {got}. For example rank={min(2, largest)} or "
            "tol=1e-3."
        )
    if rank is not None:
        return tucker_rank(rank, shape, where), None
    return None, check_tol(tol, dtype, where)
