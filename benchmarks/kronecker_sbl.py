"""KroneckerSBL as it comes (noise unknown) against its targets, claim by claim.

Run from the root: ``python -m benchmarks.kronecker_sbl [section ...]``, by default all of them.

scale        a million to 1e12 unknowns: CPU seconds and peak memory, each case in a process of its own
speed        the paper's size, and the stored instances against the CPU seconds of the published code; the
             folder is ``--data``, or ``kronecker_sbl`` in TENFAC_DATA or in ``shared/data`` beside the
             repository
free         values drawn independently on the support, 5 to 30 dB
rank1        values that are an outer product (as in the paper's curves), 20 to 30 dB
hops         the same with 4 and 5 columns per mode, as it comes and with ``n_hops=20``
irs          the paper's IRS-MIMO channel, complex
convergence  sweeps to one nat of the best evidence found; whether the evidence ever falls
calibration  cover of 95 % intervals, spurious columns per fit, learned noise
invariances  modes permuted, measurements scaled, snapshots repeated, coupling by the identity, one mode
peers        OMP, Lasso, ARDRegression and BayesianRidge of scikit-learn on the flattened problem

Success is an error below 4 x that of least squares on the true support. A failed fit is "stuck" if the true
support has more evidence than what it found: a local maximum. Prints a line per claim, and writes
``results/kronecker_sbl.json`` section by section. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from sklearn.linear_model import ARDRegression, BayesianRidge, Lasso, OrthogonalMatchingPursuit
from threadpoolctl import threadpool_limits

import tenfac
from benchmarks.functional.data import folder_of
from tenfac import ConvergenceWarning, KroneckerSBL
from tenfac.bayes.sparse.ascent import Options, climb
from tenfac.bayes.sparse.em import Rules, em_am, em_svd
from tenfac.bayes.sparse.metrics import nmse, support_recovery_rate
from tenfac.bayes.sparse.oracle import oracle_least_squares
from tenfac.bayes.sparse.problem import problem_of
from tenfac.bayes.sparse.starts import plain_start
from tenfac.datasets import make_irs_channel, make_kronecker_sparse

RESULTS = Path(__file__).parent / "results" / "kronecker_sbl.json"
PAPER_CHANNEL = {4: 0.312, 8: 0.132, 12: 0.049, 16: 0.009, 20: 0.003}  # its best method, its raw results
CHANNEL = {4: 0.08, 8: 0.025, 12: 0.010, 16: 0.0042, 20: 0.0014}
CHANNEL_RANK1 = {4: 0.055, 8: 0.016, 12: 0.0055, 16: 0.0025, 20: 0.0007}  # with values="rank1" or "auto"
# name: rows, columns, active columns, dB; most CPU seconds, most gigabytes
SCALE: dict[str, tuple[tuple[int, ...], int, int, float, float, float]] = {
    "3 modes 100 x 400": ((100,) * 3, 400, 10, 0, 10, 0.6),
    "3 modes 128 x 1000": ((128,) * 3, 1000, 10, 0, 30, 1.5),
    "3 modes 64 x 10000": ((64,) * 3, 10000, 5, 0, 20, np.inf),
    "3 modes 215 x 464": ((215,) * 3, 464, 10, 0, 120, 3.0),
    "4 modes 24 x 100": ((24,) * 4, 100, 4, 0, np.inf, np.inf),
    "5 modes 12 x 40": ((12,) * 5, 40, 3, 5, np.inf, np.inf),
}


def timed(call: Callable[[], Any], runs: int = 1) -> tuple[Any, float]:
    """The result, and the least CPU seconds of some runs."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return result, best


def claim(text: str, measured: float, least: float = -np.inf, most: float = np.inf) -> dict[str, Any]:
    """A number beside its target, printed."""
    met = bool(least <= measured <= most)
    target = " and ".join(
        f"{sign} {bound:g}" for sign, bound in ((">=", least), ("<=", most)) if np.isfinite(bound)
    )
    print(f"{'ok  ' if met else 'MISS'} {text:58s} {measured:11.4g}  (target {target or 'none'})", flush=True)
    return {"claim": text, "measured": _finite(float(measured)), "target": target or None, "met": met}


def recovered(trials: list[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    """Errors, success, support recovery, local maxima and time of fits to ``(problem, settings)``."""
    errors, oracles, rates, cpus, stuck = [], [], [], [], 0
    for made, settings in trials:
        model, cpu = timed(lambda made=made, s=settings: KroneckerSBL(**s).fit(made.factors, made.y))
        truth, found = made.coef_tensor(), model.coef_tensor()
        errors.append(nmse(found, truth))
        oracles.append(nmse(oracle_least_squares(made.factors, made.y, made.support).coef_tensor(), truth))
        rates.append(support_recovery_rate(found, truth))
        cpus.append(cpu)
        if errors[-1] >= 4 * oracles[-1]:
            stuck += evidence_of_truth(made) > model.log_evidence_ + 1
    error, oracle = np.array(errors), np.array(oracles)
    return {
        "trials": len(trials),
        "success": float((error < 4 * oracle).mean()),
        "failed": int((error >= 4 * oracle).sum()),
        "failed, stuck": int(stuck),
        "mean_nmse": float(error.mean()),
        "median_nmse": float(np.median(error)),
        "mean_oracle_ls": float(oracle.mean()),
        "ratio_to_oracle": float(error.mean() / oracle.mean()),
        "mean_srr": float(np.mean(rates)),
        "mean_cpu_s": float(np.mean(cpus)),
        "largest_cpu_s": float(np.max(cpus)),
    }


def evidence_of_truth(made: Any) -> float:
    """Best evidence with all columns but those of the true support left out."""
    factors = [A[:, s] for A, s in zip(made.factors, made.support, strict=True)]
    return KroneckerSBL(n_starts=1, prune_alpha=0).fit(factors, made.y).log_evidence_


# --- sections ---


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


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    made = [make_kronecker_sparse(snr_db=20, values=v, random_state=s) for v in VALUES for s in range(10)]
    cpus = [timed(lambda m=m: KroneckerSBL().fit(m.factors, m.y), 2)[1] for m in made]
    rows: dict[str, Any] = {"cpu_s": cpus, "stored": {}}
    claims = [
        claim("(8,12,15) x 15^3: median CPU seconds", np.median(cpus), most=0.05),
        claim("(8,12,15) x 15^3: largest CPU seconds of 20", np.max(cpus)),
    ]
    folder = Path(arguments.data) if arguments.data else folder_of(None) / "kronecker_sbl"
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            data = dict(stored)
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
                text = f"{path.stem}: CPU of the published {method} over ours"
                claims.append(claim(text, row[f"ratio_{method}"], least=least))
        rows["stored"][path.stem] = row
    return {"rows": rows, "claims": claims}


VALUES = ("free", "rank1")


def free(arguments: argparse.Namespace) -> dict[str, Any]:
    rows, claims = {}, []
    for snr_db in (5, 10, 15, 20, 25, 30):
        made = [make_kronecker_sparse(snr_db=snr_db, random_state=s) for s in range(arguments.trials)]
        rows[f"{snr_db} dB"] = row = recovered([(m, {}) for m in made])
        claims += [
            claim(f"free values, {snr_db} dB: success", row["success"], least=0.98),
            claim(f"free values, {snr_db} dB: mean error over oracle", row["ratio_to_oracle"], most=1.15),
        ]
    return {"rows": rows, "claims": claims}


def rank1(arguments: argparse.Namespace) -> dict[str, Any]:
    rows, claims = {}, []
    for snr_db, least in ((5, -np.inf), (10, -np.inf), (15, -np.inf), (20, 0.98), (25, 0.98), (30, 0.98)):
        made = [_rank1(snr_db, 3, s) for s in range(arguments.trials)]
        rows[f"{snr_db} dB"] = row = recovered([(m, {}) for m in made])
        claims.append(claim(f"rank-one values, {snr_db} dB: success", row["success"], least=least))
    return {"rows": rows, "claims": claims}


def hops(arguments: argparse.Namespace) -> dict[str, Any]:
    rows, claims = {}, []
    for columns, least in ((4, 0.92), (5, 0.82)):
        made = [_rank1(25, columns, s) for s in range(arguments.trials)]
        for n_hops, bound in ((0, -np.inf), (20, least)):
            row = recovered([(m, {"n_hops": n_hops}) for m in made])
            rows[f"K {columns}, n_hops {n_hops}"] = row
            text = f"rank-one values, 25 dB, K {columns}, n_hops={n_hops}: success"
            claims.append(claim(text, row["success"], least=bound))
    return {"rows": rows, "claims": claims}


def _rank1(snr_db: float, columns: int, seed: int) -> Any:
    return make_kronecker_sparse(columns=columns, snr_db=snr_db, values="rank1", random_state=seed)


def irs(arguments: argparse.Namespace) -> dict[str, Any]:
    """One design (pilots and patterns) for all channels, as in the paper; then other designs."""
    rows, claims = {}, []
    for snr_db, most in CHANNEL.items():
        rows[f"{snr_db} dB"] = row = _channels(snr_db, [(0, s) for s in range(arguments.trials)])
        row["published_best"] = PAPER_CHANNEL[snr_db]
        claims += [
            claim(f"IRS-MIMO, {snr_db} dB: mean error of the channel", row["mean_nmse"], most=most),
            claim(f"IRS-MIMO, {snr_db} dB: mean CPU seconds", row["mean_cpu_s"], most=0.3),
        ]
        for values in ("rank1", "auto"):
            draws = [(0, s) for s in range(arguments.trials)]
            rows[f"{snr_db} dB, {values}"] = row = _channels(snr_db, draws, values=values)
            text = f"IRS-MIMO, {snr_db} dB, values={values!r}: mean error"
            claims.append(claim(text, row["mean_nmse"], most=CHANNEL_RANK1[snr_db]))
    rows["20 dB, 4 other designs"] = row = _channels(20, [(d, s) for d in (1, 2, 3, 4) for s in range(25)])
    claims.append(claim("IRS-MIMO, 20 dB, 4 other designs: median error", row["median_nmse"]))
    ratio = row["mean_nmse"] / row["mean_oracle_ls"]
    claims.append(claim("IRS-MIMO, 20 dB, 4 other designs: mean error over oracle", ratio))
    return {"rows": rows, "claims": claims}


def _channels(snr_db: float, draws: list[tuple[int, int]], **settings: Any) -> dict[str, float]:
    """Errors over draws of a design and a channel."""
    designs = {d: make_irs_channel(20, random_state=10**6 + d) for d, _ in draws}
    errors, oracles, cpus = [], [], []
    for design, seed in draws:
        made = make_irs_channel(snr_db, random_state=seed, design=designs[design])
        model, cpu = timed(lambda m=made: KroneckerSBL(**settings).fit(m.factors, m.y))
        oracle = oracle_least_squares(made.factors, made.y, made.support)
        errors.append(made.channel_nmse(model.coef_tensor()))
        oracles.append(made.channel_nmse(oracle.coef_tensor()))
        cpus.append(cpu)
    return {
        "mean_nmse": float(np.mean(errors)),
        "standard_error": float(np.std(errors) / np.sqrt(len(errors))),
        "median_nmse": float(np.median(errors)),
        "mean_oracle_ls": float(np.mean(oracles)),
        "median_oracle_ls": float(np.median(oracles)),
        "mean_cpu_s": float(np.mean(cpus)),
        "largest_cpu_s": float(np.max(cpus)),
    }


def convergence(_: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    sweeps: dict[str, list[float]] = {name: [] for name in ("fixed_point", "mm", "em_am", "em_svd")}
    falls = dict.fromkeys(sweeps, 0)
    for seed in range(5):
        made = make_kronecker_sparse((14, 12, 15), 15, 4, snr_db=30, random_state=seed)
        traces = {name: _trace(made, exponent) for name, exponent in (("fixed_point", 1.0), ("mm", 0.5))}
        never = Rules(0.0, max_iter=300, tol=0.0)
        for name, solver in (("em_am", em_am), ("em_svd", em_svd)):
            traces[name] = np.asarray(solver(made.factors, made.y, rules=never)[0].trace)
        best = max(trace.max() for trace in traces.values())
        for name, trace in traces.items():
            near = np.flatnonzero(trace >= best - 1)
            sweeps[name].append(float(near[0]) if near.size else np.inf)
            falls[name] += int((np.diff(trace) < -1e-9 * abs(trace[-1])).sum())
    rows["sweeps to 1 nat"], rows["falls"] = {k: [_finite(s) for s in v] for k, v in sweeps.items()}, falls
    claims = [
        claim("sweeps to 1 nat of the best evidence, median", np.median(sweeps["fixed_point"]), most=30)
    ]
    claims.append(claim("sweeps to 1 nat of the best evidence, largest of 5", max(sweeps["fixed_point"])))
    claims.append(claim("sweeps to 1 nat, monotone step, median", np.median(sweeps["mm"])))
    claims.append(claim("iterations of the published AM, median (inf: > 300)", np.median(sweeps["em_am"])))
    claims.append(claim("iterations of the published SVD, median (inf: > 300)", np.median(sweeps["em_svd"])))
    made = [_rank1(20, 3, s) for s in range(20)]
    made += [make_irs_channel(12, random_state=s) for s in range(10)]
    lost = sum(int((np.diff(t) < -1e-9 * abs(t[-1])).sum()) for t in (_trace(m, 1.0) for m in made))
    rows["sweeps that lose evidence"] = lost
    claims.append(claim("sweeps that lose evidence, 30 problems", lost, most=0))
    return {"rows": rows, "claims": claims}


def _trace(made: Any, exponent: float) -> np.ndarray:
    """Evidence after each sweep from the plain start, nothing pruned."""
    problem = problem_of(made.factors, made.y)
    options = Options(None, exponent, 0.0, 1000, 1e-8)
    found = climb(plain_start(problem, None), problem.sizes, options, problem.xp)
    return np.asarray(found.trace) - made.y.size * np.log(problem.scale) * 2 * problem.sizes.half


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def calibration(arguments: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    inside, count, ratios = 0, 0, []
    for seed in range(arguments.trials):
        made = make_kronecker_sparse(snr_db=15, random_state=seed)
        model = KroneckerSBL().fit(made.factors, made.y)
        truth = made.coef_tensor()[np.ix_(*model.support_)]
        covered = np.abs(model.coef_ - truth) <= 1.96 * model.coef_std_
        inside, count = inside + int(covered.sum()), count + covered.size
        ratios.append((model.noise_ / made.noise) ** 2)
    off = np.abs(np.array(ratios) - 1)
    rows["interval_cover"], rows["intervals"] = inside / count, count
    rows["noise_ratio_mean"], rows["noise_off_largest"] = float(np.mean(ratios)), float(off.max())
    claims = [
        claim("95 % intervals on the found support, 15 dB: cover", inside / count, 0.90, 0.98),
        claim("learned noise over the true one, mean", np.mean(ratios), 0.9, 1.1),
        claim("learned noise within 10 % of the true one: share of fits", np.mean(off < 0.1)),
    ]
    for alpha in (0.3, 0.05, 0.01):
        spurious, missed = [], []
        for seed in range(arguments.trials):
            made = make_kronecker_sparse(snr_db=10, random_state=seed)
            found = KroneckerSBL(prune_alpha=alpha).fit(made.factors, made.y).support_
            pairs = list(zip(found, made.support, strict=True))
            spurious.append(sum(np.setdiff1d(f, t).size for f, t in pairs))
            missed.append(sum(np.setdiff1d(t, f).size for f, t in pairs))
        rows[f"alpha {alpha}"] = {"spurious": float(np.mean(spurious)), "missed": float(np.mean(missed))}
        text = f"spurious columns per fit, 10 dB, alpha {alpha}"
        claims.append(claim(text, np.mean(spurious), most=2 * alpha * 3))
    return {"rows": rows, "claims": claims}


def invariances(_: argparse.Namespace) -> dict[str, Any]:
    made = make_kronecker_sparse(snr_db=20, random_state=0)
    base = KroneckerSBL().fit(made.factors, made.y)
    X, claims = base.coef_tensor(), []

    def apart(text: str, other: Any, most: float = 1e-8) -> None:
        claims.append(claim(text, np.linalg.norm(other - X) / np.linalg.norm(X), most=most))

    order = (2, 0, 1)
    turned = KroneckerSBL().fit([made.factors[i] for i in order], made.y.transpose(order))
    apart("modes permuted: coefficients apart", turned.coef_tensor().transpose(np.argsort(order)), 1e-3)
    for factor in (1e6, 1e-6):
        scaled = KroneckerSBL().fit(made.factors, factor * made.y)
        apart(f"measurements x {factor:g}: coefficients apart", scaled.coef_tensor() / factor)
    identity = KroneckerSBL(coupling=[np.eye(15)] * 3).fit(made.factors, made.y)
    apart("coupling by the identity: coefficients apart", identity.coef_tensor())
    plain = {"prune_alpha": 0, "n_starts": 1}
    one = KroneckerSBL(**plain).fit(made.factors, made.y)
    many = KroneckerSBL(**plain).fit(made.factors, np.stack([made.y] * 4, axis=-1), snapshots=True)
    difference = abs(many.log_evidence_ / 4 / one.log_evidence_ - 1)
    claims.append(claim("4 equal snapshots: relative difference of the evidence each", difference, most=1e-8))
    single = make_kronecker_sparse((60,), 120, 5, snr_db=20, random_state=0)
    found = KroneckerSBL().fit(single.factors, single.y)
    A, variance = single.factors[0], found.noise_**2
    S = variance * np.eye(60) + (A * found.gammas_[0]) @ A.T
    mean = found.gammas_[0] * (A.T @ np.linalg.solve(S, single.y))
    distance = np.linalg.norm(found.coef_tensor() - mean) / np.linalg.norm(mean)
    claims.append(claim("one mode: apart from the dense formula of plain SBL", distance, most=1e-8))
    classic = KroneckerSBL(prior="unstructured").fit(single.factors, single.y)
    ahead = found.log_evidence_ - classic.log_evidence_
    claims.append(claim("one mode: evidence ahead of sequential SBL, nats", ahead, least=-1))
    return {"rows": {}, "claims": claims}


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


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "scale": scale,  # first: a process inherits the peak of the one that started it
    "speed": speed,
    "free": free,
    "rank1": rank1,
    "hops": hops,
    "irs": irs,
    "convergence": convergence,
    "calibration": calibration,
    "invariances": invariances,
    "peers": peers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    parser.add_argument("--data", help="folder of the stored instances")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--child", choices=list(SCALE), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.child:
        return child(arguments.child)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.sections or SECTIONS:
        print(f"--- {name}", flush=True)
        start = time.process_time()
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peers stopped early
            results[name] = SECTIONS[name](arguments) | {"trials": arguments.trials}
        results[name]["cpu_s"] = time.process_time() - start
        results["versions"] = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
            "tenfac": tenfac.__version__,
            "threads": "1, by threadpoolctl",
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
