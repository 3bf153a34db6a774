"""Another description of one index of a format: other polynomials, other knots, a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import eps, namespace_of, points_like, to_numpy
from tenfac.core.errors import DataError, ShapeError, warn_user
from tenfac.core.facts import Facts
from tenfac.core.largest import in_double
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.protocol import Mode
from tenfac.core.ops import check_mode
from tenfac.core.rank import check_tol
from tenfac.core.report import Report
from tenfac.core.tracing import clock, constant

_LINES, _AT_ENDS = 100, 20  # on which values are compared; up to so many at ends of each other mode
_BETWEEN = np.array([0.0, 0.3, 0.55])  # where, in shares of the way from one node to the next
_FIRST, _LARGEST = 17, 4097  # coefficients of a mode that is found
_FOUND, _DROPPED = 0.5, 0.2  # shares of the tolerance that a found mode, and what it drops, may take
_ROUNDING = 100  # no tolerance is smaller, in eps
_SEED = 0  # of the lines


class Changes(Facts):
    """The method of formats that gives an index another mode; ``Format`` supplies factors and modes.

    Examples
    --------
    >>> from tenfac import CP, Tucker
    >>> issubclass(CP, Changes), issubclass(Tucker, Changes)
    (True, True)
    """

    def change_mode(self, mode: int, target: Any, *, tol: float = 1e-10) -> Self:
        """Describe an index by another mode: the same function, interpolated in it.

        Parameters
        ----------
        mode : int
            Negative values count from the end.
        target : Mode, the class ``Chebyshev``, or array of shape (N,)
            A ``Chebyshev`` or ``GP`` mode takes the values at its nodes: from a continuous mode these are
            evaluated, of a discrete one of as many rows they are the rows. The class finds its own degree on
            the domain of the mode. Points make the mode discrete, one row for each.
        tol : float
            Largest change of a value to allow, relative to the largest value: what the class meets, and what
            a given mode is held to.

        Returns
        -------
        Tucker, TuckerTrain or CP
            Of the same core; ``info.rel_error`` is the largest change found on lines through 100 places of
            the other modes, not a bound; None from or to a table, and under ``jax.jit``.

        Raises
        ------
        ShapeError, DataError
            If the target is none of these, has more rows than a discrete mode, or reaches beyond the domain.

        Warns
        -----
        ConvergenceWarning
            If ``tol`` is missed: polynomials of a "matern12" mean need thousands of coefficients, and few
            knots miss what lies between.

        Notes
        -----
        A mode that holds the functions already (more coefficients, more knots of the same kernel) is exact.
        A GP mode has the average of the values as its constant.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import GP, Chebyshev, Tucker
        >>> days = np.array([0.0, 1.0, 4.0, 6.0])
        >>> table = Tucker(np.ones(1), [np.array([[1.0], [3.0], [2.0], [2.5]])])
        >>> curve = table.change_mode(0, GP("matern52", days, lengthscale=3.0))
        >>> smooth = curve.change_mode(0, Chebyshev, tol=1e-6)
        >>> bool(abs(smooth.at(2.5) - curve.at(2.5)) < 1e-5), smooth.info.converged
        (True, True)
        """
        n = check_mode(mode, self.ndim, "change_mode")
        start, tol = clock(self._like), max(check_tol(tol, None, "change_mode"), _ROUNDING * eps(self.dtype))
        source = self.modes[n]
        wide: Any = self._wide()  # a Format
        if isinstance(target, type) or not hasattr(target, "rows"):
            if target is not Chebyshev:
                return self._tabled(n, target)
            _check_found(self, n)
            target, change = _resolved(wide, n, tol)
        else:
            _check_target(source, target, n)
            change = None
        factor = _moved(source, wide.factors[n], target)
        made = wide._changed({n: (target, factor)})._cast(self.dtype)
        if source.domain is None or self._is_traced:
            return made
        if change is None:
            change = _Lines.of(wide, n).change(source, wide.factors[n], target)
        info = _report(change, tol, n, target, clock(self._like) - start)
        return replace(made, info=info)

    def _tabled(self, n: int, target: Any) -> Self:
        """The mode as a table of its values at points."""
        if isinstance(target, (type, str)):
            raise DataError(
                f"change_mode: `target` must be a mode, the class Chebyshev, or points; got {target!r}."
            )
        points = points_like(target, self.factors[n], "change_mode")
        if points.ndim != 1:
            raise ShapeError(
                f"change_mode: points must be 1-way; got shape {tuple(points.shape)}. For a single one write "
                f"t.fix({{{n}: x}})."
            )
        wide: Any = self._wide()
        rows, _ = wide._axis(points, n, "change_mode")
        return wide._changed({n: (Discrete(rows.shape[-2]), rows)})._cast(self.dtype)


def _check_found(t: Any, n: int) -> None:
    if t.modes[n].domain is None:
        raise ShapeError(
            f"change_mode: the class Chebyshev needs a continuous mode to find a degree for; mode {n} is "
            f"discrete, {t.modes[n]}. Give Chebyshev({t.modes[n].size}, domain), whose nodes its rows are at."
        )
    if t._is_traced:
        raise ShapeError(
            "change_mode: the class Chebyshev chooses a degree from the values, which are not known yet "
            "(jit, vmap, grad). Give a mode, Chebyshev(size, domain), or change the mode outside."
        )


def _check_target(source: Mode, target: Any, n: int) -> None:
    if not hasattr(target, "factor"):  # Discrete has none
        raise ShapeError(
            f"change_mode: `target` must be a mode that takes values at nodes, Chebyshev or GP; got "
            f"{target}. For a discrete mode give the points of its rows: t.change_mode(n, points)."
        )
    if source.domain is None and source.size != len(target.nodes()):
        raise ShapeError(
            f"change_mode: the rows of a discrete mode are taken as values at the nodes of the target, one "
            f"each; mode {n} has {source.size} and {target} has {len(target.nodes())}."
        )
    if source.domain is not None and not _within(target.domain, source.domain):
        raise DataError(
            f"change_mode: the domain of the target must lie in that of mode {n}, {list(source.domain)}; got "
            f"{list(target.domain)}."
        )


def _within(inner: tuple[float, float], outer: tuple[float, float]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _moved(source: Any, factor: Any, target: Any) -> Any:
    """The factor of the same functions, or of those through their values at the nodes of the target."""
    if source.domain is not None:
        if _holds(source, target):
            return source.embed(target, factor)
        factor = source.rows(factor, points_like(target.nodes(), factor))
    if isinstance(target, Chebyshev):
        return target.factor(factor)
    return target.factor(factor, level=namespace_of(factor).mean(factor, axis=-2, keepdims=True))


def _holds(source: Any, target: Any) -> bool:
    try:
        return bool(source.common(target) == target)
    except ShapeError:
        return False


# --- what changes ---------------------------------------------------------------------------------------


class _Lines(NamedTuple):
    """Values of a format along one mode, through points of the others, are ``weights @ rows.T``."""

    weights: NDArray[Any]  # (*b, lines, R)

    @classmethod
    def of(cls, t: Any, n: int) -> _Lines:
        plain, rng = in_double(t), np.random.default_rng(_SEED)
        xp, rank = plain._xp, plain.factors[n].shape[-1]
        rows = []
        for m, (mode, factor) in enumerate(zip(plain.modes, plain.factors, strict=True)):
            if m == n:
                unit = np.tile(np.eye(rank), (_LINES, 1))
                rows.append(np.broadcast_to(unit, (*factor.shape[:-2], *unit.shape)))
                continue
            if mode.domain is None:
                x: NDArray[Any] = rng.integers(mode.size, size=_LINES)
            else:
                low, high = mode.domain
                x = rng.uniform(low, high, _LINES)
                x[rng.integers(_LINES, size=_AT_ENDS)] = rng.choice(mode.domain, _AT_ENDS)
            rows.append(np.repeat(mode.rows(factor, x, xp=xp), rank, axis=-2))
        values = plain._at_rows(rows, xp)
        return cls(values.reshape(*values.shape[:-1], _LINES, rank))

    def along(self, rows: NDArray[Any]) -> NDArray[Any]:
        return self.weights @ np.swapaxes(rows, -1, -2)

    def change(self, source: Any, factor: Any, target: Any) -> float:
        """Largest change of a value, relative to the largest."""
        plain = _plain(factor)
        x = _between(source, target)
        before = self.along(source.rows(plain, x))
        after = self.along(target.rows(_moved(source, plain, target), x))
        scale = np.abs(before).max()
        change = np.abs(after - before).max()
        return float(change / scale if scale else change)


def _plain(factor: Any) -> NDArray[Any]:
    found = to_numpy(constant(factor))
    return found.astype(np.complex128 if np.iscomplexobj(found) else np.float64)


def _between(*modes: Any) -> NDArray[np.float64]:
    """Places where functions may differ most: nodes of both modes, and between them."""
    low, high = modes[-1].domain
    nodes = np.concatenate([[low, high], *(mode.nodes() for mode in modes)])
    nodes = np.unique(np.clip(nodes, low, high))
    thirds = nodes[:-1, None] + np.diff(nodes)[:, None] * _BETWEEN
    return np.append(thirds, high)


def _resolved(t: Any, n: int, tol: float) -> tuple[Chebyshev, float]:
    """The shortest mode of 2^k + 1 coefficients that keeps the lines, without its last ones; its error."""
    source, factor, lines = t.modes[n], _plain(t.factors[n]), _Lines.of(t, n)
    size = _FIRST
    while True:
        target = Chebyshev(size, source.domain)
        change = lines.change(source, factor, target)
        if change <= _FOUND * tol or size >= _LARGEST:
            break
        size = 2 * size - 1
    values = source.rows(factor, target.nodes())
    scale = np.abs(lines.along(values)).max()
    heights = np.abs(lines.along(target.factor(values))).reshape(-1, size).max(axis=0)
    tails = np.cumsum(heights[::-1])[::-1]
    short = Chebyshev(max(int(np.sum(tails > _DROPPED * tol * scale)), 1), source.domain)
    shorter = lines.change(source, factor, short)
    return (short, shorter) if shorter <= max(tol, change) else (target, change)


def _report(change: float, tol: float, n: int, target: Any, seconds: float) -> Report:
    met = change <= tol
    notes: Sequence[str] = ()
    if not met:
        notes = (
            f"change_mode: mode {n} as {target} changes a value by {change:.2g} of the largest; tol={tol:g}. "
            "Take more coefficients or knots, a smoother kernel, or a larger tol.",
        )
        warn_user(notes[0])
    reason = "tolerance met" if met else "tolerance missed"
    return Report(converged=met, reason=reason, rel_error=change, seconds=seconds, warnings=tuple(notes))
