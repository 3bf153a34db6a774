"""A number beside its target; problems of the paper, and the stored instances with its estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.functional.data import folder_of
from tenfac.datasets import make_kronecker_sparse


def claim(text: str, measured: float, least: float = -np.inf, most: float = np.inf) -> dict[str, Any]:
    """A number beside its target, printed."""
    met = bool(least <= measured <= most)
    target = " and ".join(
        f"{sign} {bound:g}" for sign, bound in ((">=", least), ("<=", most)) if np.isfinite(bound)
    )
    print(f"{'ok  ' if met else 'MISS'} {text:58s} {measured:11.4g}  (target {target or 'none'})", flush=True)
    return {"claim": text, "measured": finite(float(measured)), "target": target or None, "met": met}


def finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def outer_product(snr_db: float, columns: int, seed: int) -> Any:
    return make_kronecker_sparse(columns=columns, snr_db=snr_db, values="rank1", random_state=seed)


def stored(argument: str | None) -> dict[str, dict[str, Any]]:
    """Instances by name, of a named folder; else of ``kronecker_sbl`` beside other data, where it is."""
    folder = Path(argument) if argument else folder_of(None) / "kronecker_sbl"
    paths = sorted(folder.glob("*.npz"))
    if argument and not paths:
        raise SystemExit(
            f"--data: must name a folder with stored instances (*.npz); got {argument}, with none."
        )
    found = {}
    for path in paths:
        with np.load(path) as arrays:
            found[path.stem] = dict(arrays)
        if missing := {"A1", "A2", "A3", "y"} - set(found[path.stem]):
            raise SystemExit(
                f"--data: must name the folder of the stored instances (kronecker_sbl), each with A1, A2, A3 "
                f"and y; got {path} without {', '.join(sorted(missing))}."
            )
    if not paths:
        print(f"no *.npz in {folder}: skipped")
    return found
