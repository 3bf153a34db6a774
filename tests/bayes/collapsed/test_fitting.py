"""Terms through the estimator: what is asked for, what the data choose, and what must not matter."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import DataError, FunctionalTucker, load, save
from tenfac.bayes.collapsed import fitting
from tenfac.bayes.collapsed.prediction import Prediction
from tests.checks import assert_above, assert_below, assert_equal, assert_relative, assert_says, quietly

QUICK = {"max_iter": 4, "tol": 1e-3}


@cache
def slices(seed: int, residual: float, bad: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """40 days with 6 places each: a wave of the day, and what one day has for itself; noise 0.2."""
    rng = np.random.default_rng([seed, 5])
    day = np.repeat(np.arange(40.0), 6)
    place = np.round(rng.random(240) * 24) / 24
    y = np.sin(day / 5) * (1 + place) + 0.2 * rng.normal(size=240)
    for t in range(40):
        own = day == t
        cov = np.exp(-np.abs(np.subtract.outer(place[own], place[own])) / 0.3) + 1e-9 * np.eye(6)
        y[own] += residual * np.linalg.cholesky(cov) @ rng.normal(size=6)
        if bad and t % 10 == 3:
            y[own] += 3.0 * rng.normal(size=6)
    return np.column_stack([day, place]), y


@cache
def stations(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """30 days, 12 stations with two coordinates."""
    rng = np.random.default_rng([seed, 6])
    where = rng.random((12, 2))
    station = rng.integers(0, 12, 150)
    station[:12] = np.arange(12)
    day = np.resize(np.arange(30.0), 150)
    y = np.sin(day / 4) * where[station, 0] + where[station, 1] + 0.1 * rng.normal(size=150)
    return np.column_stack([day, where[station]]), y


def fit(X: np.ndarray, y: np.ndarray, **settings: Any) -> FunctionalTucker:
    return quietly(FunctionalTucker(**QUICK | settings).fit, X, y)


# --- what is asked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        (("mains",), ("mains",)),
        ("residual", ("residual",)),
        (["residual", "mains", "mains"], ("mains", "residual")),
        ((), ()),
    ],
)
def test_terms_are_those_asked_for(terms: Any, found: tuple[str, ...]) -> None:
    model = fit(*slices(0, 0.5), terms=terms, noise="constant", kernel="matern12")
    assert_equal(model.terms_, found)
    assert_equal(model.kernels_, {"0": "matern12", "1": "matern12"})
    assert_equal((model.slice_scales_, model.slice_dof_), ({}, np.inf))
    assert_equal(model._prediction.problem.residual is not None, "residual" in found)


def test_cells_stand_beside_a_residual() -> None:
    model = fit(*stations(), terms=("cells", "residual"))
    assert_equal(model.terms_, ("residual", "cells"))
    assert_below(np.abs(model.predict(stations()[0]) - stations()[1]).mean(), 0.3, "mean absolute error")


def test_cells_of_a_full_grid_are_not_learned_without_them() -> None:
    day, a, b = (part.ravel() for part in np.meshgrid(np.arange(12.0), np.arange(9.0), np.arange(8.0)))
    y = np.sin(day + a) + np.random.default_rng(0).normal(size=864)[(9 * b + a).astype(int)]
    model = fit(np.column_stack([day, a, b]), y, terms="cells", kernel="matern32", max_iter=1)
    assert_equal(model.terms_, ("cells",))
    assert_above(np.abs(model._learned.hyper.cells[0] + 2.0), 1e-3, "move of the variance of cells")


@pytest.mark.parametrize("terms", ["mean", ("residual", "cell"), "mains residual"])
def test_a_misspelled_term_is_refused(terms: Any) -> None:
    with pytest.raises(DataError) as error:
        fit(*slices(0, 0.5), terms=terms)
    assert_says(error, "`terms`", "mains", "residual", "cells")


def test_terms_that_the_data_do_not_allow_are_refused() -> None:
    X, y = slices(0, 0.5)
    labels = {"day": np.array([f"d{v:.0f}" for v in X[:, 0]]), "place": X[:, 1]}
    with pytest.raises(DataError) as error:
        fit(labels, y, terms="residual")
    assert_says(error, "discrete longest mode", "Leave `terms` out")
    with pytest.raises(DataError) as error:
        fit(X[:, :1], y, terms="mains")
    assert_says(error, "two modes or more", "got one mode")
    with pytest.raises(DataError) as error:
        fit(X, y, terms="cells")
    assert_says(error, "three modes or more", "(40, 2")
    rng = np.random.default_rng(0)
    tall = np.column_stack([np.resize(np.arange(3.0), 3000), np.resize(np.arange(2.0), 3000)])
    with pytest.raises(DataError) as error:
        fit(tall, rng.normal(size=3000), terms="residual")
    assert_says(error, "too many rows", "1000")


def test_counts_keep_noise_one_beside_terms() -> None:
    X, _ = slices(0, 0.5)
    y = np.random.default_rng(0).poisson(3.0, 240).astype(float)
    model = fit(X, y, likelihood="poisson", terms="residual", kernel="matern32", max_iter=2)
    assert_equal(model._prediction.hyper.noise, 0.0)
    assert_equal(model.terms_, ("residual",))


# --- what the data choose ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_auto_adds_a_residual_where_there_is_one_and_only_there(seed: int) -> None:
    for size, found in ((0.8, ("residual",)), (0.0, ())):
        assert_equal(fit(*slices(seed, size), max_iter=15, kernel="matern32").terms_, found)


def test_a_search_of_many_slices_begins_with_blocks_of_them_and_ends_with_all(monkeypatch) -> None:
    X, y = slices(0, 0.8)
    settings = {"terms": ["residual"], "noise": "constant", "max_iter": 60, "tol": 1e-5, "kernel": "matern32"}
    whole = fit(X, y, **settings)
    sizes: list[int] = []
    learn = fitting.learn
    monkeypatch.setattr(
        fitting, "learn", lambda task, *rest: sizes.append(task.grids[0].size) or learn(task, *rest)
    )
    monkeypatch.setattr(fitting, "_SLICES", 12)
    monkeypatch.setattr(fitting, "_BLOCK", 4)
    model = fit(X, y, **settings)
    assert_equal(sizes, [12, 40])
    assert_below(abs(model.log_evidence_ - whole.log_evidence_), 0.1, "distance of the log evidence")
    assert_equal(model._task.y.size, y.size)


def test_blocks_are_evenly_spread_neighbours_with_all_their_rows() -> None:
    X, y = slices(0, 0.8)
    task = replace(FunctionalTucker(max_iter=0).fit(X, y)._task, precision=np.arange(240.0))
    part = task.in_blocks(12, 4)
    days = (part.grids[0] * 39).round()
    assert_equal(days, np.array([0.0, 1, 2, 3, 18, 19, 20, 21, 36, 37, 38, 39]))
    rows = np.flatnonzero(np.isin(X[:, 0], days))
    assert_equal(part.y, task.y[rows])
    assert_equal(part.precision, 1.0 * rows)
    assert task.in_blocks(27, 4) is task


def test_scales_of_slices_find_the_bad_ones() -> None:
    X, y = slices(1, 0.4, bad=True)
    model = fit(X, y, terms="residual", max_iter=15, kernel="matern32")
    scales = model.slice_scales_["0"]
    assert_equal(scales.shape, model.indices_[0].shape)
    assert_below(model.slice_dof_, 30.0, "degrees of freedom")
    assert_equal(sorted(np.argsort(scales)[-4:].tolist()), [3, 13, 23, 33])
    plain = fit(X, y, terms="residual", max_iter=15, kernel="matern32", noise="constant")
    assert_equal(plain.slice_scales_, {})
    usual, mixed = (np.exp(one._prediction.hyper.pack()[[1, -3]]).sum() for one in (model, plain))
    assert_below(usual, 0.5 * mixed, "variance of noise and residual in a usual slice")


# --- files, rows that arrive later, checkpoints -----------------------------------------------------------

KINDS = {
    "mains": (slices(0, 0.5), {"terms": "mains"}),
    "residual, mains": (slices(0, 0.5), {"terms": ("mains", "residual"), "noise": "constant"}),
    "scales": (slices(1, 0.4, True), {"terms": "residual"}),
    "cells": (stations(), {"terms": ("cells", "residual")}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_model_with_terms_comes_back_with_the_same_bits(name: str, tmp_path: Path) -> None:
    (X, y), settings = KINDS[name]
    model = fit(X, y, kernel="matern32", max_iter=1, **settings)
    save(model, tmp_path / "model.tenfac")
    back = load(tmp_path / "model.tenfac")
    rows = X[:20] + np.resize([0.0, 0.3], 20)[:, None]
    predicted = (one.predict(rows, return_cov=True) for one in (back, model))
    for got, want in zip(*predicted, strict=True):
        assert_equal(got, want)
    for attribute in ("terms_", "slice_dof_", "log_evidence_", "kernels_"):
        assert_equal(getattr(back, attribute), getattr(model, attribute))
    for key, scales in model.slice_scales_.items():
        assert_equal(back.slice_scales_[key], scales)


@pytest.mark.parametrize("name", ["residual, mains", "scales", "cells"])
def test_added_rows_give_the_posterior_of_all_rows(name: str) -> None:
    (X, y), settings = KINDS[name]
    first = (X[:, 0] < 0.7 * X[:, 0].max()) & (np.arange(y.size) % 7 > 0)
    for n in range(1, X.shape[1]):  # places are all known
        first[np.unique(X[:, n], return_index=True)[1]] = True
    model = fit(X[first], y[first], kernel="matern32", **settings)
    begun, problem = model._task, model._prediction.problem
    rest = np.flatnonzero(~first)
    known = np.isin(X[rest, 0], X[first, 0])
    for t in np.unique(X[rest[~known], 0]):  # one new slice at a time
        own = rest[X[rest, 0] == t]
        model.partial_fit(X[own], y[own])
    model.partial_fit(X[rest[known]], y[rest[known]])
    positions = tuple(index.positions(x) for index, x in zip(model._modes, X.T, strict=True))
    grids = list(begun.grids)
    grids[0] = np.unique(positions[0])
    scales = None
    if begun.scales is not None:
        scales = np.ones(grids[0].size)
        scales[np.searchsorted(grids[0], begun.grids[0])] = begun.scales
        assert_equal(model.slice_scales_["0"], scales)
    latent = (y - y[first].mean()) / y[first].std()
    ones, hyper = np.ones(y.size), model._prediction.hyper
    task = replace(begun, grids=tuple(grids), positions=positions, y=latent, weights=ones, scales=scales)
    # what counts as a usual gap was learned from the first rows
    every = replace(task.on(problem.product, problem.mains, hyper), usual_gap=problem.usual_gap)
    whole = Prediction.build(every, hyper)
    rows = [np.concatenate([x[::9], x[::11] + 0.1 * (n == 0)]) for n, x in enumerate(positions)]
    for got, want in zip(model._prediction.at(rows), whole.at(rows), strict=True):
        assert_relative(got, want, 1e-8)
    told = model._prediction.log_evidence - whole.log_evidence
    assert_below(abs(told), 1e-8 * abs(whole.log_evidence), "log evidence")


def test_a_checkpoint_repeats_a_fit_with_terms(tmp_path: Path) -> None:
    X, y = slices(1, 0.4, True)
    path = tmp_path / "fit.journal"
    settings = {"terms": "residual", "kernel": "matern32"}
    new = (FunctionalTucker(**QUICK, **settings) for _ in range(2))
    models = [quietly(model.fit, X, y, checkpoint=path) for model in new]
    size = path.stat().st_size
    assert_above(size, 1000, "bytes of the checkpoint")
    assert_equal(models[1].predict(X), models[0].predict(X))
    assert_equal(models[0].predict(X), fit(X, y, **settings).predict(X))


# --- what must not matter ---------------------------------------------------------------------------------

ORDER = np.random.default_rng(0).permutation(240)
CLOSE = {"max_iter": 25, "tol": 1e-7, "kernel": "matern32"}
CHANGES = {
    "order of rows": (lambda X: X[ORDER], lambda y: y[ORDER]),
    "directions of the axes, and units": (
        lambda X: X * [-3600.0, -1e-3] + [50.0, -7.0],
        lambda y: 1e4 * y - 3.0,
    ),
}


@cache
def plain() -> FunctionalTucker:
    return fit(*slices(0, 0.8), **CLOSE)


@pytest.mark.parametrize("name", CHANGES)
def test_with_a_residual_these_do_not_matter(name: str) -> None:
    (X, y), (of_x, of_y) = slices(0, 0.8), CHANGES[name]
    one, other = plain(), fit(of_x(X), of_y(y), **CLOSE)
    assert_equal((one.terms_, other.terms_), (("residual",), ("residual",)))
    unit = of_y(y).std() / y.std()
    order = ORDER if name == "order of rows" else slice(None)
    mean, std = other.predict(of_x(X), return_std=True)
    want, want_std = one.predict(X[order], return_std=True)
    assert_relative((mean - of_y(y).mean()) / unit, want - y.mean(), 2e-2)
    assert_relative(std / unit, want_std, 2e-2)


def test_a_weight_is_the_row_given_that_often() -> None:
    X, y = slices(0, 0.8)
    weights = np.random.default_rng(0).integers(1, 3, 240)
    again = np.repeat(np.arange(240), weights)
    settings = {"terms": "residual", "max_iter": 3, "kernel": "matern32"}
    one = quietly(FunctionalTucker(**QUICK | settings).fit, X, y, sample_weight=weights)
    other = fit(X[again], y[again], **settings)
    assert_relative(one.predict(X), other.predict(X), 1e-6)
    assert_below(abs(one.log_evidence_ - other.log_evidence_), 1e-6 * abs(one.log_evidence_), "log evidence")
