"""Patches: a function cut into boxes of small rank, so that values at scattered points cost less."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenfac.core.arrays import byte_guard, namespace_of, points_like, to_numpy
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.interchange import as_format
from tenfac.core.io import public_class
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.core.precision import dtype_name, itemsize
from tenfac.core.rank import check_tol
from tenfac.core.tracing import constant, is_traced
from tenfac.core.train import TuckerTrain
from tenfac.core.tucker import Tucker

# Share of the tolerance that the ranks may use, and that the degrees of each mode may use.
_RANKS, _DEGREES = 0.3, 0.1
# Smallest relative error of a rounding.
_FLOOR = {"float64": 1e-14, "float32": 1e-6}
_MOST = 1_000_000  # boxes: each is a tensor, made in a millisecond
_SLACK = 8  # roundings by which a point may lie outside


@door
@dataclass(frozen=True, eq=False, repr=False)
class Patches:
    """A function as one format for each box of a grid, made by ``split``.

    Parameters
    ----------
    edges : tuple of arrays
        Ends of the intervals of each continuous mode, ascending; empty for a discrete mode.
    parts : tuple of Tucker or TuckerTrain
        In row-major order of the boxes.

    Notes
    -----
    ``save`` and ``load`` keep it.

    Examples
    --------
    >>> from tenfac import Chebyshev
    >>> t = Tucker(np.ones(1), [np.eye(2)[:, 1:]], [Chebyshev(2)])  # x
    >>> split(t, 4)
    Patches((4,) boxes on [-1, 1], ranks up to 1, 12 numbers)
    """

    edges: tuple[np.ndarray, ...]
    parts: tuple[Tucker | TuckerTrain, ...]

    def __post_init__(self) -> None:
        if math.prod(self.counts) != len(self.parts) or not self.parts:
            raise ShapeError(
                f"Patches: needs a part for each of {math.prod(self.counts)} boxes; got {len(self.parts)}. "
                "Write split(t, counts)."
            )

    @property
    def n_params(self) -> int:
        """Numbers stored."""
        return sum(part.n_params for part in self.parts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of intervals of each mode; 1 for a discrete mode."""
        return tuple(max(len(edge) - 1, 1) for edge in self.edges)

    @property
    def ndim(self) -> int:
        """Number of modes D."""
        return len(self.edges)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes; None where the index is continuous."""
        return self.parts[0].shape

    @property
    def domain(self) -> tuple[tuple[float, float] | None, ...]:
        """Interval of each mode; None where it is discrete."""
        return tuple((float(edge[0]), float(edge[-1])) if len(edge) else None for edge in self.edges)

    def __repr__(self) -> str:
        box = " x ".join(f"[{edge[0]:g}, {edge[-1]:g}]" if len(edge) else "-" for edge in self.edges)
        largest = max(max(part.rank) for part in self.parts)
        return f"Patches({self.counts} boxes on {box}, ranks up to {largest}, {self.n_params:,} numbers)"

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays: dict[str, Any] = {f"edges.{n}": edge for n, edge in enumerate(self.edges)}
        states = []
        for k, part in enumerate(self.parts):
            state, own = part._to_state()
            states.append({**state, "type": type(part).__name__})
            arrays.update({f"parts.{k}.{name}": array for name, array in own.items()})
        return {"ndim": len(self.edges), "parts": states}, arrays

    @classmethod
    def _from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Patches:
        own: dict[str, dict[str, Any]] = {}
        for key, array in arrays.items():
            number, _, name = key.removeprefix("parts.").partition(".")
            own.setdefault(number, {})[name] = array
        parts = [
            public_class(state.get("type", "Tucker"))._from_state(state, own[str(k)])
            for k, state in enumerate(header["parts"])
        ]
        return cls(tuple(arrays[f"edges.{n}"] for n in range(header["ndim"])), tuple(parts))

    def at(self, *indices: Any) -> Any:
        """Evaluate at points, as ``Tucker.at``; a point on an edge belongs to the box above it.

        Parameters
        ----------
        *indices : number, sequence or array
            One per mode, broadcast against each other.

        Returns
        -------
        array, the broadcast shape

        Raises
        ------
        ShapeError, DataError
            If their number is wrong, they do not broadcast, or one is outside the domain.

        Notes
        -----
        Points are sorted by box, then each box is evaluated in blocks. Derivatives by the points reach
        through it in torch; derivatives jump at the edges by about the tolerance.

        Examples
        --------
        >>> from tenfac import Chebyshev
        >>> t = Tucker(np.ones(1), [np.eye(2)[:, 1:]], [Chebyshev(2)])  # x
        >>> split(t, 4).at([-0.75, 0.5])
        array([-0.75,  0.5 ])
        """
        first = self.parts[0]
        points, shape = first._points(indices)
        if any(map(is_traced, points)):
            raise DataError(
                "Patches: points choose their boxes, so their values must be known. Call it outside."
            )
        xp = namespace_of(first.factors[0])
        box = self._box_of([to_numpy(constant(x)) for x in points])
        order = np.argsort(box, kind="stable")
        ends = np.cumsum(np.bincount(box, minlength=len(self.parts)))
        place = self._index(order, xp)
        arranged = [xp.take(x, place, axis=0) for x in points]
        values, start = [], 0
        for part, end in zip(self.parts, ends, strict=True):
            if end > start:
                values.append(part.at(*(x[start:end] for x in arranged)))
            start = int(end)
        if not values:
            return first.at(*indices)
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        found = xp.reshape(xp.take(xp.concat(values), self._index(back, xp), axis=0), shape)
        return found if shape else found[()]

    def _index(self, order: np.ndarray, xp: Any) -> Any:
        return xp.asarray(order, device=getattr(self.parts[0].factors[0], "device", None))

    def on_grid(self, *axes: Any, max_bytes: int | None = None) -> Any:
        """Evaluate on a tensor grid, as ``Tucker.on_grid``.

        Parameters
        ----------
        *axes : sequence, array, number or None
            One per mode: coordinates or row numbers ``(N_n,)``. A number fixes the mode, and its axis is left
            out; None takes all rows of a discrete mode.
        max_bytes : int, optional
            Refuse a larger result.

        Returns
        -------
        array, shape (N_0, ..., N_{D-1})

        Raises
        ------
        ShapeError, DataError
            If the number of axes is wrong, one is not 1-way, outside its mode, or None for a continuous mode.

        Examples
        --------
        >>> from tenfac import Chebyshev
        >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
        >>> split(t, 2).on_grid([0.5, -1.0], 0.5)
        array([ 0.25, -0.5 ])
        """
        first = self.parts[0]
        if len(axes) != self.ndim or any(
            x is None and len(edge) for x, edge in zip(axes, self.edges, strict=True)
        ):
            return first.on_grid(*axes)  # says what is wrong
        xp = namespace_of(first.factors[0])
        pieces = [self._pieces(n, x, xp) for n, x in enumerate(axes)]
        sizes: list[Any] = [
            size if x is None else len(back)
            for size, x, (_, back) in zip(self.shape, axes, pieces, strict=True)
            if x is None or back is not None
        ]
        byte_guard(
            sizes, itemsize(first.dtype), max_bytes, "on_grid", "Take a coarser grid, or a part of it."
        )
        return self._joined(pieces, (), 0, xp)

    def _pieces(self, n: int, x: Any, xp: Any) -> tuple[list[tuple[int, Any]], Any]:
        """Interval and coordinates of each part of an axis, and their order; None for a single number."""
        if x is None:
            return [(0, None)], None
        points = points_like(x, self.parts[0].factors[0], "on_grid")
        if points.ndim > 1:
            raise ShapeError(
                f"on_grid: an axis must be 1-way or a number; got shape {tuple(points.shape)} for mode {n}. "
                "For points that are no grid write at(x, y, ...)."
            )
        box = self._interval(n, np.atleast_1d(to_numpy(constant(points))))
        if points.ndim == 0 or not len(box):
            return [(int(box[0]) if len(box) else 0, points)], None if points.ndim == 0 else box
        order = np.argsort(box, kind="stable")
        arranged = xp.take(points, self._index(order, xp), axis=0)
        cuts = [0, *(np.flatnonzero(np.diff(box[order])) + 1).tolist(), len(box)]
        pairs = [(int(box[order[i]]), arranged[i:j]) for i, j in itertools.pairwise(cuts)]
        return pairs, np.argsort(order, kind="stable")

    def _joined(self, pieces: Sequence[Any], chosen: tuple[Any, ...], axis: int, xp: Any) -> Any:
        """Values on the grid of the modes not chosen yet, the first of which is an axis of the result."""
        n = len(chosen)
        if n == self.ndim:
            place = np.ravel_multi_index([k for k, _ in chosen], self.counts)
            return self.parts[int(place)].on_grid(*(x for _, x in chosen))
        pairs, back = pieces[n]
        whole = pairs[0][1] is None
        after = axis + (whole or back is not None)
        blocks = [self._joined(pieces, (*chosen, pair), after, xp) for pair in pairs]
        found = blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=axis)
        return found if whole or back is None else xp.take(found, self._index(back, xp), axis=axis)

    def _box_of(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Row-major number of the box of each point."""
        box = np.zeros(points[0].shape, dtype=np.int64)
        for n, x in enumerate(points):
            box = box * self.counts[n] + self._interval(n, x)
        return box

    def _interval(self, n: int, x: np.ndarray) -> np.ndarray:
        """Number of the interval of mode n of each point; 0 where the mode is discrete."""
        edge = self.edges[n]
        if not len(edge):
            return np.zeros(x.shape, dtype=np.int64)
        slack = _SLACK * np.finfo(np.float32 if x.dtype == np.float32 else np.float64).eps
        slack *= max(edge[-1] - edge[0], *np.abs(edge))
        bad = np.flatnonzero(~((x >= edge[0] - slack) & (x <= edge[-1] + slack)))
        if len(bad):
            raise DataError(
                f"Patches: an index of mode {n} must lie in [{edge[0]:g}, {edge[-1]:g}]; got {x[bad[0]]:g} "
                f"at position {bad[0]}. Build the function on a larger domain."
            )
        return np.clip(np.searchsorted(edge, x, side="right") - 1, 0, len(edge) - 2)


@door
def split(t: Tucker | TuckerTrain, counts: int | Sequence[int | None], *, tol: float = 1e-10) -> Patches:
    """Cut the domain of a function into boxes, each with its own smaller tensor.

    Parameters
    ----------
    t : Tucker or TuckerTrain
        With a continuous mode; without a batch.
    counts : int or sequence of D int or None
        Number of equal intervals of each mode; 1 or None leaves one whole, as a discrete mode must be.
    tol : float
        Error added to the values, relative to the largest of the function.

    Returns
    -------
    Patches
        With ``at``, ``on_grid``, ``n_params`` and the ``parts``.

    Raises
    ------
    ShapeError
        If ``counts`` does not fit the modes, or gives more than a million boxes.
    RankError
        If ``tol`` is not between 0 and 1, or below what the dtype can give.

    Notes
    -----
    On a box half as wide a function needs a smaller rank and degree, and a value costs the cube of the rank:
    for the values, cut until ranks are about 10. Storage has a minimum at a few boxes and grows after it.
    Restriction is exact; then ranks and degrees are cut in the norm of the coefficients, which bounds the sup
    norm closely but not strictly.

    Examples
    --------
    >>> from tenfac import Chebyshev
    >>> t = Tucker(np.ones(1), [np.eye(2)[:, 1:]], [Chebyshev(2)])  # x
    >>> split(t, 4).parts[3].domain
    ((0.5, 1.0),)
    """
    counts = _counts(t, counts)
    tol = check_tol(tol, t.dtype, "split")
    edges = []
    for mode, count in zip(t.modes, counts, strict=True):
        edges.append(np.linspace(*mode.domain, count + 1) if mode.domain is not None else np.empty(0))
    # the squared coefficient norm is at most 2 per continuous mode, and the rows of the others, times the
    # square of the largest value
    budget = (
        tol * _size(t) / math.sqrt(math.prod(mode.size if mode.domain is None else 2 for mode in t.modes))
    )
    parts = [t]
    for n, edge in enumerate(edges):  # mode by mode, rounded in between: the boxes share the work
        if len(edge) > 2:
            parts = [_shortened(cut, budget / t.ndim) for part in parts for cut in _cuts(part, n, edge)]
    return Patches(tuple(edges), tuple(parts))


def _cuts(t: Any, n: int, edge: np.ndarray) -> list[Any]:
    """The function on each interval of mode n."""
    return [
        t.restrict([(float(low), float(high)) if m == n else None for m in range(t.ndim)])
        for low, high in itertools.pairwise(edge)
    ]


def _counts(t: Any, counts: Any) -> list[int]:
    t = as_format(t)
    known = isinstance(t, (Tucker, TuckerTrain)) and not t.batch_shape
    if not known or not t.is_functional or dtype_name(t.dtype) not in _FLOOR:
        raise ShapeError(
            "split: needs one real Tucker or TuckerTrain of float32 or float64 with a continuous mode; got "
            f"{t!r}."
        )
    given = (
        [None if mode.domain is None else counts for mode in t.modes]
        if hasattr(counts, "__index__")
        else counts
    )
    found = [1 if count is None else count for count in given] if hasattr(given, "__iter__") else []
    valid = all(hasattr(c, "__index__") and not isinstance(c, bool) and c >= 1 for c in found)
    if len(found) != t.ndim or not valid:
        raise ShapeError(
            f"split: `counts` must be an integer of 1 or more for each of {t.ndim} modes; got {counts!r}."
        )
    if any(count > 1 and not isinstance(mode, Chebyshev) for count, mode in zip(found, t.modes, strict=True)):
        raise ShapeError(f"split: only Chebyshev modes can be cut; got counts {found} for modes {t.modes}.")
    whole = [count.__index__() for count in found]
    if math.prod(whole) > _MOST:
        raise ShapeError(
            f"split: `counts` must give at most {_MOST:,} boxes; got {math.prod(whole):,} by {whole}. Cut "
            "the modes with the largest rank or degree only."
        )
    return whole


def _size(t: Any) -> float:
    """Norm of the coefficients."""
    return float(to_numpy(constant(t._rebuilt(t._cores, t.factors).norm())))


def _shortened(t: Any, budget: float) -> Any:
    """Fewer ranks and coefficients, at an absolute error."""
    size = _size(t)
    if not size:
        return t
    least = max(_RANKS * budget / max(size, budget), _FLOOR[dtype_name(t.dtype)])
    t = (
        t._rounded(None, None, least)[0]
        if isinstance(t, TuckerTrain)
        else t._rounded(None, least, t.dtype)[0]
    )
    factors, modes = list(t.factors), list(t.modes)
    for n, (mode, heights) in enumerate(zip(t.modes, t._heights(), strict=True)):
        if isinstance(mode, Chebyshev):
            heights = to_numpy(constant(heights))
            kept = np.flatnonzero(np.cumsum(heights[::-1])[::-1] > _DEGREES * budget)
            length = int(kept[-1]) + 1 if len(kept) else 1
            factors[n], modes[n] = factors[n][:length, :], Chebyshev(length, mode.domain)
    return replace(t, factors=factors, modes=modes, info=None)
