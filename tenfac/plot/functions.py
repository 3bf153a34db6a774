"""Functions of several variables: a slice, and how fast coefficients and singular values fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from tenfac.core.arrays import to_numpy
from tenfac.core.contract import contract
from tenfac.core.cp import CP
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError, nearest_name
from tenfac.core.interchange import as_format
from tenfac.core.largest import orthonormal
from tenfac.core.train import TuckerTrain
from tenfac.core.train_cores import centers, times
from tenfac.core.tucker import Tucker
from tenfac.plot.style import COLORS, GRAY, INK, finish, literal, new_axes, require_matplotlib

_LINE, _IMAGE = 401, 161  # points of a line, and of a side of an image
_ROWS = 8  # most rows of a discrete mode that are drawn as lines
_MARKERS = "os^Dvp"
_BYTES = 2**31  # largest core of a CP tensor


@door
def function_slice(
    t: Any,
    fixed: Mapping[int | str, Any] | None = None,
    ax: Any = None,
    *,
    names: Sequence[str] | None = None,
    label: str = "value",
    cmap: str | None = None,
) -> Any:
    """Draw a function along one or two of its variables, the others fixed.

    One continuous mode is a curve, two are an image with contours and a color bar; a discrete mode beside
    a continuous one is a curve for each row (an image if there are more than eight), alone it is points.

    Parameters
    ----------
    t : Tucker, TuckerTrain or CP
        Real, without a batch.
    fixed : mapping of int or str to number, optional
        The point or row number of each mode that is not drawn, by number or name.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if None.
    names : sequence of D str, optional
        Of the modes, for the axes and the title; x0, x1, ... if not given.
    label : str
        Of the values.
    cmap : str, optional
        Color map of an image. If not given, one with white for zero where values have both signs.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        If not one or two modes are left, there is a batch, or ``names`` does not fit.
    DataError
        If a mode is not known, or a value is outside of it.
    MissingExtraError
        If Matplotlib is not installed.

    Notes
    -----
    Rows of a discrete mode are numbered; ``to_xarray(t, dims, coords).plot()`` has their labels.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from tenfac import Chebyshev, Tucker
    >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
    >>> ax = function_slice(t, {"y": 0.5}, names=["x", "y"], ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_title(), float(ax.lines[0].get_ydata()[-1])
    ('x', 'y = 0.5', 0.5)
    """
    require_matplotlib("plot.function_slice")
    t = as_format(t)
    names = _names(t, names, "function_slice")
    held = _held(names, {} if fixed is None else fixed)
    free = [n for n in range(t.ndim) if n not in held]
    if len(free) not in (1, 2):
        raise ShapeError(
            f"function_slice: one or two modes are drawn, so fix {max(t.ndim - 2, 0)} or {t.ndim - 1} of "
            f"{', '.join(names)}; got {len(held)}. Write function_slice(t, {{{names[-1]!r}: value}})."
        )
    counted = [n for n in free if t.modes[n].domain is None]
    size = _LINE if len(free) - len(counted) == 1 else _IMAGE
    axes = [held.get(n, _axis(mode, size)) for n, mode in enumerate(t.modes)]
    values = to_numpy(t.on_grid(*axes))
    if np.iscomplexobj(values):
        raise DataError(f"function_slice: needs real values; got {values.dtype}.")
    ax = new_axes()[0] if ax is None else ax
    if len(free) == 1:
        ax.plot(axes[free[0]], values, "o" if counted else "-", color=COLORS[0], linewidth=1.8)
        ax.set(xlabel=literal(names[free[0]]), ylabel=literal(label))
    elif len(counted) == 1 and values.shape[free.index(counted[0])] <= _ROWS:
        _curves(values, axes, free, counted[0], names, ax)
        ax.set_ylabel(literal(label))
    else:
        _image(values, [axes[n] for n in free], ax, label, cmap, contours=not counted)
        ax.set(xlabel=literal(names[free[0]]), ylabel=literal(names[free[1]]))
    ax.set_title(", ".join(f"{literal(names[n])} = {held[n]:g}" for n in sorted(held)), fontsize=10)
    for n in counted:
        axis = ax.yaxis if len(free) == 2 and n == free[1] and ax.collections else ax.xaxis
        if len(free) == 1 or ax.collections:
            axis.get_major_locator().set_params(integer=True)
    return finish(ax)


@door
def coefficient_decay(t: Any, ax: Any = None, *, names: Sequence[str] | None = None) -> Any:
    """Draw how the Chebyshev coefficients of each continuous mode fall with the degree.

    The norm of all coefficients of one degree in that mode, over the largest. A straight line is an
    analytic function, a curve that flattens is a kink or noise; a gray line is the error that the
    construction found.

    Parameters
    ----------
    t : Tucker, TuckerTrain or CP
        With a ``Chebyshev`` mode, without a batch.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if None.
    names : sequence of D str, optional
        Of the modes; x0, x1, ... if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        If no mode has coefficients, there is a batch, or ``names`` does not fit.
    MissingExtraError
        If Matplotlib is not installed.

    Notes
    -----
    Dots are coefficients, the line is the largest from there on: even and odd functions have every second
    coefficient zero.

    References
    ----------
    .. [1] L. N. Trefethen, Approximation Theory and Approximation Practice, SIAM (2013), chapters 7 and 8.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from tenfac import chebyshev_tucker
    >>> F = chebyshev_tucker(lambda x, y: 1 / (2 + x + y / 2), [(-1, 1)] * 2)
    >>> ax = coefficient_decay(F, ax=Figure().subplots())
    >>> ax.get_yscale(), [text.get_text() for text in ax.get_legend().get_texts()][:2]
    ('log', ['x0', 'x1'])
    """
    require_matplotlib("plot.coefficient_decay")
    t = as_format(t)
    names = _names(t, names, "coefficient_decay")
    smooth = [n for n, mode in enumerate(t.modes) if hasattr(mode, "degree")]
    if not smooth:
        raise ShapeError(f"coefficient_decay: needs a mode of Chebyshev coefficients; got {t!r}.")
    parts = _unfolded(t)
    heights = {n: np.linalg.norm(parts[n][1] @ parts[n][0], axis=1) for n in smooth}
    ax = new_axes()[0] if ax is None else ax
    largest = max(found.max() for found in heights.values()) or 1.0
    for k, (n, found) in enumerate(heights.items()):
        share = found / largest
        _falling(share, np.maximum.accumulate(share[::-1])[::-1], np.arange(len(share)), k, names[n], ax)
    if t.info is not None and np.isscalar(t.info.rel_error) and t.info.rel_error:
        ax.axhline(t.info.rel_error, color=GRAY, linewidth=1, linestyle="--", label="estimated error")
    ax.set(xlabel="degree", ylabel="coefficients / largest")
    return _logarithmic(ax)


@door
def singular_values(t: Any, ax: Any = None, *, names: Sequence[str] | None = None) -> Any:
    """Draw the singular values of each mode: how much a larger or smaller rank would change.

    Those of the unfoldings, of the entries of a tensor and of the coefficients of a function, over the
    largest.

    Parameters
    ----------
    t : Tucker, TuckerTrain or CP
        Without a batch.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if None.
    names : sequence of D str, optional
        Of the modes; x0, x1, ... if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        If there is a batch, or ``names`` does not fit.
    MissingExtraError
        If Matplotlib is not installed.

    Notes
    -----
    The error of ``round(rank)`` in the Frobenius norm is at most the root of the sum of squares of all values
    left out, over the norm.

    References
    ----------
    .. [1] L. De Lathauwer, B. De Moor and J. Vandewalle, A multilinear singular value decomposition, SIAM J.
       Matrix Anal. Appl. 21 (2000), property 10. doi:10.1137/S0895479896305696

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from tenfac import tucker
    >>> x = np.linspace(0, 1, 20)
    >>> ax = singular_values(tucker(1 / (1 + x[:, None] + x), tol=1e-6), ax=Figure().subplots())
    >>> [len(line.get_xdata()) for line in ax.lines]
    [4, 4]
    """
    require_matplotlib("plot.singular_values")
    t = as_format(t)
    names = _names(t, names, "singular_values")
    found = [np.linalg.svd(matrix, compute_uv=False) for matrix, _ in _unfolded(t)]
    ax = new_axes()[0] if ax is None else ax
    largest = max(values[0] for values in found) or 1.0
    for n, values in enumerate(found):
        share = values / largest
        _falling(None, share, np.arange(1, len(share) + 1), n, names[n], ax)
    ax.set(xlabel="rank", ylabel="singular value / largest")
    return _logarithmic(ax)


def _names(t: Any, names: Any, where: str) -> list[str]:
    drawable = (
        hasattr(t, "on_grid") if where == "function_slice" else isinstance(t, (Tucker, TuckerTrain, CP))
    )
    if not drawable or t.batch_shape:
        raise ShapeError(f"{where}: needs one Tucker, TuckerTrain or CP, without a batch; got {t!r}.")
    found = [f"x{n}" for n in range(t.ndim)] if names is None else [str(name) for name in names]
    if len(found) != t.ndim or len(set(found)) < t.ndim or isinstance(names, str):
        raise ShapeError(f"{where}: `names` must be {t.ndim} different names, one per mode; got {names!r}.")
    return found


def _held(names: list[str], fixed: Mapping[int | str, Any]) -> dict[int, Any]:
    """The fixed modes by number."""
    if not isinstance(fixed, Mapping):
        raise TypeError(
            f"function_slice: `fixed` must be a dict of modes and their values; got {type(fixed).__name__}. "
            f"Write fixed={{{names[-1]!r}: 0.5}}."
        )
    held = {}
    for mode, value in fixed.items():
        known = mode in names if isinstance(mode, str) else -len(names) <= mode < len(names)
        if not known:
            raise DataError(
                f"function_slice: `fixed` must name modes, by 0..{len(names) - 1} or {', '.join(names)}; got "
                f"{mode!r}.{nearest_name(str(mode), names)}"
            )
        held[names.index(mode) if isinstance(mode, str) else int(mode) % len(names)] = value
    return held


def _axis(mode: Any, size: int) -> np.ndarray:
    if mode.domain is None:
        return np.arange(mode.size)
    low, high = mode.domain
    return np.linspace(low, high, size)


def _curves(
    values: np.ndarray, axes: list[Any], free: list[int], counted: int, names: list[str], ax: Any
) -> None:
    """A curve over the continuous mode for each row of the discrete one."""
    (smooth,) = (n for n in free if n != counted)
    rows = values if free[0] == counted else values.T
    colors = COLORS + COLORS
    for k, row in enumerate(rows):
        style = "-" if k < len(COLORS) else "--"
        ax.plot(axes[smooth], row, style, color=colors[k], linewidth=1.6, label=str(k))
    ax.legend(title=literal(names[counted]), fontsize=8, frameon=False, labelcolor=INK)
    ax.set_xlabel(literal(names[smooth]))


def _image(
    values: np.ndarray, axes: list[np.ndarray], ax: Any, label: str, cmap: str | None, *, contours: bool
) -> None:
    low, high = float(values.min()), float(values.max())
    both = low < 0 < high and min(-low, high) > 0.02 * max(-low, high)
    limits = {"vmin": -max(-low, high), "vmax": max(-low, high)} if both else {}
    image = ax.pcolormesh(
        *axes,
        values.T,
        cmap=cmap or ("RdBu_r" if both else "viridis"),
        shading="nearest",
        rasterized=True,
        **limits,
    )
    if high > low and contours:
        ax.contour(*axes, values.T, levels=8, colors=INK, linewidths=0.5, alpha=0.6)
    ax.figure.colorbar(image, ax=ax, label=literal(label))


def _unfolded(t: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mode by mode as numpy: a matrix of a row for each column of an orthonormal factor, and that factor."""
    wide = t._wide()
    cores = [to_numpy(core) for core in wide._cores]
    pairs = [orthonormal(m, to_numpy(f), xp) for m, f in zip(wide.modes, wide.factors, strict=True)]
    triangles = [triangle for _, triangle in pairs]
    if isinstance(t, TuckerTrain):
        whole = [times(core, triangle, xp) for core, triangle in zip(cores, triangles, strict=True)]
        found = centers([whole[n] for n in t.order], xp)
        parts = [np.moveaxis(found[t.order.index(n)], 1, 0) for n in range(t.ndim)]
    else:
        if isinstance(t, CP):
            core = CP(cores[0], triangles).to_tensor(max_bytes=_BYTES)
        else:
            core = contract(cores[0], triangles)
        parts = [np.moveaxis(core, n, 0) for n in range(t.ndim)]
    return [(part.reshape(len(part), -1), basis) for part, (basis, _) in zip(parts, pairs, strict=True)]


def _falling(dots: np.ndarray | None, line: np.ndarray, x: np.ndarray, k: int, name: str, ax: Any) -> None:
    """One mode: a line, its points on it or apart from it; what is below rounding is not drawn."""
    color, marker = COLORS[k % len(COLORS)], _MARKERS[k % len(_MARKERS)]
    own = {"marker": marker, "markersize": 3.5 if len(x) <= 60 else 2, "markeredgewidth": 0}
    least = 8 * np.finfo(line.dtype).eps
    ax.plot(
        x,
        np.where(line > least, line, np.nan),
        color=color,
        linewidth=1.4,
        label=literal(name),
        **(own if dots is None else {}),
    )
    if dots is not None:
        ax.plot(x, np.where(dots > least, dots, np.nan), linestyle="", color=color, alpha=0.7, **own)


def _logarithmic(ax: Any) -> Any:
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize=8, framealpha=0.85, edgecolor="none", labelcolor=INK)
    return finish(ax)
