"""The Tucker format: a core and one factor per mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from .arrays import byte_guard, namespace_of, promote, tensorly_backend
from .contract import contract
from .errors import ShapeError
from .format import Format, factor_state, restored, validated
from .modes.protocol import Mode
from .rank import rank_or_tol
from .report import Report
from .truncate import truncate, truncation_report


@dataclass(frozen=True, eq=False, repr=False)
class Tucker(Format):
    """A tensor in Tucker format, ``X[i, j, ...] = sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...``.

    Parameters
    ----------
    core : array, shape (R_0, ..., R_{D-1})
    factors : sequence of D arrays, shapes (K_n, R_n)
        Rows are index values. Brought to one dtype with the core; integers become float64. Arrays are not
        copied.
    modes : sequence of Mode, optional
        What each index is; ``Discrete(K_n)`` if not given.
    info : Report, optional
        How the tensor was computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If core, factors and modes do not fit each other.
    TypeError
        If the arrays are not of one library on one device.

    Notes
    -----
    ``+``, ``-`` and multiplication by a number stay in the format (the rank of a sum is the sum of ranks;
    ``round`` compresses it). ``t[i, :, j]`` slices. ``core, factors = t`` unpacks, so TensorLy functions take
    it.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       4. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> t = Tucker(np.ones((2, 2)), [np.ones((3, 2)), np.ones((4, 2))])
    >>> t
    Tucker(shape=(3, 4), rank=(2, 2), numpy.float64, 18 numbers for 12 entries)
    >>> (t - t / 2).at([0, 2], [1, 3])
    array([2., 2.])
    """

    core: Any
    factors: Sequence[Any]
    modes: Sequence[Mode] | None = None
    info: Report | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        factors = tuple(self.factors)
        modes = validated("Tucker", [self.core, *factors], self.modes, factors)
        want = tuple(factor.shape[1] for factor in factors)
        if tuple(self.core.shape) != want:
            raise ShapeError(
                f"Tucker: the core must have shape {want}, the columns of the factors; got "
                f"{tuple(self.core.shape)}."
            )
        core, *factors = promote(self.core, *factors, where="Tucker")
        object.__setattr__(self, "core", core)
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "modes", modes)

    @property
    def rank(self) -> tuple[int, ...]:
        """Multilinear rank of the format, ``(R_0, ..., R_{D-1})``."""
        return tuple(self.core.shape)

    def __repr__(self) -> str:
        return self._describe(str(self.rank))

    def __iter__(self) -> Iterator[Any]:
        yield self.core
        yield list(self.factors)

    def _arrays(self) -> dict[str, Any]:
        return {"core": self.core, **{f"factors.{n}": factor for n, factor in enumerate(self.factors)}}

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
        Cost: ``N prod(R)`` multiplications; the tensor is not formed.
        """
        rows, shape = self._points(indices)
        xp = namespace_of(self.core)
        values = contract(self.core, rows, paired=range(self.ndim), xp=xp)
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
        """
        self._check_dense("to_tensor")
        remedy = "Evaluate entries with t.at(...) or a slice with t[i, :, j]."
        byte_guard(self.coef_shape, self.core.dtype.itemsize, max_bytes, "to_tensor", remedy)
        return contract(self.core, self.factors)

    def norm(self) -> Any:
        """Frobenius norm, from the core and triangular factors; accurate for differences of near tensors.

        Differentiable where the factors have independent columns; ``t.inner(t)`` always is.
        """
        xp = namespace_of(self.core)
        return xp.linalg.vector_norm(self._orthogonalized()[0])

    def inner(self, other: Tucker) -> Any:
        """Inner product ``sum conj(self) * other``, in the format.

        Raises
        ------
        TypeError
            If ``other`` is not a Tucker tensor.
        ShapeError
            If the modes differ.

        Notes
        -----
        Cost: ``sum_n I_n R_n S_n`` and a core contraction.
        """
        if not isinstance(other, Tucker):
            raise TypeError(
                f"inner: needs a Tucker; got {type(other).__name__}. For a CP write cp.to_tucker()."
            )
        self._check_same_modes(other, "inner")
        namespace_of(self.core, other.core)
        core, other_core, *factors = promote(
            self.core, other.core, *self.factors, *other.factors, where="inner"
        )
        xp = namespace_of(core)
        complex_ = xp.isdtype(core.dtype, "complex floating")
        left = [xp.conj(f) if complex_ else f for f in factors[: self.ndim]]
        grams = [a.T @ b for a, b in zip(left, factors[self.ndim :], strict=True)]
        projected = contract(other_core, grams, xp=xp)
        return xp.sum((xp.conj(core) if complex_ else core) * projected)

    def __add__(self, other: Any) -> Tucker:
        if not isinstance(other, Tucker):
            return NotImplemented
        self._check_same_modes(other, "+")
        xp = namespace_of(self.core, other.core)
        arrays = promote(self.core, other.core, *self.factors, *other.factors, where="+")
        left, right = arrays[2 : 2 + self.ndim], arrays[2 + self.ndim :]
        factors = [xp.concat(pair, axis=1) for pair in zip(left, right, strict=True)]
        core = _block_diagonal(arrays[0], arrays[1], xp)
        return Tucker(core, tuple(factors), self.modes)

    def _scaled(self, scalar: Any) -> Tucker:
        return Tucker(self.core * scalar, self.factors, self.modes)

    def round(self, rank: Any = None, *, tol: float | None = None) -> Tucker:
        """Compress to a smaller rank, or to a relative Frobenius error.

        Parameters
        ----------
        rank : int or sequence of int, optional
            At most the sizes; a rank the tensor does not have is not invented.
        tol : float, optional
            Relative error to keep. Give either ``rank`` or ``tol``.

        Returns
        -------
        Tucker
            With orthonormal factors; ``info.rel_error`` is the relative error of the compression.

        Raises
        ------
        RankError
            If both or neither are given, or not valid.

        Notes
        -----
        QR of the factors, then ST-HOSVD of the core; the tensor is not formed. Cost: ``sum I_n R_n^2 +
        R^(D+1)``.
        """
        start = perf_counter()
        ranks, tol = rank_or_tol(rank, tol, self.coef_shape, self.dtype, "round")
        core, bases = self._orthogonalized(bases=True)
        if ranks is not None:
            ranks = tuple(map(min, ranks, core.shape))
        small, factors, rel_error = truncate(core, ranks, tol)
        factors = tuple(basis @ factor for basis, factor in zip(bases, factors, strict=True))
        info = truncation_report("round", rel_error, tol, start)
        return Tucker(small, factors, self.modes, info=info)

    def _orthogonalized(self, *, bases: bool = False) -> tuple[Any, list[Any]]:
        """Core of the same tensor in orthonormal bases of the factors, and those bases."""
        xp = namespace_of(self.core)
        pairs = [xp.linalg.qr(factor) for factor in self.factors]
        core = contract(self.core, [upper for _, upper in pairs], xp=xp)
        return core, [basis for basis, _ in pairs] if bases else []

    def __getitem__(self, index: Any) -> Any:
        """Slice by integers, slices and ``...`` as numpy does; a Tucker, or a number if no mode is left."""
        entries = self._parse_index(index)
        xp = namespace_of(self.core)
        rows = [
            factor[entry : entry + 1, :] if isinstance(entry, int) else None
            for factor, entry in zip(self.factors, entries, strict=True)
        ]
        kept = [r for r, entry in zip(self.rank, entries, strict=True) if not isinstance(entry, int)]
        core = xp.reshape(contract(self.core, rows, xp=xp), tuple(kept))
        factors, modes = self._sliced(entries)
        return Tucker(core, tuple(factors), tuple(modes)) if factors else core[()]

    def to_tensorly(self) -> Any:
        """Convert to ``tensorly.TuckerTensor``, sharing the arrays.

        Raises
        ------
        ShapeError
            If a mode is continuous.
        """
        self._check_dense("to_tensorly")
        with tensorly_backend(self.core):
            from tensorly.tucker_tensor import TuckerTensor

            return TuckerTensor((self.core, list(self.factors)))

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return factor_state(self)

    @classmethod
    def _from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Tucker:
        modes, info = restored(header, arrays)
        return cls(arrays["core"], tuple(arrays[f"factors.{n}"] for n in range(len(modes))), modes, info=info)


def _block_diagonal(a: Any, b: Any, xp: Any) -> Any:
    """Put two cores at opposite corners of a larger one."""
    sizes: Sequence[tuple[int, int]] = list(zip(a.shape, b.shape, strict=True))
    for n, (p, q) in enumerate(sizes):
        a = xp.concat(
            [a, xp.zeros((*a.shape[:n], q, *a.shape[n + 1 :]), dtype=a.dtype, device=a.device)], axis=n
        )
        b = xp.concat(
            [xp.zeros((*b.shape[:n], p, *b.shape[n + 1 :]), dtype=b.dtype, device=b.device), b], axis=n
        )
    return a + b
