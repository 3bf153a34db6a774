"""CP and Tucker completion of 100^3 tensors from few entries, against TensorLy in the same process.

Run: ``python -m benchmarks.completion``. Prints a table and writes ``results/completion.json``.

Gaussian factors (and core), noise of 1 % of the norm, entries chosen at random. The held-out error is that at
100,000 other noisy entries, relative to their norm. "Perfect" is least squares started at the true factors.
The seeds of the data are none that a fit draws from. Seconds are process CPU seconds.
"""

from __future__ import annotations

import warnings

import numpy as np
import tensorly
from scipy.sparse import coo_array
from tensorly.decomposition import parafac
from tensorly.decomposition import tucker as tensorly_tucker

import tenfac
from benchmarks import record
from benchmarks.record import timed
from tenfac import cp_complete, datasets, tucker_complete

SIZE, NOISE, N_DATA, N_PEER = 100, 0.01, 10, 2
CASES = [("cp", 5, 0.05), ("cp", 10, 0.05), ("cp", 5, 0.02), ("cp", 10, 0.02), ("cp", 5, 0.01)]
CASES += [("tucker", 5, 0.05), ("tucker", 5, 0.02)]


def values_at(core: np.ndarray | None, factors: list[np.ndarray], index: np.ndarray) -> np.ndarray:
    """Entries of a CP (no core) or Tucker tensor of three modes."""
    a, b, c = (factor[i] for factor, i in zip(factors, index, strict=True))
    if core is None:
        return np.sum(a * b * c, axis=1)
    return np.einsum("pqr,np,nq,nr->n", core, a, b, c, optimize=True)


def draw(kind: str, rank: int, share: float, seed: int, size: int = SIZE) -> dict:
    """A data set: true factors, observed entries, and others to score on."""
    rng = np.random.default_rng([seed, rank, 20_260_101])
    factors = [rng.standard_normal((size, rank)) for _ in range(3)]
    core = rng.standard_normal((rank,) * 3) if kind == "tucker" else None
    n_seen = round(share * size**3)
    flat = np.unique(rng.integers(size**3, size=n_seen + n_seen // 2 + 300_000))
    flat = rng.permutation(flat)[: n_seen + 100_000]
    index = np.array(np.unravel_index(flat, (size,) * 3))
    y = values_at(core, factors, index)
    y = y + NOISE * np.sqrt(np.mean(y**2)) * rng.standard_normal(len(y))
    seen, held = np.split(np.arange(len(y)), [n_seen])
    return {
        "core": core,
        "factors": factors,
        "seen": (index[:, seen], y[seen]),
        "held": (index[:, held], y[held]),
    }


def relative(values: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(values - truth) / np.linalg.norm(truth))


def perfect(data: dict) -> float:
    """Held-out error of plain least squares, row by row, started at the truth (CP only)."""
    (index, y), factors = data["seen"], [factor.copy() for factor in data["factors"]]
    rows = [[np.flatnonzero(index[n] == i) for i in range(SIZE)] for n in range(3)]
    for _ in range(8):
        for n in range(3):
            a, b = (factors[m][index[m]] for m in range(3) if m != n)
            for i, at in enumerate(rows[n]):
                factors[n][i] = np.linalg.lstsq((a * b)[at], y[at])[0]
    return relative(values_at(None, factors, data["held"][0]), data["held"][1])


def ours(kind: str, rank: int, data: dict) -> dict:
    index, y = data["seen"]
    X = coo_array((y, tuple(index)), shape=(len(data["factors"][0]),) * 3)
    complete = cp_complete if kind == "cp" else tucker_complete
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tenfac.ConvergenceWarning)
        t, seconds = timed(lambda: complete(X, rank))
    core, factors = (
        (None, [t.weights * t.factors[0], *t.factors[1:]]) if kind == "cp" else (t.core, t.factors)
    )
    error = relative(values_at(core, factors, data["held"][0]), data["held"][1])
    return {"held_out": error, "seconds": seconds, "converged": t.info.converged, "report": repr(t.info)}


def peer(kind: str, rank: int, data: dict) -> dict:
    """TensorLy with a mask, 300 sweeps at most."""
    index, y = data["seen"]
    X, mask = np.zeros((SIZE,) * 3), np.zeros((SIZE,) * 3)
    X[tuple(index)], mask[tuple(index)] = y, 1
    options = {"mask": mask, "n_iter_max": 300, "random_state": 0}
    if kind == "cp":
        found, seconds = timed(lambda: parafac(X, rank, init="svd", tol=1e-8, **options))
        core, factors = None, [found.factors[0] * found.weights, *found.factors[1:]]
    else:
        (core, factors), seconds = timed(lambda: tensorly_tucker(X, [rank] * 3, init="random", **options))
    error = relative(values_at(core, factors, data["held"][0]), data["held"][1])
    return {"held_out": error, "seconds": seconds}


def one_case(kind: str, rank: int, share: float) -> dict:
    sets = [draw(kind, rank, share, seed) for seed in range(N_DATA)]
    ideal = [
        perfect(data) if kind == "cp" else NOISE * np.sqrt(1 + parameters(rank) / (share * SIZE**3))
        for data in sets
    ]
    fits = [ours(kind, rank, data) for data in sets]
    good = [bool(fit["held_out"] <= 1.1 * best) for fit, best in zip(fits, ideal, strict=True)]
    peers = [peer(kind, rank, data) for data in sets[:N_PEER]]
    return {
        "n_data": len(sets),
        "n_at_noise": sum(good),
        "failures_flagged": sum(not g and not fit["converged"] for g, fit in zip(good, fits, strict=True)),
        "successes_flagged": sum(g and not fit["converged"] for g, fit in zip(good, fits, strict=True)),
        "perfect": ideal,
        "tenfac": fits,
        "tensorly": peers,
        "seconds_ratio": float(
            np.mean([p["seconds"] for p in peers]) / np.mean([f["seconds"] for f in fits[:N_PEER]])
        ),
    }


def parameters(rank: int) -> int:
    return 3 * rank * (SIZE - rank) + rank**3


def il2() -> dict:
    """Held-out error at a tenth of the observed cells, against predicting their mean and TensorLy."""
    X = datasets.load_il2().values
    seen = np.flatnonzero(~np.isnan(X))
    hidden = np.random.default_rng(20_260_102).choice(seen, len(seen) // 10, replace=False)
    Y = X.copy()
    Y.ravel()[hidden] = np.nan
    truth, mask = X.ravel()[hidden], ~np.isnan(Y)
    rows = {"mean": {"held_out": relative(np.full(len(truth), np.nanmean(Y)), truth)}}
    for name, complete, rank in [
        ("cp 4", cp_complete, 4),
        ("cp 8", cp_complete, 8),
        ("tucker (4, 3, 4, 3)", tucker_complete, (4, 3, 4, 3)),
        ("tucker (8, 4, 6, 6)", tucker_complete, (8, 4, 6, 6)),
    ]:
        t, seconds = timed(lambda complete=complete, rank=rank: complete(Y, rank))
        rows[name] = {"held_out": relative(t.to_tensor().ravel()[hidden], truth), "seconds": seconds}
        rows[name]["report"] = repr(t.info)
    for rank in (4, 8):
        options = {"mask": mask, "n_iter_max": 300, "tol": 1e-8, "random_state": 0}
        found, seconds = timed(lambda rank=rank, o=options: parafac(np.nan_to_num(Y), rank, **o))
        got = tensorly.cp_to_tensor(found).ravel()[hidden]
        rows[f"TensorLy parafac {rank}"] = {"held_out": relative(got, truth), "seconds": seconds}
    return rows


def large() -> dict:
    """1000^3 from a million entries, rank 10."""
    return ours("cp", 10, draw("cp", 10, 0.001, 0, size=1000))


def main() -> None:
    results: dict = {}
    for kind, rank, share in CASES:
        name = f"{kind} rank {rank}, {share:.0%}"
        row = results[name] = one_case(kind, rank, share)
        errors, seconds = ([fit[key] for fit in row["tenfac"]] for key in ("held_out", "seconds"))
        others = ", ".join(f"{fit['held_out']:.3f} in {fit['seconds']:.1f} s" for fit in row["tensorly"])
        print(
            f"{name:18} perfect {np.mean(row['perfect']):.4f}  tenfac {np.median(errors):.4f} (worst "
            f"{max(errors):.4f}) {row['n_at_noise']}/{row['n_data']} at the noise, at most "
            f"{max(seconds):.2f} s; TensorLy {others}; {row['seconds_ratio']:.1f} x the time",
            flush=True,
        )
    results["il2"] = il2()
    for name, row in results["il2"].items():
        print(f"il2 {name:22} held-out {row['held_out']:.4f}  {row.get('seconds', 0):.2f} s", flush=True)
    results["1000^3, rank 10, 0.1 %"] = large()
    print("1000^3:", results["1000^3, rank 10, 0.1 %"], flush=True)
    record.write("completion", results | {"versions": record.versions("numpy", "scipy", "tensorly")})


if __name__ == "__main__":
    main()
