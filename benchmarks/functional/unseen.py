"""Data that ships with dependencies, scored at indices left out, against interpolation along their mode.

kinetic: 59 samples x 12 emission x 10 excitation x 60 times; every 4th time kept (15), scored at the 42 inner
times left out, observed cells only. il2: 13 muteins x 4 times x 12 doses x 8 cells; 7 doses kept, 5 scored.
On il2 the label rank of highest log_evidence - loadings / 2 * log(n_fitted) is the one to quote.
Baselines interpolate along the mode with gaps; cells missing at the kept indices are first interpolated too.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, interp1d

from benchmarks.record import timed
from tenfac import FunctionalTucker, datasets, tucker
from tenfac.bayes.metrics import gaussian_metrics


def filled(values: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    """Missing cells interpolated along one axis; fibres with nothing observed become the mean."""
    fibres = np.moveaxis(values, axis, -1).copy()
    for fibre in fibres.reshape(-1, x.size):
        seen = ~np.isnan(fibre)
        if not seen.all():
            fibre[~seen] = np.interp(x[~seen], x[seen], fibre[seen]) if seen.any() else np.nanmean(values)
    return np.moveaxis(fibres, -1, axis)


def table(data: datasets.Dataset, axis: int, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observed cells at some indices of one axis, as rows."""
    return data.select(data.modes[axis].name, chosen).to_table()


def baselines(values: np.ndarray, x: np.ndarray, axis: int, kept: np.ndarray, rank: tuple) -> dict:
    """Predictions at every index of the axis, by name, with their seconds."""
    known = filled(np.take(values, kept, axis), x[kept], axis)
    makers = {
        "linear": lambda: interp1d(x[kept], known, axis=axis)(x[: kept[-1] + 1]),
        "cubic spline": lambda: CubicSpline(x[kept], known, axis=axis)(x[: kept[-1] + 1]),
        f"ST-HOSVD {rank} + cubic spline": lambda: CubicSpline(
            x[kept], tucker(known, rank=rank).to_tensor(), axis=axis
        )(x[: kept[-1] + 1]),
    }
    found = {}
    for name, make in makers.items():
        found[name] = timed(make)
    return found


def compare(data: datasets.Dataset, axis: int, kept: np.ndarray, rank: tuple, models: dict) -> dict:
    """Errors of the baselines and of FunctionalTucker at the inner indices left out."""
    unseen = np.setdiff1d(np.arange(kept[-1]), kept)
    x = data.modes[axis].coordinates(log=True)
    truth = np.take(data.values, unseen, axis)
    seen = ~np.isnan(truth)
    norm = float(np.sqrt(np.mean(truth[seen] ** 2)))
    rows = {}
    for name, (values, seconds) in baselines(data.values, x, axis, kept, rank).items():
        error = (np.take(values, unseen, axis) - truth)[seen]
        rmse = float(np.sqrt(np.mean(error**2)))
        rows[name] = {"rmse": rmse, "relative_rmse": rmse / norm, "seconds": seconds}
    X, y = table(data, axis, kept)
    new = table(data, axis, unseen)
    for name, model in models.items():
        row = scored(model, (X, y), new)
        rows[name] = {**row, "relative_rmse": row["rmse"] / norm}
    return rows


def scored(model: FunctionalTucker, fitted: tuple, new: tuple) -> dict:
    """Fit, and score at indices left out."""
    _, seconds = timed(lambda: model.fit(*fitted))
    mean, std = model.predict(new[0], return_std=True, include_noise=True)
    error = model.predict(new[0]) - new[1]
    return {
        **gaussian_metrics(new[1], mean, std),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "coverage_90": gaussian_metrics(new[1], mean, std, level=0.9)["coverage"],
        "seconds": seconds,
        "std_at_kept": float(model.predict(fitted[0], return_std=True)[1].mean()),
        "std_at_unseen": float(model.predict(new[0], return_std=True)[1].mean()),
        "noise": model.noise_,
        "log_evidence": model.log_evidence_,
        "loadings": model._learned.hyper.n_loadings,
        "report": repr(model.info_),
        "n_fitted": int(fitted[1].size),
        "n_scored": int(new[1].size),
    }


def run() -> dict[str, dict]:
    """Both data sets, every method."""
    plain = {"FunctionalTucker": FunctionalTucker(discrete=[0])}
    il2 = {"FunctionalTucker": FunctionalTucker(discrete=[0, 3])}
    for rank in (0, 1, 2, 3, 4, 5, 6, 7):
        model = FunctionalTucker(discrete=[0, 3], response="logit", label_rank=rank)
        il2[f"FunctionalTucker, logit, labels {rank}"] = model
    cases = {
        "kinetic": (datasets.load_kinetic(), 3, np.arange(0, 60, 4), (8, 4, 4, 4), plain),
        "il2": (datasets.load_il2(), 2, np.array([0, 2, 4, 6, 8, 10, 11]), (13, 4, 7, 8), il2),
    }
    results = {name: compare(*case) for name, case in cases.items()}
    for name, rows in results.items():
        for method, row in rows.items():
            print(
                f"{name:8} {method:36} rmse {row['rmse']:9.4f}  relative {row['relative_rmse']:.4f}  "
                f"{row['seconds']:7.2f} s  "
                + (f"90 % {row['coverage_90']:.3f}" if "coverage_90" in row else "")
            )
    return results
