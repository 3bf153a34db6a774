"""Colors that color-blind readers can tell apart, and the door to Matplotlib."""

from typing import Any

from tenfac.core.errors import MissingExtraError, ShapeError

# M. Okabe and K. Ito, Color universal design (2008)
BLUE = "#0072B2"
VERMILION = "#D55E00"
COLORS = (BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9")  # one per curve, in this order
INK = "#333333"
GRAY = "#8A8A8A"
PALE = "#D9D9D9"


def require_matplotlib(who: str) -> None:
    """Raise if Matplotlib is not installed, with the command that installs it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"`{who}` needs Matplotlib. Install it with: pip install 'tenfac[plot]'."
        ) from error


def literal(text: Any) -> str:
    """Text as it stands, where Matplotlib would read formulas between dollar signs."""
    return str(text).replace("$", r"\$")


def new_axes(count: int = 1) -> Any:
    """Make a figure with ``count`` panels, at most three in a row; return the array of its axes."""
    import matplotlib.pyplot as plt

    columns = min(count, 3)
    rows = -(-count // columns)
    size = (4.2 * columns, 3.2 * rows)
    _, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for spare in axes.ravel()[count:]:
        spare.remove()
    return axes.ravel()[:count]


def check_axes(who: str, axes: Any, count: int) -> list[Any]:
    """Refuse another number of axes than there are panels."""
    import numpy as np

    found = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(found) != count:
        raise ShapeError(f"{who}: `axes` must hold one axes per mode, {count}; got {len(found)}.")
    return found


def finish(ax: Any) -> Any:
    """Give a panel the look that all share."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRAY)
    ax.tick_params(colors=INK, length=3)
    ax.grid(True, color=PALE, linewidth=0.6, alpha=0.6)
    ax.set_axisbelow(True)
    return ax
