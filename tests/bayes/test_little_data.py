"""Where the data say little or nothing, the answer is the prior, wide and finite; or an error saying why."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, FunctionalTucker
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_below, assert_equal, assert_relative, assert_says, quietly

KERNELS = ("matern12", "matern32", "matern52")
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def assert_honest(model: FunctionalTucker, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite means, and deviations that are positive and, with noise, no smaller than that of the noise."""
    mean, std = model.predict(X, return_std=True)
    noisy_mean, noisy = model.predict(X, return_std=True, include_noise=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(noisy).all()
    assert (std > 0).all()
    assert_above((noisy - std).min(), 0.0, "what the noise adds to the std")
    assert_above((noisy / model.noise_).min(), 1 - 1e-9, "std of an observation by that of the noise")
    assert_equal(noisy_mean, mean)
    return mean, std


# --- few rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3.0, 0.0, -1e6])
@pytest.mark.parametrize(("ndim", "discrete"), [(1, []), (1, [0]), (3, []), (3, [0]), (3, [0, 1, 2])])
def test_one_row_is_predicted_everywhere_and_less_surely_elsewhere(ndim, discrete, value) -> None:
    row = np.arange(1.0, 1.0 + ndim)
    model = FunctionalTucker(discrete=discrete).fit(row[None], [value])
    rows = np.tile(row, (4, 1))
    steps = np.setdiff1d(np.arange(ndim), discrete)
    rows[1:, steps] += np.array([0.5, 1e6, -1e6])[:, None]
    mean, std = assert_honest(model, rows)
    assert_relative(mean, np.full(4, value), 1e-12)
    assert_below(std[0], std[1:].min(), "std at the row and elsewhere")
    if steps.size:
        assert_below(1.05 * std[0], std[1], "std at the row and half a unit away")


def test_one_row_of_weight_five_is_five_rows() -> None:
    one = FunctionalTucker(max_iter=0).fit([[1.0, 2.0]], [3.0], sample_weight=[5.0])
    five = FunctionalTucker(max_iter=0).fit([[1.0, 2.0]] * 5, [3.0] * 5)
    new = [[1.0, 2.0], [1.5, 9.0]]
    for got, want in zip(one.predict(new, return_std=True), five.predict(new, return_std=True), strict=True):
        assert_relative(got, want, 1e-8)


@pytest.mark.parametrize("value", [5.0, 0.0])
def test_equal_values_are_predicted_everywhere(value: float) -> None:
    model = FunctionalTucker().fit(np.arange(10.0)[:, None], np.full(10, value))
    mean, std = assert_honest(model, np.array([[1.0], [2.5], [-1e9], [1e9]]))
    assert_relative(mean, np.full(4, value), 1e-9)
    assert_below(std[0], std[2:].min(), "std at a row and far away")


def test_rows_of_one_cell_are_averaged() -> None:
    model = FunctionalTucker().fit([[1.0, 2.0]] * 4, [3.0, 4.0, 4.0, 5.0])
    mean, std = assert_honest(model, np.array([[1.0, 2.0], [1e9, 2.0]]))
    assert_relative(mean, np.full(2, 4.0), 1e-9)
    assert_below(std[0], std[1], "std at the cell and far away")


@pytest.mark.parametrize("seed", range(12))
def test_a_few_random_rows_give_honest_answers_anywhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ndim, count = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    discrete = [n for n in range(ndim) if rng.random() < 0.4]
    X = rng.integers(0, 3, (count, ndim)) * 10.0 ** rng.integers(-6, 7, ndim)
    y = rng.normal(size=count) * 10.0 ** rng.integers(-9, 10)
    model = quietly(FunctionalTucker(discrete=discrete, kernel=KERNELS[seed % 3], max_iter=20).fit, X, y)
    new = X[rng.integers(0, count, 30)]
    free = np.setdiff1d(np.arange(ndim), discrete)
    new[10:, free] += rng.normal(size=(20, free.size)) * 10.0 ** rng.uniform(-9, 15, (20, 1))
    mean, _ = assert_honest(model, new)
    assert_below(np.abs(mean).max(), 10 * np.abs(y).max(), "mean by the largest value")


# --- one index --------------------------------------------------------------------------------------------


def with_one_index() -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(0, 1, 30)
    return np.column_stack([np.full(30, 7.0), x]), np.sin(6 * x)


def test_a_continuous_mode_with_one_index_leaves_the_others_and_is_unsure_elsewhere() -> None:
    X, y = with_one_index()
    model = FunctionalTucker().fit(X, y)
    new = (X[1:] + X[:-1]) / 2
    mean, std = assert_honest(model, new)
    assert_below(np.abs(mean - np.sin(6 * new[:, 1])).max(), 0.01, "error between the rows")
    _, away = assert_honest(model, new + np.array([1.0, 0.0]))
    _, far = assert_honest(model, new + np.array([1e9, 0.0]))
    assert_above((away / std).min(), 10.0, "std one unit away by that at the index")
    assert_above((far / away).min(), 1.0, "std far away by that one unit away")


def test_a_discrete_mode_with_one_label_leaves_the_others_and_knows_no_second_label() -> None:
    X, y = with_one_index()
    model = FunctionalTucker(discrete=[0]).fit(X, y)
    new = (X[1:] + X[:-1]) / 2
    mean, _ = assert_honest(model, new)
    assert_below(np.abs(mean - np.sin(6 * new[:, 1])).max(), 0.01, "error between the rows")
    with pytest.raises(DataError) as error:
        model.predict([[8.0, 0.5]])
    assert_says(error, "'0'", "1 labels", "row 0", "unseen label 8.0")


# --- far away ---------------------------------------------------------------------------------------------


@every_kernel
@pytest.mark.parametrize("modes", [[0], [1], [0, 1]])
def test_a_million_lengthscales_away_all_places_are_alike_and_less_sure_than_any_row(kernel, modes) -> None:
    X, y = smooth_table((6, 14), (), 70)
    model = quietly(FunctionalTucker(kernel=kernel, max_iter=5).fit, X, y)
    steps = np.zeros(2)
    for n in modes:
        steps[n] = model.lengthscales_[model.mode_names_[n]]
    spread = np.ptp(X, axis=0).max()
    row = X[3] + np.multiply.outer([1e6, -1e6, 3e6, 1e12], steps + spread * (steps > 0))
    mean, std = assert_honest(model, row)
    assert_relative(mean, np.full(4, mean[0]), 1e-8)
    assert_relative(std, np.full(4, std[0]), 1e-8)
    assert_above(std[0], model.predict(X, return_std=True)[1].max(), "std far away")
    assert_below(abs(mean[0] - y.mean()), np.ptp(y), "mean far away from that of the rows")


@every_kernel
def test_the_marginal_of_a_mode_is_finite_and_level_far_away(kernel: str) -> None:
    X, y = smooth_table((4, 14), (0,), 60)
    model = quietly(FunctionalTucker(discrete=[0], kernel=kernel, max_iter=5).fit, X, y)
    _, mean, std = model.mode_posterior(1, np.array([-1e12, -1e9, 1e9, 1e12]))
    assert np.isfinite(mean).all()
    assert_relative(mean, np.full(4, mean[0]), 1e-8)
    assert_relative(std, np.full(4, std[0]), 1e-8)
    assert_above(std[0], model.mode_posterior(1, np.unique(X[:, 1]))[2].max(), "std far away")


# --- nothing at all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [None, np.nan])
def test_values_that_are_all_missing_are_refused_with_their_number(missing: float | None) -> None:
    with pytest.raises(DataError) as error:
        FunctionalTucker().fit({"time": np.arange(12.0)}, [missing] * 12)
    assert_says(error, "y contains 12", "NaN", "leave missing cells out")
    with pytest.raises(DataError) as error:
        FunctionalTucker().fit(np.arange(12.0)[:, None], np.full(12, np.nan))
    assert_says(error, "y contains 12", "leave missing cells out")
    with pytest.raises(DataError) as error:  # not scikit-learn's advice to use trees or to impute
        FunctionalTucker().fit([[0.0], [np.nan], [1.0]], [1.0, 2.0, 3.0])
    assert_says(error, "FunctionalTucker.fit: mode '0' contains NaN", "row 1", "drop these rows")


def test_indices_that_are_all_missing_are_refused() -> None:
    with pytest.raises(DataError) as error:
        FunctionalTucker().fit({"time": np.full(3, np.nan)}, [1.0, 2.0, 3.0])
    assert_says(error, "'time'", "3 ", "NaN", "first in row 0")
