"""What every format shares: factors, one per mode, and the modes that say what an index is."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn, Self

from tenfac.core.arithmetic import as_dtype, in_single
from tenfac.core.arrays import byte_guard, library_name, namespace_of, points_like, promote, tensorly_backend
from tenfac.core.calculus import Calculus
from tenfac.core.entries import entries_of
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.format_state import factor_state, restored
from tenfac.core.indexing import parse_index, picked
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.protocol import Mode
from tenfac.core.ops import check_mode
from tenfac.core.points import Kernel
from tenfac.core.precision import dtype_name, half_of, itemsize


class Format(Calculus):
    """A tensor given by factors ``(K_n, R_n)`` and modes; the formats say how they are joined.

    What joins them are the cores: one array for ``Tucker`` and ``CP`` (core, weights), D for ``TuckerTrain``.

    Leading axes of all arrays are a batch: as many tensors of one shape and rank. Methods then act on each of
    them, and indices are those of the modes.

    Attributes
    ----------
    factors : tuple of arrays
    modes : tuple of Mode
    info : Report or None

    Examples
    --------
    >>> from tenfac import CP, Tucker
    >>> issubclass(Tucker, Format), issubclass(CP, Format)
    (True, True)
    """

    def __iter__(self) -> Iterator[Any]:
        yield getattr(self, self._CORE)
        yield list(self.factors)

    def __repr__(self) -> str:
        where = "" if self.device is None or "cpu" in str(self.device).lower() else f" on {self.device}"
        kind = f"{library_name(self._like)}.{dtype_name(self.dtype)}{where}"
        count = math.prod(self.batch_shape) * math.prod(self.coef_shape)
        numbers = f"{self.n_params:,} numbers" + ("" if self.is_functional else f" for {count:,} entries")
        batch = f"batch={self.batch_shape}, " if self.batch_shape else ""
        what = f"{batch}shape={self.shape}, {self._functional_part()}{self._rank_part()}"
        return f"{type(self).__name__}({what}, {kind}, {numbers})"

    def _rank_part(self) -> str:
        return f"rank={self.rank}"

    def _functional_part(self) -> str:
        """Domain, degrees and knots for ``repr``, a dash where the mode has none."""
        if not self.is_functional:
            return ""
        box = " x ".join("-" if pair is None else f"[{pair[0]:g}, {pair[1]:g}]" for pair in self.domain)
        counts = {"degree": self.degree, "knots": tuple(getattr(m, "n_knots", None) for m in self.modes)}
        parts = [f"domain={box}"]
        for name, numbers in counts.items():
            if any(number is not None for number in numbers):
                parts.append(f"{name}=({', '.join('-' if k is None else str(k) for k in numbers)})")
        return ", ".join(parts) + ", "

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name}: numpy.asarray would form the dense array of shape {self.shape} without saying so. "
            "Write t.to_tensor() for the array, or t.at(i, j, ...) for single entries."
        )

    # --- making -------------------------------------------------------------------------------------------

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return factor_state(self)

    @classmethod
    def _from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        modes, info = restored(header, arrays)
        made = cls._stored(
            [arrays[name] for name in cls._core_names(len(modes))],
            [arrays[f"factors.{n}"] for n in range(len(modes))],
            modes,
            header,
        )
        object.__setattr__(made, "info", info)
        return made

    @classmethod
    def _stored(
        cls,
        cores: Sequence[Any],
        factors: Sequence[Any],
        modes: Sequence[Mode],
        _header: Mapping[str, Any],
    ) -> Self:
        return cls._build(cores, factors, modes)

    # --- values -------------------------------------------------------------------------------------------

    @in_single
    def at(self, *indices: Any) -> Any:
        """Evaluate entries at index values.

        Parameters
        ----------
        *indices : int, sequence or array
            One per mode, broadcast against each other.

        Returns
        -------
        array, the broadcast shape (after the batch)

        Raises
        ------
        ShapeError, DataError
            If the number of indices is wrong, they do not broadcast, or one is outside its mode.

        Notes
        -----
        The tensor is not formed. Cost for N points: ``N D R`` multiplications for CP, ``N sum S_{n-1} R_n
        S_n`` for a train; for Tucker ``N R_0 R_1 R_2``, or ``N R_1 R_2`` where many points share the index of
        a mode. Under ``jax.jit`` an index outside its mode gives NaN instead of an error.
        """
        xp = self._xp
        points, shape = self._points(indices)
        try:
            values = xp.reshape(entries_of(self, points, xp), (*self.batch_shape, *shape))
        except DataError:
            self._name_mode(points, xp)
            raise
        return values if values.ndim else values[()]

    def _name_mode(self, points: Sequence[Any], xp: Any) -> None:
        """Say which mode refuses its index values."""
        for n, (mode, factor, x) in enumerate(zip(self.modes, self.factors, points, strict=True)):
            try:
                mode.rows(factor, x, xp=xp)
            except DataError as error:
                raise DataError(f"at: the index of mode {n} is not one of its values. {error}") from None

    def _points(self, indices: Sequence[Any]) -> tuple[list[Any], tuple[int, ...]]:
        """Broadcast index values, flat, one array ``(N,)`` per mode, and the broadcast shape."""
        if len(indices) != self.ndim:
            raise ShapeError(
                f"at: needs one index per mode, {self.ndim}; got {len(indices)}. For an (N, {self.ndim}) "
                "array of indices write t.at(*X.T)."
            )
        xp = self._xp
        values = [points_like(index, self._like) for index in indices]
        try:
            values = xp.broadcast_arrays(*values)
        except (ValueError, RuntimeError):
            shapes = [tuple(value.shape) for value in values]
            raise ShapeError(f"at: index arrays must broadcast to one shape; got {shapes}.") from None
        shape = tuple(values[0].shape)
        return [xp.reshape(value, (-1,)) if value.ndim != 1 else value for value in values], shape

    @in_single
    def to_tensor(self, *, max_bytes: int | None = None) -> Any:
        """Form the dense array.

        Parameters
        ----------
        max_bytes : int, optional
            Refuse a larger result.

        Returns
        -------
        array, shape (I_0, ..., I_{D-1}) (after the batch)

        Raises
        ------
        DataError
            If the result would be larger than ``max_bytes``.
        ShapeError
            If a mode is continuous.
        """
        self._check_discrete("to_tensor")
        remedy = "Evaluate entries with t.at(...) or a slice with t[i, :, j]."
        shape = (*self.batch_shape, *self.coef_shape)
        byte_guard(shape, itemsize(self.dtype), max_bytes, "to_tensor", remedy)
        return self._dense(self._xp)

    def _check_discrete(self, where: str) -> None:
        if self.is_functional:
            raise ShapeError(
                f"{where}: needs discrete modes; got shape {self.shape}, where None is a continuous index. "
                "Evaluate it at points with t.at(...), on a grid with t.on_grid(...), integrate with "
                "t.integrate(...)."
            )

    def _check_single(self, where: str) -> None:
        if self.batch_shape:
            raise ShapeError(
                f"{where}: TensorLy has one tensor at a time; got a batch of shape {self.batch_shape}. "
                "Make a format of each first."
            )

    def to_tensorly(self) -> Any:
        """Convert to ``tensorly.TuckerTensor`` or ``tensorly.CPTensor``, sharing the arrays.

        Raises
        ------
        ShapeError
            If a mode is continuous, or there is a batch.
        """
        self._check_discrete("to_tensorly")
        self._check_single("to_tensorly")
        module, _, name = self._TENSORLY.partition(".")
        with tensorly_backend(self._like):
            return getattr(import_module(f"tensorly.{module}"), name)(tuple(self))

    @abstractmethod
    def _at_rows(self, rows: Sequence[Any], xp: Any) -> Any:
        """Values ``(*b, N)`` at points given by the rows of their factors, ``(*b, N, R_n)``."""

    @abstractmethod
    def _kernel(self, xp: Any) -> Kernel:
        """What evaluates blocks of points with continuous indices; see ``points``."""

    def _gathered(self, _indices: Sequence[Any], _xp: Any) -> Any:
        """Values at many row numbers of discrete modes, where there is a faster way than rows; else None."""
        return None

    @in_single
    def __getitem__(self, index: Any) -> Any:
        """Slice by integers, slices and ``...`` as numpy does; a format, or a number if no mode is left."""
        xp = self._xp
        entries = parse_index(index, self.modes)
        rows: dict[int, Any] = {}
        parts: list[tuple[Any, Mode]] = []
        for n, (factor, mode, entry) in enumerate(zip(self.factors, self.modes, entries, strict=True)):
            if isinstance(entry, int):
                rows[n] = factor[..., entry : entry + 1, :]
            else:
                parts.append(picked(factor, mode, entry, xp))
        return self._closed(rows, parts, xp)

    def _closed(self, rows: Mapping[int, Any], parts: Sequence[tuple[Any, Mode]], xp: Any) -> Any:
        """Format of the factors and modes in ``parts``, the other modes closed by rows ``(*b, 1, R_n)``."""
        cores = self._absorb(rows, xp) if rows else self._cores
        if parts:
            return self._rebuilt(cores, tuple(f for f, _ in parts), tuple(m for _, m in parts), rows)
        return cores[0] if cores[0].ndim else cores[0][()]

    @abstractmethod
    def _absorb(self, rows: Mapping[int, Any], xp: Any) -> Sequence[Any]:
        """The cores with the modes of ``rows`` closed; numbers ``(*b,)`` when that is all of them."""

    # --- mode products ------------------------------------------------------------------------------------

    def mode_product(self, matrix: Any, mode: int) -> Self:
        """Multiply by a matrix along one mode: its factor becomes ``matrix @ factor``.

        Parameters
        ----------
        matrix : array, shape (J, I_mode)
        mode : int
            Negative values count from the end.

        Raises
        ------
        ShapeError
            If the matrix does not fit, or the mode is continuous.
        """
        mode, matrix = self._operand(matrix, mode, 2, "mode_product")
        back = half_of(self._like, matrix)
        matrix, *arrays = promote(matrix, *self._cores, *self.factors, where="mode_product")
        cores, factors = arrays[: -self.ndim], arrays[-self.ndim :]
        factors[mode] = matrix @ factors[mode]
        modes = [*self.modes[:mode], Discrete(matrix.shape[0]), *self.modes[mode + 1 :]]
        made = self._rebuilt(cores, factors, modes)
        return made if back is None else made._cast(back)

    def contract(self, vectors: Mapping[int, Any]) -> Any:
        """Contract modes with vectors: ``sum_i v[i] X[..., i, ...]`` for every mode given.

        Parameters
        ----------
        vectors : dict of int to array, shape (I_mode,)

        Returns
        -------
        Tucker, TuckerTrain, CP or scalar array
            Without these modes; a number if none is left.

        Raises
        ------
        ShapeError
            If a vector does not fit, or a mode is continuous or named twice.
        """
        if not isinstance(vectors, Mapping):
            raise TypeError(
                f"contract: vectors must be a dict from mode to vector; got {type(vectors).__name__}. Write "
                "t.contract({0: v})."
            )
        given = [self._operand(vector, mode, 1, "contract") for mode, vector in vectors.items()]
        if len({mode for mode, _ in given}) < len(given):
            raise ShapeError(f"contract: every mode can be named once; got {list(vectors)}.")
        back = half_of(self._like, *(vector for _, vector in given))
        own = len(self._arrays())
        arrays = promote(*self._arrays().values(), *(v for _, v in given), where="contract")
        wide = self._with(arrays[:own])
        xp = self._xp
        rows = {
            mode: vector[None, :] @ wide.factors[mode]
            for (mode, _), vector in zip(given, arrays[own:], strict=True)
        }
        parts = [pair for n, pair in enumerate(zip(wide.factors, self.modes, strict=True)) if n not in rows]
        result = wide._closed(rows, parts, xp)
        if back is None:
            return result
        return result._cast(back) if isinstance(result, Format) else as_dtype(result, back)

    def sum(self, modes: int | Sequence[int] | None = None) -> Any:
        """Sum over a mode, some modes, or all of them.

        Returns
        -------
        Tucker, TuckerTrain, CP or scalar array
        """
        xp = self._xp
        modes = range(self.ndim) if modes is None else modes
        given = modes if isinstance(modes, Iterable) else [modes]
        modes = [check_mode(mode, self.ndim, "sum") for mode in given]
        if len(set(modes)) < len(modes):
            raise ShapeError(f"sum: every mode can be named once; got {list(given)}.")
        sizes = {mode: self.coef_shape[mode] for mode in modes}
        return self.contract({n: xp.ones(i, dtype=self.dtype, device=self.device) for n, i in sizes.items()})

    def _operand(self, array: Any, mode: int, ndim: int, where: str) -> tuple[int, Any]:
        """Check a matrix or vector that multiplies a mode."""
        namespace_of(self._like, array)
        mode = check_mode(mode, self.ndim, where)
        size = self.coef_shape[mode]
        if self.modes[mode].domain is not None:
            self._check_discrete(where)
        if array.ndim != ndim or array.shape[-1] != size:
            want = f"(J, {size})" if ndim == 2 else f"({size},)"
            raise ShapeError(
                f"{where}: the operand of mode {mode} must have shape {want} for a tensor of shape "
                f"{self.shape}; got {tuple(array.shape)}. Did you mean another mode, or the transpose?"
            )
        return mode, array
