"""Scores on real tables: plain baselines in this process, the estimator in one of its own with a limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.functional import baselines
from benchmarks.functional.data import Fold
from benchmarks.functional.measure import Meter, in_child
from benchmarks.record import timed
from tenfac import FunctionalTucker
from tenfac.bayes.metrics import gaussian_metrics

Row = dict[str, Any]


def scores(y: np.ndarray, mean: np.ndarray, std: np.ndarray | float | None) -> Row:
    """Errors; with a deviation also NLL, CRPS, 95 % coverage, and coverage by quartile of the deviation."""
    error = mean - y
    row = {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}
    if std is None:
        return row
    wide = np.broadcast_to(np.asarray(std, dtype=float), y.shape)
    row |= gaussian_metrics(y, mean, wide)
    if np.ndim(std):
        quarters = np.array_split(np.argsort(wide, kind="stable"), 4)
        row["coverage_by_quartile"] = [
            gaussian_metrics(y[own], mean[own], wide[own])["coverage"] for own in quarters
        ]
    return row


def fold_scores(fold: Fold, mean: np.ndarray, std: np.ndarray | float | None) -> Row:
    """Scores; where whole cells are held out, also the error inside the range of the training cells."""
    row = scores(fold.scored[1], mean, std)
    if fold.whole_cells:
        inside = fold.inside
        row["rmse_inside"] = scores(fold.scored[1][inside], mean[inside], None)["rmse"]
        row["share_inside"] = float(inside.mean())
    return row


def baseline_rows(fold: Fold, svgp_seconds: float) -> dict[str, Row]:
    """Every baseline's scores and CPU seconds, its own tuning included."""
    methods = {"slice mean": baselines.slice_mean, "kNN": baselines.neighbors}
    if fold.whole_cells:
        methods["nearest cells"] = baselines.nearest_cells
    methods["boosting"] = baselines.boosting
    if svgp_seconds and fold.name.endswith("0"):
        methods["SVGP 500"] = lambda fold: baselines.sparse_gp(fold, svgp_seconds)
    rows = {}
    for name, method in methods.items():
        try:
            (mean, std), seconds = timed(lambda method=method: method(fold))
        except ImportError as error:
            print(f"{fold.name}: {name} skipped, {error}")
            continue
        rows[name] = {**fold_scores(fold, mean, std), "seconds": seconds}
    return rows


def our_row(fold: Fold, settings: Row, weighted: bool, limit: float) -> Row:
    """The estimator's scores, seconds and memory; or why it has none."""
    weight = fold.weight[~fold.test] if weighted else None
    answer, failure = in_child(fit_and_predict, settings, *fold.train, weight, fold.scored[0], limit=limit)
    if answer is None:
        return {"failed": failure}
    mean, std = answer.pop("mean"), answer.pop("std")
    return {**fold_scores(fold, mean, std), **answer}


def fit_and_predict(
    settings: Row, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None, new: np.ndarray
) -> Row:
    """Fit, then predict an observation at every new row."""
    with Meter() as fitting:
        model = FunctionalTucker(**settings).fit(X, y, sample_weight=weight)
    with Meter() as predicting:
        mean, std = model.predict(new, return_std=True, include_noise=True)
    return {
        "mean": mean,
        "std": std,
        "seconds": fitting.seconds,
        "peak_MiB": fitting.peak,
        "predict_seconds": predicting.seconds,
        "predict_peak_MiB": predicting.peak,
        "n_iter": model.n_iter_,
        "noise": float(model.noise_),
        "log_evidence": float(model.log_evidence_),
        "report": repr(model.info_),
    }


def line(fold: str, method: str, row: Row) -> str:
    """One line of the printed table."""
    if "failed" in row:
        return f"{fold:18} {method:34} {row['failed']}"
    text = f"{fold:18} {method:34} rmse {row['rmse']:8.4f}  mae {row['mae']:8.4f}"
    if "nll" in row:
        text += f"  nll {row['nll']:7.3f}  crps {row['crps']:7.4f}  95 % {row['coverage']:.3f}"
    if "coverage_by_quartile" in row:
        text += "  by quartile " + " ".join(f"{share:.3f}" for share in row["coverage_by_quartile"])
    if "rmse_inside" in row:
        text += f"  inside {row['rmse_inside']:.4f}"
    if "seconds" in row:
        text += f"  {row['seconds']:7.1f} s"
    return text
