"""What a fit says of the rows it leaves over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tenfac import FunctionalTucker, load, save
from tenfac.bayes.collapsed.leftover import far_rows, left_out, structure, what_is_left_over
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says, quietly


def noisy(size: int, seed: int, outliers: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth function with noise 0.1, and a share of rows a whole unit off."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, size) / 40
    y = np.sin(6 * x) + 0.1 * rng.normal(size=size)
    off = rng.permutation(size)[: round(outliers * size)]
    y[off] += rng.choice([-1.0, 1.0], off.size)
    return x[:, None], y


def test_distances_are_those_from_the_posterior_of_all_other_rows() -> None:
    X, y = smooth_table((5, 9), (0,), 40)
    weights = np.where(np.arange(40) == 7, 3.0, 1.0)
    model = FunctionalTucker(discrete=[0], max_iter=0).fit(X, y, sample_weight=weights)
    task, learned = model._task, model._learned
    z, rows = left_out(model._prediction, task)
    assert_equal(rows, np.arange(40))
    for row in (0, 7):
        others = learned.prediction(task.rows_of(np.arange(40) != row))
        mean, variance, _ = others.at([x[[row]] for x in task.positions])
        noise = np.exp(learned.hyper.noise) / weights[row]
        assert_close(z[row], ((task.y[row] - mean) / np.sqrt(variance + noise))[0], factor=1e6)


@pytest.mark.parametrize("size", [100, 1000])
def test_gross_outliers_are_said_and_normal_noise_is_not(size: int) -> None:
    model = FunctionalTucker(max_iter=20, tol=1e-4).fit(*noisy(size, 0, 0.06))
    assert_equal(len(model.info_.warnings), 1)
    assert_says(model.info_.warnings[0], "4 standard deviations", "likelihood='student_t'", "noise='slice'")
    assert_below(abs(far_rows(model._prediction, model._task) - 0.06), 0.02, "share of far rows minus 0.06")
    for seed in range(3):
        assert_equal(FunctionalTucker(max_iter=20, tol=1e-4).fit(*noisy(size, seed)).info_.warnings, ())


def test_what_was_said_of_outliers_stays_when_rows_are_added_and_in_a_file(tmp_path: Path) -> None:
    model = FunctionalTucker(max_iter=20, tol=1e-4).fit(*noisy(100, 0, 0.06))
    said = model.info_.warnings
    assert_says(said[0], "likelihood='student_t'")
    save(model, tmp_path / "m.tenfac")
    for one in (model, load(tmp_path / "m.tenfac")):
        assert_equal(one.partial_fit([[0.5]], [0.0]).info_.warnings, said)


@pytest.mark.slow
def test_a_ridge_that_looks_like_noise_at_first_is_searched_again() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((80, 3))
    ridge = np.sin(10 * (X[:, 0] - X[:, 1]))
    model = quietly(
        FunctionalTucker(max_iter=15, kernel="matern32").fit, X, ridge + 0.05 * rng.normal(size=80)
    )
    assert_below(model.noise_, 0.2, "noise, 0.7 where the first search ends")


def test_neighbours_that_deviate_alike_are_said() -> None:
    x = np.linspace(0, 1, 100)
    model = FunctionalTucker(max_iter=0).fit(np.column_stack([x, x]), np.sin(60 * x))
    hyper = replace(model._learned.hyper, noise=-0.1, scale=-12.0)  # as of a search that found noise alone
    task, flat = model._task, replace(model._learned, hyper=hyper).prediction(model._task)
    assert_above(structure(flat, task), 4.0, "likeness of neighbours")
    said = what_is_left_over(flat, task)
    assert_says(said[0], "90 % of the variance of y counts as noise", "deviate alike")
    mixed = replace(task, y=np.random.default_rng(0).permutation(task.y))
    assert_equal(what_is_left_over(replace(model._learned, hyper=hyper).prediction(mixed), mixed), ())
