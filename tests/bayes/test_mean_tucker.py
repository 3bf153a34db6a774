"""The posterior mean as a Tucker tensor: the values of ``predict``, and the calculus of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import (
    GP,
    Chebyshev,
    ConvergenceWarning,
    DataError,
    Discrete,
    FunctionalTucker,
    Tucker,
    load,
    save,
)
from tests.checks import assert_above, assert_below, assert_equal, assert_relative, assert_says, quietly

WHO = np.array(["ann", "bob", "cy"])


def table(count: int = 120, labels: int = 3, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """Time in [2, 5], six doses, and a label."""
    rng = np.random.default_rng(seed)
    time, dose = np.round(2 + 3 * rng.random(count), 2), rng.integers(0, 6, count) / 5
    code = rng.integers(0, labels, count)
    y = 5 + np.sin(2 * time) * dose * (1 + code) + 0.05 * rng.normal(size=count)
    who = WHO[code] if labels == 3 else np.array([f"p{c:03d}" for c in code])
    return {"time": time, "dose": dose, "who": who}, y


def fitted(**settings: Any) -> FunctionalTucker:
    settings = {"max_iter": 5, "terms": (), "kernel": "matern52", **settings}
    return quietly(FunctionalTucker(**settings).fit, *table())


@pytest.fixture(scope="module")
def model() -> FunctionalTucker:
    return fitted()


def points(model: FunctionalTucker, count: int = 200) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Rows of a table anywhere in the observed range, and the same as indices of a Tucker tensor."""
    rng, rows, index = np.random.default_rng(1), {}, []
    for name, kind, seen in zip(model.mode_names_, model.kinds_, model.indices_, strict=True):
        if kind == "discrete":
            index.append(rng.integers(0, seen.size, count))
            rows[name] = seen[index[-1]]
        else:
            index.append(rng.uniform(seen[0], seen[-1], count))
            rows[name] = index[-1]
    return rows, index


def gap(model: FunctionalTucker, mean: Tucker) -> float:
    rows, index = points(model)
    want = model.predict(rows)
    return float(np.abs(mean.at(*index) - want).max() / np.abs(want).max())


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_the_mean_tucker_has_the_values_of_predict(model: FunctionalTucker, tol: float) -> None:
    mean = model.mean_tucker(tol=tol)
    assert_equal([mode.domain is None for mode in mean.modes], [False, False, True])
    assert_below(gap(model, mean), tol, "difference to predict")
    assert_equal((mean.info.converged, mean.info.warnings), (True, ()))
    assert_below(mean.info.rel_error, tol, "reported error")


def test_the_reported_error_is_the_one_that_is_there(model: FunctionalTucker) -> None:
    mean = model.mean_tucker(tol=1e-4)
    ratio = gap(model, mean) / mean.info.rel_error
    assert_above(ratio, 0.2, "error at other points over the reported")
    assert_below(ratio, 2.0, "error at other points over the reported")


def test_a_smaller_tolerance_needs_more_and_a_larger_one_fewer_numbers(model: FunctionalTucker) -> None:
    degrees = [model.mean_tucker(tol=tol).coef_shape for tol in (1e-2, 1e-4)]
    assert degrees[0][0] < degrees[1][0]
    assert_equal({shape[2] for shape in degrees}, {3})


def test_main_effects_are_part_of_the_mean() -> None:
    model = fitted(terms=("mains",), max_iter=1)
    assert_below(gap(model, model.mean_tucker(tol=1e-5)), 1e-5, "difference to predict")


def test_the_exact_mode_may_be_a_discrete_one() -> None:
    X, y = table(80, labels=30)
    X["time"] = np.round(X["time"])
    model = quietly(FunctionalTucker(max_iter=5).fit, X, y)
    assert_equal(model.kinds_[model.exact_mode_], "discrete")
    assert_below(gap(model, model.mean_tucker(tol=1e-5)), 1e-5, "difference to predict")


def test_without_continuous_modes_it_is_the_table_of_predictions() -> None:
    X, y = table()
    X = {"who": X["who"], "dose": np.char.add("d", X["dose"].astype(str))}
    model = quietly(FunctionalTucker(max_iter=5).fit, X, y)
    a, b = np.meshgrid(*model.indices_, indexing="ij")
    want = model.predict({"who": a.ravel(), "dose": b.ravel()}).reshape(a.shape)
    assert_relative(model.mean_tucker(tol=1e-10).to_tensor(), want, 1e-10)


def test_one_index_is_a_function_of_one_variable() -> None:
    X, y = table()
    model = quietly(FunctionalTucker(max_iter=5, kernel="matern52", terms=()).fit, X["time"][:, None], y)
    mean = model.mean_tucker(tol=1e-5)
    x = np.linspace(X["time"].min(), X["time"].max(), 50)
    assert_relative(mean.at(x), model.predict(x[:, None]), 1e-5)


def test_calculus_rounding_and_files_work_on_the_mean(model: FunctionalTucker, tmp_path: Path) -> None:
    mean = model.mean_tucker(tol=1e-7)
    rows, index = points(model, 50)
    slope = model.predict_derivative(rows, "time")
    assert_relative(mean.diff(0).at(*index), slope, 1e-3, "derivative")
    time, grid = model.indices_[0], np.linspace(model.indices_[0][0], model.indices_[0][-1], 4001)
    row = {"time": grid, "dose": np.full(grid.size, 0.3), "who": np.full(grid.size, "bob")}
    area = np.trapezoid(model.predict(row), grid)
    assert_relative(mean.integrate([0]).at([0.3], [1]), np.array([area]), 1e-5, "integral over time")
    assert_below(gap(model, mean.round(tol=1e-3)), 1e-3, "difference after rounding")
    save(mean, tmp_path / "mean.npz")
    assert_equal(load(tmp_path / "mean.npz").at(*index), mean.at(*index))
    assert_above(grid[-1] - time[0], 2.5, "length of the domain")


def test_kinks_that_no_degree_meets_are_reported() -> None:
    model = fitted(kernel="matern12")
    with pytest.warns(ConvergenceWarning, match="max_degree reached, in mode 'time'"):
        mean = model.mean_tucker(tol=1e-6, max_degree=64)
    assert_equal(mean.info.converged, False)
    assert_equal(mean.modes[0].size, 65)
    assert_above(mean.info.rel_error, 1e-6, "reported error")
    assert_below(gap(model, mean), 2 * mean.info.rel_error, "difference to predict")


@pytest.mark.parametrize("kernel", ["matern12", "matern52", "oscillator"])
def test_gp_modes_are_exact_whatever_the_kernel(kernel: str, model: FunctionalTucker, tmp_path: Path) -> None:
    model = model if kernel == "matern52" else fitted(kernel=kernel, max_iter=0)
    mean = model.mean_tucker(tol=1e-10, modes="gp")
    assert_equal([type(mode) for mode in mean.modes], [GP, GP, Discrete])
    assert_equal(mean.modes[0].grid, tuple(model.indices_[0].tolist()))
    assert_below(gap(model, mean), 1e-10, "difference to predict")
    assert_equal((mean.info.converged, mean.info.warnings), (True, ()))
    rows, index = points(model, 50)
    save(mean, tmp_path / "mean.npz")
    assert_equal(load(tmp_path / "mean.npz").at(*index), mean.at(*index))
    if kernel == "matern52":
        slope = model.predict_derivative(rows, "time")
        assert_relative(mean.diff(0).at(*index), slope, 1e-8, "derivative")


def test_gp_modes_hold_main_effects_of_other_lengthscales_and_a_cut_rank() -> None:
    model = fitted(terms=("mains",), max_iter=2)
    mean = model.mean_tucker(tol=1e-9, modes="gp")
    assert_equal(len(mean.modes[0].kernel.processes), 2)
    assert_below(gap(model, mean), 1e-9, "difference to predict")
    small = model.mean_tucker(tol=1e-3, modes="gp")
    assert_below(gap(model, small), 1e-3, "difference at a larger tolerance")
    assert small.rank[0] < mean.rank[0]


def test_a_gp_mode_of_a_mean_becomes_polynomials(model: FunctionalTucker) -> None:
    mean = model.mean_tucker(tol=1e-6, modes="gp").change_mode(0, Chebyshev, tol=1e-4)
    assert_equal(mean.info.converged, True)
    assert_below(gap(model, mean), 1.5e-4, "difference to predict")


def test_other_kinds_of_modes_are_refused(model: FunctionalTucker) -> None:
    with pytest.raises(DataError) as error:
        model.mean_tucker(modes="cheb")
    assert_says(error, '"chebyshev" or "gp"', "'cheb'")


def test_the_residual_is_left_out_and_the_report_says_so() -> None:
    model = fitted(terms=("residual",), max_iter=2)
    mean = model.mean_tucker(tol=1e-5)
    assert_says(mean.info.warnings[0], "residual within slices is left out")
    x = np.linspace(2.2, 4.8, 9)
    rows = model.mode_posterior("time", x)[1]  # the average over doses and labels, without the residual
    doses = np.unique(model.indices_[1])
    want = np.mean([mean.at(x, np.full(9, d), np.full(9, w)) for d in doses for w in range(3)], axis=0)
    assert_relative(want, rows, 1e-5)


def test_what_is_no_sum_of_products_is_refused() -> None:
    X, y = table(40)
    bent = quietly(FunctionalTucker(max_iter=2, response="log").fit, X, y)
    with pytest.raises(DataError) as error:
        bent.mean_tucker()
    assert_says(error, "response='log'", "chebyshev_tucker")
    rng, place = np.random.default_rng(3), np.arange(60) % 12
    stations = {"day": np.arange(60) * 1.0, "x": rng.random(12)[place], "y": rng.random(12)[place]}
    joint = quietly(FunctionalTucker(max_iter=2).fit, stations, np.sin(stations["day"]) + stations["x"])
    with pytest.raises(DataError) as error:
        joint.mean_tucker()
    assert_says(error, "joint functions", "`rank`")
    other = quietly(FunctionalTucker(inference="cep", max_iter=300, rank=1, core="diagonal").fit, X, y)
    with pytest.raises(DataError) as error:
        other.mean_tucker()
    assert_says(error, "inference='cep'", "inference='collapsed'")
    alone = quietly(FunctionalTucker(max_iter=2).fit, {**X, "one": np.ones(40)}, y)
    with pytest.raises(DataError) as error:
        alone.mean_tucker()
    assert_says(error, "'one'", "discrete")


@pytest.mark.parametrize(
    ("settings", "words"), [({"tol": 0.0}, "tol"), ({"tol": 1}, "tol"), ({"max_degree": 8}, "max_degree")]
)
def test_bad_arguments_are_refused(model: FunctionalTucker, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as error:
        model.mean_tucker(**settings)
    assert_says(error, "mean_tucker", words)
