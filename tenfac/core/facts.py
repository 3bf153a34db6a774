"""What a format is before anything is computed with it: cores, factors, modes, and facts about them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from tenfac.core.arrays import device_of, namespace_of
from tenfac.core.modes.protocol import Mode
from tenfac.core.precision import HALF, astype, dtype_name
from tenfac.core.report import Report
from tenfac.core.tracing import is_traced, register_pytree


class Facts(ABC):
    """The parts of a format and the facts about them, on which arithmetic and calculus stand.

    Attributes
    ----------
    factors : tuple of arrays
    modes : tuple of Mode
    info : Report or None

    Examples
    --------
    >>> from tenfac import CP, Tucker
    >>> issubclass(Tucker, Facts), issubclass(CP, Facts)
    (True, True)
    """

    factors: tuple[Any, ...]
    modes: tuple[Mode, ...]
    info: Report | None

    _CORE: ClassVar[str]  # name of the array, or arrays, that join the factors
    _TENSORLY: ClassVar[str]  # module and name of TensorLy's class

    # --- facts --------------------------------------------------------------------------------------------

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
        return tuple(factor.shape[-2] for factor in self.factors)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of all arrays; ``()`` for one tensor."""
        return tuple(self.factors[0].shape[:-2])

    @property
    def is_functional(self) -> bool:
        """Whether an index is continuous."""
        return any(mode.domain is not None for mode in self.modes)

    @property
    def _like(self) -> Any:
        """An array of the library, dtype and device of all of them."""
        return self.factors[0]

    @property
    def dtype(self) -> Any:
        """Dtype of all arrays."""
        return self._like.dtype

    @property
    def device(self) -> Any:
        """Device of all arrays."""
        return device_of(self._like)

    @property
    def _xp(self) -> Any:
        """Namespace of the library of all arrays."""
        return namespace_of(self._like)

    @property
    def n_params(self) -> int:
        """Numbers stored."""
        return sum(math.prod(array.shape) for array in self._arrays().values())

    @property
    def _cores(self) -> tuple[Any, ...]:
        """The arrays that join the factors: one, unless the format says otherwise."""
        return (getattr(self, self._CORE),)

    @classmethod
    def _core_names(cls, _ndim: int) -> tuple[str, ...]:
        """Names of these arrays in a file."""
        return (cls._CORE,)

    @classmethod
    def _build(
        cls, cores: Sequence[Any], factors: Sequence[Any], modes: Sequence[Mode] | None = None
    ) -> Self:
        """Make the format from the arrays that join the factors, in a sequence, and the factors."""
        make: Any = cls
        return make(cores[0], factors, modes)

    def _rebuilt(
        self,
        cores: Sequence[Any],
        factors: Sequence[Any],
        modes: Sequence[Mode] | None = None,
        _closed: Iterable[int] = (),
    ) -> Self:
        """Make a format like this one, some modes closed, from the arrays that join the factors and these."""
        return self._build(cores, factors, modes)

    def _arrays(self) -> dict[str, Any]:
        """All arrays by name."""
        names = (*self._core_names(self.ndim), *(f"factors.{n}" for n in range(self.ndim)))
        return dict(zip(names, (*self._cores, *self.factors), strict=True))

    @property
    def _is_traced(self) -> bool:
        """Whether a transformation of JAX or torch keeps the numbers from being read."""
        return any(map(is_traced, (*self._cores, *self.factors)))

    # --- making -------------------------------------------------------------------------------------------

    def _set(
        self,
        cores: Sequence[Any],
        factors: Sequence[Any],
        modes: tuple[Mode, ...],
        info: Report | None = None,
    ) -> None:
        """Fill a frozen object whose parts were checked."""
        self._set_cores(cores)
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "modes", modes)
        object.__setattr__(self, "info", info)
        register_pytree(type(self))

    def _set_cores(self, cores: Sequence[Any]) -> None:
        object.__setattr__(self, self._CORE, cores[0])

    @property
    def _static(self) -> Any:
        """What a pytree keeps besides its leaves."""
        return self.modes

    def _flatten(self) -> tuple[tuple[Any, ...], Any]:
        return (*self._cores, *self.factors), self._static

    def _with(self, arrays: Iterable[Any]) -> Self:
        """The same format of other arrays."""
        return self._unflatten(arrays, self._static)

    @classmethod
    def _unflatten(cls, leaves: Any, modes: Any) -> Self:
        """Put leaves of a pytree together, whatever they are: transformations pass placeholders."""
        made = object.__new__(cls)
        leaves = tuple(leaves)
        made._set(leaves[: -len(modes)], leaves[-len(modes) :], modes)
        return made

    def _cast(self, dtype: Any) -> Self:
        arrays = [astype(array, dtype, self._xp) for array in self._arrays().values()]
        made = self._with(arrays)
        object.__setattr__(made, "info", self.info)
        return made

    def _wide(self) -> Self:
        """The format to compute with: float32 in the place of half precision."""
        if dtype_name(self.dtype) not in HALF:
            return self
        return self._cast(self._xp.float32)

    # --- what the formats add -----------------------------------------------------------------------------

    @property
    @abstractmethod
    def rank(self) -> Any:
        """Ranks of the format."""

    @abstractmethod
    def norm(self) -> Any:
        """Frobenius norm, in the format."""

    @abstractmethod
    def at(self, *indices: Any) -> Any:
        """Entries at index values."""

    @abstractmethod
    def sum(self, modes: int | Sequence[int] | None = None) -> Any:
        """Sum over discrete modes."""

    @abstractmethod
    def _points(self, indices: Sequence[Any]) -> tuple[list[Any], tuple[int, ...]]:
        """Index values in one shape, flat, and that shape."""

    @abstractmethod
    def _name_mode(self, points: Sequence[Any], xp: Any) -> None:
        """Raise the error of the mode whose points are outside, with its number."""

    @abstractmethod
    def _dense(self, xp: Any) -> Any:
        """The array of all entries."""

    @abstractmethod
    def _closed(self, rows: Mapping[int, Any], parts: Sequence[tuple[Any, Mode]], xp: Any) -> Any:
        """The format without some modes, these multiplied by rows of their factors."""
