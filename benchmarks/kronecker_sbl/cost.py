"""CPU seconds and memory: up to 1e12 unknowns, against the published code, against scikit-learn."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

import numpy as np
from sklearn.linear_model import ARDRegression, BayesianRidge, Lasso, OrthogonalMatchingPursuit
from threadpoolctl import threadpool_limits

from benchmarks.record import timed
from kronecker_sbl.claims import claim, stored
from tenfac import KroneckerSBL
from tenfac.bayes.sparse.metrics import nmse, support_recovery_rate
from tenfac.bayes.sparse.oracle import oracle_least_squares
from tenfac.datasets import make_kronecker_sparse

# name: rows, columns, active columns, dB; most CPU seconds, most gigabytes
SCALE: dict[str, tuple[tuple[int, ...], int, int, float, float, float]] = {
    "3 modes 100 x 400": ((100,) * 3, 400, 10, 0, 10, 0.6),
    "3 modes 128 x 1000": ((128,) * 3, 1000, 10, 0, 30, 1.5),
    "3 modes 64 x 10000": ((64,) * 3, 10000, 5, 0, 20, np.inf),
    "3 modes 215 x 464": ((215,) * 3, 464, 10, 0, 120, 3.0),
    "4 modes 24 x 100": ((24,) * 4, 100, 4, 0, np.inf, np.inf),
    "5 modes 12 x 40": ((12,) * 5, 40, 3, 5, np.inf, np.inf),
}


def scale(_: argparse.Namespace) -> dict[str, Any]:
    rows, claims = {}, []
    for name, (*_problem, seconds, gigabytes) in SCALE.items():
        command = [sys.executable, "-m", "benchmarks.kronecker_sbl", "--child", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[name] = row = json.loads(done.stdout.splitlines()[-1])
        claims += [
            claim(f"{name}: CPU seconds", row["cpu_s"], most=seconds),
            claim(f"{name}: peak gigabytes", row["peak_gb"], most=gigabytes),
            claim(f"{name}: modes with the exact support", row["exact_modes"], least=row["modes"]),
            claim(f"{name}: squared error over that of the oracle", row["ratio_to_oracle"], most=1.1),
        ]
    return {"rows": rows, "claims": claims}


def child(name: str) -> None:
    """One case of ``scale``, in a process of its own."""
    rows, columns, active, snr_db, *_ = SCALE[name]
    made = make_kronecker_sparse(rows, columns, active, snr_db=snr_db, random_state=1)
    with threadpool_limits(limits=1):
        model, cpu = timed(lambda: KroneckerSBL().fit(made.factors, made.y))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        exact = sum(np.array_equal(s, t) for s, t in zip(model.support_, made.support, strict=True))
        oracle = oracle_least_squares(made.factors, made.y, made.support).coef
        same = exact == len(rows)
        ratio = nmse(model.coef_, made.coef) / nmse(oracle, made.coef) if same else np.inf
    print(
        json.dumps(
            {
                "measurements": made.y.size,
                "unknowns": float(columns) ** len(rows),
                "snr_db": snr_db,
                "cpu_s": cpu,
                "peak_gb": peak,
                "modes": len(rows),
                "exact_modes": int(exact),
                "ratio_to_oracle": float(ratio),
                "sweeps": model.n_iter_,
            }
        )
    )


VALUES = ("free", "rank1")


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    made = [make_kronecker_sparse(snr_db=20, values=v, random_state=s) for v in VALUES for s in range(10)]
    cpus = [timed(lambda m=m: KroneckerSBL().fit(m.factors, m.y), 2)[1] for m in made]
    rows: dict[str, Any] = {"cpu_s": cpus, "stored": {}}
    claims = [
        claim("(8,12,15) x 15^3: median CPU seconds", np.median(cpus), most=0.05),
        claim("(8,12,15) x 15^3: largest CPU seconds of 20", np.max(cpus)),
    ]
    for name, data in stored(arguments.data).items():
        if "H_true" in data:
            continue
        factors = [data[f"A{i}"] for i in (1, 2, 3)]
        y = data["y"].reshape([A.shape[0] for A in factors])
        model, cpu = timed(lambda f=factors, y=y: KroneckerSBL().fit(f, y), 5)
        error = nmse(model.coef_tensor().reshape(-1), data["x_true"])
        row = {"cpu_s": cpu, "nmse": error, "nmse_oracle_ls": float(data["nmse_oracle_ls"])}
        for method, least in (("am", 500), ("svd", 100)):
            if f"cpu_s_ref_{method}" in data:
                row[f"ratio_{method}"] = float(data[f"cpu_s_ref_{method}"]) / cpu
                row[f"nmse_ref_{method}"] = float(data[f"nmse_ref_{method}"])
                text = f"{name}: CPU of the published {method} over ours"
                claims.append(claim(text, row[f"ratio_{method}"], least=least))
        rows["stored"][name] = row
    return {"rows": rows, "claims": claims}


def peers(_: argparse.Namespace) -> dict[str, Any]:
    """The flattened problem, ``kron`` of the factors formed; Lasso with the best penalty for the truth."""
    rows, claims = {}, []
    for name, problem, steps in (
        ("(6,7,8) x 10^3, K 2, 20 dB", ((6, 7, 8), 10, 2), 300),
        ("(8,12,15) x 15^3, K 3, 20 dB", ((8, 12, 15), 15, 3), 30),
    ):
        made = make_kronecker_sparse(*problem, snr_db=20, random_state=0)
        rows[name] = found = _peers(made, steps)
        for method, row in found.items():
            print(f"     {name}  {method:36s} NMSE {row['nmse']:.3e}  CPU {row['cpu_s']:.3f} s", flush=True)
        ours = found["KroneckerSBL"]
        theirs = min(row["nmse"] for method, row in found.items() if method in SKLEARN)
        cpus = {m.split(",")[0]: row["cpu_s"] for m, row in found.items() if m in SKLEARN}
        claims.append(claim(f"{name}: best error of peers over ours", theirs / ours["nmse"], least=1))
        for method in ("ARDRegression", "Lasso"):
            claims.append(claim(f"{name}: CPU of {method} over ours", cpus[method] / ours["cpu_s"]))
    return {"rows": rows, "claims": claims}


SKLEARN = ("OMP, true number", "Lasso, best penalty", "ARDRegression", "BayesianRidge")


def _peers(made: Any, steps: int) -> dict[str, Any]:
    A, y, truth = np.ones((1, 1)), made.y.reshape(-1), made.coef_tensor()
    for factor in made.factors:
        A = np.kron(A, factor)
    largest = np.abs(A.T @ y).max() / y.size
    plain = {"fit_intercept": False}

    def lasso() -> Any:
        penalties = largest * 10 ** np.linspace(-0.5, -3, 11)
        fits = [Lasso(alpha=a, max_iter=1000, tol=1e-3, **plain).fit(A, y).coef_ for a in penalties]
        return min(fits, key=lambda x: nmse(x, truth.reshape(-1)))

    omp = OrthogonalMatchingPursuit(n_nonzero_coefs=made.coef.size, **plain)
    calls = {
        "KroneckerSBL": lambda: KroneckerSBL().fit(made.factors, made.y).coef_tensor(),
        "least squares on the true support": lambda: oracle_least_squares(
            made.factors, made.y, made.support
        ).coef_tensor(),
        "OMP, true number": lambda: omp.fit(A, y).coef_,
        "Lasso, best penalty": lasso,
        "ARDRegression": lambda: ARDRegression(max_iter=steps, **plain).fit(A, y).coef_,
        "BayesianRidge": lambda: BayesianRidge(**plain).fit(A, y).coef_,
    }
    rows = {}
    for name, call in calls.items():
        found, cpu = timed(call, 3 if name == "KroneckerSBL" else 1)
        found = found.reshape(truth.shape)
        srr = support_recovery_rate(found, truth)
        rows[name] = {"nmse": nmse(found, truth), "srr": srr, "cpu_s": cpu}
    return rows
