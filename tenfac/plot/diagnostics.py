"""Panels of the report: how values fall into their predictions, residuals, and how the fit went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.plot.style import BLUE, GRAY, INK, PALE, VERMILION, finish

_DOTS = 2000


def pit_histogram(pit: np.ndarray, ax: Any) -> Any:
    """Draw the histogram of probability integral transforms, flat if predictions are calibrated."""
    from scipy.stats import binom

    bins = 20 if pit.size >= 400 else 10 if pit.size >= 50 else 5
    counts, edges = np.histogram(pit, bins=bins, range=(0, 1))
    low, high = (binom.ppf(q, pit.size, 1 / bins) * bins / pit.size for q in (0.025, 0.975))
    ax.bar(
        edges[:-1], counts * bins / pit.size, 1 / bins, align="edge", color=BLUE, alpha=0.55, edgecolor="w"
    )
    ax.axhspan(low, high, color=PALE, alpha=0.7, linewidth=0, zorder=0)
    ax.axhline(1, color=GRAY, linewidth=1, linestyle="--")
    ax.set(xlim=(0, 1), xlabel="probability integral transform", ylabel="density")
    return finish(ax)


def residual_histogram(z: np.ndarray, ax: Any) -> Any:
    """Draw standardized residuals beside the standard normal density; those beyond 4.5 stand at the ends."""
    bins = int(np.clip(2 * np.sqrt(z.size), 8, 45))
    edges = np.linspace(-4.5, 4.5, bins + 1)
    counts, _ = np.histogram(np.clip(z, -4.5, 4.5), bins=edges)
    width = edges[1] - edges[0]
    ax.bar(edges[:-1], counts / (z.size * width), width, align="edge", color=BLUE, alpha=0.55, edgecolor="w")
    grid = np.linspace(-4.5, 4.5, 181)
    density = np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi)
    ax.plot(grid, density, color=VERMILION, linewidth=1.5, label="standard normal")
    ax.set(xlim=(-4.5, 4.5), xlabel="residual / predicted sd", ylabel="density")
    ax.legend(loc="upper right", fontsize=8, frameon=False, labelcolor=INK)
    return finish(ax)


def residual_scatter(mean: np.ndarray, residual: np.ndarray, ax: Any) -> Any:
    """Draw residuals against predictions, at most 2,000 of them, the largest always."""
    chosen = np.arange(mean.size)
    if mean.size > _DOTS:
        largest = np.argsort(-np.abs(residual))[:100]
        others = np.setdiff1d(chosen, largest)
        drawn = np.random.default_rng(0).permutation(others)[: _DOTS - largest.size]
        chosen = np.concatenate([largest, drawn])
    ax.plot(
        mean[chosen],
        residual[chosen],
        "o",
        color=BLUE,
        markersize=3 if chosen.size < 500 else 2,
        alpha=0.7 if chosen.size < 500 else 0.35,
        markeredgewidth=0,
    )
    ax.axhline(0, color=GRAY, linewidth=1, linestyle="--")
    ax.set(xlabel="predicted", ylabel="observed minus predicted")
    return finish(ax)


def progress(history: Sequence[float], ax: Any) -> Any:
    """Draw the monitored quantity of an iterated fit."""
    marker = "o-" if len(history) <= 60 else "-"
    ax.plot(np.arange(1, len(history) + 1), history, marker, color=BLUE, linewidth=1.5, markersize=3.5)
    ax.set(xlabel="step", ylabel="objective")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return finish(ax)
