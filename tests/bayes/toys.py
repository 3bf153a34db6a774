"""Small problems with their dense Gaussian-process twins, shared by the tests of this room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenfac import FunctionalTucker
from tenfac.bayes.collapsed.basis import ModeBasis
from tenfac.bayes.collapsed.cell_covariance import CellCovariance
from tenfac.bayes.collapsed.evidence import Problem
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.task import Task
from tenfac.bayes.collapsed.terms import Main
from tests.oracles import DenseDecay, DenseGP, DenseLearned, DenseMode

SMOOTHNESS = {None: None, "matern12": 0.5, "matern32": 1.5, "matern52": 2.5, "oscillator": "oscillator"}

Kernels = tuple[str | None, ...]


def dense_gp(kernels: Kernels, hyper: Hyper, exact: int = 0, **observed: Any) -> DenseGP:
    """The same prior and noise as N x N matrices."""
    modes = tuple(
        DenseMode(SMOOTHNESS[kernel], *(float(v) for v in np.exp(row[:3])), float(row[3]), loadings)
        for kernel, row, loadings in zip(kernels, hyper.modes, hyper.loadings, strict=True)
    )
    mains = tuple(
        (
            float(np.exp(v)),
            # an oscillator has one period for its main effect and the product
            replace(mode, constant=0.0, loadings=None)
            if mode.smoothness == "oscillator"
            else replace(mode, constant=0.0, lengthscale=float(np.exp(length)), loadings=None),
        )
        for (v, length), mode in zip(hyper.mains, modes, strict=False)
    )
    discrete = tuple(kernel is None for kernel in kernels)
    cells, residual = (
        DenseDecay(float(np.exp(v[0])), tuple(np.exp(v[1:]).tolist()), discrete, exact) if v.size else None
        for v in (hyper.cells, hyper.residual)
    )
    scale, noise = float(np.exp(hyper.scale)), float(np.exp(hyper.noise))
    return DenseGP(scale, noise, modes, mains, cells, residual, **observed)


def loadings_of(sizes: list[int], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Random loadings, two columns, of the modes with a size."""
    return tuple(rng.normal(size=(size, 2)) if size else np.zeros((1, 0)) for size in sizes)


@dataclass(frozen=True)
class Toy:
    """A task in scaled positions, with duplicated rows and weights 1, 2 or 3."""

    kernels: Kernels
    task: Task
    terms: tuple[str, ...] = ()

    @property
    def points(self) -> list[np.ndarray]:
        """Positions with every row repeated as often as its weight says."""
        return [np.repeat(x, self.task.weights.astype(int)) for x in self.task.positions]

    @property
    def y(self) -> np.ndarray:
        return np.repeat(self.task.y, self.task.weights.astype(int))

    def hyper(self, seed: int) -> Hyper:
        """Hyperparameters near a center where everything matters: constants, lengthscales, bends, noise."""
        rng = np.random.default_rng([seed, 7])
        size = len(self.kernels)
        draws = rng.normal(size=(size, 3)) * [0.5, 0.3, 0.7] + [0.0, -0.5, 0.0]
        hyper = Hyper.start(size)
        if self.task.label_rank:
            sizes = [g.size if k is None else 0 for k, g in zip(self.kernels, self.task.grids, strict=True)]
            hyper = replace(hyper, loadings=loadings_of(sizes, rng))
        hyper = replace(hyper, scale=0.3, noise=-1.0, modes=np.column_stack([draws, rng.random(size)]))
        hyper = hyper.with_terms(**dict.fromkeys(self.terms, True))
        extra = {name: getattr(hyper, name) for name in self.terms}
        return replace(
            hyper, **{name: part + rng.normal(scale=0.3, size=part.shape) + 1 for name, part in extra.items()}
        )

    def problem(self, hyper: Hyper) -> Problem:
        if not self.terms:
            return self.task.problem(hyper)
        # with every function, also those that the data could not notice
        found = self.task.problem(hyper, (256, 256))
        mains = tuple(
            replace(term, basis=ModeBasis.build(term.basis.prior, term.basis.nodes))
            if isinstance(term, Main)
            else term
            for term in found.mains
        )
        return self.task.on(found.product, mains, hyper)

    def dense(self, hyper: Hyper) -> DenseGP:
        task = self.task
        told = (
            {}
            if task.precision is None
            else {"precision": np.repeat(task.precision, task.weights.astype(int))}
        )
        if task.scales is not None:
            told["spread"] = tuple(
                zip(task.grids[task.exact].tolist(), np.sqrt(task.scales).tolist(), strict=True)
            )
        dense = dense_gp(self.kernels, hyper, task.exact, **told)
        return dense if task.likeness is None else replace(dense, residual=self._learned(dense.residual))

    def _learned(self, decay: DenseDecay) -> DenseLearned:
        own = self.task.likeness
        nodes = list(own.nodes)
        nodes.insert(self.task.exact, np.zeros(nodes[0].size))
        return DenseLearned(decay, tuple(nodes), own.values, own.share)

    def at(self, count: int, seed: int = 5) -> list[np.ndarray]:
        """Points to predict: seen labels; observed indices, and others inside, left and right of them."""
        rng = np.random.default_rng([seed, 11])
        points = []
        for kernel, grid in zip(self.kernels, self.task.grids, strict=True):
            if kernel is None:
                points.append(rng.integers(0, grid.size, count).astype(float))
            else:
                anywhere = rng.uniform(-0.8, 1.8, count)
                points.append(np.where(np.arange(count) % 3 == 0, rng.choice(grid, count), anywhere))
        return points


def toy(
    kernels: Kernels, exact: int, sizes: tuple[int, ...], count: int = 60, seed: int = 0, label_rank: int = 0
) -> Toy:
    """Observations at random cells, every index seen, some cells twice."""
    rng = np.random.default_rng([seed, *sizes])
    grids, cells = [], []
    for kernel, size in zip(kernels, sizes, strict=True):
        inner = np.sort(rng.random(size - 2))
        grids.append(np.arange(size) * 1.0 if kernel is None else np.concatenate([[0.0], inner, [1.0]]))
        cells.append(np.concatenate([np.arange(size), rng.integers(0, size, count - size)]))
    positions = tuple(grid[cell] for grid, cell in zip(grids, cells, strict=True))
    weights = rng.integers(1, 4, count).astype(float)
    y = rng.normal(size=count)
    rank = (None,) * len(kernels)
    return Toy(kernels, Task(kernels, exact, tuple(grids), positions, y, weights, rank, 256, label_rank, rng))


TOYS = {
    "exact discrete, D = 3": toy((None, "matern32", "matern52"), 0, (7, 5, 4)),
    "exact continuous, D = 3": toy(("matern32", "matern12", None), 0, (8, 4, 3)),
    "exact continuous and last, D = 2": toy((None, "matern52"), 1, (4, 9)),
    "exact discrete and last, D = 2": toy(("matern12", None), 1, (4, 9)),
    "continuous, D = 1": toy(("matern52",), 0, (12,)),
    "discrete, D = 1": toy((None,), 0, (8,)),
    "exact oscillator, D = 3": toy(("oscillator", "matern12", None), 0, (8, 4, 3)),
    "oscillator beside the exact mode, D = 2": toy(("oscillator", "matern32"), 1, (5, 9)),
    "exact discrete, alike levels": toy((None, "matern32", None), 0, (7, 5, 4), label_rank=2),
    "exact continuous, alike levels": toy(("matern32", "matern12", None), 0, (8, 4, 3), label_rank=2),
}


def term_toy(
    kernels: Kernels,
    exact: int,
    sizes: tuple[int, ...],
    terms: tuple[str, ...],
    *,
    distinct: int = 0,
    scaled: bool = False,
    precise: bool = False,
    share: float = 0.0,
) -> Toy:
    """The same with terms; of ``distinct`` cells of the other modes; with scales of slices; precisions.

    A ``share`` of the residual's covariance at the cells has been learned.
    """
    case = toy(kernels, exact, sizes, count=48)
    task, rng = case.task, np.random.default_rng([*sizes, distinct])
    if distinct:
        cells = rng.permutation(np.tile(np.arange(distinct), task.y.size // distinct + 1)[: task.y.size])
        positions = tuple(x if n == exact else x[:distinct][cells] for n, x in enumerate(task.positions))
        task = replace(task, positions=positions)
    if scaled:
        task = replace(task, scales=rng.gamma(2.0, 0.5, sizes[exact]) + 0.1)
    if precise:
        task = replace(task, precision=rng.gamma(2.0, 0.5, task.y.size) + 0.1)
    if share:
        root = rng.normal(size=(distinct, distinct))
        task = replace(task, likeness=CellCovariance(task.cells, root @ root.T / distinct, share))
    return Toy(kernels, task, terms)


TERM_TOYS = {
    "mains, D = 2": term_toy(("matern32", "matern52"), 0, (8, 4), ("mains",)),
    "mains, D = 3": term_toy(("matern12", None, "matern32"), 0, (8, 3, 4), ("mains",)),
    "mains, oscillators": term_toy(("oscillator", "oscillator"), 0, (8, 4), ("mains",)),
    "residual, D = 2": term_toy((None, "matern52"), 1, (4, 9), ("residual",)),
    "residual, precisions": term_toy(
        ("matern32", "matern12", None), 0, (8, 4, 3), ("residual",), precise=True
    ),
    "residual, scales": term_toy(("matern12", "matern32"), 0, (9, 5), ("residual",), scaled=True),
    "mains, residual, scales, precisions": term_toy(
        ("matern32", "matern52", None), 0, (8, 4, 3), ("mains", "residual"), scaled=True, precise=True
    ),
    "cell basis": term_toy(("matern32", "matern52", None), 0, (8, 12, 9), ("mains",), distinct=12),
    "cells": term_toy(("matern12", "matern32", None), 0, (8, 12, 9), ("cells",), distinct=12),
    "cells, residual": term_toy(
        (None, "matern32", "matern32"), 1, (12, 8, 9), ("cells", "residual"), distinct=12
    ),
    "cells, residual, learned": term_toy(
        ("matern12", "matern32", None),
        0,
        (8, 12, 9),
        ("cells", "residual"),
        distinct=12,
        scaled=True,
        share=0.6,
    ),
}


# --- fitted models ----------------------------------------------------------------------------------------


def scaled(model: FunctionalTucker, columns: list[np.ndarray]) -> list[np.ndarray]:
    """Columns in the units of the dense twin: observed range 0 to 1, labels as they are."""
    out = []
    for kind, index, column in zip(model.kinds_, model.indices_, columns, strict=True):
        low, high = (index[0], index[-1]) if kind == "continuous" else (None, None)
        out.append(column if low is None else (column - low) / (high - low))
    return out


def twin(model: FunctionalTucker) -> DenseGP:
    """Dense Gaussian process at the hyperparameters a model has learned, for a model of the product alone."""
    assert not model.terms_
    kernels = tuple(model.kernels_.get(name) for name in model.mode_names_)
    return dense_gp(kernels, model._prediction.hyper)


def smooth_table(
    sizes: tuple[int, ...], discrete: tuple[int, ...], count: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Random cells of a grid, and a smooth function of them with noise; labels are 10, 11, 12, ..."""
    rng = np.random.default_rng([seed, *sizes, count])
    codes = np.column_stack([rng.integers(0, size, count) for size in sizes])
    for n, size in enumerate(sizes):
        codes[:size, n] = rng.permutation(size)  # every index occurs
    columns, y = [], np.ones(count)
    for n, (size, code) in enumerate(zip(sizes, codes.T, strict=True)):
        spots = np.sort(rng.uniform(-3, 5, size)) * 10.0**n
        columns.append(10.0 + code if n in discrete else spots[code])
        effect = rng.normal(size=size) if n in discrete else np.sin(spots / 10.0**n + n)
        y = y * (1 + 0.7 * effect[code])
    return np.column_stack(columns), 3 + 2 * (y + 0.2 * rng.normal(size=count))


def distinct_table(sizes: tuple[int, int], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a table of labels and places, no two alike, and a smooth function of them with noise."""
    X, y = smooth_table(sizes, (0,), 40 * count, seed)
    first = np.unique(X, axis=0, return_index=True)[1]
    chosen = np.random.default_rng([seed, count]).choice(first, count, replace=False)
    return X[chosen], y[chosen]
