"""What is computed is right: it converges, covers, and does not change under what must not matter."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from tenfac import KroneckerSBL
from tenfac.bayes.sparse.ascent import Options, climb
from tenfac.bayes.sparse.em import Rules, em_am, em_svd
from tenfac.bayes.sparse.problem import problem_of
from tenfac.bayes.sparse.starts import plain_start
from tenfac.datasets import make_irs_channel, make_kronecker_sparse

from .claims import claim, finite, outer_product


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
    rows["sweeps to 1 nat"], rows["falls"] = {k: [finite(s) for s in v] for k, v in sweeps.items()}, falls
    claims = [
        claim("sweeps to 1 nat of the best evidence, median", np.median(sweeps["fixed_point"]), most=30)
    ]
    claims.append(claim("sweeps to 1 nat of the best evidence, largest of 5", max(sweeps["fixed_point"])))
    claims.append(claim("sweeps to 1 nat, monotone step, median", np.median(sweeps["mm"])))
    claims.append(claim("iterations of the published AM, median (inf: > 300)", np.median(sweeps["em_am"])))
    claims.append(claim("iterations of the published SVD, median (inf: > 300)", np.median(sweeps["em_svd"])))
    made = [outer_product(20, 3, s) for s in range(20)]
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
