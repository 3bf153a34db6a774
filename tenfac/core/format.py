"""What every format shares: factors, one per mode, and the modes that say what an index is."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import numpy as np

from .arrays import device_of, dtype_name, library_name, namespace_of, points_like
from .errors import ShapeError
from .io import public_class
from .modes.discrete import Discrete
from .modes.protocol import Mode
from .report import Report


class Format(ABC):
    """A tensor given by factors ``(K_n, R_n)`` and modes; ``Tucker`` and ``CP`` say how they are joined.

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

    factors: tuple[Any, ...]
    modes: tuple[Mode, ...]
    info: Report | None

    __array_ufunc__ = None  # numpy scalars on the left leave the multiplication to us

    @property
    def ndim(self) -> int:
        """Number of modes D."""
        return len(self.factors)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes ``(I_0, ..., I_{D-1})``; None where the index is continuous."""
        return tuple(mode.size if mode.domain is None else None for mode in self.modes)

    @property
    def coef_shape(self) -> tuple[int, ...]:
        """Rows of the factors, ``(K_0, ..., K_{D-1})``; the shape when all modes are discrete."""
        return tuple(factor.shape[0] for factor in self.factors)

    @property
    def is_functional(self) -> bool:
        """Whether an index is continuous."""
        return any(mode.domain is not None for mode in self.modes)

    @property
    def dtype(self) -> Any:
        """Dtype of all arrays."""
        return self.factors[0].dtype

    @property
    def device(self) -> Any:
        """Device of all arrays."""
        return device_of(self.factors[0])

    @property
    def n_params(self) -> int:
        """Numbers stored."""
        return sum(math.prod(array.shape) for array in self._arrays().values())

    @abstractmethod
    def _arrays(self) -> dict[str, Any]:
        """All arrays by name."""

    def _points(self, indices: Sequence[Any]) -> tuple[list[Any], tuple[int, ...]]:
        """Rows ``(N, R_n)`` of every factor at broadcast index values, and the broadcast shape."""
        if len(indices) != self.ndim:
            raise ShapeError(
                f"at: needs one index per mode, {self.ndim}; got {len(indices)}. For an (N, {self.ndim}) "
                "array of indices write t.at(*X.T)."
            )
        xp = namespace_of(self.factors[0])
        values = [points_like(index, self.factors[0]) for index in indices]
        try:
            values = xp.broadcast_arrays(*values)
        except (ValueError, RuntimeError):
            shapes = [tuple(value.shape) for value in values]
            raise ShapeError(f"at: index arrays must broadcast to one shape; got {shapes}.") from None
        shape = tuple(values[0].shape)
        flat = [xp.reshape(value, (-1,)) if value.ndim != 1 else value for value in values]
        rows = [m.rows(f, v, xp=xp) for m, f, v in zip(self.modes, self.factors, flat, strict=True)]
        return rows, shape

    def _check_dense(self, where: str) -> None:
        if self.is_functional:
            raise ShapeError(
                f"{where}: needs discrete modes; got shape {self.shape}, where None is a continuous index. "
                "Evaluate it at points with t.at(...)."
            )

    def _parse_index(self, index: Any) -> list[int | slice]:
        """Complete a numpy basic index to one int or slice per mode, ints wrapped and checked."""
        entries = list(index) if isinstance(index, tuple) else [index]
        dots = [n for n, entry in enumerate(entries) if entry is Ellipsis]
        if len(dots) > 1:
            raise IndexError("t[...]: an index can have only one ellipsis ('...').")
        at = dots[0] if dots else len(entries)
        head, tail = entries[:at], entries[at + 1 :]
        if len(head) + len(tail) > self.ndim:
            raise IndexError(
                f"t[...]: too many indices; the tensor has {self.ndim} modes and got {len(head) + len(tail)}."
            )
        filling = [slice(None)] * (self.ndim - len(head) - len(tail))
        return [self._parse_entry(entry, n) for n, entry in enumerate([*head, *filling, *tail])]

    def _parse_entry(self, entry: Any, n: int) -> int | slice:
        mode, size = self.modes[n], self.coef_shape[n]
        if isinstance(entry, slice):
            if mode.domain is not None and entry != slice(None):
                raise IndexError(
                    f"t[...]: mode {n} is continuous and takes only ':'; got {entry}. Use t.at(...)."
                )
            return entry
        if isinstance(entry, (bool, np.bool_)) or not hasattr(entry, "__index__") or mode.domain is not None:
            raise IndexError(
                "t[...]: an index must be an integer, a slice or '...' (and only ':' for a continuous "
                f"mode); got {type(entry).__name__} for mode {n}. For points write t.at(i, j, ...)."
            )
        try:
            value = operator.index(entry)
        except TypeError:
            raise IndexError(
                f"t[...]: an index must be an integer, a slice or '...'; got {type(entry).__name__} for mode "
                f"{n}. For points write t.at(i, j, ...)."
            ) from None
        if not -size <= value < size:
            raise IndexError(f"t[...]: index {value} is out of bounds for mode {n} of size {size}.")
        return value % size

    def _sliced(self, entries: list[int | slice]) -> tuple[list[Any], list[Mode]]:
        """Factors and modes that remain after slicing."""
        xp = namespace_of(self.factors[0])
        factors, modes = [], []
        for factor, mode, entry in zip(self.factors, self.modes, entries, strict=True):
            if isinstance(entry, int):
                continue
            if entry != slice(None):
                start, stop, step = entry.indices(factor.shape[0])
                if step > 0:
                    factor = factor[start:stop:step, :]
                else:
                    picked = range(start, stop, step)
                    rows = np.asarray(picked, dtype=np.int64)
                    factor = xp.take(factor, xp.asarray(rows, device=device_of(factor)), axis=0)
                mode = Discrete(factor.shape[0])
            factors.append(factor)
            modes.append(mode)
        return factors, modes

    def _check_same_modes(self, other: Format, where: str) -> None:
        if self.modes != other.modes:
            raise ShapeError(
                f"{where}: both tensors must have the same modes; got {self.modes} and {other.modes}, shapes "
                f"{self.shape} and {other.shape}."
            )

    def _describe(self, rank: str) -> str:
        where = "" if str(self.device) == "cpu" else f" on {self.device}"
        kind = f"{library_name(self.factors[0])}.{dtype_name(self.dtype)}{where}"
        entries = "" if self.is_functional else f" for {math.prod(self.coef_shape):,} entries"
        numbers = f"{self.n_params:,} numbers{entries}"
        return f"{type(self).__name__}(shape={self.shape}, rank={rank}, {kind}, {numbers})"

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name}: numpy.asarray would form the dense array of shape {self.shape} without saying so. "
            "Write t.to_tensor() for the array, or t.at(i, j, ...) for single entries."
        )

    @abstractmethod
    def _scaled(self, scalar: Any) -> Format:
        """Multiply by a number."""

    def __mul__(self, scalar: Any) -> Format:
        number = scalar_of(scalar)
        return NotImplemented if number is None else self._scaled(number)

    __rmul__ = __mul__

    def __truediv__(self, scalar: Any) -> Format:
        number = scalar_of(scalar)
        return NotImplemented if number is None else self._scaled(1 / number)

    def __neg__(self) -> Format:
        return self._scaled(-1.0)

    def __sub__(self, other: Any) -> Format:
        return self + (-other) if isinstance(other, type(self)) else NotImplemented

    @abstractmethod
    def __add__(self, other: Any) -> Format: ...


def scalar_of(value: Any) -> Any:
    """Read a number: Python numbers and 0-d torch arrays as they are, numpy scalars as Python numbers.

    Returns None if the value is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> scalar_of(np.float64(2)), scalar_of("2")
    (2.0, None)
    """
    if isinstance(value, (int, float, complex)) and not isinstance(value, np.generic):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return value.item() if value.ndim == 0 and value.dtype.kind in "biufc" else None
    if getattr(value, "ndim", None) == 0 and hasattr(value, "dtype"):
        return value
    return None


def validated(
    where: str, arrays: Sequence[Any], modes: Sequence[Mode] | None, factors: Sequence[Any]
) -> tuple[Mode, ...]:
    """Check that factors are matrices of one library that fit the modes; make discrete modes if not given.

    Raises
    ------
    ShapeError
        If they do not.

    Examples
    --------
    >>> import numpy as np
    >>> validated("Tucker", [np.ones((3, 2))], None, [np.ones((3, 2))])
    (Discrete(size=3),)
    """
    if not factors:
        raise ShapeError(f"{where}: needs at least one factor; got none.")
    namespace_of(*arrays)
    for n, factor in enumerate(factors):
        if factor.ndim != 2:
            raise ShapeError(
                f"{where}: factors[{n}] must be a matrix of shape (I_{n}, R_{n}); got shape "
                f"{tuple(factor.shape)}."
            )
    if modes is None:
        return tuple(Discrete(factor.shape[0]) for factor in factors)
    modes = tuple(modes)
    sizes, rows = [getattr(mode, "size", None) for mode in modes], [factor.shape[0] for factor in factors]
    if sizes != rows:
        raise ShapeError(
            f"{where}: `modes` must hold one mode per factor, of sizes {rows} (the rows of the factors); got "
            f"sizes {sizes}."
        )
    return modes


def factor_state(obj: Format) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe a format for ``save``: modes and report in a dict, arrays by name.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import CP
    >>> sorted(factor_state(CP(None, [np.ones((2, 1))]))[1])
    ['factors.0', 'weights']
    """
    arrays, modes = dict(obj._arrays()), []
    for n, mode in enumerate(obj.modes):
        spec, mode_arrays = mode.spec()
        modes.append({**spec, "arrays": sorted(mode_arrays)})
        arrays.update({f"modes.{n}.{name}": array for name, array in mode_arrays.items()})
    info = None if obj.info is None else asdict(obj.info)
    return {"modes": modes, "info": info}, arrays


def restored(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[tuple[Mode, ...], Report | None]:
    """Rebuild the modes and the report that ``factor_state`` described.

    Examples
    --------
    >>> restored({"modes": [{"type": "Discrete", "size": 3, "arrays": []}], "info": None}, {})
    ((Discrete(size=3),), None)
    """
    modes = []
    for n, spec in enumerate(header["modes"]):
        mode_arrays = {name: arrays[f"modes.{n}.{name}"] for name in spec["arrays"]}
        modes.append(public_class(spec["type"]).from_spec(spec, mode_arrays))
    info = header["info"]
    if info is not None:
        info = Report(**{k: tuple(v) if isinstance(v, list) else v for k, v in info.items()})
    return tuple(modes), info
