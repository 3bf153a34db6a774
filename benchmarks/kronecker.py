"""Kronecker operators against TensorLy, linear_operator, GEMM and the full SVD, in one process.

Run: ``OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.kronecker``. Process CPU seconds, minimum
of several runs. Prints a table and writes ``results/kronecker.json``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from linear_operator.operators import DenseLinearOperator, KroneckerProductLinearOperator
from tensorly.tenalg import multi_mode_dot

from benchmarks import record
from benchmarks.record import cpu_seconds
from tenfac import KroneckerOperator, nearest_kronecker


def peer(factors: list[np.ndarray]) -> Any:
    """The same operator of linear_operator, on tensors that share the memory."""
    return KroneckerProductLinearOperator(*(DenseLinearOperator(torch.from_numpy(f)) for f in factors))


def products(rng: np.random.Generator) -> dict:
    """Matrix-vector products; the limit is the GEMM rate at 1000 x 1000."""
    G = rng.standard_normal((1000, 1000))
    rate = 2e9 / cpu_seconds(lambda: G @ G)
    rows = {}
    for size, d in ((1000, 2), (100, 3), (30, 4), (16, 6)):
        factors = [rng.standard_normal((size, size)) for _ in range(d)]
        x = rng.standard_normal(size**d)
        K, X, theirs, x_torch = (
            KroneckerOperator(*factors),
            x.reshape((size,) * d),
            peer(factors),
            torch.from_numpy(x),
        )
        ours = cpu_seconds(lambda K=K, x=x: K @ x)
        dot = cpu_seconds(lambda X=X, factors=factors: multi_mode_dot(X, factors))
        linear = cpu_seconds(lambda theirs=theirs, x_torch=x_torch: theirs @ x_torch, 3)
        K_torch = KroneckerOperator(*map(torch.from_numpy, factors))
        ours_torch = cpu_seconds(lambda K=K_torch, x=x_torch: K @ x, 3)
        difference = np.linalg.norm(K @ x - multi_mode_dot(X, factors).ravel()) / np.linalg.norm(K @ x)
        rows[f"{size}^{d}"] = {
            "seconds": ours,
            "seconds_torch": ours_torch,
            "of_gemm_rate": 2 * d * size ** (d + 1) / ours / rate,
            "over_tensorly": dot / ours,
            "over_linear_operator": linear / ours,
            "torch_over_linear_operator": linear / ours_torch,
            "relative_difference": float(difference),
        }
    return rows


def shifted_solve() -> dict:
    """``(K + 0.1 I) x = y`` on a 60^3 grid, set-up included."""
    rng = np.random.default_rng(1)
    grid = np.linspace(0, 1, 60)
    kernel = np.exp(-np.abs(grid[:, None] - grid) / 0.3)
    factors, y = [kernel] * 3, rng.standard_normal(60**3)
    y_torch = torch.from_numpy(y)
    K = KroneckerOperator(*factors)

    def theirs() -> torch.Tensor:
        return peer(factors).add_jitter(0.1).solve(y_torch[:, None])[:, 0]

    def residual(x: np.ndarray, shift: float) -> dict[str, float]:
        r = np.linalg.norm(K @ x + shift * x - y)
        size = np.prod([np.linalg.norm(f, 2) for f in factors]) + shift
        of_y, backward = r / np.linalg.norm(y), r / (size * np.linalg.norm(x) + np.linalg.norm(y))
        return {"of_y": float(of_y), "backward": float(backward)}

    with torch.no_grad():
        ours, linear = cpu_seconds(lambda: K.shifted(0.1).solve(y)), cpu_seconds(theirs)
        x_linear = theirs().numpy()
    S = K.shifted(0.1)
    well = K.shifted(1000.0)
    return {
        "seconds": ours,
        "seconds_after_setup": cpu_seconds(lambda: S.solve(y)),
        "over_linear_operator": linear / ours,
        "residual": residual(S.solve(y), 0.1),
        "residual_linear_operator": residual(x_linear, 0.1),
        "residual_of_a_well_conditioned_shift": residual(well.solve(y), 1000.0),
        "condition": float((S.eigen.values.max() + 0.1) / (S.eigen.values.min() + 0.1)),
    }


def nearest(rng: np.random.Generator) -> dict:
    """1024^2 to 32x32 (x) 32x32 against the full SVD of the rearranged matrix."""
    A, B, noise = (
        rng.standard_normal((32, 32)),
        rng.standard_normal((32, 32)),
        rng.standard_normal((1024, 1024)),
    )
    cases = {
        "one term and 10 % noise": (np.kron(A, B) + 0.1 * noise, 1),
        "one term and 50 % noise": (np.kron(A, B) + 0.5 * noise, 1),
        "noise alone": (noise, 1),
    }
    rows = {}
    for name, (M, terms) in cases.items():

        def full(M: np.ndarray = M) -> np.ndarray:
            R = M.reshape(32, 32, 32, 32).transpose(0, 2, 1, 3).reshape(1024, 1024)
            return np.linalg.svd(R, full_matrices=False)[1]

        values = full()
        best = np.linalg.norm(values[terms:]) / np.linalg.norm(values)
        K = nearest_kronecker(M, [(32, 32), (32, 32)], terms=terms)
        ours = cpu_seconds(lambda M=M, terms=terms: nearest_kronecker(M, [(32, 32)] * 2, terms=terms))
        rows[name] = {
            "seconds": ours,
            "over_full_svd": cpu_seconds(full, 2) / ours,
            "rel_error": K.info.rel_error,
            "rel_error_over_best_minus_1": K.info.rel_error / best - 1,
            "n_iter": K.info.n_iter,
        }
    return rows


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    results = {"product": products(rng), "shifted_solve": {"60^3": shifted_solve()}, "nearest": nearest(rng)}
    for kind, rows in results.items():
        for name, row in rows.items():
            print(kind, name)
            for key, value in row.items():
                print(f"    {key:38} {value if isinstance(value, dict) else format(value, '.4g')}")
    packages = "numpy", "torch", "tensorly", "linear_operator"
    record.write("kronecker", results | {"versions": record.versions(*packages)})


if __name__ == "__main__":
    main()
