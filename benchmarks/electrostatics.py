"""Gaussian sums by moments against RHOSVD of all terms, and electrostatics against direct summation.

Run from the root: ``python -m benchmarks.electrostatics [SECTION ...]``; the sections, by default all:

sums     alpha 8, 1e-10: moments, core and rounding for N up to 100,000; RHOSVD of the N K terms at N = 1,000
systems  potential, energy and forces of clouds, a chain and rock salt against the double sum
newton   one center, the smoothest terms of a sinc quadrature of 1 / r: ranks and errors of the published
table

Prints ratios in the same process, process CPU seconds of one thread, the least of several runs, and writes
``results/electrostatics.json``; sections that are not run keep their entries.
"""

from __future__ import annotations

import argparse
import resource
from typing import Any

import numpy as np
from scipy.special import erf
from threadpoolctl import threadpool_limits

from benchmarks import record
from benchmarks.record import timed
from tenfac import Electrostatics, GaussianBasis
from tenfac.functional.charges.separation import separate
from tests.functional.charges.rhosvd import gaussian_rhosvd, sinc_terms

CUBE = [(-1.0, 1.0)] * 3
# n, R, R_l, rank and error at 129 coefficients: arXiv:2503.01696, regenerated from the authors' vectors
NEWTON = [
    (256, 26, 10, 9, 8.4e-8),
    (512, 29, 12, 11, 5.2e-8),
    (1024, 31, 13, 12, 9.4e-9),
    (2048, 34, 14, 13, 3.6e-9),
]


def error_of(function: Any, alpha: float, centers: np.ndarray, charges: np.ndarray) -> float:
    """Largest error at random points and centers against erf(alpha r) / r."""
    points = np.concatenate([np.random.default_rng(9).uniform(-1, 1, (60, 3)), centers[:20]])
    r = np.linalg.norm(points[:, None] - centers, axis=2)
    safe = np.where(r > 0, r, 1.0)
    want = np.where(r > 0, erf(alpha * safe) / safe, 2 * alpha / np.sqrt(np.pi)) @ charges
    return float(np.abs(function.at(*points.T) - want).max() / np.abs(want).max())


def run_sums() -> dict[str, Any]:
    alpha, tol, rng = 8.0, 1e-10, np.random.default_rng(0)
    split = separate(alpha, 2 * 3**0.5, 5e-13)
    basis, built = timed(lambda: GaussianBasis(split.exponents, split.weights, domain=CUBE, tol=tol), 3)
    out: dict[str, Any] = {"alpha": alpha, "tol": tol, "terms": len(split.weights), "basis seconds": built}
    for count, runs in ((100, 3), (1000, 3), (10_000, 3), (100_000, 1)):
        centers, charges = rng.uniform(-1, 1, (count, 3)), rng.choice([-1.0, 1.0], count)
        made, spent = timed(lambda x=centers, z=charges: basis.sum(x, z), runs)
        error = error_of(made, alpha, centers, charges)
        out[f"N={count}"] = {"seconds": spent, "rank": made.rank, "error": error}
        print(f"moments N={count:7,}: {spent:.3f} s, rank {made.rank}, error {error:.1e}", flush=True)
        if count == 1000:
            made, spent = timed(
                lambda x=centers, z=charges: gaussian_rhosvd(
                    x, z, split.exponents, split.weights, domain=CUBE, size=basis.modes[0].size, tol=tol
                ),
                3,
            )
            error = error_of(made, alpha, centers, charges)
            out["RHOSVD N=1000"] = {"seconds": spent, "rank": made.rank, "error": error}
            print(f"RHOSVD  N=  1,000: {spent:.3f} s, rank {made.rank}, error {error:.1e}", flush=True)
    out["peak memory, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    out["RHOSVD N=1000 / moments N=10000"] = out["RHOSVD N=1000"]["seconds"] / out["N=10000"]["seconds"]
    print(f"moments at ten times the N are {out['RHOSVD N=1000 / moments N=10000']:.1f} x faster", flush=True)
    return out


def direct(positions: np.ndarray, charges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value, field = np.zeros(len(charges)), np.zeros((len(charges), 3))
    for n, place in enumerate(positions):
        delta = place - positions
        r = np.linalg.norm(delta, axis=1)
        r[n] = np.inf
        value[n], field[n] = charges @ (1 / r), (charges / r**3) @ delta
    return value, field


def run_systems() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    systems = {
        "random 4000": (rng.uniform(-30, 30, (4000, 3)), rng.choice([-1.0, 1.0], 4000), 0.2),
        "rock salt 16^3": (cells, (-1.0) ** cells.sum(axis=1), 0.75),
    }
    out = {}
    for name, (positions, charges, alpha) in systems.items():
        (value, field), plain = timed(lambda x=positions, z=charges: direct(x, z))
        for a in (alpha, 1.5 * alpha):
            row: dict[str, Any] = {"alpha": a, "direct potential and field, seconds": plain}
            made, row["build"] = timed(lambda x=positions, z=charges, a=a: Electrostatics(x, z, alpha=a))
            got, row["potential"] = timed(made.potential)
            forces, row["forces"] = timed(made.forces)
            energy, row["energy"] = timed(made.energy)
            want = charges[:, None] * field
            row["potential error"] = float(np.abs(got - value).max() / np.abs(value).max())
            row["forces error"] = float(np.abs(forces - want).max() / np.abs(want).max())
            row["energy error"] = float(abs(energy / (value @ charges / 2) - 1))
            row["rank"] = made.long_range.rank
            out[f"{name}, alpha {a:g}"] = row
            shown = ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(f"{name}: {shown}", flush=True)
    return out


def run_newton() -> dict[str, Any]:
    out = {}
    for n, terms, kept, rank, published in NEWTON:
        tau, w = (values[:kept] for values in sinc_terms(terms, n))
        made = gaussian_rhosvd(np.zeros((1, 3)), np.ones(1), tau, w, domain=CUBE, size=129, tol=1e-7)
        x = np.linspace(-1 + 1 / n, 1 - 1 / n, n)[:: n // 64]
        a, b = np.meshgrid(x, x, indexing="ij")
        want = np.exp(-np.multiply.outer(a**2 + b**2 + n**-2.0, tau)) @ w
        error = float(np.abs(made.at(a, b, np.full_like(a, 1 / n)) - want).max() / np.abs(want).max())
        out[f"n={n}"] = {
            "rank": max(made.rank),
            "published": rank,
            "error": error,
            "published error": published,
        }
        print(f"newton n={n}: rank {max(made.rank)} (published {rank}), error {error:.1e} ({published:.1e})")
    return out


SECTIONS = {"sums": run_sums, "systems": run_systems, "newton": run_newton}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="which to run; all by default")
    chosen = parser.parse_args().sections or list(SECTIONS)
    results = record.read("electrostatics")
    with threadpool_limits(limits=1):
        for name in chosen:
            results[name] = SECTIONS[name]()
    results["versions"] = record.versions("numpy", "scipy", threads=1)
    record.write("electrostatics", results)


if __name__ == "__main__":
    main()
