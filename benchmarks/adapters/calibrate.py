"""The rates of ``tenfac.adapters.updates.cost`` fitted to the calibration cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from adapters import paths, peers
from adapters.cells import CALIBRATION, Cell
from tenfac.adapters.updates.cost import Rates, gradient_cost, path_costs
from tenfac.adapters.updates.path import n_positions

PATHS = ("factored", "fused")


def parts(cell: Cell) -> np.ndarray:
    """Picoseconds of both paths beyond the base at rates of 1, ``(2, rates)``: costs are linear in them."""
    layer = peers.tenfac("auto")(cell.layer(), cell.rank)
    (update,) = (update for update, _ in layer.tenfac.updates("weight"))
    positions = n_positions(layer, cell.x())
    columns = []
    for row in np.eye(len(Rates._fields)):
        unit = Rates(*row)
        factored, fused = (
            cost.at(*positions) for cost in path_costs(update.term_shapes, update.layout, unit, cell.train)
        )
        columns.append([factored, fused + gradient_cost(update.layout, unit, cell.train).at(*positions)])
    return np.array(columns).T


def fit(cells: list[Cell], times: list[dict[str, float]]) -> Rates:
    """Nonnegative least squares of what each path takes beyond the base, and of the paths' difference."""
    rows, wanted = [], []
    for cell, found in zip(cells, times, strict=True):
        features = parts(cell) / 1e9
        taken = np.array([found[name] for name in PATHS])
        beyond = taken - found["frozen base"]
        rows += [*(features / taken[:, None]), 2 * (features[0] - features[1]) / taken.max()]
        wanted += [*(beyond / taken), 2 * (beyond[0] - beyond[1]) / taken.max()]
    matrix = np.array(rows)
    size = np.linalg.norm(matrix, axis=0)
    return Rates(*map(float, nnls(matrix / size, np.array(wanted))[0] / size))


def run(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Rates of this machine; the cells' times beside."""
    times = [paths.time_paths(cell, device, dtype) for cell in CALIBRATION]
    rates = fit(CALIBRATION, times)
    print(f"  {rates}")
    return {"rates": rates._asdict(), "cells": {c.name: t for c, t in zip(CALIBRATION, times, strict=True)}}
