"""The Chebyshev mode: an index is a point of an interval, a factor holds Chebyshev coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any, NoReturn

import numpy as np

from tenfac.core.arrays import device_of, namespace_of, points_like, to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.precision import astype
from tenfac.core.tracing import is_traced

# Points outside by this share of the larger end count as the ends: rounding of the caller's arithmetic, in
# coarser dtypes so many times theirs.
_SLACK = 1e-13
_ROUNDINGS = 8
_REMEDY = "Build the function on a larger domain: polynomials do not extrapolate."


@dataclass(frozen=True)
class Chebyshev:
    """An index that runs over an interval; the factor holds coefficients of ``T_0, ..., T_{K-1}`` on it.

    Parameters
    ----------
    size : int
        Number of coefficients K (degree + 1), 1 or more.
    domain : tuple of float
        The interval ``(a, b)``, ``a < b``.

    Raises
    ------
    ShapeError
        If ``size`` is not such an integer.
    DataError
        If ``domain`` is not two finite numbers in order.

    Examples
    --------
    >>> import numpy as np
    >>> mode = Chebyshev(3, (0.0, 2.0))
    >>> mode.rows(np.eye(3), [0.0, 1.0, 2.0])
    array([[ 1., -1.,  1.],
           [ 1.,  0., -1.],
           [ 1.,  1.,  1.]])
    """

    size: int
    domain: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not hasattr(self.size, "__index__") or self.size.__index__() < 1:
            raise ShapeError(f"Chebyshev: `size` must be an integer of 1 or more; got {self.size!r}.")
        object.__setattr__(self, "size", self.size.__index__())
        object.__setattr__(self, "domain", check_interval(self.domain, "Chebyshev"))

    # --- values -----------------------------------------------------------------------------------------

    def factor(self, values: Any) -> Any:
        """The factor of the polynomials with given values at ``nodes``, ``(*b, size, R)`` as the values."""
        xp = namespace_of(values)
        if isinstance(values, np.ndarray):
            return np.moveaxis(coefficients(np.moveaxis(values, -2, 0)), 0, -2)
        return xp.matmul(_as(coefficients(np.eye(self.size)), values), values)

    def rows(self, factor: Any, x: Any, *, derivative: int = 0, xp: Any = None) -> Any:
        """Evaluate the functions of a factor, or a derivative of them, at points.

        Parameters
        ----------
        factor : array, shape (*b, size, R)
        x : float, sequence or array, shape (N,)
            Points of the domain.
        derivative : int
            Order of the derivative.
        xp : module, optional
            Array namespace of ``factor``; found if not given.

        Returns
        -------
        array, shape (*b, N, R)
            ``(*b, R)`` for a single point.

        Raises
        ------
        DataError
            If a point is outside the domain or not finite.

        Notes
        -----
        Three-term recurrence and one matrix product: ``2 N K R`` operations.
        """
        xp = namespace_of(factor) if xp is None else xp
        mode: Chebyshev = self
        for _ in range(derivative):
            mode, factor = mode.diff(factor)
        points = points_like(x, factor, "Chebyshev.rows")
        flat = mode.points(xp.reshape(points, (-1,)), factor, xp)
        result = xp.matmul(mode.basis(flat, xp), factor)
        return result[..., 0, :] if points.ndim == 0 else result

    def points(self, x: Any, factor: Any, xp: Any) -> Any:
        """Points in the dtype of a factor, checked to lie in the domain; NaN outside where traced."""
        return inside(astype(x, factor.dtype, xp), self.domain, "Chebyshev", _REMEDY, xp)

    def basis(self, x: Any, xp: Any) -> Any:
        """``T_k(x)`` at points ``(N,)``, shape (N, size)."""
        return xp.matrix_transpose(self.values(x, xp))

    def values(self, x: Any, xp: Any, out: Any = None) -> Any:
        """``T_k(x)``, shape (size, N), by the three-term recurrence; numpy writes in place."""
        a, b = self.domain
        if isinstance(x, np.ndarray):
            t = (x - a) * (2 / (b - a))
            t -= 1
            np.clip(t, -1, 1, out=t)
            return _recurrence(t, np.empty((self.size, t.size), t.dtype) if out is None else out)
        t = xp.clip((x - a) * (2 / (b - a)) - 1, -1.0, 1.0)
        columns, twice = [xp.ones_like(t), t], 2 * t
        for _ in range(2, self.size):
            columns.append(twice * columns[-1] - columns[-2])
        return xp.stack(columns[: self.size], axis=0)

    # --- calculus ---------------------------------------------------------------------------------------

    def gram(self, like: Any) -> Any:
        """``integral T_j T_k dx``, shape (size, size), in the library and dtype of ``like``."""
        return _as(_gram(self.size) * self._half, like)

    def gram_root(self, like: Any) -> Any:
        """An upper triangle ``R`` with ``R.T R = gram``: ``R @ factor`` has the L2 norm of the functions."""
        return _as(_gram_root(self.size) * math.sqrt(self._half), like)

    def constant(self, like: Any) -> Any:
        """Factor of the function 1, shape (size, 1)."""
        return _as(np.eye(self.size, 1), like)

    def integral(self, like: Any) -> Any:
        """``integral T_k dx``, shape (size,), in the library and dtype of ``like``."""
        found = np.zeros(self.size)
        found[::2] = 2.0 / (1.0 - np.arange(0, self.size, 2) ** 2.0)
        return _as(found * self._half, like)

    def diff(self, factor: Any) -> tuple[Chebyshev, Any]:
        """The mode and factor of the derivative: one coefficient less."""
        xp = namespace_of(factor)
        mode = Chebyshev(max(self.size - 1, 1), self.domain)
        return mode, xp.matmul(_as(_derivative(self.size) / self._half, factor), factor)

    def antiderivative(self, factor: Any) -> tuple[Chebyshev, Any]:
        """The mode and factor of the integral from the left end: one coefficient more."""
        xp = namespace_of(factor)
        mode = Chebyshev(self.size + 1, self.domain)
        return mode, xp.matmul(_as(_antiderivative(self.size) * self._half, factor), factor)

    def restrict(self, factor: Any, domain: tuple[float, float]) -> tuple[Chebyshev, Any]:
        """The mode and factor of the same functions on an interval inside the domain."""
        xp = namespace_of(factor)
        (a, b), (low, high) = self.domain, check_interval(domain, "restrict")
        if low < a or high > b:
            raise DataError(
                f"restrict: the interval must lie in the domain [{a:g}, {b:g}]; got [{low:g}, {high:g}]. "
                "Polynomials do not extrapolate: build the function on a larger domain."
            )
        mode = Chebyshev(self.size, (low, high))
        values = self.rows(factor, _as(mode.nodes(), factor), xp=xp)
        return mode, mode.factor(values)

    @property
    def degree(self) -> int:
        """Degree of the polynomials, ``size - 1``."""
        return self.size - 1

    @property
    def _half(self) -> float:
        return (self.domain[1] - self.domain[0]) / 2

    # --- nodes, other modes, files ----------------------------------------------------------------------

    def nodes(self) -> np.ndarray:
        """Chebyshev-Lobatto points of the domain, ascending, ``(size,)``; the middle if there is one."""
        a, b = self.domain
        return np.clip((a + b) / 2 + self._half * lobatto(self.size), a, b)

    def common(self, other: Any) -> Chebyshev:
        """The mode that holds the functions of both; ShapeError if they live on different intervals."""
        if not isinstance(other, Chebyshev) or other.domain != self.domain:
            raise ShapeError(
                f"Chebyshev: modes of one domain can be joined; got {self} and {other}. Restrict the larger "
                f"one."
            )
        return Chebyshev(max(self.size, other.size), self.domain)

    def embed(self, target: Chebyshev, factor: Any) -> Any:
        """The same functions as a factor of a longer mode: zeros added."""
        if target.size == self.size:
            return factor
        xp, (*batch, size, rank) = namespace_of(factor), factor.shape
        zeros = xp.zeros((*batch, target.size - size, rank), dtype=factor.dtype, device=device_of(factor))
        return xp.concat([factor, zeros], axis=-2)

    def spec(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Describe the mode by a JSON-able dict and named arrays."""
        return {"type": "Chebyshev", "size": self.size, "domain": list(self.domain)}, {}

    @classmethod
    def from_spec(cls, header: dict[str, Any], arrays: dict[str, Any]) -> Chebyshev:  # noqa: ARG003 - protocol
        """Build the mode that ``spec`` described."""
        return cls(header["size"], tuple(header["domain"]))


def lobatto(size: int) -> np.ndarray:
    """Chebyshev-Lobatto points of [-1, 1], ascending and exactly symmetric.

    Examples
    --------
    >>> lobatto(3)
    array([-1.,  0.,  1.])
    """
    if size == 1:
        return np.zeros(1)
    return np.sin(np.pi * np.arange(1 - size, size, 2) / (2 * (size - 1)))


def coefficients(values: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients of the polynomial through values at Lobatto points; both on the first axis.

    Examples
    --------
    >>> import numpy as np
    >>> coefficients(np.array([1.0, 0.0, 1.0]))  # x^2 = (T_0 + T_2) / 2
    array([0.5, 0. , 0.5])
    """
    import scipy.fft

    n = values.shape[0]
    if n == 1:
        return np.array(values)
    found = scipy.fft.dct(values[::-1], type=1, axis=0) / (n - 1)
    found[0] /= 2
    found[-1] /= 2
    return found


def inside(x: Any, domain: tuple[float, float], where: str, remedy: str, xp: Any) -> Any:
    """Points ``(N,)``, checked to lie in an interval up to rounding; NaN outside where traced.

    Raises
    ------
    DataError
        If one is outside or not finite.

    Examples
    --------
    >>> inside(np.array([0.5, 2.0]), (0.0, 2.0), "Chebyshev", "", np)
    array([0.5, 2. ])
    """
    a, b = domain
    slack = max(_SLACK, _ROUNDINGS * float(xp.finfo(x.dtype).eps)) * max(abs(a), abs(b))
    if is_traced(x):
        return xp.where((x >= a - slack) & (x <= b + slack), x, xp.full_like(x, math.nan))
    if 0 not in x.shape and not (bool(xp.min(x) >= a - slack) and bool(xp.max(x) <= b + slack)):
        _refuse(to_numpy(x), domain, slack, where, remedy)
    return x


def _refuse(
    values: np.ndarray, domain: tuple[float, float], slack: float, where: str, remedy: str
) -> NoReturn:
    a, b = domain
    place = int(np.flatnonzero(~((values >= a - slack) & (values <= b + slack)))[0])
    which = f" at position {place} of {values.size}" if values.size > 1 else ""
    raise DataError(
        f"{where}: a point must lie in the domain [{a:g}, {b:g}]; got {values[place]:g}{which}. {remedy}"
    )


def check_interval(domain: Any, where: str) -> tuple[float, float]:
    """Two finite numbers in order."""
    try:
        a, b = (float(end) if isinstance(end, Real) else math.nan for end in domain)
    except (TypeError, ValueError):
        a = b = math.nan
    if not (math.isfinite(a) and math.isfinite(b) and a < b):
        raise DataError(f"{where}: a domain must be two finite numbers (a, b) with a < b; got {domain!r}.")
    return a, b


def _as(values: np.ndarray, like: Any) -> Any:
    xp = namespace_of(like)
    return xp.asarray(values, dtype=like.dtype, device=getattr(like, "device", None))


def _recurrence(t: np.ndarray, out: np.ndarray) -> np.ndarray:
    out[0] = 1
    if len(out) > 1:
        out[1] = t
    twice = 2 * t
    for k in range(2, len(out)):
        np.multiply(twice, out[k - 1], out=out[k])
        out[k] -= out[k - 2]
    return out


@lru_cache(maxsize=64)
def _derivative(size: int) -> np.ndarray:
    """Coefficients of the derivative from those of the function, on [-1, 1]."""
    found = np.zeros((max(size - 1, 1), size))
    for k in range(1, size):
        found[k - 1 :: -2, k] = 2.0 * k
    found[0] /= 2
    return found


@lru_cache(maxsize=64)
def _antiderivative(size: int) -> np.ndarray:
    """Coefficients of the integral from -1, on [-1, 1]."""
    found = np.zeros((size + 1, size))
    for k in range(size):
        found[k + 1, k] = 1.0 if k == 0 else 1 / (2 * (k + 1))
        if k > 1:
            found[k - 1, k] = -1 / (2 * (k - 1))
    signs = (-1.0) ** np.arange(size + 1)
    found[0] -= signs @ found
    return found


@lru_cache(maxsize=64)
def _gram_root(size: int) -> np.ndarray:
    """Upper Cholesky factor of the Gram matrix on [-1, 1]."""
    return np.linalg.cholesky(_gram(size)).T


@lru_cache(maxsize=64)
def _gram(size: int) -> np.ndarray:
    """``integral of T_j T_k`` over [-1, 1]."""
    k = np.arange(size)
    total, gap = k[:, None] + k[None], k[:, None] - k[None]
    even = total % 2 == 0
    return np.where(
        even, 1 / (1 - np.where(even, total, 0.0) ** 2) + 1 / (1 - np.where(even, gap, 0.0) ** 2), 0.0
    )
