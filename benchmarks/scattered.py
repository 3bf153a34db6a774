"""Functions through scattered noisy values: against teneva, scipy's RBF interpolation and scikit-learn.

Run from the root: ``python -m benchmarks.scattered``. Prints root mean square errors at points not given and
CPU seconds of one thread, and their ratios to tenfac's in the same process; writes
``results/scattered.json``. teneva is left out where it is not installed.

tenfac chooses ranks, degrees and ridge from the data. Of the peers the *best of their settings on the test
points themselves* is shown, with the time of that one fit: teneva's ``als_func`` over ranks and degrees,
``RBFInterpolator`` over smoothings, polynomial ridge regression over degrees (its ridge by its own
cross-validation). The Gaussian process chooses its parameters by its evidence on 500 rows.

Data: a Yukawa potential on a cube with noise of two sizes, one draw each (``DRAWS``), and measured
fluorescence over emission, excitation and time (TensorLy's kinetic data, one sample: 2000 of its entries are
given, the others are predicted).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import RBFInterpolator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits

import tenfac
from benchmarks import record
from tenfac.datasets import load_kinetic

try:
    import teneva
except ImportError:
    teneva = None

DRAWS = (0,)
BOX = [(-1.0, 1.0)] * 3
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def yukawa(X: np.ndarray) -> np.ndarray:
    r = np.sqrt(((X + 1.2) ** 2).sum(axis=1))
    return np.exp(-r) / r


def scattered(sigma: float, seed: int) -> Data:
    rng = np.random.default_rng(seed)
    X, T = rng.uniform(-1, 1, (4000, 3)), rng.uniform(-1, 1, (20_000, 3))
    return X, yukawa(X) + sigma * rng.standard_normal(4000), T, yukawa(T)


def fluorescence() -> Data:
    data = load_kinetic()
    values = np.asarray(data.values)[10]
    axes = [_unit(axis.values) for axis in data.modes[1:]]
    X = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    y = values.ravel()
    known = np.flatnonzero(np.isfinite(y))
    order = np.random.default_rng(0).permutation(known)
    given, held = order[:2000], order[2000:]
    return X[given], y[given], X[held], y[held]


def _unit(places: Any) -> np.ndarray:
    x = np.asarray(places, dtype=float)
    return np.clip(2 * (x - x.min()) / (x.max() - x.min()) - 1, -1, 1)


def by_tenfac(X: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    F = tenfac.chebyshev_from_points(X, y, BOX)
    return lambda T: F.at(*T.T)


def by_teneva(rank: int, size: int) -> Any:
    def fit(X: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        start = teneva.rand([size] * 3, rank, seed=1)
        A = teneva.als_func(X, y, start, a=-1.0, b=1.0, nswp=50, e=1e-8)
        return lambda T: teneva.func_get(T, A, a=-1.0, b=1.0)

    return fit


def by_rbf(smoothing: float) -> Any:
    return lambda X, y: RBFInterpolator(X, y, smoothing=smoothing)


def by_polynomial(degree: int) -> Any:
    def fit(X: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        steps = PolynomialFeatures(degree), StandardScaler(), RidgeCV(np.geomspace(1e-8, 1e2, 11))
        return make_pipeline(*steps).fit(X, y).predict

    return fit


def by_process(X: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    kernel = ConstantKernel(1.0, (1e-3, 1e6)) * RBF([1.0] * 3, (1e-1, 1e2)) + WhiteKernel(1e-2, (1e-10, 1.0))
    part = np.random.default_rng(0).permutation(len(y))[:500]
    small = GaussianProcessRegressor(kernel, normalize_y=True).fit(X[part], y[part])
    return GaussianProcessRegressor(small.kernel_, optimizer=None, normalize_y=True).fit(X, y).predict


def peers() -> dict[str, list[Any]]:
    """Fits to choose from, by name."""
    found = {
        "tenfac": [by_tenfac],
        "scipy RBFInterpolator": [by_rbf(s) for s in (1e-3, 1e-1, 1.0)],
        "scikit-learn polynomial ridge": [by_polynomial(k) for k in (5, 7, 9)],
        "scikit-learn Gaussian process": [by_process],
    }
    if teneva is not None:
        found["teneva als_func"] = [by_teneva(r, n) for r in (3, 4) for n in (7, 10)]
    return found


def measured(fit: Any, data: Data) -> tuple[float, float]:
    """Root mean square error at the test points and CPU seconds of the fit."""
    X, y, T, true = data
    predict, seconds = record.timed(lambda: fit(X, y))
    return float(np.sqrt(np.mean((predict(T) - true) ** 2))), seconds


def compared(cases: list[Data]) -> dict[str, dict[str, float]]:
    """Mean error of the best settings of each, and least seconds."""
    table = {}
    for name, fits in peers().items():
        runs = [min(measured(fit, data) for fit in fits) for data in cases]
        table[name] = {
            "rmse": float(np.mean([rmse for rmse, _ in runs])),
            "seconds": min(seconds for _, seconds in runs),
        }
    own = table["tenfac"]
    for row in table.values():
        row["error ratio"] = row["rmse"] / own["rmse"]
        row["seconds ratio"] = row["seconds"] / own["seconds"]
    return table


def main() -> None:
    warnings.simplefilter("ignore")
    cases = {
        "yukawa, sigma 1e-2": [scattered(1e-2, seed) for seed in DRAWS],
        "yukawa, sigma 1e-3": [scattered(1e-3, seed) for seed in DRAWS],
        "fluorescence": [fluorescence()],
    }
    packages = "numpy", "scipy", "scikit-learn", "teneva"
    results: dict[str, Any] = {"versions": record.versions(*packages, threads=1)}
    with threadpool_limits(limits=1):
        for name, data in cases.items():
            results[name] = compared(data)
            print(name)
            for peer, row in results[name].items():
                print(
                    f"  {peer:30} rmse {row['rmse']:.3g} ({row['error ratio']:.2f} x), "
                    f"{row['seconds']:.2f} s ({row['seconds ratio']:.2f} x)",
                    flush=True,
                )
            record.write("scattered", results)


if __name__ == "__main__":
    main()
