"""Where ALS for CP starts: random factors, or a CP tensor the user brings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.core.arrays import namespace_of
from tenfac.core.cp import CP
from tenfac.core.errors import DataError, RankError, ShapeError
from tenfac.core.interchange import as_format, from_tensorly
from tenfac.core.rank import cp_rank


def checked_rank(rank: Any, shape: tuple[int, ...], where: str = "cp") -> int:
    """Validate a CP rank for a shape of two modes or more.

    Raises
    ------
    ShapeError, RankError

    Examples
    --------
    >>> checked_rank(12, (3, 4, 5))
    12
    """
    rank = cp_rank(rank, where)
    if len(shape) < 2:
        raise ShapeError(f"{where}: X must have at least two modes; got shape {shape}.")
    largest = math.prod(shape) // max(shape)
    if rank > largest:
        raise RankError(
            f"{where}: rank must be at most {largest} = prod(I) / max(I) for shape {shape}, where every "
            f"tensor is fitted exactly; got {rank}."
        )
    return rank


def random_start(
    target: Any, rank: int, count: int, rng: np.random.Generator, nonnegative: bool = False
) -> list[Any]:
    """Standard normal factors (or their magnitudes) of several starts, in the library of the target.

    Returns
    -------
    list of arrays, shapes (count, rank, I_n)

    Examples
    --------
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> rng = np.random.default_rng(0)
    >>> [f.shape for f in random_start(DenseTensor(np.ones((3, 4))), 2, 5, rng)]
    [(5, 2, 3), (5, 2, 4)]
    """

    def draw(size: int) -> Any:
        values = rng.standard_normal((count, rank, size))
        if target.is_complex:
            values = values.astype(complex)
            values.imag = rng.standard_normal(values.shape)
        values = np.abs(values) if nonnegative else values
        return target.xp.asarray(values, dtype=target.wide, device=target.device)

    return [draw(size) for size in target.shape]


def given_start(init: Any, target: Any, rank: int, *, scale: float, nonnegative: bool) -> list[Any]:
    """Factors of one start from a CP tensor or a ``(weights, factors)`` tuple, which stays as it is.

    Returns
    -------
    list of arrays, shapes (1, rank, I_n)

    Raises
    ------
    ShapeError, RankError, DataError, TypeError
        If it is not a CP tensor of this shape and rank, not finite, or of another library.

    Examples
    --------
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> X = DenseTensor(np.ones((3, 4)))
    >>> start = None, [np.ones((3, 2)), np.ones((4, 2))]
    >>> [f.shape for f in given_start(start, X, 2, scale=1.0, nonnegative=False)]
    [(1, 2, 3), (1, 2, 4)]
    """
    init = as_cp(init, "cp", "init")
    if init.shape != target.shape:
        raise ShapeError(f"cp: `init` must have the shape of X, {target.shape}; got {init.shape}.")
    if init.rank != rank:
        raise RankError(
            f"cp: `init` must have rank {rank}, as asked for; got {init.rank}. Write rank={init.rank}, or "
            "cut components off."
        )
    xp = target.xp
    given = namespace_of(init.weights)
    if given is not xp:
        raise TypeError(
            f"cp: `init` must be of the library of X, {xp.__name__.rpartition('.')[2]}; got "
            f"{given.__name__.rpartition('.')[2]}. Convert its factors first."
        )
    if not all(bool(xp.all(xp.isfinite(array))) for array in (init.weights, *init.factors)):
        raise DataError("cp: every entry of `init` must be finite; got NaN or infinite ones.")
    if xp.isdtype(init.dtype, "complex floating") and not target.is_complex:
        raise DataError("cp: `init` must be real for a real X; got complex factors. Take its real part.")
    if nonnegative and any(bool(xp.any(array < 0)) for array in (init.weights, *init.factors)):
        raise DataError("cp: `init` must not be negative with nonnegative=True. Take absolute values first.")
    first, *rest = init.factors
    return [_start_array(factor, target) for factor in (first * (init.weights / scale), *rest)]


def as_cp(tensor: Any, where: str, name: str) -> CP:
    """Read a CP tensor, a ``tensorly.CPTensor`` or a tuple ``(weights, factors)``.

    Raises
    ------
    TypeError
        If it is none of these.
    ShapeError
        If it is a batch.

    Examples
    --------
    >>> as_cp((None, [np.ones((3, 1)), np.ones((4, 1))]), "align", "a")
    CP(shape=(3, 4), rank=1, numpy.float64, 8 numbers for 12 entries)
    """
    tensor = from_tensorly(tensor) if isinstance(tensor, (tuple, list)) else as_format(tensor)
    if not isinstance(tensor, CP):
        remedy = " Leave it out for several starts, n_init= of them." if name == "init" else ""
        raise TypeError(
            f"{where}: `{name}` must be a CP tensor or a tuple (weights, factors); got "
            f"{tensor if isinstance(tensor, str) else type(tensor).__name__}.{remedy}"
        )
    if tensor.batch_shape:
        raise ShapeError(
            f"{where}: `{name}` must be one tensor, no batch; got a batch of shape {tensor.batch_shape}. "
            "Take its members one by one."
        )
    return tensor


def _start_array(factor: Any, target: Any) -> Any:
    values = target.xp.astype(factor, target.wide, copy=False)
    return target.xp.matrix_transpose(detached(values))[None, ...]


def detached(array: Any) -> Any:
    """The array outside any gradient.

    Examples
    --------
    >>> detached(np.ones(1))
    array([1.])
    """
    detach = getattr(array, "detach", None)
    return array if detach is None else detach()


def expanded(factors: Sequence[Any], bases: Sequence[np.ndarray]) -> list[Any]:
    """Factors ``(S, R, K_n)`` of a core times bases ``(I_n, K_n)``, as factors ``(S, R, I_n)``.

    Examples
    --------
    >>> expanded([np.ones((1, 1, 2))], [np.ones((5, 2))])[0].shape
    (1, 1, 5)
    """
    return [factor @ basis.T for factor, basis in zip(factors, bases, strict=True)]
