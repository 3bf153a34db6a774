"""Whether error bars mean what they say."""

from typing import Any

import numpy as np

from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.plot.style import BLUE, GRAY, INK, PALE, finish, new_axes, require_matplotlib

_LEVELS = np.concatenate([np.arange(1, 20) / 20, [0.99]])


@door
def calibration(y: Any, mean: Any, std: Any, ax: Any = None) -> Any:
    """Draw how often central intervals hold the value, against how often they should.

    At each level ``p`` the share of values with ``|y - mean| <= z(p) * std``, where ``z(p)`` is the half
    width of a standard normal's central interval of probability ``p``. The gray band holds 95 % of what a
    calibrated model with that many independent values would show (binomial). Above the line: error bars too
    wide.

    Parameters
    ----------
    y : array, shape (N,)
        Values that were held out.
    mean, std : array, shape (N,)
        Predictions and their standard deviations, noise included.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if None.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        If the shapes differ.
    DataError
        If there is no value, a number is not finite, or a standard deviation is not positive.
    MissingExtraError
        If Matplotlib is not installed.

    References
    ----------
    .. [1] V. Kuleshov, N. Fenner and S. Ermon, Accurate Uncertainties for Deep Learning Using Calibrated
       Regression, ICML 2018, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> y = np.random.default_rng(0).standard_normal(400)
    >>> ax = calibration(y, 0 * y, np.ones(400), ax=Figure().subplots())
    >>> nominal, empirical = ax.lines[-1].get_data()
    >>> float(nominal[9]), float(np.round(empirical[9], 2))
    (0.5, 0.5)
    """
    require_matplotlib("plot.calibration")
    y, mean, std = _checked(y, mean, std)
    ax = new_axes()[0] if ax is None else ax
    levels, covered, low, high = coverage_curve(y, mean, std)
    ax.fill_between(levels, low, high, color=PALE, linewidth=0, label="95 % if calibrated", zorder=1)
    ax.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--", zorder=2)
    ax.plot(levels, covered, "o-", color=BLUE, linewidth=1.6, markersize=3.5, label="observed", zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="nominal coverage", ylabel="empirical coverage")
    ax.legend(loc="upper left", fontsize=8, frameon=False, labelcolor=INK)
    return finish(ax)


def coverage_curve(
    y: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Levels, share of values inside the central intervals, and the 95 % binomial band of that share."""
    from scipy.stats import binom, norm

    width = norm.ppf(0.5 + _LEVELS / 2)
    covered = np.mean((np.abs(y - mean) / std)[:, None] <= width, axis=0)
    low, high = (binom.ppf(q, len(y), _LEVELS) / len(y) for q in (0.025, 0.975))
    return _LEVELS, covered, low, high


def _checked(*arrays: Any) -> list[np.ndarray]:
    try:
        found = [np.asarray(array, dtype=float) for array in arrays]
    except (TypeError, ValueError) as error:
        kinds = ", ".join(type(array).__name__ for array in arrays)
        raise DataError(
            f"calibration: `y`, `mean` and `std` must be arrays of numbers; got {kinds}. "
            "Write mean, std = model.predict(X, return_std=True), then calibration(y, mean, std)."
        ) from error
    shapes = [array.shape for array in found]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ShapeError(
            f"calibration: `y`, `mean` and `std` must have one shape (N,); got {', '.join(map(str, shapes))}."
        )
    if not found[0].size or not all(np.isfinite(array).all() for array in found) or not (found[2] > 0).all():
        raise DataError(
            "calibration: `y`, `mean` and `std` must be finite, at least one value, with std > 0; got "
            f"{found[0].size} values and a smallest std of {found[2].min(initial=np.inf):g}. Leave NaN "
            "rows out, and predict with `include_noise=True`."
        )
    return found
