"""What must not matter: the order of rows, columns and labels, units and signs of axes, repeats as weights.

With ``max_iter=0`` the comparison is that of rounding. A learned fit stops when an iteration gains less
than ``tol``, and rounding decides at which iterate: there the bound is what the data could tell apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from tenfac import FunctionalTucker
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_below, assert_relative

SHAPES = {"exact continuous": (4, 13), "exact discrete": (14, 5), "grid": (4, 13)}
TIGHT, LEARNED = 1e-8, 2e-3
BEYOND = np.array([0.0, 0.7])


def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = smooth_table(SHAPES[name], (0,), 90, seed=4)
    if name != "grid":
        return X, y
    cells = np.array([(a, b) for a in np.unique(X[:, 0]) for b in np.unique(X[:, 1])])
    noise = 0.1 * np.random.default_rng(0).normal(size=len(cells))
    return cells, np.sin(cells[:, 1] / 10) * (1 + 0.3 * cells[:, 0]) + noise


def fit(X: np.ndarray, y: np.ndarray, max_iter: int, **more: object) -> FunctionalTucker:
    return FunctionalTucker(discrete=[0], max_iter=max_iter).fit(X, y, **more)


@cache
def plain(name: str, max_iter: int) -> FunctionalTucker:
    """The fit that every change is compared with."""
    return fit(*table(name), max_iter)


every_case = pytest.mark.parametrize("name", SHAPES)
every_search = pytest.mark.parametrize(
    ("max_iter", "tol"), [(0, TIGHT), (200, LEARNED)], ids=["start", "learned"]
)


def assert_same_fit(
    name: str,
    max_iter: int,
    tol: float,
    change: Callable[[np.ndarray], np.ndarray],
    order: np.ndarray | slice = slice(None),
) -> None:
    """Fit before and after ``change`` of the indices, and compare evidence, predictions and noise."""
    X, y = table(name)
    one, other = plain(name, max_iter), fit(change(X)[order], y[order], max_iter)
    new = X + BEYOND  # between, and beyond, the observed indices
    for got, want in zip(
        other.predict(change(new), return_std=True), one.predict(new, return_std=True), strict=True
    ):
        assert_relative(got, want, tol)
    assert_below(abs(other.log_evidence_ - one.log_evidence_), tol * abs(one.log_evidence_), "log evidence")
    assert_below(abs(other.noise_ - one.noise_), 10 * tol * one.noise_, "noise")


@every_case
@every_search
def test_the_order_of_rows_does_not_matter(name, max_iter, tol) -> None:
    order = np.random.default_rng(0).permutation(table(name)[1].size)
    assert_same_fit(name, max_iter, tol, lambda X: X, order)


def test_the_order_of_rows_does_not_matter_where_cells_of_a_grid_are_missing() -> None:
    X, y = table("grid")
    keep = np.random.default_rng(1).random(y.size) < 0.85
    order = np.random.default_rng(0).permutation(np.flatnonzero(keep))
    one, other = fit(X[keep], y[keep], 200), fit(X[order], y[order], 200)
    assert_relative(other.predict(X), one.predict(X), LEARNED)


@every_case
@every_search
def test_the_direction_of_an_axis_does_not_matter(name, max_iter, tol) -> None:
    assert_same_fit(name, max_iter, tol, lambda X: X * [1.0, -1.0])


@every_case
@every_search
@pytest.mark.parametrize(("shift", "scale"), [(1e3, 1.0), (0.0, 1e-6), (-20.0, 3600.0)])
def test_the_unit_and_origin_of_an_axis_do_not_matter(name, max_iter, tol, shift, scale) -> None:
    assert_same_fit(name, max_iter, tol, lambda X: (X + np.array([0.0, shift])) * [1.0, scale])


@every_search
def test_the_names_and_order_of_labels_do_not_matter(max_iter, tol) -> None:
    # 14 levels and fewer are all learned from; of more, some are chosen by their order
    for name in SHAPES:
        assert_same_fit(name, max_iter, tol, lambda X: np.column_stack([(X[:, 0] * 7919) % 101, X[:, 1]]))


@every_search
def test_the_order_of_columns_does_not_matter(max_iter, tol) -> None:
    X, y = table("exact continuous")
    one = plain("exact continuous", max_iter)
    other = FunctionalTucker(discrete=[1], max_iter=max_iter).fit(X[:, ::-1], y)
    assert_relative(other.predict(X[:, ::-1]), one.predict(X), tol)
    assert_below(abs(other.log_evidence_ - one.log_evidence_), tol * abs(one.log_evidence_), "log evidence")


@every_case
@every_search
@pytest.mark.parametrize(("shift", "scale"), [(1e4, 1.0), (0.0, -1.0), (-5.0, 1e6), (3.0, 1e-9)])
def test_predictions_follow_the_unit_and_origin_of_y(name, max_iter, tol, shift, scale) -> None:
    X, y = table(name)
    one, other = plain(name, max_iter), fit(X, (y + shift) * scale, max_iter)
    new = X + BEYOND
    mean, std = other.predict(new, return_std=True)
    want, want_std = one.predict(new, return_std=True)
    assert_relative(mean / scale - shift - y.mean(), want - y.mean(), tol)
    assert_relative(std / abs(scale), want_std, tol)
    gain = -y.size * np.log(abs(scale))
    assert_below(
        abs(other.log_evidence_ - gain - one.log_evidence_), tol * abs(one.log_evidence_), "log evidence"
    )


@pytest.mark.parametrize("name", ["exact continuous", "exact discrete"])
@every_search
def test_a_weight_is_the_row_given_that_often(name, max_iter, tol) -> None:
    X, y = table(name)
    weights = np.random.default_rng(0).integers(0, 4, y.size)
    again = np.repeat(np.arange(y.size), weights)
    one = fit(X, y, max_iter, sample_weight=weights)
    other = fit(X[again], y[again], max_iter)
    new = X[again] + BEYOND
    for got, want in zip(other.predict(new, return_std=True), one.predict(new, return_std=True), strict=True):
        assert_relative(got, want, tol)
    assert_below(abs(other.log_evidence_ - one.log_evidence_), tol * abs(one.log_evidence_), "log evidence")
    unweighted = fit(X, y, max_iter)
    assert_above(abs(one.log_evidence_ - unweighted.log_evidence_), 1.0, "difference the weights make")


def test_a_repeated_row_narrows_the_posterior() -> None:
    X, y = table("exact continuous")
    weights = np.ones(y.size)
    weights[7] = 50.0
    _, std = fit(X, y, 0).predict(X[7:8], return_std=True)
    _, narrow = fit(X, y, 0, sample_weight=weights).predict(X[7:8], return_std=True)
    assert_below(narrow[0], 0.5 * std[0], "std at the repeated row")
