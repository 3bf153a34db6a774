"""FunctionalTucker with an oscillator along a mode: the period is found, the forecast swings on."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tenfac import DataError, FunctionalTucker, load, pyro_model, save
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says
from tests.oracles import swing_dense

RNG = np.random.default_rng(0)
TIME = np.sort(RNG.uniform(0, 30, 60))
NOISE = 0.1 * RNG.standard_normal(60)
AHEAD = np.linspace(30, 34, 30)


def swing(t: np.ndarray) -> np.ndarray:
    return 2 * np.sin(2 * np.pi * t / 4.3 + 0.3) + 1


@pytest.fixture(scope="module")
def model() -> FunctionalTucker:
    return FunctionalTucker(kernel="oscillator").fit({"t": TIME}, swing(TIME) + NOISE)


@pytest.mark.slow
def test_the_period_is_found_and_the_forecast_is_better_than_that_of_a_matern_process(
    model: FunctionalTucker,
) -> None:
    assert_relative(np.float64(model.lengthscales_["t"]), np.float64(4.3), 0.02, "period")
    assert_above(model.qualities_["t"], 10, "quality of an undamped sine")
    plain = FunctionalTucker(kernel="matern32").fit({"t": TIME}, swing(TIME) + NOISE)
    assert_above(model.log_evidence_ - plain.log_evidence_, 20, "log evidence above that of Matérn-3/2")
    wrong, right = (np.abs(m.predict({"t": AHEAD}) - swing(AHEAD)).mean() for m in (plain, model))
    assert_below(right, 0.3 * wrong, "mean error of the forecast")
    assert_equal((model.kernels_, plain.qualities_), ({"t": "oscillator"}, {}))


def test_the_posterior_is_that_of_the_dense_kernel(model: FunctionalTucker) -> None:
    hyper, spread = model._prediction.hyper, np.std(swing(TIME) + NOISE)
    variance, constant = np.exp(hyper.scale), model.constants_["t"]

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        own = swing_dense(a, b, model.lengthscales_["t"], model.qualities_["t"])
        return spread**2 * variance * (constant + own)

    y = swing(TIME) + NOISE
    total = covariance(TIME, TIME) + model.noise_**2 * np.eye(TIME.size)
    cross = covariance(AHEAD, TIME)
    mean = y.mean() + cross @ np.linalg.solve(total, y - y.mean())
    variance = np.diag(covariance(AHEAD, AHEAD) - cross @ np.linalg.solve(total, cross.T))
    got, sd = model.predict({"t": AHEAD}, return_std=True)
    assert_relative(got, mean, 1e-8, "mean")
    assert_relative(sd**2, variance, 1e-6, "variance")


def test_its_slope_is_the_difference_quotient_of_the_mean(model: FunctionalTucker) -> None:
    at, step = np.array([3.3, 12.0, 31.0]), 1e-4
    slope = model.predict_derivative({"t": at}, "t")
    ahead, behind = (model.predict({"t": at + shift}) for shift in (step, -step))
    assert_relative(slope, (ahead - behind) / (2 * step), 1e-6)


def test_along_a_mode_beside_the_exact_one_the_period_is_found_too() -> None:
    rng = np.random.default_rng(1)
    z, t = rng.uniform(0, 1, 60), rng.integers(0, 16, 60) * 0.7
    model = FunctionalTucker(kernel={"t": "oscillator"}, max_iter=8, terms=())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of functions left out and of few iterations: not the matter here
        model.fit({"t": t, "z": z}, np.sin(2 * np.pi * t / 2.7) * (1 + z) + 0.05 * rng.standard_normal(60))
    assert_equal(model.exact_mode_, 1)
    assert_relative(np.float64(model.lengthscales_["t"]), np.float64(2.7), 0.02, "period")


def test_a_saved_model_swings_on(model: FunctionalTucker, tmp_path: Path) -> None:
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert_equal((again.qualities_, again.kernels_), (model.qualities_, model.kernels_))
    assert_close(again.predict({"t": AHEAD}), model.predict({"t": AHEAD}))


def test_what_the_tree_holds_is_the_period(model: FunctionalTucker) -> None:
    pytest.importorskip("xarray")
    held = model.posterior_["constant_data"]
    assert_close(held["lengthscale"].values, np.array(list(model.lengthscales_.values())))
    assert_equal(held["sharpness"].values.tolist(), [0.0])


def test_rows_that_come_later_are_added(model: FunctionalTucker) -> None:
    first = TIME < 25
    y = swing(TIME) + NOISE
    part = FunctionalTucker(kernel="oscillator").fit({"t": TIME[first]}, y[first])
    before = np.abs(part.predict({"t": AHEAD}) - swing(AHEAD)).mean()
    part.partial_fit({"t": TIME[~first]}, y[~first])
    assert_below(np.abs(part.predict({"t": AHEAD}) - swing(AHEAD)).mean(), before, "mean error")


@pytest.mark.parametrize("inference", ["cep", "svi", "nuts"])
def test_other_inferences_refuse_it(inference: str) -> None:
    with pytest.raises(DataError) as error:
        FunctionalTucker(kernel="oscillator", inference=inference).fit({"t": TIME}, NOISE)
    assert_says(error, "kernel='oscillator'", "'collapsed'", repr(inference))


def test_a_program_of_pyro_refuses_it(model: FunctionalTucker) -> None:
    pytest.importorskip("pyro")
    with pytest.raises(DataError) as error:
        pyro_model(model, {"t": TIME}, NOISE)
    assert_says(error, "pyro_model:", "'oscillator'", "'t'", "Matérn")
