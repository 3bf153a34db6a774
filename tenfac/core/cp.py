"""The CP format: a sum of outer products of vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from .arrays import byte_guard, device_of, namespace_of, promote, tensorly_backend
from .errors import ShapeError
from .format import Format, factor_state, restored, validated
from .modes.protocol import Mode
from .ops import khatri_rao
from .report import Report
from .tucker import Tucker


@dataclass(frozen=True, eq=False, repr=False)
class CP(Format):
    """A tensor in CP format, ``X[i, j, ...] = sum_r w[r] A[i, r] B[j, r] ...``.

    Parameters
    ----------
    weights : array, shape (R,), or None
        None means ones.
    factors : sequence of D arrays, shapes (K_n, R)
        Rows are index values. Brought to one dtype; integers become float64. Arrays are not copied.
    modes : sequence of Mode, optional
        What each index is; ``Discrete(K_n)`` if not given.
    info : Report, optional
        How the tensor was computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If weights, factors and modes do not fit each other.
    TypeError
        If the arrays are not of one library on one device.

    Notes
    -----
    ``+``, ``-`` and multiplication by a number stay in the format (ranks add). ``t[i, :, j]`` slices.
    ``weights, factors = t`` unpacks, so TensorLy functions take it.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       3. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> t = CP(None, [np.ones((3, 2)), np.ones((4, 2))])
    >>> t
    CP(shape=(3, 4), rank=2, numpy.float64, 16 numbers for 12 entries)
    >>> (t + t).at([0, 2], [1, 3])
    array([4., 4.])
    """

    weights: Any
    factors: Sequence[Any]
    modes: Sequence[Mode] | None = None
    info: Report | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        factors, weights = tuple(self.factors), self.weights
        given = [] if weights is None else [weights]
        modes = validated("CP", [*given, *factors], self.modes, factors)
        columns = [factor.shape[1] for factor in factors]
        if len(set(columns)) > 1:
            raise ShapeError(f"CP: all factors must have the same number of columns; got {columns}.")
        if weights is not None and tuple(weights.shape) != (columns[0],):
            raise ShapeError(
                f"CP: weights must have shape ({columns[0]},), one per column of the factors; got "
                f"{tuple(weights.shape)}."
            )
        factors = promote(*factors, *given, where="CP")
        if weights is None:
            xp = namespace_of(factors[0])
            weights = xp.ones(columns[0], dtype=factors[0].dtype, device=device_of(factors[0]))
        else:
            *factors, weights = factors
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "modes", modes)

    @property
    def rank(self) -> int:
        """Number of terms R."""
        return self.weights.shape[0]

    def __repr__(self) -> str:
        return self._describe(str(self.rank))

    def __iter__(self) -> Iterator[Any]:
        yield self.weights
        yield list(self.factors)

    def _arrays(self) -> dict[str, Any]:
        return {"weights": self.weights, **{f"factors.{n}": factor for n, factor in enumerate(self.factors)}}

    def at(self, *indices: Any) -> Any:
        """Evaluate entries at index values.

        Parameters
        ----------
        *indices : int, sequence or array
            One per mode, broadcast against each other.

        Returns
        -------
        array, the broadcast shape

        Raises
        ------
        ShapeError, DataError
            If the number of indices is wrong, they do not broadcast, or one is outside its mode.

        Notes
        -----
        Cost: ``N D R`` multiplications; the tensor is not formed.
        """
        rows, shape = self._points(indices)
        xp = namespace_of(self.weights)
        values = reduce(lambda a, b: a * b, rows) @ self.weights
        return xp.reshape(values, shape)[()] if shape else values[0]

    def to_tensor(self, *, max_bytes: int | None = None) -> Any:
        """Form the dense array.

        Parameters
        ----------
        max_bytes : int, optional
            Refuse a larger result.

        Returns
        -------
        array, shape (I_0, ..., I_{D-1})

        Raises
        ------
        DataError
            If the result would be larger than ``max_bytes``.
        ShapeError
            If a mode is continuous.

        Notes
        -----
        One matrix product of two Khatri-Rao products, split so that both are small.
        """
        self._check_dense("to_tensor")
        remedy = "Evaluate entries with t.at(...) or a slice with t[i, :, j]."
        byte_guard(self.coef_shape, self.weights.dtype.itemsize, max_bytes, "to_tensor", remedy)
        xp = namespace_of(self.weights)
        shape = self.coef_shape
        split = min(range(1, self.ndim + 1), key=lambda n: math.prod(shape[:n]) + math.prod(shape[n:]))
        left = khatri_rao(self.factors[:split]) * self.weights
        if split == self.ndim:
            return xp.reshape(xp.sum(left, axis=1), shape)
        return xp.reshape(left @ khatri_rao(self.factors[split:]).T, shape)

    def norm(self) -> Any:
        """Frobenius norm, in the format.

        From Gram matrices: for a difference of near tensors it has a floor of about ``sqrt(eps)`` of their
        norms; ``t.to_tucker().norm()`` has none.
        """
        xp = namespace_of(self.weights)
        square = xp.real(self.inner(self)) if xp.isdtype(self.dtype, "complex floating") else self.inner(self)
        return xp.sqrt(xp.where(square > 0, square, xp.zeros_like(square)))

    def inner(self, other: CP) -> Any:
        """Inner product ``sum conj(self) * other``, in the format.

        Raises
        ------
        TypeError
            If ``other`` is not a CP tensor.
        ShapeError
            If the modes differ.

        Notes
        -----
        Cost: ``R S sum_n I_n`` multiplications.
        """
        if not isinstance(other, CP):
            raise TypeError(
                f"inner: needs a CP; got {type(other).__name__}. With a Tucker write "
                "t.to_tucker().inner(other)."
            )
        self._check_same_modes(other, "inner")
        arrays = promote(self.weights, other.weights, *self.factors, *other.factors, where="inner")
        xp = namespace_of(arrays[0])
        if xp.isdtype(arrays[0].dtype, "complex floating"):
            arrays = (
                xp.conj(arrays[0]),
                arrays[1],
                *map(xp.conj, arrays[2 : 2 + self.ndim]),
                *arrays[2 + self.ndim :],
            )
        grams = [a.T @ b for a, b in zip(arrays[2 : 2 + self.ndim], arrays[2 + self.ndim :], strict=True)]
        return arrays[0] @ reduce(lambda a, b: a * b, grams) @ arrays[1]

    def __add__(self, other: Any) -> CP:
        if not isinstance(other, CP):
            return NotImplemented
        self._check_same_modes(other, "+")
        arrays = promote(self.weights, other.weights, *self.factors, *other.factors, where="+")
        xp = namespace_of(arrays[0])
        pairs = zip(arrays[2 : 2 + self.ndim], arrays[2 + self.ndim :], strict=True)
        return CP(xp.concat(arrays[:2]), tuple(xp.concat(pair, axis=1) for pair in pairs), self.modes)

    def _scaled(self, scalar: Any) -> CP:
        return CP(self.weights * scalar, self.factors, self.modes)

    def __getitem__(self, index: Any) -> Any:
        """Slice by integers, slices and ``...`` as numpy does; a CP, or a number if no mode is left."""
        entries = self._parse_index(index)
        weights = self.weights
        for factor, entry in zip(self.factors, entries, strict=True):
            if isinstance(entry, int):
                weights = weights * factor[entry, :]
        factors, modes = self._sliced(entries)
        return CP(weights, tuple(factors), tuple(modes)) if factors else namespace_of(weights).sum(weights)

    def to_tucker(self, *, max_bytes: int | None = None) -> Tucker:
        """Convert to Tucker format with a diagonal core of ``R^D`` numbers.

        Parameters
        ----------
        max_bytes : int, optional
            Refuse a larger core.

        Raises
        ------
        DataError
            If the core would be larger than ``max_bytes``.
        """
        xp = namespace_of(self.weights)
        remedy = "Reduce the rank of the CP tensor."
        byte_guard((self.rank,) * self.ndim, self.weights.dtype.itemsize, max_bytes, "to_tucker", remedy)
        unit = xp.eye(self.rank, dtype=self.dtype, device=self.device)
        core = CP(self.weights, (unit,) * self.ndim).to_tensor()
        return Tucker(core, self.factors, self.modes)

    def to_tensorly(self) -> Any:
        """Convert to ``tensorly.CPTensor``, sharing the arrays.

        Raises
        ------
        ShapeError
            If a mode is continuous.
        """
        self._check_dense("to_tensorly")
        with tensorly_backend(self.weights):
            from tensorly.cp_tensor import CPTensor

            return CPTensor((self.weights, list(self.factors)))

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return factor_state(self)

    @classmethod
    def _from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> CP:
        modes, info = restored(header, arrays)
        return cls(
            arrays["weights"], tuple(arrays[f"factors.{n}"] for n in range(len(modes))), modes, info=info
        )
