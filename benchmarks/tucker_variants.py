"""HOOI, sketches, cross approximation and sparse Tucker against named peers in the same process.

Run: ``OPENBLAS_NUM_THREADS=1 python -m benchmarks.tucker_variants``. Prints a table and writes
``results/tucker_variants.json``. Times are process CPU seconds, the least of several runs; errors are true
relative errors, formed from the dense tensor where there is one.
"""

from __future__ import annotations

import resource
import warnings
from typing import Any

import numpy as np
import pyttb
import tensorly as tl
from scipy.sparse import coo_array
from tensorly.decomposition import tucker as tensorly_tucker

import tenfac
from benchmarks import record
from benchmarks.record import timed
from tenfac import ConvergenceWarning, hooi, randomized_tucker, tucker, tucker_cross


def true_error(dense: np.ndarray, X: np.ndarray) -> float:
    return float(np.linalg.norm(dense - X) / np.linalg.norm(X))


def noisy(shape: tuple[int, ...], rank: int, seed: int = 0) -> np.ndarray:
    """Tucker tensor with factors that fall by 0.9 a column, and 1 % noise."""
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((size, rank)) * 0.9 ** np.arange(rank) for size in shape]
    X = tenfac.Tucker(rng.standard_normal((rank,) * len(shape)), factors).to_tensor()
    return X + 0.01 * np.linalg.norm(X) / np.sqrt(X.size) * rng.standard_normal(shape)


def hooi_rows() -> list[dict[str, Any]]:
    """HOOI against tensorly.tucker, the same number of sweeps."""
    rows = []
    unstructured = np.random.default_rng(0).standard_normal((40, 40, 40))
    for name, X, rank in (("noise 40^3", unstructured, 8), ("low rank 100^3", noisy((100,) * 3, 10), 10)):
        for sweeps in (10, 100):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                ours, cpu = timed(lambda X=X, r=rank, n=sweeps: hooi(X, r, max_iter=n, tol=1e-7), 3)
            options = {"n_iter_max": sweeps, "tol": 1e-7}
            theirs, peer = timed(lambda X=X, r=rank, o=options: tensorly_tucker(X, (r,) * 3, **o))
            rows.append(
                {
                    "case": f"hooi, {name} r{rank}, at most {sweeps} sweeps",
                    "sweeps": ours.info.n_iter,
                    "error": true_error(ours.to_tensor(), X),
                    "error of tensorly.tucker": true_error(tl.tucker_to_tensor(theirs), X),
                    "error of ST-HOSVD": ours.info.history[0],
                    "cpu": cpu,
                    "cpu of tensorly.tucker": peer,
                    "times faster": peer / cpu,
                }
            )
    return rows


def sketch_rows() -> list[dict[str, Any]]:
    """randomized_tucker against tucker."""
    rows = []
    for shape in ((200, 200, 200), (300, 300, 300), (1000, 1000, 20), (2000, 1500, 10)):
        X = noisy(shape, 10)
        fast, cpu = timed(lambda X=X: randomized_tucker(X, 10), 2)
        exact, peer = timed(lambda X=X: tucker(X, 10), 2)
        rows.append(
            {
                "case": f"randomized_tucker, {shape} r10",
                "error": fast.info.rel_error,
                "error of tucker": exact.info.rel_error,
                "cpu": cpu,
                "cpu of tucker": peer,
                "times faster": peer / cpu,
            }
        )
    return rows


FUNCTIONS = {
    "1/(x+y+z+.05)": lambda x: 1 / (x.sum(axis=-1) + 0.05),
    "sqrt(x^2+y^2+z^2+.01)": lambda x: np.sqrt((x**2).sum(axis=-1) + 0.01),
    "|x+y+z-1.3| (kink)": lambda x: np.abs(x.sum(axis=-1) - 1.3),
}


def cross_rows(n: int = 200) -> list[dict[str, Any]]:
    """tucker_cross against the best of its rank, tucker of all entries."""
    x = np.linspace(0, 1, n)
    grid = np.stack(np.meshgrid(x, x, x, indexing="ij"), axis=-1)
    rows = []
    for name, f in FUNCTIONS.items():
        X = f(grid)
        for tol in (1e-4, 1e-8):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                t, cpu = timed(lambda f=f, tol=tol: tucker_cross(lambda i: f(x[i]), (n,) * 3, tol), 2)
            error, best = true_error(t.to_tensor(), X), tucker(X, t.rank).info.rel_error
            rows.append(
                {
                    "case": f"cross, {name} {n}^3, tol {tol:g}",
                    "rank": t.rank,
                    "converged": t.info.converged,
                    "share of entries": t.info.n_evals / X.size,
                    "error": error,
                    "estimated": t.info.rel_error,
                    "over the best of its rank": error / best,
                    "cpu": cpu,
                }
            )
    return rows


def sparse_rows() -> list[dict[str, Any]]:
    """Sparse tucker against pyttb.tucker_als, and a tensor that no dense method can hold."""
    rows = []
    for shape, n, rank, with_peer in (
        ((200, 200, 200), 20_000, 5, True),
        ((1000, 1000, 1000), 100_000, 5, True),
        ((15_000, 15_000, 10_000), 1_000_000, 5, False),
        ((15_000, 15_000, 10_000), 1_000_000, 10, False),
    ):
        rng = np.random.default_rng(0)
        places = np.stack([np.minimum(rng.geometric(8 / size, size=n), size) - 1 for size in shape])
        X = coo_array((rng.random(n), tuple(places)), shape=shape)
        X.sum_duplicates()
        t, cpu = timed(lambda X=X, r=rank: tucker(X, r))
        row = {"case": f"sparse, {shape}, {X.nnz} entries, r{rank}", "error": t.info.rel_error, "cpu": cpu}
        if with_peer:
            sparse = pyttb.sptensor(np.stack(X.coords, axis=1), X.data[:, None], shape)
            call = lambda s=sparse, r=rank: pyttb.tucker_als(s, r, maxiters=2, printitn=0)  # noqa: E731
            (model, _, _), peer = timed(call)
            norm, left = np.linalg.norm(X.data), np.linalg.norm(model.core.double())
            row |= {"error of pyttb.tucker_als, 2 sweeps": float(np.sqrt(1 - (left / norm) ** 2))}
            row |= {"cpu of pyttb": peer, "times faster": peer / cpu}
        row["peak memory so far, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        rows.append(row)
    return rows


def main() -> None:
    packages = "numpy", "scipy", "tensorly", "pyttb"
    results: dict[str, Any] = {"versions": record.versions(*packages)}
    for name, make in (
        ("sparse", sparse_rows),
        ("hooi", hooi_rows),
        ("sketch", sketch_rows),
        ("cross", cross_rows),
    ):
        results[name] = make()
        for row in results[name]:
            shown = [
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "case"
            ]
            print(f"{row['case']}: {', '.join(shown)}", flush=True)
    record.write("tucker_variants", results)


if __name__ == "__main__":
    main()
