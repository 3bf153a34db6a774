"""What was recorded of the reference, and what is to be reached; which of it is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DEFAULT = "FunctionalTucker()"
Results = dict[str, Any]


def _row(
    rmse: float, mae: float, nll: float, coverage: float, crps: float, **more: float
) -> dict[str, float]:
    return {"rmse": rmse, "mae": mae, "nll": nll, "coverage": coverage, "crps": crps, **more}


# The authors' code of arXiv 2311.04829 cannot be a dependency. It was run once on these folds, with the
# settings it ships with and nothing learned; deviations from its own second moments. Seconds: one thread, a
# quiet machine. On US cells the folds were others, made in the same way.
RECORDED = {
    "PM2.5 fold 0": {
        "FunBaT CP 2": _row(0.2714, 0.1770, 0.091, 0.943, 0.137, seconds=71.0),
        "FunBaT CP 5": _row(0.2714, 0.1771, 0.098, 0.952, 0.139),
        "FunBaT CP 7": _row(0.2714, 0.1771, 0.108, 0.957, 0.140),
        "FunBaT Tucker 2": _row(0.2770, 0.1785, 0.105, 0.939, 0.138, seconds=50.0),
        "FunBaT Tucker 3": _row(0.2772, 0.1784, 0.105, 0.938, 0.138),
        "FunBaT Tucker 5": {"peak_MiB": 10_400.0},
    },
    "PM2.5, authors' best of their 5 folds": {
        "FunBaT CP 2": {"rmse": 0.2876, "mae": 0.1800},
        "FunBaT Tucker 3": {"rmse": 0.2910, "mae": 0.1831},
    },
    "PM10 fold 0": {
        "FunBaT Tucker 2": _row(0.3308, 0.2284, 0.300, 0.936, 0.171),
        "FunBaT CP 2": _row(0.4225, 0.2689, 0.531, 0.949, 0.208),
    },
    "SO2 fold 0": {
        "FunBaT CP 2": _row(0.3908, 0.2363, 0.433, 0.913, 0.185),
        "FunBaT Tucker 2": _row(0.4025, 0.2434, 0.435, 0.932, 0.193),
    },
    "US dedup fold 0": {
        "FunBaT CP 3": _row(0.972, 0.493, 1.31, 0.964, 0.390),
        "FunBaT CP 7": _row(0.664, 0.331, 0.785, 0.942, 0.256),
    },
    "US cells, other fold 0": {
        "FunBaT CP 2": _row(14.9, 12.3, 5.9, 0.67, 9.2),
        "FunBaT CP 7": _row(5.6, 4.4, 3.6, 0.90, 3.3),
    },
    "US cells, other fold 1": {"FunBaT CP 2": _row(21.0, 15.8, 12.9, 0.50, 13.1)},
}
REFERENCE_SECONDS = 50.0  # the faster of its two fits of PM2.5


@dataclass(frozen=True)
class Target:
    """A number from the results and the ranges it must, and should, lie in."""

    claim: str
    value: Callable[[Results], list[float]]
    must: tuple[float, float]
    aim: tuple[float, float]
    reference: str = ""

    def judged(self, results: Results) -> Results:
        """Number, ranges, and whether met; every value must lie in the range, the worst is shown."""
        values = [value for value in self.value(results) if value is not None]
        entry = {"claim": self.claim, "reference": self.reference, "must": self.must, "aim": self.aim}
        if not values:
            return {**entry, "value": None, "met": "not run"}
        met = next((word for word in ("aim", "must") if _all_in(values, getattr(self, word))), "no")
        value = max(values, key=lambda value: _beyond(value, self.aim))
        return {**entry, "value": value if np.isfinite(value) else None, "met": met}


def _all_in(values: list[float], bounds: tuple[float, float]) -> bool:
    return all(bounds[0] <= value <= bounds[1] for value in values)


def _beyond(value: float, bounds: tuple[float, float]) -> float:
    return max(bounds[0] - value, value - bounds[1])


def most(must: float, aim: float) -> Results:
    return {"must": (-np.inf, must), "aim": (-np.inf, aim)}


def least(must: float, aim: float) -> Results:
    return {"must": (must, np.inf), "aim": (aim, np.inf)}


def within(low: float, high: float) -> Results:
    return {"must": (low, high), "aim": (low, high)}


def ours(results: Results, data: str) -> list[Results]:
    """Rows of the defaults on every fold of a data set; a fit that failed scores infinity."""
    tables = results.get("tables", {})
    return [rows[DEFAULT] for name, rows in tables.items() if name.startswith(data) and DEFAULT in rows]


def mean_of(data: str, key: str) -> Callable[[Results], list[float]]:
    def value(results: Results) -> list[float]:
        rows = ours(results, data)
        return [float(np.mean([row.get(key, np.inf) for row in rows]))] if rows else []

    return value


def coverage(data: str) -> Callable[[Results], list[float]]:
    """On every fold: too high on one must not make up for too low on another."""
    return lambda results: [row.get("coverage", np.inf) for row in ours(results, data)]


def quartiles(data: str) -> Callable[[Results], list[float]]:
    """Coverage in each quarter of the predicted deviation, on every fold."""

    def value(results: Results) -> list[float]:
        parts = [row.get("coverage_by_quartile", [np.inf]) for row in ours(results, data)]
        return [share for part in parts for share in part]

    return value


def against_plain(results: Results) -> list[float]:
    """Per air-quality fold: error by that of the better of kNN and slice mean."""
    out = []
    for name, rows in results.get("tables", {}).items():
        if not name.startswith("US") and DEFAULT in rows and {"kNN", "slice mean"} <= set(rows):
            plain = min(rows["kNN"]["rmse"], rows["slice mean"]["rmse"])
            out.append(rows[DEFAULT].get("rmse", np.inf) / plain)
    return out


def times_faster(results: Results) -> list[float]:
    return [REFERENCE_SECONDS / seconds for seconds in mean_of("PM2.5", "seconds")(results)]


def accuracy(*words: str) -> Callable[[Results], list[float]]:
    def value(results: Results) -> list[float]:
        cases = results.get("accuracy", {})
        rows = [row for name, row in cases.items() if not name.startswith("functions")]
        return [row[key] for row in rows for key in row if key.split(",")[0].split(" ")[0] in words]

    return value


def invariances(results: Results) -> list[float]:
    return [row["start"] for row in results.get("invariances", {}).values()]


def at_scale(key: str) -> Callable[[Results], list[float]]:
    def value(results: Results) -> list[float]:
        row = results.get("scale", {}).get(DEFAULT, {}).get("1000000 rows")
        return [row.get(key, np.inf)] if row else []

    return value


def of_cep(case: str, key: str) -> Callable[[Results], list[float]]:
    """From what ``benchmarks/cep.py`` wrote."""

    def value(results: Results) -> list[float]:
        row = results.get("cep", {}).get("timings", {}).get(f"16000 {case}", {})
        return [row[key]] if key in row else []

    return value


TARGETS = [
    Target("PM2.5 RMSE", mean_of("PM2.5", "rmse"), **most(0.240, 0.226), reference=".271"),
    Target("PM2.5 NLL", mean_of("PM2.5", "nll"), **most(-0.02, -0.14), reference=".091"),
    Target("PM2.5 CRPS", mean_of("PM2.5", "crps"), **most(0.118, 0.108), reference=".137"),
    Target("air quality, RMSE by the better of kNN and slice mean", against_plain, **most(1.0, 0.95)),
    Target("US dedup RMSE, °F", mean_of("US dedup", "rmse"), **most(0.65, 0.60), reference=".664"),
    Target("US dedup MAE, °F", mean_of("US dedup", "mae"), **most(0.26, 0.23), reference=".331"),
    Target("US dedup NLL", mean_of("US dedup", "nll"), **most(0.6, 0.1), reference=".785"),
    Target("US cells RMSE, °F", mean_of("US cells", "rmse"), **most(2.2, 1.8), reference="15 to 21"),
    Target("US cells 95 % coverage", coverage("US cells"), (0.92, 1.0), (0.93, 0.97), ".50 to .67"),
    Target("PM2.5 95 % coverage", coverage("PM2.5"), **within(0.93, 0.965), reference=".94"),
    Target("US dedup 95 % coverage", coverage("US dedup"), **within(0.93, 0.965), reference=".94"),
    Target("PM2.5 coverage by quartile of sd", quartiles("PM2.5"), **within(0.88, 0.98)),
    Target("US dedup coverage by quartile of sd", quartiles("US dedup"), **within(0.88, 0.98)),
    Target("PM2.5 fit, times faster", times_faster, **least(10, 25), reference="50 to 71 s"),
    Target("CEP form, CP, times faster", of_cep("cp 3", "times_faster"), **least(10, 35), reference=".46 s"),
    Target(
        "CEP form, Tucker, times faster",
        of_cep("tucker 3", "times_faster"),
        **least(10, 20),
        reference=".80 s",
    ),
    Target("CEP form, Tucker 5, MiB", of_cep("tucker 5", "peak_MiB"), **most(300, 50), reference="10 GB"),
    Target("evidence by the dense one", accuracy("evidence"), **most(1e-6, 1e-6)),
    Target("predictions by the dense ones", accuracy("mean", "variance", "std"), **most(1e-8, 1e-8)),
    Target("gradients by the dense ones", accuracy("gradient"), **most(1e-8, 1e-8)),
    Target("least variance", accuracy("least"), **least(0.0, 0.0), reference="-398"),
    Target("invariances", invariances, **most(1e-8, 1e-8)),
    Target("1,000,000 rows: fit, CPU s", at_scale("fit_seconds"), **most(1200, 600)),
    Target("1,000,000 rows: fit, MiB", at_scale("fit_peak_MiB"), **most(8192, 8192)),
    Target("1,000,000 rows: predict, MiB", at_scale("predict_peak_MiB"), **most(8192, 8192)),
]


def judge(results: Results) -> list[Results]:
    """Every target with its number, printed."""
    out = [target.judged(results) for target in TARGETS]
    learned = [name for name, rows in results.get("tables", {}).items() if DEFAULT in rows]
    print(f"\n{DEFAULT} was run on {', '.join(learned) or 'no fold'}; the means below are of these.")
    print(f"{'claim':54} {'reference':>12} {'value':>10} {'must':>16} {'aim':>16}  met")
    for row in out:
        value = "" if row["value"] is None else f"{row['value']:.4g}"
        must, aim = (_shown(row[word]) for word in ("must", "aim"))
        print(f"{row['claim']:54} {row['reference']:>12} {value:>10} {must:>16} {aim:>16}  {row['met']}")
        row["must"], row["aim"] = must, aim
    return out


def _shown(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if np.isinf(low):
        return f"<= {high:g}"
    return f">= {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
