"""cp against TensorLy's parafac and against two matrix products, in the same process.

Run: ``python -m benchmarks.cp``. Prints two tables and writes ``results/cp.json``. Times are process CPU
seconds; set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1 for one thread.

Sweep: one sweep of ALS, the two matrix products no sweep can do without, one sweep of ``parafac`` from the
same start (difference of runs of 2 and 5 sweeps).
Fit: ten data sets. ``cp`` and ``parafac(init="svd")`` with their default settings; the best error of 20
single random starts of ``cp``. A fit has reached it if its error is within 1e-4 of it, relative. "collinear
c": all columns of a factor have cosine c with each other.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from tensorly.cp_tensor import CPTensor, cp_to_tensor
from tensorly.decomposition import parafac

import tenfac
from benchmarks import record
from benchmarks.record import cpu_seconds, timed
from tenfac import cp
from tenfac.decompose.cp.mttkrp import DenseTensor, columnwise
from tenfac.decompose.cp.sweep import sweep

SWEEPS = [
    ((200, 200, 200), 20, "float64"),
    ((200, 200, 200), 20, "float32"),
    ((400, 400, 400), 20, "float64"),
    ((60, 60, 60, 60), 16, "float64"),
    ((25, 25, 25, 25, 25), 10, "float64"),
]
FITS = [  # size, rank, noise, collinearity, seed
    *((200, 20, 0.1, 0.0, seed) for seed in range(4)),
    *((100, 10, 0.1, 0.9, seed) for seed in range(2)),
    *((100, 8, 0.02, 0.97, seed) for seed in range(2)),
    *((100, 8, 1e-4, 0.99, seed) for seed in range(2)),
]


def sweep_row(shape: tuple[int, ...], rank: int, dtype: str) -> dict:
    """CPU milliseconds of one sweep, of two products, and of one sweep of TensorLy."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape).astype(dtype)
    factors = [rng.standard_normal((1, rank, size)) for size in shape]
    target = DenseTensor(X)
    ours = cpu_seconds(lambda: sweep(target, factors))
    split = min(range(1, len(shape)), key=lambda k: math.prod(shape[:k]) + math.prod(shape[k:]))
    matrix = X.reshape(math.prod(shape[:split]), -1)
    left, right = (
        np.ascontiguousarray(columnwise([f[0] for f in part]).astype(dtype))
        for part in (factors[:split], factors[split:])
    )
    products = cpu_seconds(lambda: left @ matrix) + cpu_seconds(lambda: right @ matrix.T)
    start = CPTensor((None, [np.ascontiguousarray(f[0].T.astype(dtype)) for f in factors]))
    runs = [cpu_seconds(lambda n=n: parafac(X, rank, init=start, n_iter_max=n, tol=0), 3) for n in (2, 5)]
    theirs = (runs[1] - runs[0]) / 3
    return {
        "shape": shape, "rank": rank, "dtype": dtype, "ms": 1e3 * ours, "two_products_ms": 1e3 * products,
        "tensorly_ms": 1e3 * theirs, "over_products": ours / products, "tensorly_over_ours": theirs / ours,
    }  # fmt: skip


def data(size: int, rank: int, noise: float, collinearity: float, seed: int) -> np.ndarray:
    """A CP tensor of three modes plus Gaussian noise of a relative norm."""
    rng = np.random.default_rng([seed, size, rank])
    cosines = np.full((rank, rank), collinearity) + (1 - collinearity) * np.eye(rank)
    factors = []
    for _ in range(3):
        factor = rng.standard_normal((size, rank))
        factors.append(np.linalg.qr(factor)[0] @ np.linalg.cholesky(cosines).T if collinearity else factor)
    X = np.einsum("ir,jr,kr->ijk", *factors, optimize=True)
    E = rng.standard_normal(X.shape)
    return X + noise * np.linalg.norm(X) / np.linalg.norm(E) * E


def fit_row(size: int, rank: int, noise: float, collinearity: float, seed: int) -> dict:
    """Errors and CPU seconds of cp and TensorLy on one data set, and the best of 20 starts."""
    X = data(size, rank, noise, collinearity, seed)
    norm = np.linalg.norm(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tenfac.ConvergenceWarning)
        t, seconds = timed(lambda: cp(X, rank))
        singles = [cp(X, rank, n_init=1, random_state=1000 + s).info.rel_error for s in range(20)]
    other, other_seconds = timed(lambda: parafac(X, rank, init="svd"))
    other_error = float(np.linalg.norm(cp_to_tensor(other) - X) / norm)
    best = min(*singles, t.info.rel_error, other_error)
    return {
        "size": size, "rank": rank, "noise": noise, "collinearity": collinearity, "seed": seed,
        "rel_error": t.info.rel_error, "best_of_20": best, "reached": t.info.rel_error <= best * (1 + 1e-4),
        "starts_that_reached": int(sum(error <= best * (1 + 1e-4) for error in singles)),
        "seconds": seconds, "n_iter": t.info.n_iter, "tensorly_rel_error": other_error,
        "tensorly_reached": other_error <= best * (1 + 1e-4), "tensorly_seconds": other_seconds,
        "tensorly_over_ours": other_seconds / seconds,
    }  # fmt: skip


def main() -> None:
    cp(data(50, 2, 0.1, 0.0, 0), 2)  # imports
    results: dict = {"sweeps": [], "fits": []}
    for case in SWEEPS:
        row = sweep_row(*case)
        results["sweeps"].append(row)
        print(
            f"sweep {row['shape']!s:24} R {row['rank']:2} {row['dtype']}: {row['ms']:6.1f} ms, "
            f"{row['over_products']:.2f} x two products; TensorLy {row['tensorly_over_ours']:.1f} x"
        )
    for case in FITS:
        row = fit_row(*case)
        results["fits"].append(row)
        print(
            f"fit {row['size']}^3 R {row['rank']:2} noise {row['noise']:g} collinear {row['collinearity']}: "
            f"error {row['rel_error']:.6g} (best of 20 {row['best_of_20']:.6g}, "
            f"{row['starts_that_reached']} starts reach it) {row['seconds']:.2f} s; TensorLy "
            f"{row['tensorly_rel_error']:.6g} {row['tensorly_seconds']:.2f} s, "
            f"{row['tensorly_over_ours']:.1f} x"
        )
    fits = results["fits"]
    results["reached"] = sum(row["reached"] for row in fits)
    results["tensorly_reached"] = sum(row["tensorly_reached"] for row in fits)
    results["tensorly_over_ours"] = sum(r["tensorly_seconds"] for r in fits) / sum(r["seconds"] for r in fits)
    print(
        f"best of 20 reached: {results['reached']} of {len(fits)} (TensorLy {results['tensorly_reached']}); "
        f"CPU seconds of all fits: TensorLy {results['tensorly_over_ours']:.1f} x"
    )
    record.write("cp", results | {"versions": record.versions("numpy", "tensorly")})


if __name__ == "__main__":
    main()
