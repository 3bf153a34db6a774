"""Values of functions in Chebyshev-Tucker form at scattered points: against numpy, teneva and scipy.

Run from the root: ``python -m benchmarks.function_evaluation``. Prints points per CPU second of one thread,
their ratios to the peers in the same process, the errors of all against the function itself, and what
gradients and patches cost; writes ``results/function_evaluation.json``. teneva is left out where it is not
installed.

numpy evaluates the full coefficient tensor (``chebval3d``); teneva the same function as a tensor train of the
same ranks (``func_get``); scipy a cubic ``RegularGridInterpolator`` with as many numbers as the format. The
share of the matrix products is the time of those alone, with the same shapes and blocks, over the whole time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.interpolate
from threadpoolctl import threadpool_limits

import tenfac
from benchmarks import record
from tenfac.core.arrays import namespace_of
from tenfac.core.points import points_in_block
from tenfac.functional.build import chebyshev_tucker

try:
    import teneva
except ImportError:
    teneva = None

POINTS, CUT = 100_000, 4


def yukawa(x: Any, y: Any, z: Any) -> Any:
    r = np.sqrt((x + 1.2) ** 2 + (y + 1.2) ** 2 + (z + 1.2) ** 2)
    return np.exp(-r) / r


def cosh3(x: Any, y: Any, z: Any) -> Any:
    return 1 / np.cosh(3 * (x + y + z)) ** 2


CASES = (("yukawa", yukawa, 1e-6), ("yukawa", yukawa, 1e-13), ("cosh3", cosh3, 1e-10))


def rate(call: Callable[[], Any], count: int, runs: int = 5) -> float:
    """Points per CPU second, the best of several runs."""
    return rates({"": (call, count)}, runs)[""]


def rates(calls: dict[str, tuple[Callable[[], Any], int]], runs: int = 9) -> dict[str, float]:
    """Points per CPU second, the best of several runs, in turns: a busy machine slows all of them."""
    best = dict.fromkeys(calls, np.inf)
    for _ in range(runs):
        for name, (call, _count) in calls.items():
            best[name] = min(best[name], record.cpu_seconds(call, 1))
    return {name: count / max(best[name], 1e-9) for name, (_, count) in calls.items()}


def matrix_products(t: Any) -> Callable[[], Any]:
    """The matrix products of a block, as often as there are blocks."""
    step, ranks = points_in_block(t._kernel(namespace_of(t.core)).width), sorted(t.rank)
    pair, basis = np.ones((ranks[0] * ranks[1], step)), [np.ones((f.shape[0], step)) for f in t.factors]
    core = np.ones((ranks[2], ranks[0] * ranks[1]))

    def run() -> None:
        for _ in range(POINTS // step):
            for factor, values in zip(t.factors, basis, strict=True):
                factor.T @ values
            core @ pair

    return run


def peers(t: Any, f: Callable[..., Any], X: np.ndarray) -> dict[str, tuple[Callable[..., Any], np.ndarray]]:
    """The other ways to evaluate, and at which of the points."""
    full = np.einsum("pqr,ip,jq,kr->ijk", t.core, *t.factors, optimize=True)
    found = {"chebval3d": (lambda x: np.polynomial.chebyshev.chebval3d(*x, full), X[:, :300])}
    if teneva is not None:
        train = [
            t.factors[0][None],
            np.einsum("pqr,jq->pjr", t.core, t.factors[1]),
            t.factors[2].T[:, :, None],
        ]
        found["teneva"] = (
            lambda x: teneva.func_get(np.ascontiguousarray(x.T), train, -1.0, 1.0),
            X[:, :3000],
        )
    axis = np.linspace(-1, 1, max(round(t.n_params ** (1 / 3)), 4))
    table = f(*np.meshgrid(axis, axis, axis, indexing="ij"))
    cubic = scipy.interpolate.RegularGridInterpolator((axis,) * 3, table, method="cubic")
    found["scipy cubic, equal storage"] = (lambda x: cubic(x.T), X[:, :20_000])
    return found


def error_of(call: Callable[[np.ndarray], Any], f: Callable[..., Any], X: np.ndarray) -> float:
    exact = f(*X)
    return float(np.abs(call(X) - exact).max() / np.abs(exact).max())


def case(name: str, f: Callable[..., Any], tol: float) -> dict[str, Any]:
    t = chebyshev_tucker(f, [(-1, 1)] * 3, tol)
    X = np.random.default_rng(0).uniform(-1, 1, (3, POINTS))
    patches, seconds = record.timed(lambda: tenfac.split(t, CUT, tol=tol))
    others = peers(t, f, X)
    found = rates(
        {
            "values": (lambda: t.at(*X), POINTS),
            "products": (matrix_products(t), POINTS),
            "gradients": (lambda: t.value_and_grad(*X), POINTS),
            "patches": (lambda: patches.at(*X), POINTS),
            **{peer: (lambda c=call, x=x: c(x), x.shape[1]) for peer, (call, x) in others.items()},
        }
    )
    values = found["values"]
    added = np.abs(patches.at(*X) - t.at(*X)).max() / tol / np.abs(f(*X)).max()
    return {
        "function": name,
        "tol": tol,
        "rank": t.rank,
        "coefficients": t.coef_shape,
        "error": error_of(lambda x: t.at(*x), f, X),
        "points_per_second": values,
        "share_of_matrix_products": values / found["products"],
        "gflops": values * (2 * sum(f.size for f in t.factors) + 2 * t.core.size) / 1e9,
        "value_and_grad_cost": values / found["gradients"],
        "grid_points_per_second": rate(lambda: t.on_grid(*[np.linspace(-1, 1, 128)] * 3), 128**3),
        "split": {
            "boxes": CUT**3,
            "speed_up": found["patches"] / values,
            "storage": patches.n_params / t.n_params,
            "added_error_over_tol": float(added),
            "seconds": seconds,
        },
        "peers": {
            peer: {
                "points_per_second": found[peer],
                "error": error_of(call, f, x),
                "times_slower": values / found[peer],
            }
            for peer, (call, x) in others.items()
        },
    }


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['function']} tol {row['tol']:g}, rank {row['rank']}, coefficients {row['coefficients']}: "
        f"{row['points_per_second']:.3g} points/s, {row['gflops']:.1f} GFlop/s, "
        f"{row['share_of_matrix_products']:.0%} in matrix products, error {row['error']:.1e}"
    )
    print(
        f"  gradient too {row['value_and_grad_cost']:.2f} x value; grid {row['grid_points_per_second']:.3g} "
        f"points/s; split into {row['split']['boxes']}: {row['split']['speed_up']:.1f} x faster at "
        f"{row['split']['storage']:.2f} x storage, {row['split']['seconds']:.1f} s"
    )
    for name, peer in row["peers"].items():
        print(f"  {name}: {peer['times_slower']:.3g} x slower, error {peer['error']:.1e}")


def main() -> None:
    with threadpool_limits(1):
        rows = [case(*each) for each in CASES]
    for row in rows:
        show(row)
    versions = record.versions("numpy", "scipy", "teneva", threads=1)
    record.write("function_evaluation", {"versions": versions, "cases": rows})


if __name__ == "__main__":
    main()
