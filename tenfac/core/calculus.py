"""What formats with continuous modes can do beyond algebra: grids, derivatives, integrals, parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Self

from tenfac.core.arithmetic import Arithmetic
from tenfac.core.arrays import byte_guard, points_like
from tenfac.core.change import Changes
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.modes.discrete import Discrete
from tenfac.core.ops import check_mode
from tenfac.core.points import values_and_gradients
from tenfac.core.precision import HALF, dtype_name, itemsize
from tenfac.core.tracing import is_traced

if TYPE_CHECKING:
    from tenfac.core.extrema import Extremum


class Calculus(Changes, Arithmetic):
    """Methods of formats whose indices may be continuous; ``Format`` supplies factors and modes.

    Examples
    --------
    >>> from tenfac import CP, Tucker
    >>> issubclass(CP, Calculus), issubclass(Tucker, Calculus)
    (True, True)
    """

    # --- values -------------------------------------------------------------------------------------------

    def on_grid(self, *axes: Any, max_bytes: int | None = None) -> Any:
        """Evaluate on a tensor grid.

        Parameters
        ----------
        *axes : sequence, array, number or None
            One per mode: coordinates or row numbers ``(N_n,)``. A number fixes the mode, and its axis is left
            out; None takes all rows of a discrete mode.
        max_bytes : int, optional
            Refuse a larger result.

        Returns
        -------
        array, shape (N_0, ..., N_{D-1}) (after the batch)

        Raises
        ------
        ShapeError, DataError
            If the number of axes is wrong, one is not 1-way, outside its mode, or None for a continuous mode.

        Notes
        -----
        One matrix product per mode, cheapest first: about ``2 R_n`` operations an entry.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
        >>> t.on_grid([-1.0, 0.5], [0.5, 1.0])
        array([[-0.5 , -1.  ],
               [ 0.25,  0.5 ]])
        """
        if len(axes) != self.ndim:
            raise ShapeError(
                f"on_grid: needs one axis per mode, {self.ndim}; got {len(axes)}. Give None for all rows of "
                f"a "
                "discrete mode."
            )
        wide = self._wide()
        factors, fixed = [], []
        for n, x in enumerate(axes):
            rows, is_number = wide._axis(x, n)
            factors.append(rows)
            fixed.append(is_number)
        shape = tuple(rows.shape[-2] for rows in factors)
        sizes = (*self.batch_shape, *shape)
        byte_guard(sizes, itemsize(wide.dtype), max_bytes, "on_grid", "Take a coarser grid, or a part of it.")
        xp = self._xp
        dense = wide._rebuilt(wide._cores, factors)._dense(xp)
        kept = [size for size, number in zip(shape, fixed, strict=True) if not number]
        dense = xp.reshape(dense, (*self.batch_shape, *kept))
        dense = dense if wide is self else xp.astype(dense, self.dtype)
        return dense if dense.ndim else dense[()]

    def _axis(self, x: Any, n: int, where: str = "on_grid") -> tuple[Any, bool]:
        """Rows of factor n at grid coordinates, and whether these were a single number."""
        mode, factor = self.modes[n], self.factors[n]
        if x is None:
            if mode.domain is not None:
                raise ShapeError(
                    f"on_grid: mode {n} is continuous, so its points must be given; got None. Give an array "
                    f"of "
                    f"points of {list(mode.domain)}."
                )
            return factor, False
        points = points_like(x, self._like, "on_grid")
        if points.ndim > 1:
            raise ShapeError(
                f"on_grid: an axis must be 1-way or a number; got shape {tuple(points.shape)} for mode {n}. "
                f"For "
                "points that are no grid write t.at(x, y, ...)."
            )
        xp = self._xp
        try:
            return mode.rows(factor, xp.reshape(points, (-1,)), xp=xp), points.ndim == 0
        except DataError as error:
            what = "axis" if where == "on_grid" else "value"
            raise DataError(f"{where}: the {what} of mode {n} is not in it. {error}") from None

    def value_and_grad(self, *indices: Any) -> tuple[Any, Any]:
        """Evaluate the function and its gradient together.

        Parameters
        ----------
        *indices : number, sequence or array
            As for ``at``: one per mode, broadcast against each other.

        Returns
        -------
        value : array, the broadcast shape (after the batch)
        gradient : array, the same shape and one axis more
            Derivatives by the continuous modes, in their order.

        Raises
        ------
        ShapeError, DataError
            As for ``at``, or if no mode is continuous.

        Notes
        -----
        The basis is evaluated once and the core enters twice: about twice the cost of ``at``. float32 for
        half precision.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
        >>> value, gradient = t.value_and_grad([0.5, 1.0], 0.25)
        >>> gradient
        array([[0.25, 0.5 ],
               [0.25, 1.  ]])
        """
        wanted = self._continuous("value_and_grad")
        wide = self._wide()
        xp = wide._xp
        points, shape = wide._points(indices)
        empty = any(0 in core.shape for core in wide._cores)
        if wide.batch_shape or empty or wide._is_traced or any(map(is_traced, points)):
            slopes = [wide.diff(n).at(*indices) for n in wanted]
            return wide.at(*indices), xp.stack(slopes, axis=-1)
        try:
            value, slope = values_and_gradients(wide, points, xp)
        except DataError:
            wide._name_mode(points, xp)
            raise
        value = xp.reshape(value, shape)
        return value if shape else value[()], xp.reshape(slope, (*shape, len(wanted)))

    def fix(self, values: Mapping[int, Any]) -> Any:
        """Fix indices: the function of the other modes.

        Parameters
        ----------
        values : dict of int to number
            A point or row number for every mode to fix.

        Returns
        -------
        Tucker, TuckerTrain, CP or scalar array
            Without these modes; a number if none is left.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
        >>> t.fix({1: 0.5}).at(0.5)
        np.float64(0.25)
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"fix: values must be a dict from mode to value; got {type(values).__name__}.")
        given = {check_mode(mode, self.ndim, "fix"): value for mode, value in values.items()}
        if len(given) < len(values):
            raise ShapeError(f"fix: every mode can be named once; got {list(values)}.")
        rows = {}
        for n, value in given.items():
            rows[n], is_number = self._axis(value, n, "fix")
            if not is_number:
                raise ShapeError(
                    f"fix: mode {n} needs one value; got {value!r}. For several write t.on_grid(...)."
                )
        return self._without(rows)

    # --- derivatives --------------------------------------------------------------------------------------

    def diff(self, mode: int, order: int = 1) -> Self:
        """Differentiate by a continuous mode.

        Parameters
        ----------
        mode : int
            Negative values count from the end.
        order : int
            1 or more.

        Returns
        -------
        Tucker, TuckerTrain or CP
            One coefficient less for every order; in a GP mode the same states.

        Raises
        ------
        TypeError
            If the mode is discrete.
        DataError
            If the kernel of a GP mode has no such derivative.

        Notes
        -----
        Exact for the polynomials, and means, that the format holds. What polynomials miss of the function
        grows by about the square of the degree with every order.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones(1), [np.eye(3)[:, 2:]], [Chebyshev(3)])  # T_2 = 2 x^2 - 1
        >>> t.diff(0).at(0.5), t.diff(0, order=2).at(0.5)
        (np.float64(2.0), np.float64(4.0))
        """
        n = check_mode(mode, self.ndim, "diff")
        if isinstance(order, bool) or not hasattr(order, "__index__") or order.__index__() < 1:
            raise ShapeError(f"diff: `order` must be an integer of 1 or more; got {order!r}.")
        made = self
        for _ in range(order.__index__()):
            made = made._changed({n: _asked(made.modes[n], "diff", n)(made.factors[n])})
        return made

    def grad(self) -> tuple[Self, ...]:
        """Derivatives by all continuous modes, in order; for their values ``value_and_grad`` is cheaper.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
        >>> [d.at(0.5, 0.25) for d in t.grad()]
        [np.float64(0.25), np.float64(0.5)]
        """
        return tuple(self.diff(n) for n in self._continuous("grad"))

    def laplacian(self) -> Self:
        """Sum of the second derivatives by all continuous modes; the ranks grow, so ``round`` it.

        Raises
        ------
        ShapeError
            If one of several modes is a GP: its derivatives are no functions of its kernel.

        Notes
        -----
        Ranks of Tucker and trains at most double (the functions of a mode and their second derivatives);
        those of CP are multiplied by the number of continuous modes. One mode keeps its rank.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> f = np.array([[0.5], [0.0], [0.5]])  # x^2
        >>> Tucker(np.ones((1, 1)), [f, f], [Chebyshev(3)] * 2).laplacian().at(0.5, 1.0)
        np.float64(2.5)
        """
        modes = self._continuous("laplacian")
        if len(modes) == 1:
            return self.diff(modes[0], order=2)
        for n in modes:
            mode: Any = self.modes[n]
            try:
                mode.common(self.diff(n, order=2).modes[n])
            except ShapeError:
                raise ShapeError(
                    "laplacian: derivatives by several modes are added, so each must be a function of its "
                    f"mode; that by mode {n}, {mode}, is none. Write t.change_mode({n}, Chebyshev) first."
                ) from None
        return self._laplacian(modes)

    def _laplacian(self, modes: Sequence[int]) -> Self:
        return reduce(lambda a, b: a + b, [self.diff(n, order=2) for n in modes])

    def cumsum(self, mode: int) -> Self:
        """Integrate from the left end of a continuous mode; cumulative sum over a discrete one.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones(1), [np.eye(2)[:, 1:]], [Chebyshev(2, (0, 1))])  # 2 x - 1
        >>> t.cumsum(0).at(0.5)
        np.float64(-0.25)
        """
        n = check_mode(mode, self.ndim, "cumsum")
        return self._changed({n: _asked(self.modes[n], "antiderivative", n)(self.factors[n])})

    # --- integrals ----------------------------------------------------------------------------------------

    def integrate(self, modes: int | Sequence[int] | None = None) -> Any:
        """Integrate over the domains of a mode, some modes, or all continuous ones.

        Parameters
        ----------
        modes : int or sequence of int, optional
            All continuous modes if not given.

        Returns
        -------
        Tucker, TuckerTrain, CP or scalar array
            Without these modes; a number if none is left.

        Raises
        ------
        TypeError
            If a mode is discrete; ``sum`` sums over it.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> f = np.array([[0.5], [0.0], [0.5]])  # x^2 on [-1, 1]
        >>> t = Tucker(np.ones((1, 1)), [f, f], [Chebyshev(3)] * 2)
        >>> float(round(t.integrate(), 12)), float(round(t.integrate(0).at(0.5), 12))
        (0.444444444444, 0.166666666667)
        """
        given = self._continuous("integrate") if modes is None else modes
        given = self._named(given, "integrate")
        xp = self._xp
        rows = {}
        for n in given:
            weights = _asked(self.modes[n], "integral", n)(self.factors[n])
            rows[n] = xp.matmul(weights[None, :], self.factors[n])
        return self._without(rows)

    def marginal(self, modes: int | Sequence[int]) -> Any:
        """Keep some modes: integrate over the other continuous modes, sum over the other discrete ones.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Discrete, Tucker
        >>> f = np.array([[0.5], [0.0], [0.5]])  # x^2 on [-1, 1]
        >>> t = Tucker(np.ones((1, 1)), [f, np.ones((3, 1))], [Chebyshev(3), Discrete(3)])
        >>> t.marginal(1).to_tensor().round(4)
        array([0.6667, 0.6667, 0.6667])
        """
        kept = self._named(modes, "marginal")
        gone = [n for n in range(self.ndim) if n not in kept]
        smooth = [n for n in gone if self.modes[n].domain is not None]
        counted = [n for n in gone if n not in smooth]
        made = self.integrate(smooth) if smooth else self
        counted = [n - sum(m < n for m in smooth) for n in counted]
        return made.sum(counted) if counted else made

    # --- parts of the domain --------------------------------------------------------------------------------

    def restrict(self, domain: Sequence[tuple[float, float] | None]) -> Self:
        """The same function on a smaller box.

        Parameters
        ----------
        domain : sequence of D intervals or None
            None leaves a mode as it is.

        Returns
        -------
        Tucker, TuckerTrain or CP
            Of the same degrees and ranks; ``round`` it, since fewer are needed.

        Raises
        ------
        ShapeError, DataError
            If there is not one entry per mode, an interval is not inside the domain, or a mode is discrete.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Discrete, Tucker
        >>> t = Tucker(np.ones(1), [np.eye(2)[:, 1:]], [Chebyshev(2)])  # x
        >>> part = t.restrict([(0.0, 0.5)])
        >>> part.at(0.25), part.integrate()
        (np.float64(0.25), np.float64(0.125))
        """
        parts = tuple(domain) if hasattr(domain, "__iter__") else ()
        if len(parts) != self.ndim:
            raise ShapeError(f"restrict: needs one interval or None per mode, {self.ndim}; got {domain!r}.")
        wide, changed = self._wide(), {}
        for n, part in enumerate(parts):
            if part is not None:
                changed[n] = _asked(self.modes[n], "restrict", n)(wide.factors[n], part)
        return wide._changed(changed)._cast(self.dtype)

    # --- extrema --------------------------------------------------------------------------------------------

    def min(self) -> Extremum:
        """The smallest value found and its place; see ``max``."""
        found = (-self).max()
        return type(found)(-found.value, found.place)

    def max(self) -> Extremum:
        """The largest value found and its place: a grid finer than the degrees, then local ascents.

        Returns
        -------
        Extremum
            ``value, place``: a float and a tuple with one coordinate or row number per mode.

        Raises
        ------
        ShapeError
            If there is a batch.

        Notes
        -----
        A value the function takes, so never above its maximum; nothing certifies that no higher peak hides
        between the points. The grid has up to two points per coefficient of a mode and a million in all, and
        the ascents start from its best points. A train has no such limit: its grid is searched mode by mode,
        the hundred beginnings kept that have most beyond them.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, Tucker
        >>> t = Tucker(np.ones(1), [np.array([[0.5], [0.5], [-0.5]])], [Chebyshev(3)])  # 1 + x/2 - x^2
        >>> value, place = t.max()
        >>> round(value, 12), round(place[0], 6)
        (1.0625, 0.25)
        """
        from tenfac.core.extrema import largest

        return largest(self)

    # --- parts -----------------------------------------------------------------------------------------

    @property
    def domain(self) -> tuple[tuple[float, float] | None, ...]:
        """Interval of each mode; None where it is discrete."""
        return tuple(mode.domain for mode in self.modes)

    @property
    def degree(self) -> tuple[int | None, ...]:
        """Degree of the polynomials of each mode, its coefficients less one; None where it has none."""
        return tuple(getattr(mode, "degree", None) for mode in self.modes)

    def _continuous(self, where: str) -> list[int]:
        """The continuous modes, at least one."""
        found = [n for n, mode in enumerate(self.modes) if mode.domain is not None]
        if not found:
            raise ShapeError(
                f"{where}: needs a continuous mode; got shape {self.shape}, all discrete. Give "
                f"modes=[Chebyshev(...), "
                "...] when the format is made."
            )
        return found

    def _named(self, modes: Any, where: str) -> list[int]:
        given = list(modes) if isinstance(modes, Iterable) else [modes]
        found = [check_mode(mode, self.ndim, where) for mode in given]
        if len(set(found)) < len(found):
            raise ShapeError(f"{where}: every mode can be named once; got {given}.")
        return found

    def _changed(self, pairs: Mapping[int, tuple[Any, Any]]) -> Self:
        """The same core with other modes and factors."""
        modes = [pairs[n][0] if n in pairs else mode for n, mode in enumerate(self.modes)]
        factors = [pairs[n][1] if n in pairs else factor for n, factor in enumerate(self.factors)]
        return self._rebuilt(self._cores, factors, modes)

    def _without(self, rows: Mapping[int, Any]) -> Any:
        """Close modes by rows ``(*b, 1, R_n)``, in float32 for half precision."""
        wide = self._wide()
        xp = wide._xp
        rows = {n: row if wide is self else xp.astype(row, wide.dtype) for n, row in rows.items()}
        parts = [pair for n, pair in enumerate(zip(wide.factors, self.modes, strict=True)) if n not in rows]
        result = wide._closed(rows, parts, xp)
        if dtype_name(self.dtype) not in HALF:
            return result
        return result._cast(self.dtype) if isinstance(result, Calculus) else xp.astype(result, self.dtype)


def _asked(mode: Any, what: str, n: int) -> Any:
    """A capability of a mode, or TypeError."""
    if not hasattr(mode, what):
        kind = type(mode).__name__
        advice = "Name a continuous mode." if isinstance(mode, Discrete) else "Use a Chebyshev or GP mode."
        raise TypeError(f"{kind}: mode {n} must offer `{what}`; got {mode!r}. {advice}")
    return getattr(mode, what)
