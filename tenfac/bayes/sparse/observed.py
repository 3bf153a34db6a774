"""Measurements of a Kronecker dictionary of which some may be missing: validated once, flat, of unit size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import is_array, to_numpy
from tenfac.core.contract import contract
from tenfac.core.errors import DataError, ShapeError

Array = NDArray[Any]

# Least noise that dense algebra resolves, relative to the mean square of the measurements.
NOISE_FLOOR = 2.0**-46


@dataclass(frozen=True, eq=False)
class Observed:
    """What was measured, ``values[:, t] = P (A_1 kron ... kron A_I) x_t + noise``, in double precision.

    Parameters
    ----------
    factors : tuple of arrays, shapes (M_i, N_i)
        All real, or all complex.
    values : array, shape (n, T)
        The ``n`` measurements that are there, divided by ``scale``.
    places : array of int, shape (n,)
        Which of the ``prod M_i`` they are, ascending, row-major.
    scale : float
        Root mean square of the measurements; 1 if all are zero.

    Examples
    --------
    >>> import numpy as np
    >>> data = observe([np.eye(2), np.ones((3, 2))], np.ones((2, 3, 1)))
    >>> data.correlate(np.ones((1, 6)))
    array([[3., 3., 3., 3.]])
    """

    factors: tuple[Array, ...]
    values: Array
    places: NDArray[np.intp]
    scale: float

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Rows of the factors, (M_1, ..., M_I)."""
        return tuple(len(factor) for factor in self.factors)

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Columns of the factors, (N_1, ..., N_I)."""
        return tuple(factor.shape[1] for factor in self.factors)

    @property
    def size(self) -> int:
        """Number n of measurements of one snapshot."""
        return len(self.places)

    @property
    def snapshots(self) -> int:
        """Number T of snapshots."""
        return self.values.shape[1]

    @property
    def weight(self) -> float:
        """The factor c of the log-likelihood: 1/2 for real, 1 for complex numbers."""
        return 1.0 if self.values.dtype.kind == "c" else 0.5

    def log_constant(self) -> float:
        """What to add to ``-c [T log det C + trace(Y^H C^-1 Y)]`` of the scaled values for the evidence."""
        count = self.size * self.snapshots
        return -self.weight * count * (math.log(math.pi / self.weight) + 2 * math.log(self.scale))

    def spread(self, rows: Array) -> Array:
        """Put rows ``(b, n)`` at their places, zero where nothing was measured: ``(b, M_1, ..., M_I)``."""
        if self.size == math.prod(self.row_shape):
            return rows.reshape(len(rows), *self.row_shape)
        full = np.zeros((len(rows), math.prod(self.row_shape)), dtype=rows.dtype)
        full[:, self.places] = rows
        return full.reshape(len(rows), *self.row_shape)

    def correlate(self, rows: Array) -> Array:
        """Correlations ``A^H v`` of rows ``(b, n)`` with all columns, ``(b, N)``, by mode products."""
        adjoints = [None, *(factor.conj().T for factor in self.factors)]
        return contract(self.spread(rows), adjoints).reshape(len(rows), math.prod(self.column_shape))

    def columns(self, flat: NDArray[np.intp]) -> Array:
        """Columns of the dictionary at the places measured, as rows: ``(b, n)``."""
        index = np.unravel_index(flat, self.column_shape)
        rows = np.unravel_index(self.places, self.row_shape)
        parts = [factor[np.ix_(r, j)].T for factor, r, j in zip(self.factors, rows, index, strict=True)]
        return reduce(np.multiply, parts)

    def square_norms(self) -> NDArray[np.float64]:
        """Squared norms of all columns over the places measured, (N,), by mode products of the mask."""
        squares = [None, *((abs(factor) ** 2).T for factor in self.factors)]
        return contract(self.spread(np.ones((1, self.size))), squares).reshape(-1)


def observe(factors: Sequence[Any], Y: Any, mask: Any = None, where: str = "KroneckerSBL") -> Observed:
    """Validate factors, measurements and mask, and bring them to one double precision.

    Parameters
    ----------
    factors : sequence of arrays, shapes (M_i, N_i)
    Y : array, shape (M_1, ..., M_I, T)
    mask : array of bool, shape (M_1, ..., M_I), optional
        True where all snapshots were measured. What ``Y`` holds elsewhere is not read.
    where : str
        Name of the caller, for messages.

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, nothing was measured, or a value that is used is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> observe([np.eye(2)], np.array([[1.0], [np.nan]]), mask=np.array([True, False])).size
    1
    """
    matrices = tuple(_double(factor) for factor in factors)
    for i, factor in enumerate(matrices):
        if factor.ndim != 2 or 0 in factor.shape:
            raise ShapeError(
                f"{where}: factors[{i}] must be a matrix with at least one entry; got shape {factor.shape}. "
                "Write v[:, None] for a column."
            )
        if not np.isfinite(factor).all():
            raise DataError(
                f"{where}: factors[{i}] must be finite; got NaN or infinity. Mend the dictionary."
            )
    full = _double(Y)
    rows = tuple(len(factor) for factor in matrices)
    if not matrices or full.shape[:-1] != rows or 0 in full.shape:
        raise ShapeError(
            f"{where}: Y must have the shape (*{rows}, T) of the rows of the factors and T snapshots; got "
            f"{full.shape}. Write Y[..., None] for one snapshot."
        )
    places = _places(mask, rows, where)
    values = full.reshape(-1, full.shape[-1])[places]
    if not np.isfinite(values).all():
        raise DataError(
            f"{where}: measurements that the mask does not leave out must be finite; got "
            f"{int((~np.isfinite(values)).sum())} of {values.size} that are not. Pass "
            "mask=np.isfinite(Y).all(axis=-1)."
        )
    common = np.result_type(values, *matrices)
    largest = float(abs(values).max())
    scale = largest * float(np.sqrt(np.mean(abs(values / largest) ** 2))) if largest else 1.0
    return Observed(
        tuple(factor.astype(common, copy=False) for factor in matrices),
        values.astype(common, copy=False) / scale,
        places,
        scale,
    )


def _double(array: Any) -> Array:
    found = to_numpy(array) if is_array(array) else np.asarray(array)
    return found.astype(np.complex128 if found.dtype.kind == "c" else np.float64, copy=False)


def _places(mask: Any, rows: tuple[int, ...], where: str) -> NDArray[np.intp]:
    if mask is None:
        return np.arange(math.prod(rows))
    found = to_numpy(mask) if is_array(mask) else np.asarray(mask)
    if found.dtype != bool or found.shape != rows:
        raise ShapeError(
            f"{where}: mask must be boolean and have the shape {rows} of one snapshot, True where measured; "
            f"got {found.dtype} of shape {found.shape}. Snapshots share one mask."
        )
    places = np.flatnonzero(found)
    if not places.size:
        raise DataError(f"{where}: something must have been measured; got a mask that is False everywhere.")
    return places


def check_resolved(data: Observed, noise: float | None, where: str) -> None:
    """Refuse a known noise variance that dense algebra in double precision cannot tell from rounding.

    Raises
    ------
    DataError

    Examples
    --------
    >>> check_resolved(observe([np.eye(2)], np.ones((2, 1))), 1e-9, "toy")
    """
    if noise is not None and noise < NOISE_FLOOR * data.scale**2:
        raise DataError(
            f"{where}: `noise` must be at least {math.sqrt(NOISE_FLOOR):.1g} of the root mean square of the "
            f"measurements, or the result is rounding; got {math.sqrt(noise):g}, which is "
            f"{math.sqrt(noise) / data.scale:.1g} of it. Leave it out to learn it."
        )
