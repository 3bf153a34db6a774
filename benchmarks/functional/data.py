"""The tables the benchmark runs on: folds of real data, read from a folder that may be absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2].parent / "shared" / "data"
SLICE = 2  # the longest mode: day or year


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and rows to score.

    Parameters
    ----------
    data, name : str
        Of the data set, and of the fold in it.
    X : array, shape (N, D)
    y, weight : array, shape (N,)
        A weight is the number of copies that were merged into the row.
    test : bool array, shape (N,)
    whole_cells : bool
        Whether the first two columns of the scored rows name places that no training row has.
    """

    data: str
    name: str
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    test: np.ndarray
    whole_cells: bool = False

    @property
    def inside(self) -> np.ndarray:
        """Which scored rows lie within the range of the training rows in every mode."""
        (X, _), (new, _) = self.train, self.scored
        return ((new >= X.min(axis=0)) & (new <= X.max(axis=0))).all(axis=1)

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        return self.X[~self.test], self.y[~self.test]

    @property
    def scored(self) -> tuple[np.ndarray, np.ndarray]:
        return self.X[self.test], self.y[self.test]


def folder_of(argument: str | None) -> Path:
    """The argument, else the variable TENFAC_DATA, else ``shared/data`` beside the repository."""
    return Path(argument or os.environ.get("TENFAC_DATA", FOLDER))


def folds(folder: Path, cell_seeds: Sequence[int] = (0, 1)) -> list[Fold]:
    """Every fold of every known file; a line is printed for a file that is not there."""
    air = sorted(folder.glob("beijing_*.npz"))
    if not air:
        print(f"no beijing_*.npz in {folder}: skipped")
    out = [fold for path in air for fold in _air(path)]
    path = folder / "us_temp_dedup.npz"
    if not path.exists():
        print(f"no {path.name} in {folder}: skipped")
        return out
    return out + _temperature(path, cell_seeds)


def _air(path: Path) -> list[Fold]:
    """Daily means by temperature, pressure and day; y in standard deviations."""
    name = path.stem.removeprefix("beijing_").upper().replace("PM25", "PM2.5")
    with np.load(path) as data:
        X = np.stack([data["x1"], data["x2"], data["x3"]], axis=1)
        y, masks = data["y"], data["test_mask"]
    return [Fold(name, f"{name} fold {n}", X, y, np.ones(y.size), mask) for n, mask in enumerate(masks)]


def _temperature(path: Path, cell_seeds: Sequence[int]) -> list[Fold]:
    """Yearly means in °F by latitude, longitude and year: rows at random, and whole cells held out."""
    with np.load(path) as data:
        X = np.stack([data["x1"], data["x2"], data["x3"]], axis=1)
        y, weight, masks = data["y"], data["weight"].astype(float), data["test_mask"]
    random = [Fold("US dedup", f"US dedup fold {n}", X, y, weight, mask) for n, mask in enumerate(masks)]
    _, cell = np.unique(X[:, :2], axis=0, return_inverse=True)
    cells = []
    for seed in cell_seeds:
        count = cell.max() + 1
        held = np.random.default_rng(seed).permutation(count)[: round(0.2 * count)]
        cells.append(Fold("US cells", f"US cells seed {seed}", X, y, weight, np.isin(cell, held), True))
    return random + cells
