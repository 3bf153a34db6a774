"""The replicas of He and Joseph's algorithms against their published code; the baselines on its experiments.

Run from the root: ``python -m benchmarks.kronecker_sbl_reference [files] [trials]``, by default both.

files    stored instances with estimates of the published MATLAB code (run in Octave): error, iterations,
         CPU seconds of both. The folder is ``--data``, or ``kronecker_sbl`` in TENFAC_DATA or in
         ``shared/data`` beside the repository; without it the section is skipped.
trials   mean and median error, share of trials within 4 x the oracle, support recovery rate and CPU seconds
         over ``--trials`` draws of the paper's synthetic settings and of its channel.

Prints tables and writes ``results/kronecker_sbl_reference.json``. CPU seconds of one thread, least of 5 runs
in ``files``, mean in ``trials``.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import record
from benchmarks.kronecker_sbl.claims import stored
from benchmarks.record import timed
from tenfac import ConvergenceWarning
from tenfac.bayes.sparse.em import AM_IRS, SVD_IRS, em_am, em_svd
from tenfac.bayes.sparse.metrics import nmse, support_recovery_rate
from tenfac.bayes.sparse.omp import kron_omp
from tenfac.bayes.sparse.oracle import oracle_least_squares, oracle_posterior_mean
from tenfac.bayes.sparse.pattern_em import em_pattern
from tenfac.bayes.sparse.rank_one import rank_one_sbl
from tenfac.datasets import make_irs_channel, make_kronecker_sparse

PAPER_OMP = {"tol": 1e-2, "max_columns": 10, "normalize": False}
# 50 trials of the published code, raw results of its repository: mean error at 4, 8, 12, 16, 20 dB
PUBLISHED = {
    "pattern": (0.312, 0.132, 0.049, 0.009, 0.003),
    "am": (0.714, 0.321, 0.197, 0.139, 0.070),
    "svd": (0.609, 0.305, 0.194, 0.123, 0.105),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "5 dB, rank one": {"snr_db": 5, "values": "rank1"},
    "15 dB, rank one": {"snr_db": 15, "values": "rank1"},
    "20 dB, rank one": {"snr_db": 20, "values": "rank1"},
    "30 dB, rank one": {"snr_db": 30, "values": "rank1"},
    "25 dB, rank one, K 4": {"snr_db": 25, "values": "rank1", "columns": 4},
    "5 dB, free": {"snr_db": 5},
    "20 dB, free": {"snr_db": 20},
    "30 dB, free": {"snr_db": 30},
}


def on_file(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every method whose estimate the instance holds."""
    factors, y, noise = [data[f"A{i}"] for i in (1, 2, 3)], data["y"], float(data["noise_var"]) ** 0.5
    channel = "H_true" in data
    solvers = {
        "am": lambda: em_am(factors, y, noise, rules=AM_IRS if channel else None),
        "svd": lambda: em_svd(factors, y, noise, rules=SVD_IRS if channel else None),
        "am_unknown_noise": lambda: em_am(factors, y),
        "svd_unknown_noise": lambda: em_svd(factors, y),
        "pc8": lambda: em_pattern(factors, y, noise),
        "komp": lambda: kron_omp(factors, y, **PAPER_OMP),
    }
    rows = {}
    for name, call in solvers.items():
        if f"nmse_ref_{name}" not in data:
            continue
        found, cpu = timed(call, 5)
        X = found.coef_tensor() if name == "komp" else found[1]
        error, apart = errors(data, X, name)
        rows[name] = {
            "nmse": error,
            "nmse_reference": float(data[f"nmse_ref_{name}"]),
            "nmse_relative_difference": abs(error / float(data[f"nmse_ref_{name}"]) - 1),
            "estimate_relative_difference": apart,
            "iterations": None if name == "komp" else found[0].n_iter,
            "iterations_reference": _known(data.get(f"iters_ref_{name}", -1)),
            "noise_relative_difference": _noise_apart(data, found, name),
            "cpu_s": cpu,
            "cpu_s_reference": float(data[f"cpu_s_ref_{name}"]) if f"cpu_s_ref_{name}" in data else None,
        }
    if "x_oracle_ls" in data:
        found, cpu = timed(lambda: oracle_least_squares(factors, y, data["support"]), 5)
        X = found.coef_tensor()
        error = nmse(X.reshape(-1), data["x_true"])
        rows["oracle_ls"] = {
            "nmse": error,
            "nmse_reference": float(data["nmse_oracle_ls"]),
            "nmse_relative_difference": abs(error / float(data["nmse_oracle_ls"]) - 1),
            "cpu_s": cpu,
        }
    return rows


def errors(data: dict[str, Any], X: Any, name: str) -> tuple[float, float | None]:
    """Error against the truth, and distance from the estimate of the published code."""
    if "H_true" not in data:
        x, theirs = X.reshape(-1), data.get(f"x_ref_{name}")
        apart = None if theirs is None else float(np.linalg.norm(x - theirs) / np.linalg.norm(theirs))
        return nmse(x, data["x_true"]), apart
    H = np.einsum("ki,aj,bl,ijl->kab", data["A1"], data["A_ms_conj"], data["A_bs"], X.reshape(18, 18, 18))
    theirs = data[f"H_ref_{name}"]
    error = np.mean([nmse(got, true) for got, true in zip(H, data["H_true"], strict=True)])
    return float(error), float(np.linalg.norm(H - theirs) / np.linalg.norm(theirs))


def _known(iterations: Any) -> int | None:
    return int(iterations) if iterations > 0 else None


def _noise_apart(data: dict[str, Any], found: Any, name: str) -> float | None:
    key = f"noise_var_ref_{name}"
    return abs(found[0].noise_variance / float(data[key]) - 1) if key in data else None


def files(folder: str | None) -> dict[str, Any]:
    out = {}
    for stem, data in stored(folder).items():
        out[stem] = rows = on_file(data)
        for name, row in rows.items():
            its = f"{row.get('iterations') or '-'!s:>4} / {row.get('iterations_reference') or '-'!s:>4}"
            ratio = f"{row['cpu_s_reference'] / row['cpu_s']:8.0f} x" if row.get("cpu_s_reference") else ""
            print(
                f"{stem:10s} {name:18s} NMSE {row['nmse']:.5e} / {row['nmse_reference']:.5e} apart "
                f"{row['nmse_relative_difference']:.1e}  iterations {its}  {row['cpu_s']:.4f} s {ratio}",
                flush=True,
            )
    return out


def summary(trials: list[dict[str, tuple[float, float, float]]], oracle: str) -> dict[str, Any]:
    """Averages over trials of ``{method: (error, support recovery rate, CPU seconds)}``."""
    out = {}
    for name in trials[0]:
        error = np.array([trial[name][0] for trial in trials])
        row = {"mean_nmse": float(error.mean()), "median_nmse": float(np.median(error))}
        if oracle in trials[0]:
            bound = np.array([4 * trial[oracle][0] for trial in trials])
            row["success"] = float((error < bound).mean())
            row["mean_srr"] = float(np.mean([trial[name][1] for trial in trials]))
        out[name] = row | {"mean_cpu_s": float(np.mean([trial[name][2] for trial in trials]))}
    return out


def synthetic(settings: dict[str, Any], seed: int) -> dict[str, tuple[float, float, float]]:
    made = make_kronecker_sparse(**settings, random_state=seed)
    problem, truth = (made.factors, made.y), made.coef_tensor()
    calls = {
        "oracle LS": lambda: oracle_least_squares(*problem, made.support).coef_tensor(),
        "oracle posterior mean": lambda: oracle_posterior_mean(
            *problem, made.support, made.noise
        ).coef_tensor(),
        "oracle rank-one LS": lambda: oracle_least_squares(
            *problem, made.support, values="rank1"
        ).coef_tensor(),
        "am": lambda: em_am(*problem, made.noise)[1],
        "svd": lambda: em_svd(*problem, made.noise)[1],
        "omp, paper's stop": lambda: kron_omp(*problem, **PAPER_OMP).coef_tensor(),
        "omp, noise stop": lambda: kron_omp(*problem, noise=made.noise).coef_tensor(),
        "rank-one SBL": lambda: rank_one_sbl(*problem).coef_tensor(),
        "rank-one SBL, noise per mode": lambda: rank_one_sbl(*problem, "per mode").coef_tensor(),
    }
    found = {name: timed(call) for name, call in calls.items()}
    return {name: (nmse(X, truth), support_recovery_rate(X, truth), cpu) for name, (X, cpu) in found.items()}


def channel(snr_db: float, seed: int, design: Any) -> dict[str, tuple[float, float, float]]:
    made = make_irs_channel(snr_db, random_state=seed, design=design)
    problem = made.factors, made.y
    calls = {
        "pattern": lambda: em_pattern(*problem, made.noise)[1],
        "am": lambda: em_am(*problem, made.noise, rules=AM_IRS)[1],
        "svd": lambda: em_svd(*problem, made.noise, rules=SVD_IRS)[1],
        "omp, noise stop": lambda: kron_omp(*problem, noise=made.noise).coef_tensor(),
        "rank-one SBL": lambda: rank_one_sbl(*problem).coef_tensor(),
        "rank-one SBL, noise per mode": lambda: rank_one_sbl(*problem, "per mode").coef_tensor(),
        "oracle LS": lambda: oracle_least_squares(*problem, made.support).coef_tensor(),
    }
    found = {name: timed(call) for name, call in calls.items()}
    return {name: (made.channel_nmse(X), 0.0, cpu) for name, (X, cpu) in found.items()}


def trials(count: int) -> dict[str, Any]:
    out: dict[str, Any] = {"synthetic": {}, "channel": {}, "channel, published": PUBLISHED, "trials": count}
    for name, settings in SETTINGS.items():
        out["synthetic"][name] = rows = summary([synthetic(settings, s) for s in range(count)], "oracle LS")
        _show(name, rows)
    design = make_irs_channel(20, random_state=10**6)
    for snr_db in (4, 8, 12, 16, 20):
        rows = summary([channel(snr_db, s, design) for s in range(count)], "none")
        out["channel"][f"{snr_db} dB"] = rows
        _show(f"channel, {snr_db} dB", rows)
    return out


def _show(name: str, rows: dict[str, Any]) -> None:
    print(name)
    for method, row in rows.items():
        print(
            f"    {method:30s} " + "  ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=["files", "trials", []], help="both by default")
    parser.add_argument("--data", help="folder of the stored instances")
    parser.add_argument("--trials", type=int, default=50)
    arguments = parser.parse_args()
    sections = arguments.sections or ["files", "trials"]
    results = record.read("kronecker_sbl_reference")
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if "files" in sections:
            results["files"] = files(arguments.data) or results.get("files", {})
        if "trials" in sections:
            results["trials"] = trials(arguments.trials)
    results["versions"] = record.versions("numpy", "scipy", threads=1)
    record.write("kronecker_sbl_reference", results)


if __name__ == "__main__":
    main()
