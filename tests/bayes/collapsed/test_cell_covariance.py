"""How cells go together, learned from the slices: what a step of it expects, and what it is for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tenfac import DataError, FunctionalTucker, load, pyro_model, save
from tenfac.bayes.collapsed.cell_covariance import CellCovariance
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.slice_learning import choose_likeness, learn_likeness
from tests.bayes.toys import TERM_TOYS, Toy
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_says,
    quietly,
)

CASE = TERM_TOYS["cells, residual, learned"]
_DAYS, _STATIONS = 72, 14


def with_task(**changed: object) -> Toy:
    return replace(CASE, task=replace(CASE.task, **changed))


@cache
def groups(alike: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stations of two groups that lie among one another: every day each group departs, or near ones together.

    Returns table, values, and which rows are to be predicted.
    """
    rng = np.random.default_rng(4)
    where = rng.random((_STATIONS, 2))
    day, station = (part.ravel() for part in np.meshgrid(np.arange(_DAYS), np.arange(_STATIONS)))
    apart = np.abs(where[:, None] - where).sum(axis=-1)
    own = rng.normal(size=(_DAYS, _STATIONS)) @ np.linalg.cholesky(np.exp(-apart / 0.5)).T
    together = rng.normal(size=(_DAYS, 2))[:, np.arange(_STATIONS) % 2]
    y = np.sin(day / 9) + (together if alike else own)[day, station] + 0.05 * rng.normal(size=day.size)
    return np.column_stack([day, where[station]]).astype(float), y, rng.random(day.size) < 0.25


@cache
def fitted(alike: bool) -> FunctionalTucker:
    X, y, held = groups(alike)
    model = FunctionalTucker(terms=("residual", "cells"), kernel="matern12", max_iter=20, tol=1e-3)
    return quietly(model.fit, X[~held], y[~held])


def test_products_of_residuals_are_the_dense_expectations() -> None:
    hyper, task = CASE.hyper(1), CASE.task
    squares, counts, products = CASE.problem(hyper).slice_products(hyper)
    for got, want in zip((squares, counts), CASE.problem(hyper).slice_squares(hyper), strict=True):
        assert_equal(got, want)
    dense, want = CASE.dense(hyper), np.zeros_like(products)
    inverse = np.linalg.inv(dense.observed(CASE.points))
    for t, scale in zip(task.grids[0], task.scales, strict=True):
        at = [np.full(task.cells[0].size, t), *task.cells]
        cross = dense.within(at, CASE.points)
        mean = cross @ inverse @ CASE.y
        cov = dense.within(at, at) - cross @ inverse @ cross.T
        want += (np.outer(mean, mean) + cov) / scale / task.scales.size
    assert_close(products, want, factor=1e6)


def test_every_round_raises_the_evidence_when_the_kernel_counts_for_nothing() -> None:
    hyper, case = CASE.hyper(1), with_task(scales=None, likeness=None)
    values = []
    for rounds in range(1, 5):
        task = learn_likeness(case.task, hyper, 1e-9, rounds)
        values.append(replace(case, task=task).problem(hyper).log_evidence(hyper))
    assert_above(np.diff(values).min(), 1e-3, "gain of a round")


def test_beside_many_slices_of_the_kernel_it_is_the_kernel() -> None:
    hyper, case = CASE.hyper(1), with_task(likeness=None)
    learned = replace(case, task=learn_likeness(case.task, hyper, 1e12, 1))
    plain, other = (Prediction.build(one.problem(hyper), hyper) for one in (case, learned))
    at = case.at(20)
    for got, want in zip(other.at(at), plain.at(at), strict=True):
        assert_relative(got, want, 1e-6)


def test_what_few_slices_tell_widens_the_residual_given_rows() -> None:
    hyper, own = CASE.hyper(1), CASE.task.likeness
    slices = 20.0
    case = with_task(likeness=replace(own, strength=slices))
    x = [grid[:3] for grid in CASE.task.cells]
    for t in (0, 5):
        narrow, wide = (one.problem(hyper).residual.given(hyper, t, x, True)[1] for one in (CASE, case))
        count = (CASE.task.positions[0] == CASE.task.grids[0][t]).sum()
        assert_relative(wide, narrow * (1 + 2 * count / slices), 1e-12)


def test_the_share_is_that_of_the_slices() -> None:
    one = CellCovariance.unknown((np.arange(3.0),)).told(np.eye(3), 30, 10.0)
    assert_equal((one.share, one.strength, one.widened(4)), (0.75, 40.0, 1.2))
    assert_equal(one.places([np.array([2.0, 0.5, 0.0])]).tolist(), [2, -1, 0])


# --- through the estimator --------------------------------------------------------------------------------


@pytest.mark.slow
def test_groups_of_stations_are_found_and_help_to_predict() -> None:
    X, y, held = groups(True)
    model = fitted(True)
    likeness = model._task.likeness
    assert_above(likeness.share, 0.5, "share")
    error = np.sqrt(np.mean((model.predict(X[held]) - y[held]) ** 2))
    assert_below(error, 0.4, "error")
    found = model.calibration(X[held], y[held])
    assert_above(found["coverage"], 0.88, "coverage")


def test_stations_that_are_alike_when_near_are_left_to_the_kernel() -> None:
    assert_equal(fitted(False)._task.likeness, None)


def test_few_slices_have_no_covariance_of_cells() -> None:
    assert_equal(choose_likeness(CASE.task, CASE.hyper(1)), None)


def test_constant_noise_learns_none() -> None:
    X, y, _ = groups(True)
    model = FunctionalTucker(terms=("residual", "cells"), kernel="matern12", max_iter=2, noise="constant")
    assert_equal(quietly(model.fit, X, y)._task.likeness, None)


def test_a_file_keeps_it(tmp_path: Path) -> None:
    model, (X, _, held) = fitted(True), groups(True)
    save(model, tmp_path / "model.tenfac")
    back = load(tmp_path / "model.tenfac")
    rows = X[held][:40] + np.resize([0.0, 0.01], 40)[:, None]
    predicted = (one.predict(rows, return_cov=True) for one in (back, model))
    for got, want in zip(*predicted, strict=True):
        assert_equal(got, want)


def test_rows_of_new_slices_and_new_cells_may_follow() -> None:
    X, y, held = groups(True)
    first = X[:, 0] < 60
    model = FunctionalTucker(terms=("residual", "cells"), kernel="matern12", max_iter=4, tol=1e-3)
    quietly(model.fit, X[first], y[first])
    assert model._task.likeness is not None
    model.partial_fit(X[~first & ~held], y[~first & ~held])
    error = np.sqrt(np.mean((model.predict(X[~first & held]) - y[~first & held]) ** 2))
    assert_below(error, 0.4, "error")
    model.partial_fit(np.add(X[-3:], [0.5, 0.01, 0.01]), y[-3:])
    assert np.isfinite(model.predict(X[-3:])).all()


def test_pyro_refuses_what_it_does_not_know() -> None:
    X, y, _ = groups(True)
    with pytest.raises(DataError) as error:
        pyro_model(fitted(True), X[::2], y[::2])
    assert_says(error, "learned from its slices", "noise='constant'")
