"""Functions of several variables: ``chebyshev_tucker`` beside teneva, numpy and scipy.

Run from the root: ``python -m benchmarks.functions``. Eight functions at three tolerances, beside the full
tensor on the grid found (the algorithm of arXiv:2503.01696) and teneva's TT-cross on it; forty functions with
integrals in closed form; a function of four variables; functions of five to ten, whose core is a tensor
train, beside teneva's TT-cross in the order given; the speed of evaluation at scattered points against
numpy's ``chebval3d``, scipy's ``RegularGridInterpolator`` and teneva, each on the same function in the same
process. Seconds are CPU seconds of one thread, the least of several runs. Writes ``results/functions.json``.
teneva is left out where it is not installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.special import airy
from threadpoolctl import threadpool_limits

import tenfac
from benchmarks import record
from benchmarks.record import timed
from tenfac.core.modes.chebyshev import Chebyshev
from tests.functional.battery import EIGHT, FORTY, UNIT, points_of

try:
    import teneva
except ImportError:
    teneva = None

TENEVA_EVALUATIONS = 300_000


def error(values: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(values - true).max() / np.abs(true).max())


def full_tensor(f: Any, domain: Any, sizes: tuple[int, ...], tol: float) -> tuple[Any, int]:
    """The function through its values on a whole grid, and their number."""
    axes = [Chebyshev(2 * (k // 2) + 9, ab).nodes() for k, ab in zip(sizes, domain, strict=True)]
    values = f(*np.meshgrid(*axes, indexing="ij"))
    return tenfac.chebyshev_from_grid(values, axes, tol), values.size


def tt_cross(f: Any, domain: Any, sizes: tuple[int, ...], tol: float, points: np.ndarray) -> dict[str, Any]:
    """teneva's cross on the Chebyshev grid of known size, with a limit of evaluations."""
    low, high = (list(ends) for ends in zip(*domain, strict=True))
    n = [k + 1 for k in sizes]

    def on_grid(index: np.ndarray) -> np.ndarray:
        return f(*teneva.ind_to_poi(index, low, high, n, "cheb").T)

    info: dict[str, Any] = {}
    start = teneva.rand(n, 1, seed=0)
    Y = teneva.cross(on_grid, start, m=TENEVA_EVALUATIONS, e=tol, nswp=12, dr_max=2, info=info)
    A = teneva.func_int(Y)
    got = teneva.func_get(points[:, :500].T, A, low, high)
    return {"evaluations": int(info["m"]), "error": error(got, f(*points[:, :500]))}


def eight() -> dict[str, Any]:
    rows = {}
    for name, (f, domain, allowed, peak) in EIGHT.items():
        points = points_of(domain, peak)
        for tol in (1e-6, 1e-10, 1e-13):
            F, seconds = timed(lambda f=f, domain=domain, tol=tol: tenfac.chebyshev_tucker(f, domain, tol), 3)
            row = {
                "evaluations": F.info.n_evals,
                "allowed at 1e-13": allowed,
                "rank": F.rank,
                "coefficients": F.coef_shape,
                "converged": F.info.converged,
                "error / tol": error(F.at(*points), f(*points)) / tol,
                "seconds": seconds,
            }
            if name != "wagon":
                (G, count), row["full seconds"] = timed(
                    lambda f=f, domain=domain, F=F, tol=tol: full_tensor(f, domain, F.coef_shape, tol), 3
                )
                row |= {"full evaluations": count, "full error / tol": error(G.at(*points), f(*points)) / tol}
                if teneva is not None and tol == 1e-10 and name in ("yukawa", "runge25", "gauss10", "cosxyz"):
                    row["teneva"] = tt_cross(f, domain, F.coef_shape, tol, points)
            rows[f"{name} {tol:g}"] = row
            print(f"{name:8} {tol:g}", {k: v for k, v in row.items() if k != "allowed at 1e-13"}, flush=True)
    return rows


def forty() -> dict[str, Any]:
    spent, worst_integral, worst = 0, 0.0, 0.0
    made, seconds = timed(
        lambda: {name: tenfac.chebyshev_tucker(f, UNIT, 1e-13) for name, (f, _) in FORTY.items()}
    )
    for name, (f, exact) in FORTY.items():
        F, points = made[name], points_of(UNIT)
        total = F.core
        for mode, factor in zip(F.modes, F.factors, strict=True):
            total = np.tensordot(mode.integral(factor) @ factor, total, axes=1)
        true = f(*points)
        worst_integral = max(worst_integral, abs(float(total) - exact) / float(np.abs(true).max()))
        worst = max(worst, error(F.at(*points), true))
        spent += F.info.n_evals
    return {"evaluations": spent, "worst integral": worst_integral, "worst error": worst, "seconds": seconds}


def four_variables() -> dict[str, Any]:
    def f(a: Any, b: Any, c: Any, d: Any) -> Any:
        return airy(-8 * (a * d + b * c))[0]

    domain = [(-1, 1)] * 4
    F, seconds = timed(lambda: tenfac.chebyshev_tucker(f, domain, 1e-8))
    points = points_of(domain)
    return {
        "evaluations": F.info.n_evals,
        "rank": F.rank,
        "error": error(F.at(*points), f(*points)),
        "converged": F.info.converged,
        "seconds": seconds,
    }


def many_variables() -> dict[str, Any]:
    """Functions of five to ten variables: evaluations, ranks, the order found, errors."""
    rates = np.random.default_rng(5).uniform(-1, 1, (4, 6))
    functions: dict[str, tuple[Callable[..., Any], int]] = {
        "1/sqrt(|x-y|^2+1), x, y in space": (
            lambda *x: 1 / np.sqrt(sum((x[n] - x[n + 3]) ** 2 for n in range(3)) + 1),
            6,
        ),
        "1/(1+|x-y|^2), x, y in four dimensions": (
            lambda *x: 1 / (1 + sum((x[n] - x[n + 4]) ** 2 for n in range(4))),
            8,
        ),
        "sum of 4 exponentials, 5": (lambda *x: sum(np.exp(r[:5] @ np.array(x)) for r in rates), 5),
        "sum of 4 exponentials, 6": (lambda *x: sum(np.exp(r @ np.array(x)) for r in rates), 6),
        "product of cosines": (
            lambda *x: np.prod([np.cos(n + n * v) for n, v in enumerate(x, 1)], axis=0),
            6,
        ),
        "sin(sum), 10": (lambda *x: np.sin(sum(x)), 10),
        "1/(d+1+sum), 6": (lambda *x: 1 / (7 + sum(x)), 6),
        "1/(d+1+sum), 10": (lambda *x: 1 / (11 + sum(x)), 10),
        "rosenbrock peak, 5": (lambda *x: np.exp(-sum((x[n + 1] - x[n] ** 2) ** 2 for n in range(4))), 5),
        "runge25, 5": (lambda *x: 1 / (1 + 25 * sum(v * v for v in x)), 5),
    }
    rows = {}
    for name, (f, d) in functions.items():
        domain = [(-1.0, 1.0)] * d
        points = points_of(domain, count=100_000)
        for tol in (1e-6, 1e-10):
            F, seconds = timed(lambda f=f, domain=domain, tol=tol: tenfac.chebyshev_tucker(f, domain, tol))
            got, at = timed(lambda F=F, points=points: F.at(*points))
            row = {
                "evaluations": F.info.n_evals,
                "format": type(F).__name__,
                "rank": F.rank,
                "train rank": getattr(F, "train_rank", None),
                "order": getattr(F, "order", None),
                "numbers": F.n_params,
                "converged": F.info.converged,
                "error / tol": error(got, f(*points)) / tol,
                "seconds": seconds,
                "points per second": 100_000 / at,
            }
            if teneva is not None and tol == 1e-6 and d == 6:
                row["teneva"] = tt_cross(f, domain, F.coef_shape, tol, points)
            rows[f"{name} {tol:g}"] = row
            print(name, tol, row, flush=True)
    return rows


def speed() -> dict[str, Any]:
    """Points per second, and how many times faster than each peer."""
    rows = {}
    for name, tol in (("yukawa", 1e-6), ("yukawa", 1e-13), ("runge25", 1e-10)):
        f, domain, _, _ = EIGHT[name]
        F = tenfac.chebyshev_tucker(f, domain, tol)
        points = points_of(domain, count=100_000)
        rates = {"tenfac": 100_000 / timed(lambda F=F, points=points: F.at(*points), 3)[1]}
        dense = F.core
        for n, factor in enumerate(F.factors):
            dense = np.moveaxis(np.tensordot(factor, dense, axes=(1, n)), 0, n)
        few = points[:, :500]
        rates["numpy chebval3d"] = (
            500 / timed(lambda few=few, dense=dense: np.polynomial.chebyshev.chebval3d(*few, dense), 2)[1]
        )
        side = max(round(F.n_params ** (1 / 3)), 5)
        axes = [np.linspace(a, b, side) for a, b in domain]
        cubic = RegularGridInterpolator(axes, f(*np.meshgrid(*axes, indexing="ij")), method="cubic")
        rates["scipy cubic"] = 20_000 / timed(lambda c=cubic, p=points: c(p[:, :20_000].T), 2)[1]
        row: dict[str, Any] = {"points per second": rates, "rank": F.rank, "coefficients": F.coef_shape}
        row["errors"] = {
            "tenfac": error(F.at(*points), f(*points)),
            "scipy cubic": error(cubic(points[:, :20_000].T), f(*points[:, :20_000])),
        }
        if teneva is not None:
            low, high = (list(ends) for ends in zip(*domain, strict=True))
            A = teneva.svd(dense, 1e-14)
            got, seconds = timed(
                lambda A=A, few=few, low=low, high=high: teneva.func_get(few.T, A, low, high), 3
            )
            rates["teneva"] = 500 / seconds
            row["errors"]["teneva"] = error(got, f(*few))
        row["times faster"] = {k: rates["tenfac"] / v for k, v in rates.items() if k != "tenfac"}
        rows[f"{name} {tol:g}"] = row
        print(name, tol, row, flush=True)
    return rows


def main() -> None:
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = {
            "versions": record.versions("numpy", "scipy", "teneva", threads=1),
            "eight": eight(),
            "forty": forty(),
            "airy in four variables": four_variables(),
            "many variables": many_variables(),
            "speed": speed(),
        }
    print({k: results[k] for k in ("forty", "airy in four variables")})
    record.write("functions", results)


if __name__ == "__main__":
    main()
