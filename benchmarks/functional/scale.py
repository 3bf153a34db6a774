"""Seconds and memory as the rows grow to a million: fitting, and predicting a million rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.functional.measure import Meter, in_child
from tenfac import FunctionalTucker

SIZES = (300, 200, 2000)
NOISE = 0.2
PREDICTED = 1_000_000


def function(X: np.ndarray) -> np.ndarray:
    """A known function of three indices: level, main effects, products, and a fast main effect."""
    a, b, t = X.T
    smooth = (
        1 + b**2 + np.sin(4 * a) * (1 + b) * np.cos(8 * t) + 0.5 * np.exp(-3 * a) * np.sin(12 * t * (1 + b))
    )
    return smooth + 0.5 * np.sin(60 * t)


def table(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices at random cells of one fixed irregular grid, noisy values, and the values without noise."""
    grids = [np.sort(np.random.default_rng(n).random(size)) for n, size in enumerate(SIZES)]
    rng = np.random.default_rng([seed, count])
    X = np.stack([grid[rng.integers(0, grid.size, count)] for grid in grids], axis=1)
    truth = function(X)
    return X, truth + NOISE * rng.normal(size=count), truth


def fitted(count: int, predicted: int, settings: dict[str, Any]) -> dict[str, float]:
    """One fit and one call of ``predict``, in a process of its own."""
    X, y, _ = table(count, seed=0)
    with Meter() as fitting:
        model = FunctionalTucker(**settings).fit(X, y)
    new, _, truth = table(predicted, seed=1)
    with Meter() as predicting:
        mean, std = model.predict(new, return_std=True)
    z = (truth - mean) / np.maximum(std, 1e-300)
    return {
        "rows": count,
        "fit_seconds": fitting.seconds,
        "fit_peak_MiB": fitting.peak,
        "n_iter": model.n_iter_,
        "predicted_rows": predicted,
        "predict_seconds": predicting.seconds,
        "predict_peak_MiB": predicting.peak,
        "rmse_of_function": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "coverage_of_function": float(np.mean(np.abs(z) < 1.96)),
        "noise": float(model.noise_),
        "true_noise": NOISE,
        "report": repr(model.info_),
    }


def boosted(count: int, predicted: int) -> dict[str, float]:
    """scikit-learn's histogram gradient boosting on the same rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    X, y, _ = table(count, seed=0)
    new, _, truth = table(predicted, seed=1)
    with threadpool_limits(limits=1), Meter() as fitting:
        model = HistGradientBoostingRegressor(random_state=0).fit(X, y)
    error = model.predict(new) - truth
    return {"fit_seconds": fitting.seconds, "rmse_of_function": float(np.sqrt(np.mean(error**2)))}


def run(counts: list[int], name: str, settings: dict[str, Any], limit: float) -> dict[str, Any]:
    """Growing numbers of rows until one is stopped; bytes per row between the smallest and the largest."""
    out: dict[str, Any] = {}
    for count in counts:
        row, failure = in_child(fitted, count, PREDICTED, settings, limit=limit)
        out[f"{count} rows"] = row or {"failed": failure}
        if row is None:
            print(f"scale  {name}  {count:8} rows  {failure}")
            break
        print(
            f"scale  {name}  {count:8} rows  "
            f"fit {row['fit_seconds']:7.1f} s, {row['fit_peak_MiB']:6.0f} MiB  "
            f"predict {PREDICTED} rows {row['predict_seconds']:6.1f} s, {row['predict_peak_MiB']:6.0f} MiB  "
            f"error {row['rmse_of_function']:.4f} of the function, noise {row['noise']:.4f}"
        )
        row["boosting"], _ = in_child(boosted, count, PREDICTED, limit=limit)
        print(f"scale  boosting  {count:8} rows  {row['boosting']}")
    done = [row for row in out.values() if "rows" in row]
    if len(done) > 1:
        gain = done[-1]["fit_peak_MiB"] - done[0]["fit_peak_MiB"]
        out["bytes_per_row"] = gain * 2**20 / (done[-1]["rows"] - done[0]["rows"])
        print(f"scale  {name}  {out['bytes_per_row']:.0f} bytes of memory per row")
    return out
