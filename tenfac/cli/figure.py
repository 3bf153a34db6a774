"""``tenfac fit --plot``: a panel per mode and one for calibration, on a figure of its own."""

import os
from typing import Any

from tenfac.cli.observations import Observations
from tenfac.core.errors import DataError


def check_format(path: str) -> None:
    """Refuse a name whose ending is no format of a figure."""
    from matplotlib.backend_bases import FigureCanvasBase

    ending = os.path.splitext(path)[1][1:].lower()
    if ending and ending not in FigureCanvasBase.get_supported_filetypes():
        raise DataError(f"--plot {path}: no figure can be written as .{ending}. Name it .png, .svg or .pdf.")


def draw(path: str, model: Any, obs: Observations, test: Any, title: str) -> None:
    """Draw and write the figure; its format is that of the file's ending."""
    from matplotlib.figure import Figure

    from tenfac import plot

    count = len(obs.modes) + (test is not None)
    columns = min(count, 3 if count != 4 else 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.3 * columns, 3.3 * rows + 0.4), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    plot.mode_functions(model, axes=axes[: len(obs.modes)])
    value = f"{obs.value} ({obs.unit})" if obs.unit else obs.value
    for k, (mode, ax) in enumerate(zip(obs.modes, axes, strict=False)):
        ax.set_title(mode.column, loc="left", fontweight="bold", fontsize=11)
        ax.set_xlabel(mode.label if mode.label != mode.column else "")
        ax.set_ylabel(value if k % columns == 0 else "")
        if mode.is_date:
            _as_dates(ax)
    if test is not None:
        ax = plot.calibration(test.rows.y, test.mean, test.std, ax=axes[count - 1])
        ax.set_title(
            f"calibration, {test.rows.size:,} held-out rows", loc="left", fontweight="bold", fontsize=11
        )
    scope = "each averaged over the other modes, with 95 % band" if len(obs.modes) > 1 else "with 95 % band"
    figure.suptitle(f"{title}: {obs.value} along each mode ({scope})", fontsize=12, x=0.01, ha="left")
    figure.savefig(path)


def _as_dates(ax: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
