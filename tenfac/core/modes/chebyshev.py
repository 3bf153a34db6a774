"""The Chebyshev mode: an index is a point of an interval, a factor holds Chebyshev coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import scipy.fft

from ..arrays import namespace_of, points_like
from ..errors import DataError, ShapeError
from ..tracing import is_traced

# Points this share of the interval outside of it count as its ends: rounding of the caller's arithmetic.
_SLACK = 1e-13


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
        points = xp.astype(points, factor.dtype)
        if not is_traced(points):
            self._check_inside(points, xp)
        basis = mode.basis(xp.reshape(points, (-1,)), xp)
        result = xp.matmul(basis, factor)
        return result[..., 0, :] if points.ndim == 0 else result

    def basis(self, x: Any, xp: Any) -> Any:
        """``T_k(x)`` at points ``(N,)``, shape (N, size)."""
        a, b = self.domain
        t = xp.clip((x - a) * (2 / (b - a)) - 1, -1.0, 1.0)
        columns = [xp.ones_like(t), t]
        for _ in range(self.size - 2):
            columns.append(2 * t * columns[-1] - columns[-2])
        return xp.stack(columns[: self.size], axis=-1)

    def _check_inside(self, x: Any, xp: Any) -> None:
        if 0 in x.shape:
            return
        (a, b), low, high = self.domain, float(xp.min(x)), float(xp.max(x))
        slack = _slack(x, xp) * max(b - a, abs(a), abs(b))
        if not (low >= a - slack and high <= b + slack):
            wrong = low if not low >= a - slack else high
            raise DataError(
                f"Chebyshev: a point must lie in the domain [{a:g}, {b:g}]; got {wrong:g}. Build the function on "
                "a larger domain: polynomials do not extrapolate."
            )

    # --- calculus ---------------------------------------------------------------------------------------

    def gram(self, like: Any) -> Any:
        """``integral T_j T_k dx``, shape (size, size), in the library and dtype of ``like``."""
        return _as(_gram(self.size) * self._half, like)

    def integral(self, like: Any) -> Any:
        """``integral T_k dx``, shape (size,), in the library and dtype of ``like``."""
        k = np.arange(self.size)
        even = np.where(k % 2 == 0, 2.0 / (1.0 - (k - (k % 2)) ** 2.0), 0.0)
        return _as(even * self._half, like)

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
        mode = Chebyshev(self.size, check_interval(domain, "restrict"))
        values = self.rows(factor, _as(mode.nodes(), factor), xp=xp)
        return mode, xp.matmul(_as(coefficients(np.eye(self.size)), factor), values)

    @property
    def _half(self) -> float:
        return (self.domain[1] - self.domain[0]) / 2

    # --- nodes, other modes, files ----------------------------------------------------------------------

    def nodes(self) -> np.ndarray:
        """Chebyshev-Lobatto points of the domain, ascending, ``(size,)``; the middle if there is one."""
        a, b = self.domain
        return np.clip((a + b) / 2 + self._half * lobatto(self.size), a, b)

    def common(self, other: Any) -> Chebyshev:
        """The mode that holds the functions of both, or ValueError."""
        if not isinstance(other, Chebyshev) or other.domain != self.domain:
            raise ValueError(f"Chebyshev: modes of one domain can be joined; got {self} and {other}.")
        return Chebyshev(max(self.size, other.size), self.domain)

    def embed(self, target: Chebyshev, factor: Any) -> Any:
        """The same functions as a factor of a longer mode: zeros added."""
        xp = namespace_of(factor)
        missing = target.size - self.size
        if missing == 0:
            return factor
        shape = (*factor.shape[:-2], missing, factor.shape[-1])
        return xp.concat([factor, xp.zeros_like(xp.broadcast_to(factor[..., :1, :], shape))], axis=-2)

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
    n = values.shape[0]
    if n == 1:
        return np.array(values)
    found = scipy.fft.dct(values[::-1], type=1, axis=0) / (n - 1)
    found[0] /= 2
    found[-1] /= 2
    return found


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


def _slack(x: Any, xp: Any) -> float:
    return max(_SLACK, 8 * float(xp.finfo(x.dtype).eps))


@lru_cache(maxsize=64)
def _derivative(size: int) -> np.ndarray:
    """Coefficients of the derivative from those of the function, on [-1, 1]."""
    if size == 1:
        return np.zeros((1, 1))
    k = np.arange(size)
    found = np.where((k[None] > k[:-1, None]) & ((k[None] - k[:-1, None]) % 2 == 1), 2.0 * k[None], 0.0)
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
def _gram(size: int) -> np.ndarray:
    """``integral of T_j T_k`` over [-1, 1]."""
    k = np.arange(size)
    total, gap = k[:, None] + k[None], k[:, None] - k[None]
    even = total % 2 == 0
    return np.where(
        even, 1 / (1 - np.where(even, total, 0.0) ** 2) + 1 / (1 - np.where(even, gap, 0.0) ** 2), 0.0
    )
