"""The GP mode: an index is a point of an interval, a factor holds states of a Gaussian process at knots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, InitVar, asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import device_of, is_array, namespace_of, points_like, spans, to_numpy
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.modes.antiderivative import integrals_at, quadrature
from tenfac.core.modes.bend import Bend, seen_at
from tenfac.core.modes.bridge import Array, block_of, bridge, on_axis, segments, smoothing
from tenfac.core.modes.chebyshev import check_interval, inside
from tenfac.core.modes.kernels import describe, described, process_of
from tenfac.core.precision import astype, double_of, is_complex
from tenfac.core.tracing import is_traced

_REMEDY = "Give the mode a larger `domain`: beyond its knots the mean decays to the constant."
_CHANGE = "Change to polynomials: t.change_mode(n, Chebyshev)."
_ROUNDINGS = 4  # of the largest number of the domain: knots nearer than that are one
_UNSEEN = 1.0  # weight in rounding of a state that no function shows


@door
@dataclass(frozen=True)
class GP:
    """An index that runs over an interval; the factor holds means of a Gaussian process, given at knots.

    A mean function only: the kernel, its hyperparameters and the knots are fixed. Between knots the factor
    is the conditional mean of the process given its state there (value and derivatives), so that it equals
    the dense formula ``k(x, grid) K^-1 f``; beyond the knots it decays to a constant.

    Parameters
    ----------
    kernel : {"matern12", "matern32", "matern52"} or Process
        Or sums, products and multiples of processes (``tenfac.core.modes.kernels``).
    grid : sequence of float, length M
        Knots, ascending.
    lengthscale : float
        Of a kernel given by its name, in the unit of the index.
    domain : tuple of float, optional
        The interval ``(a, b)`` with all knots in it; from the first to the last if not given.
    derivative : int
        What is evaluated: the functions (0), a derivative, or their integral from ``a`` (-1); as ``diff``
        and ``antiderivative`` set it.
    bend : Bend, optional
        The axis on which the process is stationary, if not that of the index (``tenfac.core.modes.bend``).

    Raises
    ------
    DataError
        If the knots are not ascending finite numbers of the domain, or the kernel has no such derivative.

    Notes
    -----
    Rows of the factor: the states, knot by knot (``order`` each), for ``derivative=-1`` a slope, and last a
    constant. A kernel "matern32" has order 2, so ``2 M + 1`` rows.
    A value costs ``order^2`` operations and those of the kernel. ``diff``, ``antiderivative``, ``restrict``
    and ``embed`` are exact; integrals and inner products are sums of Gauss-Legendre panels between knots,
    refined until they have converged to rounding.
    Parts of a kernel that stand still (``Constant``, ``Linear``, ``Periodic``) have the same state at all
    knots, as ``factor`` makes it.

    References
    ----------
    .. [1] S. Särkkä and A. Solin, Applied Stochastic Differential Equations, Cambridge University Press
       (2019), chapter 12 (Gaussian processes as stochastic differential equations).
       doi:10.1017/9781108186735

    Examples
    --------
    >>> import numpy as np
    >>> mode = GP("matern32", [0.0, 1.0, 3.0], lengthscale=2.0)
    >>> mode
    GP(StateSpace(kernel='matern32', lengthscale=2.0), 3 knots in [0, 3])
    >>> mode.rows(mode.factor(np.array([1.0, -1.0, 2.0])), [1.0, 2.0]).round(4) + 0.0
    array([[-1.    ],
           [ 0.0993]])
    """

    kernel: Any
    grid: tuple[float, ...]
    _: KW_ONLY
    lengthscale: InitVar[Any] = None
    domain: tuple[float, float] = cast(Any, None)  # from the first knot to the last
    derivative: int = 0
    bend: Bend | None = None

    if TYPE_CHECKING:  # what may be given is wider than what is kept: any sequence of knots

        def __init__(
            self,
            kernel: Any,
            grid: Sequence[float] | NDArray[Any],
            *,
            lengthscale: Any = None,
            domain: tuple[float, float] | None = None,
            derivative: int = 0,
            bend: Bend | None = None,
        ) -> None: ...

    def __post_init__(self, lengthscale: Any) -> None:
        object.__setattr__(self, "kernel", process_of(self.kernel, lengthscale, "GP"))
        object.__setattr__(self, "grid", _knots(self.grid))
        if self.domain is None and self.n_knots == 1:
            raise DataError("GP: `domain` must be given with a single knot; got none.")
        ends = (self.grid[0], self.grid[-1]) if self.domain is None else self.domain
        object.__setattr__(self, "domain", check_interval(ends, "GP"))
        if not (self.domain[0] <= self.grid[0] and self.grid[-1] <= self.domain[1]):
            raise DataError(
                f"GP: all knots must lie in `domain`; got knots from {self.grid[0]:g} to {self.grid[-1]:g} "
                f"and the domain [{self.domain[0]:g}, {self.domain[1]:g}]. Leave `domain` out, or widen it."
            )
        number = self.derivative
        if isinstance(number, bool) or not hasattr(number, "__index__") or number.__index__() < -1:
            raise DataError(f"GP: `derivative` must be an integer of -1 or more; got {number!r}.")
        object.__setattr__(self, "derivative", number.__index__())
        if not isinstance(self.bend, Bend | None):
            raise DataError(
                f"GP: `bend` must be a Bend of tenfac.core.modes.bend, or None; got {self.bend!r}."
            )
        self._check_derivative(self.derivative)

    def __repr__(self) -> str:
        a, b = self.domain
        count = f"{self.n_knots} knot" + "s" * (self.n_knots > 1)
        what = "" if not self.derivative else f", derivative={self.derivative}"
        bent = "" if self.bend is None else ", bent axis"
        return f"GP({self.kernel!r}, {count} in [{a:g}, {b:g}]{what}{bent})"

    def _check_derivative(self, order: int) -> None:
        if order > self._smoothness:
            raise DataError(
                f"GP: derivatives up to {self._smoothness:g} exist for the kernel {self.kernel!r}; "
                f"asked for {order}. Take a smoother kernel, or change to polynomials: "
                "t.change_mode(n, Chebyshev)."
            )

    @property
    def size(self) -> int:
        """Rows of the factor: a state for each knot, and a constant (and a slope, of an integral)."""
        return self.kernel.order * self.n_knots + (2 if self._is_integral else 1)

    @property
    def _places(self) -> tuple[float, ...]:
        """The knots on the axis of the process."""
        return on_axis(self.grid, self.bend)

    @property
    def n_knots(self) -> int:
        """Number of knots M."""
        return len(self.grid)

    @property
    def _is_integral(self) -> bool:
        return self.derivative < 0

    @property
    def is_smooth(self) -> bool:
        """Whether the functions have a derivative."""
        return self.derivative + 1 <= self._smoothness

    @property
    def _smoothness(self) -> float:
        return self.kernel.smoothness if self.bend is None else min(self.kernel.smoothness, 2)

    # --- values -------------------------------------------------------------------------------------------

    def factor(self, values: Any, *, level: Any = 0.0) -> Any:
        """The factor of the functions with given values at the knots.

        Parameters
        ----------
        values : array, shape (*b, M, R) or (M,)
        level : float or array, shape (R,)
            The constant to which they decay beyond the knots: the mean of the process.

        Returns
        -------
        array, shape (*b, size, R)
            R = 1 for one function.

        Raises
        ------
        ShapeError, DataError
            If there is not one value per knot, or the process cannot take any values at its knots.

        Notes
        -----
        Noise-free smoothing: the conditional mean of all states. ``order M^2`` operations a column.

        Examples
        --------
        >>> import numpy as np
        >>> GP("matern12", [0.0, 1.0], lengthscale=1.0).factor(np.array([3.0, 5.0])).ravel()
        array([3., 5., 0.])
        """
        if self.derivative:
            raise ShapeError(f"GP.factor: values are those of the functions; got {self!r}. Write mode.diff.")
        values = values if is_array(values) else np.asarray(values, dtype=float)
        xp = namespace_of(values)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim < 2 or values.shape[-2] != self.n_knots:
            raise ShapeError(
                f"GP.factor: `values` must have shape ({self.n_knots}, R), one row per knot; got "
                f"{tuple(values.shape)}."
            )
        values = values if xp.isdtype(values.dtype, ("real floating", "complex floating")) else _wide(values)
        level = xp.zeros_like(values[..., :1, :]) + xp.asarray(level, dtype=values.dtype)
        states = xp.matmul(_as(smoothing(self.kernel, self._places), values), values - level)
        return xp.concat([states, level], axis=-2)

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
            If a point is outside the domain or not finite, or the kernel has no such derivative.

        Notes
        -----
        The weights of the two neighbouring knots are found in double precision: ``order^2`` operations for
        the kernel and ``4 order R`` for the functions.
        """
        xp = namespace_of(factor) if xp is None else xp
        mode: GP = self
        for _ in range(derivative):
            mode, factor = mode.diff(factor)
        points = points_like(x, factor, "GP.rows")
        flat = mode.points(xp.reshape(points, (-1,)), factor, xp)
        parts = [mode._rows(factor, flat[span], xp) for span in spans(flat.shape[0], block_of(self.kernel))]
        result = parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)
        return result[..., 0, :] if points.ndim == 0 else result

    def points(self, x: Any, factor: Any, xp: Any) -> Any:
        """Points, checked in the precision of a factor to lie in the domain, in double; NaN where traced."""
        real = xp.real(factor).dtype if is_complex(factor) else factor.dtype
        x = inside(astype(x, real, xp), self.domain, "GP", _REMEDY, xp)
        a, b = self.domain
        return xp.clip(astype(x, double_of(xp), xp), a, b)

    def _rows(self, factor: Any, x: Any, xp: Any) -> Any:
        if self._is_integral:
            return integrals_at(self, factor, x, xp)
        along, seen = seen_at(self.kernel, self.bend, x, self.derivative, xp)
        place, left, right = bridge(self.kernel, self._places, along, seen[:, None, :], xp)
        weights = astype(xp.concat([left, right], axis=-1), factor.dtype, xp)
        order, last, axis = self.kernel.order, self.n_knots - 1, factor.ndim - 2
        knots = xp.stack([xp.clip(place - 1, 0, last), xp.clip(place, 0, last)], axis=-1)
        within = xp.arange(order, dtype=knots.dtype, device=device_of(factor))
        index = xp.reshape(knots[:, :, None] * order + within, (-1,))
        states = xp.take(factor, index, axis=axis)
        states = xp.reshape(states, (*factor.shape[:-2], x.shape[0], 2 * order, factor.shape[-1]))
        return xp.matmul(weights, states)[..., 0, :] + factor[..., -1:, :]

    # --- calculus -----------------------------------------------------------------------------------------

    def gram(self, like: Any) -> Any:
        """``integral b_j b_k dx`` of the functions of unit factors, shape (size, size)."""
        root = _gram_root(self)
        return _as(root.T @ root, like)

    def gram_root(self, like: Any) -> Any:
        """An upper triangle ``R`` with ``R.T R = gram``: ``R @ factor`` has the L2 norm of the functions."""
        return _as(_gram_root(self), like)

    def metric(self, like: Any) -> Any:
        """Root mean squares of the functions of unit factors, shape (size,): ``round`` weighs rows by them.

        The states have units of their own, and derivatives say little where knots are close.
        """
        a, b = self.domain
        squares = np.sum(_gram_root(self) ** 2, axis=0) / (b - a)
        return _as(np.sqrt(np.where(squares > 0, squares, _UNSEEN)), like)

    def constant(self, like: Any) -> Any:
        """Factor of the function 1, shape (size, 1)."""
        return _as(np.eye(self.size, 1, 1 - self.size), like)

    def integral(self, like: Any) -> Any:
        """``integral b_k dx`` over the domain, shape (size,), in the library and dtype of ``like``."""
        return _as(_integral(self), like)

    def diff(self, factor: Any) -> tuple[GP, Any]:
        """The mode and factor of the derivative: the same states; DataError if the kernel has none."""
        xp, mode = namespace_of(factor), replace(self, derivative=self.derivative + 1, lengthscale=None)
        if self._is_integral:
            return mode, factor[..., :-1, :]
        return mode, xp.concat([factor[..., :-1, :], xp.zeros_like(factor[..., :1, :])], axis=-2)

    def antiderivative(self, factor: Any) -> tuple[GP, Any]:
        """The mode and factor of the integral from the left end, exactly; DataError if it is one already."""
        xp, last = namespace_of(factor), factor[..., -1:, :]
        if self._is_integral:
            raise DataError(f"GP: integrals of integrals leave the mode; got {self!r}. {_CHANGE}")
        if self.derivative == 0:
            mode = replace(self, derivative=-1, lengthscale=None)
            return mode, xp.concat([factor, xp.zeros_like(last)], axis=-2)
        if not _is_zero(last, xp):
            raise DataError(
                "GP: the integral of a derivative plus a constant is no function of the kernel; got "
                f"{self!r} with a constant. {_CHANGE}"
            )
        mode = replace(self, derivative=self.derivative - 1, lengthscale=None)
        start = mode.rows(factor, _as(np.array(self.domain[:1]), xp.real(factor)), xp=xp)
        return mode, xp.concat([factor[..., :-1, :], last - start], axis=-2)

    def restrict(self, factor: Any, domain: tuple[float, float]) -> tuple[GP, Any]:
        """The mode and factor of the same functions on an interval inside: its ends become knots."""
        (a, b), (low, high) = self.domain, check_interval(domain, "restrict")
        if low < a or high > b:
            raise DataError(
                f"restrict: the interval must lie in the domain [{a:g}, {b:g}]; got [{low:g}, {high:g}]. "
                f"{_REMEDY}"
            )
        grid = (low, *(x for x in self.grid if low < x < high), high)
        mode = replace(self, grid=grid, domain=(low, high), lengthscale=None)
        xp = namespace_of(factor)
        found = xp.matmul(_as(_states(self, grid), factor), factor[..., : self._rows_of_states, :])
        rest = factor[..., self._rows_of_states :, :]
        if self._is_integral:
            start = self.rows(factor, _as(np.array([low]), xp.real(factor)), xp=xp)
            rest = xp.concat([rest[..., :1, :], start], axis=-2)
        return mode, xp.concat([found, rest], axis=-2)

    @property
    def _rows_of_states(self) -> int:
        return self.kernel.order * self.n_knots

    # --- nodes, other modes, files ------------------------------------------------------------------------

    def nodes(self) -> np.ndarray:
        """The knots, ascending, ``(M,)``."""
        return np.array(self.grid)

    def common(self, other: Any) -> GP:
        """The mode of all knots of both; ShapeError if kernel, domain or derivative differ."""
        same = isinstance(other, GP) and self._what == other._what
        if not same:
            raise ShapeError(
                f"GP: modes of one kernel and domain can be joined; got {self} and {other}. {_CHANGE}"
            )
        grid = np.union1d(self.grid, other.grid)
        apart = _ROUNDINGS * np.finfo(float).eps * max(map(abs, self.domain))
        grid = grid[np.append(True, np.diff(grid) > apart)]
        return replace(self, grid=tuple(grid.tolist()), lengthscale=None)

    @property
    def _what(self) -> tuple[Any, ...]:
        return self.kernel, self.domain, self.derivative, self.bend

    def embed(self, target: GP, factor: Any) -> Any:
        """The same functions as a factor of a mode with more knots: means of the states there."""
        if target.grid == self.grid:
            return factor
        xp, count = namespace_of(factor), self._rows_of_states
        states = xp.matmul(_as(_states(self, target.grid), factor), factor[..., :count, :])
        return xp.concat([states, factor[..., count:, :]], axis=-2)

    def spec(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Describe the mode by a JSON-able dict and named arrays."""
        header = {"kernel": describe(self.kernel), "domain": list(self.domain), "derivative": self.derivative}
        if self.bend is not None:
            header["bend"] = asdict(self.bend)
        return {"type": "GP", **header}, {"grid": self.nodes()}

    @classmethod
    def from_spec(cls, header: dict[str, Any], arrays: dict[str, Any]) -> GP:
        """Build the mode that ``spec`` described."""
        kernel, domain = described(header["kernel"]), tuple(header["domain"])
        bend = Bend(**header["bend"]) if "bend" in header else None
        grid = to_numpy(arrays["grid"])
        return cls(kernel, tuple(grid), domain=domain, derivative=header["derivative"], bend=bend)


def _knots(grid: Any) -> tuple[float, ...]:
    """Ascending finite numbers."""
    try:
        values = (
            to_numpy(grid)
            if is_array(grid)
            else np.asarray(list(grid) if isinstance(grid, Iterable) else grid, dtype=float)
        )
        values = values.astype(float)
    except (TypeError, ValueError):
        values = np.array([math.nan])
    if values.ndim != 1 or not values.size or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise DataError(
            f"GP: `grid` must be ascending finite numbers, one or more, each once; got {grid!r}. Write "
            "numpy.unique(grid)."
        )
    return tuple(values.tolist())


def _is_zero(array: Any, xp: Any) -> bool:
    return not is_traced(array) and not bool(xp.any(array != 0))


def _wide(values: Any) -> Any:
    xp = namespace_of(values)
    return xp.astype(values, double_of(xp))


def _as(values: np.ndarray, like: Any) -> Any:
    """A copy: what is kept for the next call is not given away."""
    xp = namespace_of(like)
    return xp.asarray(values, dtype=like.dtype, device=device_of(like), copy=True)


@lru_cache(maxsize=16)
def _states(mode: GP, grid: tuple[float, ...]) -> Array:
    """Mean states at other knots from those of a mode, ``(len(grid) order, M order)``."""
    order = mode.kernel.order
    unit = np.broadcast_to(np.eye(order), (len(grid), order, order))
    x = np.array(on_axis(grid, mode.bend))
    place, left, right = bridge(mode.kernel, mode._places, x, unit, np)
    found = np.zeros((x.size, order, mode.n_knots, order))
    number, last = np.arange(x.size), mode.n_knots - 1
    found[number, :, np.maximum(place - 1, 0)] += left
    found[number, :, np.minimum(place, last)] += right
    return found.reshape(x.size * order, -1)


@lru_cache(maxsize=16)
def _integral(mode: GP) -> Array:
    if mode._is_integral:
        weights, rows = quadrature(mode)
        return weights @ rows
    order, last = mode.kernel.order, mode.n_knots - 1
    found = np.zeros(mode.size)
    for one in segments(mode.kernel, mode.grid, mode.domain, mode.derivative, mode.bend):
        for knot, part in ((max(one.place - 1, 0), 0), (min(one.place, last), 1)):
            found[knot * order : (knot + 1) * order] += one.integral[part * order : (part + 1) * order]
        found[-1] += one.integral[-1]
    return found


@lru_cache(maxsize=16)
def _gram_root(mode: GP) -> Array:
    """Triangle of the inner products, by QR of the values at quadrature nodes, so nothing is squared."""
    if mode._is_integral:
        weights, rows = quadrature(mode)
        return np.asarray(np.linalg.qr(np.sqrt(weights)[:, None] * rows, mode="r"))
    order, count = mode.kernel.order, mode.n_knots
    width = 2 * order + 1
    found, carry = np.zeros((mode.size, mode.size)), np.zeros((0, order + 1))
    by_place: dict[int, list[Any]] = {}
    for one in segments(mode.kernel, mode.grid, mode.domain, mode.derivative, mode.bend):
        by_place.setdefault(min(max(one.place, 1), count), []).append(one)
    for place in range(1, count + 1):  # from knot place - 1 to the next; the constant goes with all
        blocks = [np.insert(carry, [order] * order, 0.0, axis=1)]
        blocks += [_turned(one, order) for one in by_place.get(place, [])]
        upper, triangle = np.zeros((width, width)), np.linalg.qr(np.concatenate(blocks), mode="r")
        upper[: len(triangle)] = triangle
        start = (place - 1) * order
        both = min(2 * order, (count - place + 1) * order)
        found[start : start + order, start : start + both] = upper[:order, :both]
        found[start : start + order, -1] = upper[:order, -1]
        carry = upper[order:, order:]
    found[-1, -1] = np.linalg.norm(carry[:, -1])
    return found


def _turned(one: Any, order: int) -> Array:
    """The root of a segment in columns of two knots and the constant; tails have one knot only."""
    if one.place == 0:  # its knot is on the right, but the first of the pair
        return np.concatenate([one.root[:, order : 2 * order], one.root[:, :order], one.root[:, -1:]], axis=1)
    return one.root
