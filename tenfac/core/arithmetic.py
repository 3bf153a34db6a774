"""Arithmetic of formats: inner products, sums, products entry by entry, multiples."""

from __future__ import annotations

import cmath
import operator
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np

from tenfac.core.arrays import library_name, namespace_of, promote
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.facts import Facts
from tenfac.core.points import constant_format
from tenfac.core.precision import HALF, astype, dtype_name, is_complex
from tenfac.core.tracing import constant

_Method = TypeVar("_Method", bound=Callable[..., Any])

# Operators of Python that numpy calls by the names of its functions.
_OPERATORS: dict[Any, Callable[..., Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.negative: operator.neg,
    np.power: operator.pow,
}
# How general a format of many modes is, from CP to the train; largest core that a sum makes of a CP tensor.
_TRAIN, _BYTES = 2, 2**30
_COMPARISONS = (np.less, np.less_equal, np.greater, np.greater_equal)


def in_single(method: _Method) -> _Method:
    """Run a method of a half-precision format in float32 and bring its result back, unless it is complex.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import CP
    >>> t = CP(None, [np.ones((3, 1), dtype="float16")])
    >>> (t + t).dtype
    dtype('float16')
    """

    @wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if dtype_name(self.dtype) not in HALF:
            return method(self, *args, **kwargs)
        others = [arg.dtype for arg in args if isinstance(arg, Arithmetic)]
        result = method(self._wide(), *args, **kwargs)
        complex_ = is_complex(result.factors[0] if isinstance(result, Arithmetic) else result)
        if complex_ or any(dtype != self.dtype for dtype in others):
            return result
        return result._cast(self.dtype) if isinstance(result, Arithmetic) else as_dtype(result, self.dtype)

    return cast(_Method, run)


def as_dtype(array: Any, dtype: Any) -> Any:
    """Convert an array of any library to a dtype of its own; None leaves it as it is.

    Examples
    --------
    >>> import numpy as np
    >>> as_dtype(np.ones(2), np.float32).dtype
    dtype('float32')
    """
    return astype(array, dtype, namespace_of(array))


class Arithmetic(Facts):
    """What can be computed with formats of one kind without leaving it; ``Format`` supplies the arrays.

    Examples
    --------
    >>> from tenfac import CP
    >>> issubclass(CP, Arithmetic)
    True
    """

    __pandas_priority__ = 10_000  # a table is no operand; pandas would read a format entry by entry
    _GENERALITY: ClassVar[int]  # two formats meet in the more general kind: 0 CP, 1 Tucker, 2 TuckerTrain

    # --- inner products -----------------------------------------------------------------------------------

    def inner(self, other: Self) -> Any:
        """Inner product ``sum conj(self) * other``, in the format; continuous modes are integrated over.

        Formats of two kinds are first brought to the more general one, as in a sum.

        Raises
        ------
        TypeError
            If ``other`` is no format, nor what stands for one: a tensor of TensorLy, ``(core, factors)``.
        ShapeError
            If the modes differ by more than their degrees and knots.

        Notes
        -----
        Cost: ``sum_n I_n R_n S_n`` and, for Tucker and trains, a contraction of the cores. Neither very large
        nor very small entries lose their squares on the way. float32 for half precision, whose range is too
        small.
        """
        other = _read(other)
        if not isinstance(other, Arithmetic):
            raise TypeError(
                f"inner: needs a Tucker, TuckerTrain or CP; got {type(other).__name__}. Make one of "
                "the array with tucker(X, tol=...)."
            )
        left, right = self._alike(other)
        left, right = left._aligned(right, "inner")
        pairs = left._pairs(right, "inner")
        xp = self._xp
        cores, factors = pairs[: -len(left.modes)], pairs[-len(left.modes) :]
        pairs = [
            *cores,
            *(_weighted(mode, a, b, xp) for mode, (a, b) in zip(left.modes, factors, strict=True)),
        ]
        scaled, root = unit_scale([array for pair in pairs for array in pair], self.batch_shape, xp)
        conj = xp.conj if is_complex(scaled[0]) else lambda array: array
        value = left._inner(map(conj, scaled[::2]), scaled[1::2], xp)
        return (value * root) * root

    @abstractmethod
    def _inner(self, left: Any, right: Any, xp: Any) -> Any:
        """``sum left * right`` of two sequences of arrays, cores before factors."""

    def _alike(self, other: Any) -> tuple[Any, Any]:
        """Two formats as the more general of their kinds: CP becomes Tucker, and both become trains."""
        if self._GENERALITY == other._GENERALITY:
            return self, other
        if len(self.modes) != len(other.modes):
            raise ShapeError(
                f"+, -, *, inner: both tensors must have the same modes; got {self} and {other}."
            )
        if self._GENERALITY < other._GENERALITY:
            return self._as_general(other), other
        return self, other._as_general(self)

    def _as_general(self, other: Any) -> Any:
        """This format in the kind, and the order of modes, of a more general one."""
        special: Any = self
        if other._GENERALITY == _TRAIN:
            return special.to_train(order=other.order)
        return special.to_tucker(max_bytes=_BYTES)

    def _aligned(self, other: Self, where: str) -> tuple[Self, Self]:
        """Two formats as they are, or on modes that hold the functions of both: other degrees, one domain."""
        if self.modes == other.modes or len(self.modes) != len(other.modes):
            return self, other
        try:
            owned: Sequence[Any] = self.modes
            modes = [a if a == b else a.common(b) for a, b in zip(owned, other.modes, strict=True)]
        except ShapeError as error:
            if self.is_functional or other.is_functional:
                raise ShapeError(f"{where}: the functions must live on one domain. {error}") from None
            return self, other
        except AttributeError:  # a mode that cannot join others
            return self, other
        return self._on_modes(modes), other._on_modes(modes)

    def _on_modes(self, modes: Sequence[Any]) -> Self:
        """The same function in modes from ``common``."""
        owned: Sequence[Any] = self.modes
        factors = [
            mode.embed(target, factor)
            for mode, target, factor in zip(owned, modes, self.factors, strict=True)
        ]
        return self._rebuilt(self._cores, factors, modes)

    def _metric(self) -> Self:
        """Arrays whose plain norm is the norm of the function, in float32 for half precision."""
        wide = self._wide()
        xp = wide._xp
        factors = []
        for mode, factor in zip(wide.modes, wide.factors, strict=True):
            if mode.domain is None:
                factors.append(factor)
            elif not hasattr(mode, "gram_root"):
                raise TypeError(f"norm: a continuous mode must offer `gram_root`; got {mode!r}.")
            else:
                factors.append(xp.matmul(_real_as(mode.gram_root, factor, xp), factor))
        return wide._rebuilt(wide._cores, factors)

    def _pairs(self, other: Self, where: str) -> list[tuple[Any, Any]]:
        """Arrays of two formats of the same modes, in one dtype, side by side."""
        if self.modes != other.modes or self.batch_shape != other.batch_shape:
            raise ShapeError(
                f"{where}: both tensors must have the same modes and batch; got {self.modes} and "
                f"{other.modes}, shapes {self.shape} and {other.shape}, batches {self.batch_shape} and "
                f"{other.batch_shape}."
            )
        arrays = promote(*self._arrays().values(), *other._arrays().values(), where=where)
        half = len(arrays) // 2
        return list(zip(arrays[:half], arrays[half:], strict=True))

    # --- arithmetic ---------------------------------------------------------------------------------------

    @in_single
    def __add__(self, other: Any) -> Self:
        other = _read(other)
        if not isinstance(other, Arithmetic):
            number = finite_scalar(other) if self.is_functional else None
            if number is None:
                return NotImplemented
            check_library(number, self._like)
            other = constant_format(self, number)
        left, right = self._alike(other)
        left, right = left._aligned(right, "+")
        pairs = left._pairs(right, "+")
        xp = self._xp
        cores, factors = pairs[: -len(left.modes)], pairs[-len(left.modes) :]
        joined = tuple(xp.concat(pair, axis=-1) for pair in factors)
        return left._rebuilt(left._join(*zip(*cores, strict=True), xp), joined, left.modes)

    @abstractmethod
    def _join(self, left: Sequence[Any], right: Sequence[Any], xp: Any) -> Sequence[Any]:
        """The cores of a sum, from those of the two terms."""

    def __mul__(self, other: Any) -> Self:
        other = _read(other)
        if isinstance(other, Arithmetic):
            return self._by_cross(np.multiply, other) if self.is_functional else self._hadamard(other)
        number = finite_scalar(other)
        return NotImplemented if number is None else self._scaled(number)

    __rmul__ = __mul__

    @in_single
    def _hadamard(self, other: Any) -> Self:
        """Entry by entry: Kronecker products of the cores, and of the rows of the factors."""
        xp = self._xp
        first, second = self._alike(other)
        pairs = first._pairs(second, "*")
        lead = len(self.batch_shape)
        cores = [_kronecker(left, right, lead, xp) for left, right in pairs[: -len(self.modes)]]
        rows = [_kronecker(left, right, lead + 1, xp) for left, right in pairs[-len(self.modes) :]]
        return first._rebuilt(cores, rows, self.modes)

    @in_single
    def _scaled(self, scalar: Any) -> Self:
        first, *rest = self._cores
        check_library(scalar, first)
        if isinstance(scalar, complex) and not is_complex(first):
            xp = namespace_of(first)
            first = astype(first, xp.complex64 if dtype_name(self.dtype) == "float32" else xp.complex128, xp)
        return self._rebuilt((first * scalar, *rest), self.factors, self.modes)

    __radd__ = __add__

    def __truediv__(self, scalar: Any) -> Self:
        if isinstance(scalar, Arithmetic) and self.is_functional:
            return self._by_cross(np.true_divide, scalar)
        number = finite_scalar(scalar)
        return NotImplemented if number is None else self._scaled(1 / number)

    def __neg__(self) -> Self:
        return self._scaled(-1.0)

    def __sub__(self, other: Any) -> Self:
        other = _read(other)
        if isinstance(other, Arithmetic):
            return self + (-other)
        number = finite_scalar(other) if self.is_functional else None
        return NotImplemented if number is None else self + (-number)

    def __rsub__(self, other: Any) -> Self:
        other = _read(other)
        known = isinstance(other, Arithmetic) or (self.is_functional and finite_scalar(other) is not None)
        return (-self) + other if known else NotImplemented

    def __rtruediv__(self, other: Any) -> Self:
        return self._by_cross(lambda values: other / values) if self._takes(other) else NotImplemented

    def __pow__(self, other: Any) -> Self:
        return self._by_cross(lambda values: values**other) if self._takes(other) else NotImplemented

    def __rpow__(self, other: Any) -> Self:
        return self._by_cross(lambda values: other**values) if self._takes(other) else NotImplemented

    def _takes(self, other: Any) -> bool:
        return self.is_functional and isinstance(finite_scalar(other), (int, float))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Answer numpy's functions: operators here, others of continuous formats by a new construction."""
        if ufunc in (np.equal, np.not_equal):  # formats are compared by identity, as without numpy
            return ufunc is np.not_equal
        if method != "__call__" or kwargs or ufunc.nout != 1 or ufunc in _COMPARISONS:
            return NotImplemented
        read = [_read(x) for x in inputs]
        known = [x if isinstance(x, Arithmetic) else finite_scalar(x) for x in read]
        if any(x is None for x in known):
            return NotImplemented
        if ufunc in _OPERATORS:
            return _OPERATORS[ufunc](*known)
        if not self.is_functional:
            name = ufunc.__name__
            raise TypeError(
                f"numpy.{name}: a {type(self).__name__} with discrete modes has no {name} in its format. "
                f"Write "
                f"numpy.{name}(t.to_tensor())."
            )
        places = [n for n, x in enumerate(known) if isinstance(x, Arithmetic)]

        def function(*values: Any) -> Any:
            full = list(known)
            for n, value in zip(places, values, strict=True):
                full[n] = value
            return ufunc(*full)

        first, *others = (known[n] for n in places)
        return first._by_cross(function, *others)

    def _by_cross(self, function: Any, *others: Any) -> Any:
        """A function of values of formats as a new format; the room that constructs functions does it."""
        import tenfac  # the public name: core knows no room above it

        formats: tuple[Any, ...] = (self, *others)
        return tenfac.compose(function, *formats)


def _read(other: Any) -> Any:
    """The other operand: what stands for a format as a format, anything else as it is."""
    from tenfac.core.interchange import as_format

    return other if isinstance(other, Arithmetic) else as_format(other)


def _real_as(build: Callable[[Any], Any], factor: Any, xp: Any) -> Any:
    """A real matrix of a mode, in the dtype of a factor that may be complex."""
    if not is_complex(factor):
        return build(factor)
    return astype(build(xp.real(factor)), factor.dtype, xp)


def _weighted(mode: Any, left: Any, right: Any, xp: Any) -> tuple[Any, Any]:
    """Factors whose plain products are the inner products of the functions."""
    if mode.domain is None:
        return left, right
    if not hasattr(mode, "gram"):
        raise TypeError(f"inner: a continuous mode must offer `gram`; got {mode!r}.")
    gram = _real_as(mode.gram, left, xp)
    return (left if gram is None else xp.matmul(gram, left)), right


def _kronecker(a: Any, b: Any, lead: int, xp: Any) -> Any:
    """Kronecker product over the axes after the first ``lead``, which are shared."""
    shared, p, q = a.shape[:lead], a.shape[lead:], b.shape[lead:]
    a = xp.reshape(a, (*shared, *(size for r in p for size in (r, 1))))
    b = xp.reshape(b, (*shared, *(size for s in q for size in (1, s))))
    return xp.reshape(a * b, (*shared, *(r * s for r, s in zip(p, q, strict=True))))


def unit_scale(arrays: Sequence[Any], batch: tuple[int, ...], xp: Any) -> tuple[list[Any], Any]:
    """Arrays divided by their largest magnitudes, and the root of the product of those, per tensor."""
    lead = len(batch)
    scaled, root = [], None
    for array in arrays:
        axes = tuple(range(lead, array.ndim))
        largest = xp.max(xp.abs(constant(array)), axis=axes, keepdims=True) if 0 not in array.shape else None
        if largest is None:
            scaled.append(array)
            continue
        largest = xp.where(largest > 0, largest, xp.ones_like(largest))
        scaled.append(array / largest)
        part = xp.sqrt(xp.reshape(largest, array.shape[:lead]))
        root = part if root is None else root * part
    return scaled, xp.ones(batch, dtype=xp.abs(arrays[0]).dtype) if root is None else root


def check_library(scalar: Any, array: Any) -> None:
    """Refuse a scalar of ``scalar_of`` that is an array of another library than ``array``.

    Raises
    ------
    TypeError
        If it is.

    Examples
    --------
    >>> check_library(2.0, np.ones(3))
    """
    if hasattr(scalar, "dtype") and library_name(scalar) != library_name(array):
        namespace_of(array, scalar)


def finite_scalar(value: Any) -> Any:
    """Read a number as ``scalar_of`` does, for arithmetic, where NaN or an infinity would spoil all there is.

    Raises
    ------
    DataError
        If a number of Python or numpy is not finite.

    Examples
    --------
    >>> finite_scalar(2)
    2
    >>> finite_scalar(float("nan"))
    Traceback (most recent call last):
    tenfac.core.errors.DataError: +, -, *, /, **: a number must be finite and no larger than floats; got nan.
    """
    number = scalar_of(value)
    if isinstance(number, (int, float, complex)) and not _is_finite(number):
        shown = f"an integer of {number.bit_length()} bits" if isinstance(number, int) else number
        raise DataError(f"+, -, *, /, **: a number must be finite and no larger than floats; got {shown}.")
    return number


def _is_finite(number: complex) -> bool:
    try:
        return cmath.isfinite(number)
    except OverflowError:  # an integer beyond the range of floats
        return False


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
