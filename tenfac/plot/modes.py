"""What a fitted model learned along each mode."""

from typing import Any

import numpy as np

from tenfac.core.door import door
from tenfac.core.errors import DataError
from tenfac.plot.style import BLUE, GRAY, check_axes, finish, literal, new_axes, require_matplotlib

_POINTS = 241
_TICKS = 14
_MARKS = 600
_Z = 1.959963984540054  # 97.5 % of a standard normal lie below


@door
def mode_function(model: Any, mode: int | str, ax: Any = None, *, max_labels: int | None = None) -> Any:
    """Draw the function of one mode with its 95 % band.

    The posterior of the function along ``mode``, averaged over the observed indices of the other modes. A
    continuous mode is a curve with a band, marks at the bottom where there are observations; a discrete one
    is a row of points with error bars.

    Parameters
    ----------
    model : fitted estimator
        Has ``mode_posterior``, ``mode_names_``, ``kinds_`` and ``indices_``, as `FunctionalTucker` does.
    mode : int or str
        Number or name of the mode.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if None.
    max_labels : int, optional
        Most labels of a discrete mode to draw: those whose functions lie furthest from the average of all.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    DataError
        If the model has no such mode.
    MissingExtraError
        If Matplotlib is not installed.

    Notes
    -----
    The band is that of the function, without the noise of an observation.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> class Sine:
    ...     mode_names_, kinds_, indices_ = ["time"], ("continuous",), [np.linspace(0, 6, 9)]
    ...     def mode_posterior(self, mode, x=None):
    ...         return x, np.sin(x), np.full(len(x), 0.1)
    >>> ax = mode_function(Sine(), "time", ax=Figure().subplots())
    >>> ax.get_xlabel(), len(ax.lines[0].get_xdata())
    ('time', 241)
    """
    require_matplotlib("plot.mode_function")
    number = _number(model, mode)
    ax = new_axes()[0] if ax is None else ax
    if model.kinds_[number] == "discrete":
        _draw_points(model, number, ax, max_labels)
    else:
        _draw_curve(model, number, ax)
    ax.set_xlabel(literal(model.mode_names_[number]))
    return finish(ax)


@door
def mode_functions(model: Any, axes: Any = None) -> np.ndarray:
    """Draw the functions of all modes, one panel each, on one vertical scale.

    Parameters
    ----------
    model : fitted estimator
        Has ``mode_posterior``, ``mode_names_``, ``kinds_`` and ``indices_``, as `FunctionalTucker` does.
    axes : sequence of matplotlib.axes.Axes, length D, optional
        Where to draw; a new figure if None.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (D,)

    Raises
    ------
    ShapeError
        If ``axes`` does not hold one axes per mode.
    MissingExtraError
        If Matplotlib is not installed.

    Notes
    -----
    One scale for all panels, so that the mode that matters most is seen to.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> class Plane:
    ...     mode_names_, kinds_ = ["time", "cell"], ("continuous", "discrete")
    ...     indices_ = [np.linspace(0, 6, 9), np.array(["B", "NK", "T"])]
    ...     def mode_posterior(self, mode, x=None):
    ...         x = self.indices_[mode] if x is None else x
    ...         return x, np.arange(len(x)) / len(x), np.full(len(x), 0.1)
    >>> axes = mode_functions(Plane(), axes=Figure().subplots(1, 2))
    >>> [ax.get_xlabel() for ax in axes]
    ['time', 'cell']
    """
    require_matplotlib("plot.mode_functions")
    count = len(names_of(model, "mode_functions"))
    panels = list(new_axes(count)) if axes is None else check_axes("mode_functions", axes, count)
    for number, ax in enumerate(panels):
        mode_function(model, number, ax=ax)
    low = min(ax.get_ylim()[0] for ax in panels)
    high = max(ax.get_ylim()[1] for ax in panels)
    for ax in panels:
        ax.set_ylim(low, high)
    found = np.empty(count, dtype=object)
    found[:] = panels
    return found


def names_of(model: Any, where: str) -> list[str]:
    """Names of the modes of a model that was fitted."""
    if not hasattr(model, "mode_names_"):
        raise TypeError(
            f"{where}: needs a fitted model with modes, as FunctionalTucker().fit(X, y) is; got "
            f"{type(model).__name__}. For a format write plot.function_slice(t)."
        )
    return [str(name) for name in model.mode_names_]


def _number(model: Any, mode: int | str) -> int:
    names = names_of(model, "mode_function")
    if isinstance(mode, str) and mode in names:
        return names.index(mode)
    if not isinstance(mode, str) and -len(names) <= mode < len(names):
        return int(mode) % len(names)
    raise DataError(
        f"mode_function: `mode` must be a number 0..{len(names) - 1} or one of {', '.join(names)}; got "
        f"{mode!r}."
    )


def _draw_curve(model: Any, number: int, ax: Any) -> None:
    observed = np.asarray(model.indices_[number], dtype=float)
    grid = np.linspace(observed.min(), observed.max(), _POINTS)
    x, mean, std = model.mode_posterior(number, grid)
    ax.plot(x, mean, color=BLUE, linewidth=1.8, zorder=3)
    ax.fill_between(x, mean - _Z * std, mean + _Z * std, color=BLUE, alpha=0.22, linewidth=0, zorder=2)
    bottom = ax.get_xaxis_transform()
    ax.vlines(
        _apart(observed),
        0,
        0.03,
        transform=bottom,
        color=GRAY,
        linewidth=0.8,
        alpha=0.9 if observed.size <= 80 else 0.35,
    )
    ax.margins(x=0.02)


def _apart(observed: np.ndarray) -> np.ndarray:
    """Observed indices that a figure can tell apart."""
    if observed.size <= _MARKS:
        return observed
    low, high = observed.min(), observed.max()
    _, first = np.unique(np.floor((observed - low) / (high - low) * _MARKS), return_index=True)
    return observed[first]


def _draw_points(model: Any, number: int, ax: Any, most: int | None) -> None:
    _, mean, std = model.mode_posterior(number)
    labels = [_text(label) for label in np.asarray(model.indices_[number]).tolist()]
    order = np.array(_order(labels))
    if most is not None and order.size > most:
        far = np.argsort(-np.abs(mean - mean.mean()), kind="stable")[:most]
        order = order[np.isin(order, far)]
    at = np.arange(order.size)
    many = order.size > 40
    ax.errorbar(
        at,
        mean[order],
        yerr=_Z * std[order],
        fmt="o",
        color=BLUE,
        markersize=2.5 if many else 4,
        elinewidth=0.8 if many else 1.4,
        capsize=0 if many else 2.5,
        zorder=3,
    )
    step = -(-order.size // (most or _TICKS))
    shown = [labels[k] for k in order[::step]]
    upright = len(shown) > _TICKS
    slanted = sum(len(text) + 2 for text in shown) > 46
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    if upright:
        turned = {"rotation": 90}
    ax.set_xticks(at[::step], shown, fontsize=6.5 if upright else 8, **turned)
    ax.set_xlim(-0.6, order.size - 0.4)


def _order(labels: list[str]) -> list[int]:
    """Numbers by size, other labels as they come."""
    try:
        return sorted(range(len(labels)), key=lambda k: float(labels[k]))
    except ValueError:
        return list(range(len(labels)))


def _text(label: Any) -> str:
    text = f"{label:g}" if isinstance(label, float) else str(label)
    return literal(text if len(text) <= 18 else text[:17] + "…")
