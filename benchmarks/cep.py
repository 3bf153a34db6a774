"""CP and Tucker with learned factor functions: seconds per iteration, memory, and error on PM2.5.

Run: ``python -m benchmarks.cep [FOLDER]``; prints a table and writes ``results/cep.json``. FOLDER holds
``beijing_pm25.npz``; without it only the timings are run. Process CPU seconds, one thread, smallest of
several runs.

The reference (the authors' code of arXiv 2311.04829) cannot be a dependency. Its recorded numbers on the same
kind of machine: .463 s (CP) and .796 s (Tucker) per iteration at 16,000 rows, rank 3; 10 GB at Tucker rank 5;
test RMSE .2714 (CP) and .2770 (Tucker) on the same fold of PM2.5, 50 to 71 s, nothing learned.
Plain baselines run here: mean of the same day, nearest neighbors in (temperature, pressure, day).
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import record
from tenfac.bayes.cep import fit_cep
from tenfac.bayes.cep.chain import Chain
from tenfac.bayes.cep.fit import starting_state
from tenfac.bayes.cep.forms import CPForm, TuckerForm
from tenfac.bayes.cep.rows import Rows
from tenfac.bayes.cep.sweep import Sweeper
from tenfac.bayes.metrics import gaussian_metrics
from tenfac.core.errors import ConvergenceWarning

SIZES = (50, 50, 2000)
REFERENCE = {"cp": 0.463, "tucker": 0.796}  # s per iteration, recorded
KERNELS = ["matern32", "matern32", "matern12"]


def iteration(form: CPForm | TuckerForm, count: int, runs: int = 10) -> dict:
    """CPU seconds of one sweep with hyperparameter steps, and its peak of new memory."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, size, count) for size in SIZES]
    rows = Rows.of(codes, list(SIZES), rng.normal(size=count), np.ones(count))
    chains = [Chain(np.linspace(0, 1, size), "matern12") for size in SIZES]
    state = starting_state(form, chains, rng)
    sweeper = Sweeper(rows, form, [2, 0, 1])
    climbers, seconds = sweeper.climbers(state), []
    for _ in range(runs):
        start = time.process_time()
        state = sweeper.sweep(state, climbers)
        seconds.append(time.process_time() - start)
    peak = record.peak_bytes(lambda: sweeper.sweep(state, climbers)) / 2**20
    return {"seconds": min(seconds), "median": float(np.median(seconds)), "peak_MiB": peak}


def timings() -> dict:
    forms = {
        "cp 3, no mains": CPForm(3, 3, mains=False),
        "cp 3": CPForm(3, 3, mains=True),
        "tucker 3": TuckerForm((3, 3, 3)),
        "tucker 5": TuckerForm((5, 5, 5)),
        "tucker 7": TuckerForm((7, 7, 7)),
    }
    out = {}
    for count in (4_000, 16_000, 64_000):
        for name, form in forms.items():
            row = iteration(form, count, 10 if count < 64_000 else 4)
            line = f"{count:6} rows  {name:15} {row['seconds']:.4f} s per iteration"
            line += f", peak {row['peak_MiB']:.0f} MiB"
            if count == 16_000 and " 3" in name:
                row["times_faster"] = REFERENCE[name.split()[0]] / row["seconds"]
                line += f", {row['times_faster']:.0f} x the recorded reference"
            print(line)
            out[f"{count} {name}"] = row
    return out


def errors(folder: Path) -> dict:
    data = np.load(folder / "beijing_pm25.npz")
    x, y = [data[key] / 10 for key in ("x1", "x2", "x3")], data["y"]
    cases = {
        "cp 2": ("cp", 2),
        "cp 3": ("cp", 3),
        "cp 5": ("cp", 5),
        "tucker 2": ("tucker", 2),
        "tucker 2,2,3": ("tucker", (2, 2, 3)),
        "tucker 3": ("tucker", 3),
        "tucker 5": ("tucker", 5),
        "cp auto": ("cp", 5),
        "tucker auto": ("tucker", 3),
    }
    out = {}
    for fold, test in enumerate(data["test_mask"]):
        rows = baselines(x, y, test)
        for name, (form, rank) in cases.items():
            options = {"kernels": KERNELS, "rank": rank, "form": form, "prune": "auto" in name}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fit, seconds = record.timed(
                    lambda test=test, o=options: fit_cep([c[~test] for c in x], y[~test], **o)
                )
            mean, variance = fit.predict([c[test] for c in x], with_noise=True)
            rows[name] = {
                **gaussian_metrics(y[test], mean, np.sqrt(variance)),
                "seconds": seconds,
                "n_iter": fit.info.n_iter,
                "rank": fit.rank,
                "least_variance": float(variance.min()),
            }
        for name, row in rows.items():
            print(f"PM2.5 fold {fold}  {name:14}", {k: np.round(v, 4).tolist() for k, v in row.items()})
        out[f"PM2.5 fold {fold}"] = rows
    return out


def baselines(x: list[np.ndarray], y: np.ndarray, test: np.ndarray) -> dict:
    """Mean of the same day; nearest neighbors with the day's scale chosen on training rows."""
    from sklearn.neighbors import KNeighborsRegressor

    days, codes = np.unique(x[2], return_inverse=True)
    counts = np.bincount(codes[~test], minlength=days.size)
    sums = np.bincount(codes[~test], y[~test], minlength=days.size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), y[~test].mean())
    table = np.stack(x, axis=1)
    chooses = np.arange(y.size) % 4 == 0  # a quarter of the training rows
    scores = {}
    for scale in (3, 10, 30, 100, 300, 1000):
        for count in (5, 10, 20):
            near = KNeighborsRegressor(count, weights="distance")
            scaled = table * np.array([1, 1, scale])
            guess = near.fit(scaled[~test & ~chooses], y[~test & ~chooses]).predict(scaled[~test & chooses])
            scores[scale, count] = float(np.mean((guess - y[~test & chooses]) ** 2))
    scale, count = min(scores, key=scores.get)
    scaled = table * np.array([1, 1, scale])
    near = KNeighborsRegressor(count, weights="distance").fit(scaled[~test], y[~test]).predict(scaled[test])
    rmse = {"day's mean": means[codes[test]] - y[test], "kNN": near - y[test]}
    return {name: {"rmse": float(np.sqrt(np.mean(error**2)))} for name, error in rmse.items()}


def main() -> None:
    with threadpool_limits(limits=1):
        results = {"reference_seconds_recorded": REFERENCE, "timings": timings()}
        if len(sys.argv) > 1:
            results["errors"] = errors(Path(sys.argv[1]))
    record.write("cep", results | {"versions": record.versions("numpy", "scipy", threads=1)})


if __name__ == "__main__":
    main()
