"""How often the support and the coefficients are found: free values, outer products, the IRS channel."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.record import timed
from kronecker_sbl.claims import claim, outer_product
from tenfac import KroneckerSBL
from tenfac.bayes.sparse.metrics import nmse, support_recovery_rate
from tenfac.bayes.sparse.oracle import oracle_least_squares
from tenfac.datasets import make_irs_channel, make_kronecker_sparse

PAPER_CHANNEL = {4: 0.312, 8: 0.132, 12: 0.049, 16: 0.009, 20: 0.003}  # its best method, its raw results
CHANNEL = {4: 0.08, 8: 0.025, 12: 0.010, 16: 0.0042, 20: 0.0014}
CHANNEL_RANK1 = {4: 0.055, 8: 0.016, 12: 0.0055, 16: 0.0025, 20: 0.0007}  # with values="rank1" or "auto"


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
        made = [outer_product(snr_db, 3, s) for s in range(arguments.trials)]
        rows[f"{snr_db} dB"] = row = recovered([(m, {}) for m in made])
        claims.append(claim(f"rank-one values, {snr_db} dB: success", row["success"], least=least))
    return {"rows": rows, "claims": claims}


def hops(arguments: argparse.Namespace) -> dict[str, Any]:
    rows, claims = {}, []
    for columns, least in ((4, 0.92), (5, 0.82)):
        made = [outer_product(25, columns, s) for s in range(arguments.trials)]
        for n_hops, bound in ((0, -np.inf), (20, least)):
            row = recovered([(m, {"n_hops": n_hops}) for m in made])
            rows[f"K {columns}, n_hops {n_hops}"] = row
            text = f"rank-one values, 25 dB, K {columns}, n_hops={n_hops}: success"
            claims.append(claim(text, row["success"], least=bound))
    return {"rows": rows, "claims": claims}


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
