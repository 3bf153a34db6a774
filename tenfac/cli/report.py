"""What `tenfac fit` prints: aligned text, one idea per block."""

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tenfac.cli.columns import as_labels
from tenfac.cli.observations import ModeColumn, Observations

Scores = dict[str, float]

_MEASURES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "nll": "NLL",
    "crps": "CRPS",
    "coverage": "95 % coverage",
}


def describe(model: Any, obs: Observations) -> list[str]:
    """One line per mode: kind, number of indices, range, rank, length-scale."""
    rows = [("mode", "kind", "indices", "range", "rank", "length-scale")]
    ranks = np.broadcast_to(np.asarray(getattr(model, "rank_", "")), len(obs.modes))
    for mode, rank in zip(obs.modes, ranks, strict=True):
        values = np.unique(obs.X[mode.name])
        scale = getattr(model, "lengthscales_", {}).get(mode.name) if mode.kind == "continuous" else None
        length = "" if scale is None else f"{scale:.3g} {_scale_unit(mode)}".rstrip()
        rows.append((mode.column, mode.kind, f"{len(values):,}", _range(mode, values), str(rank), length))
    return align(rows, right={2, 4})


def compare(ours: Scores, theirs: Scores, k: int, held: int) -> list[str]:
    """The measures on held-out rows beside those of the baseline."""
    rows = [(f"held-out ({held:,} rows)", "tenfac", f"nearest neighbours (k = {k})")]
    for key, name in _MEASURES.items():
        show = (lambda value: f"{100 * value:.1f} %") if key == "coverage" else (lambda value: f"{value:.4g}")
        rows.append((name, show(ours[key]), show(theirs[key])))
    return align(rows, right={1, 2})


def outcome(model: Any, unit: str) -> list[str]:
    """Noise, evidence, and how the fit ended."""
    info = model.info_
    steps = f", {info.n_iter} iterations" if info.n_iter is not None else ""
    seconds = f", {info.seconds:.1f} s" if info.seconds is not None else ""
    verdict = "converged" if info.converged else "NOT converged"
    rows = [("fit", f"{verdict} ({info.reason}){steps}{seconds}")]
    evidence = getattr(model, "log_evidence_", None)
    if evidence is not None:
        rows.insert(0, ("log evidence", f"{float(evidence):.2f}"))
    noise = getattr(model, "noise_", None)
    if noise is not None and np.isfinite(noise).all():
        ends = sorted({float(np.min(noise)), float(np.max(noise))})
        rows.insert(0, ("noise sd", f"{' .. '.join(f'{end:.4g}' for end in ends)} {unit}".rstrip()))
    return align(rows)


def align(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Pad cells to columns two blanks apart, columns ``right`` to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    right = set(right)
    padded = [
        [
            cell.rjust(w) if k in right else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in padded]


def _scale_unit(mode: ModeColumn) -> str:
    if mode.is_date:
        return "days"
    return "decades" if mode.name != mode.column else mode.unit


def _range(mode: ModeColumn, values: np.ndarray) -> str:
    if mode.kind == "discrete":
        shown = ", ".join(as_labels(values[:3]).tolist())
        return (shown if len(shown) <= 28 else shown[:26] + " …") + (", …" if len(values) > 3 else "")
    low, high = float(values[0]), float(values[-1])
    if mode.is_date:
        first, last = (datetime.date(1970, 1, 1) + datetime.timedelta(days=day) for day in (low, high))
        return f"{first} .. {last}"
    if mode.name != mode.column:
        low, high = 10**low, 10**high
    return f"{low:.4g} .. {high:.4g} {mode.unit}".rstrip()
