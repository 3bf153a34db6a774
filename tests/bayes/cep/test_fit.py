"""fit_cep as a caller sees it: recovery, pruning, invariances, honest answers to bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tenfac.bayes.cep import CepFit, fit_cep
from tenfac.core.errors import ConvergenceWarning, DataError, RankError, ShapeError
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says


def fitted(positions: list, y: np.ndarray, **options: object) -> CepFit:
    """A short fit, whether or not it converges."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_cep(positions, y, **{"max_iter": 10, "n_starts": 1, "rank": 2, **options})


def scattered(count: int = 300, noise: float = 0.1, seed: int = 0) -> tuple[list, np.ndarray]:
    """Rank 1 and main effects in three modes, the middle one discrete."""
    rng = np.random.default_rng(seed)
    x = [rng.integers(0, 15, count) / 14, rng.integers(0, 4, count).astype(float), rng.random(count)]
    level = np.array([1.0, -0.5, 0.3, 0.8])[x[1].astype(int)]
    y = 5 + np.sin(5 * x[0]) * level * np.cos(4 * x[2]) + x[0] + noise * rng.normal(size=count)
    return x, y


@pytest.mark.parametrize("form", ["cp", "tucker"])
@pytest.mark.parametrize("rank", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_noiseless_products_are_recovered(form: str, rank: int) -> None:
    x = np.linspace(0, 1, 17)
    factors = [(np.sin(4 * x), 1 + x**2), (np.cos(3 * x), np.exp(-x))][:rank]
    y = sum(np.multiply.outer(a, b) for a, b in factors)
    grid = [g.ravel() for g in np.meshgrid(x, x, indexing="ij")]
    known = np.random.default_rng(0).random(289) < 0.7
    fit = fitted(
        [g[known] for g in grid],
        y.ravel()[known],
        kernels=["matern32"] * 2,
        rank=rank,
        max_iter=80,
        form=form,
    )
    mean, variance = fit.predict([g[~known] for g in grid])
    assert_relative(mean, y.ravel()[~known], 5e-3)
    assert_below(np.sqrt(variance).max(), 0.1, "standard deviation inside the data")


@pytest.mark.slow
def test_excess_products_are_pruned() -> None:
    rng = np.random.default_rng(1)
    x = [rng.integers(0, 16, 800) / 15 for _ in range(2)]
    y = np.sin(6 * x[0]) * np.cos(5 * x[1]) + 0.05 * rng.normal(size=800)
    for form, rank in (("cp", 4), ("tucker", (3, 2))):
        options = {"rank": rank, "form": form, "max_iter": 60, "tol": 1e-3, "n_starts": 3, "held_out": 0}
        fit = fitted(x, y, kernels=["matern32"] * 2, **options)
        assert_below(abs(fit.noise / 0.05 - 1), 0.1, "relative error of the noise, 800 rows")
        assert_equal(fit.rank, (1, 1))


@pytest.mark.parametrize("form", ["cp", pytest.param("tucker", marks=pytest.mark.slow)])
def test_held_out_errors_are_those_of_the_noise_and_intervals_cover(form: str) -> None:
    x, y = scattered(1200)
    new, truth = scattered(400, seed=1)
    fit = fitted(x, y, kernels=("matern32", None, "matern32"), form=form, max_iter=40)
    mean, variance = fit.predict(new, with_noise=True)
    assert_below(np.sqrt(np.mean((mean - truth) ** 2)), 0.12, "RMSE, noise 0.1")
    # 400 draws at 95 %: fewer than 0.91 or more than 0.985 have probability below 0.001
    covered = float(np.mean(np.abs(mean - truth) < 1.96 * np.sqrt(variance)))
    assert_above(covered, 0.91, "coverage")
    assert_below(covered, 0.985, "coverage")


@pytest.mark.parametrize("form", ["cp", "tucker"])
@pytest.mark.parametrize("held_out", [0.0, 0.2])
def test_the_order_of_the_rows_and_repeats_as_weights_change_not_one_bit(form: str, held_out: float) -> None:
    x, y = scattered(300)
    options = {"kernels": ("matern32", None, "matern12"), "form": form, "held_out": held_out}
    weights = np.random.default_rng(1).integers(0, 4, 300).astype(float)
    weighted = fitted(x, y, weights=weights, **options)
    rows = np.random.default_rng(2).permutation(np.repeat(np.arange(300), weights.astype(int)))
    repeated = fitted([c[rows] for c in x], y[rows], **options)
    for got, want in zip(repeated.predict(x), weighted.predict(x), strict=True):
        assert_equal(got, want)
    assert_equal(repeated.bound, weighted.bound)


@pytest.mark.parametrize("form", ["cp", "tucker"])
def test_y_times_a_number_plus_a_number_changes_the_fit_alike(form: str) -> None:
    x, y = scattered(200)
    y = np.round(y * 2**20) / 2**20
    options = {"kernels": ("matern32", None, "matern12"), "form": form}
    mean, variance = fitted(x, y, **options).predict(x)
    scaled, scaled_variance = fitted(x, 4 * y, **options).predict(x)
    assert_close(scaled, 4 * mean, factor=1e4)
    assert_close(scaled_variance, 16 * variance, factor=1e4)


def test_the_same_seed_gives_the_same_fit_and_no_seed_moves_the_global_generator() -> None:
    x, y = scattered(200)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fits = [fitted(x, y, kernels=("matern32", None, "matern12"), random_state=7) for _ in range(2)]
    assert_equal(fits[0].predict(x)[0], fits[1].predict(x)[0])
    assert_equal(fits[0].info.history, fits[1].info.history)
    assert_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_far_from_the_data_a_cp_goes_back_to_its_prior() -> None:
    x, y = scattered(300)
    fit = fitted(x, y, kernels=("matern32", None, "matern12"))
    state = fit.state
    powers = [f.variances for f in state.functions]
    prior = sum(v[0] for v in powers) + np.prod([v[1:] for v in powers], axis=0).sum()
    for sign in (-1e6, 1e6):
        mean, variance = fit.predict([np.array([sign]), np.array([99.0]), np.array([sign])])
        assert_close(mean, np.array([fit.center + fit.spread * state.core.mean[0]]))
        assert_close(variance, np.array([fit.spread**2 * (prior + state.core.cov[0, 0])]))


def test_at_an_unseen_label_interactions_vanish_and_the_other_main_effects_stay() -> None:
    x, y = scattered(300)
    fit = fitted(x, y, kernels=("matern32", None, "matern12"))
    mean, variance = fit.predict([x[0][:5], np.full(5, 9.0), x[2][:5]])
    effects = [fit.state.functions[d].at(x[d][:5])[0][:, 0] for d in (0, 2)]
    assert_close(mean, fit.center + fit.spread * (fit.state.core.mean[0] + effects[0] + effects[1]))
    seen = fit.predict([x[0][:5], np.zeros(5), x[2][:5]])[1]
    assert_above((variance / seen).min(), 1.0, "variance at an unseen label over that at a seen one")


def test_predictions_do_not_depend_on_their_company() -> None:
    x, y = scattered(200)
    for form in ("cp", "tucker"):
        fit = fitted(x, y, kernels=("matern32", None, "matern12"), form=form)
        alone = np.concatenate([fit.predict([c[i : i + 1] for c in x])[0] for i in range(5)])
        assert_close(fit.predict(x)[0][:5], alone)


def test_factor_functions_have_bands_at_any_index() -> None:
    x, y = scattered(300)
    fit = fitted(x, y, kernels=("matern32", None, "matern12"))
    mean, std = fit.factors(0, np.array([-3.0, 0.1, 0.5]))
    assert_equal(mean.shape, (3, 3))
    assert_above((std[0] / std[2]).min(), 1.0, "band beyond the data over band inside")
    own = fit.factors(0)[0]
    assert_above(own.max(axis=0).min(), np.abs(own).max() * 0, "largest value of a function")
    assert_close(own.max(axis=0), np.abs(own).max(axis=0))


HARD = {
    "one row": ([np.array([0.5])] * 3, np.array([2.0])),
    "constant y": ([np.linspace(0, 1, 20)] * 3, np.full(20, 3.0)),
    "one index": ([np.zeros(20), np.linspace(0, 1, 20), np.zeros(20)], np.arange(20.0)),
    "an outlier": ([np.linspace(0, 1, 60)] * 3, np.append(np.zeros(59), 1e8)),
    "huge y": ([np.linspace(0, 1, 60)] * 3, np.linspace(0, 1, 60) * 1e150),
    "close indices": ([np.linspace(0, 1e-9, 30)] * 3, np.sin(np.arange(30.0))),
    "far indices": ([np.append(np.linspace(0, 1, 30), 1e9)] * 3, np.sin(np.arange(31.0))),
}


@pytest.mark.parametrize("form", ["cp", "tucker"])
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("kernel", ["matern12", "matern52"])
def test_hard_data_give_finite_means_and_variances_not_below_zero(form: str, case: str, kernel: str) -> None:
    x, y = HARD[case]
    fit = fitted(x, y, kernels=[kernel] * 3, form=form, rank=2, max_iter=3)
    new = np.array([-1e6, -1.0, 0.3, 0.5, 2.0, 1e12])
    mean, variance = fit.predict([new] * 3)
    assert np.isfinite(mean).all()
    assert np.isfinite(fit.info.history).all()
    assert_above(variance.min(), 0.0, "variance")


def test_a_fit_that_still_improves_says_so() -> None:
    x, y = scattered(300)
    with pytest.warns(ConvergenceWarning, match="raise `max_iter`"):
        fit = fit_cep(x, y, kernels=("matern32", None, "matern12"), rank=2, max_iter=3, n_starts=1)
    assert_equal((fit.info.converged, fit.info.n_iter), (False, 3))
    done = fit_cep(x, y, kernels=("matern32", None, "matern12"), rank=1, n_starts=1, held_out=0, tol=1e-2)
    assert done.info.converged
    assert_says(done.info, "the bound stands")


BAD = {
    "unequal lengths": ({"positions": [np.zeros(3), np.zeros(4)]}, ShapeError, "one column per mode"),
    "nan in y": ({"y": np.array([1.0, np.nan, 2.0])}, DataError, "row 1"),
    "inf in a column": ({"positions": [np.zeros(3), np.array([0, 0, np.inf])]}, DataError, "positions[1]"),
    "negative weights": ({"weights": -np.ones(3)}, DataError, "weights"),
    "kernel": ({"kernels": ["rbf", None]}, DataError, "matern12"),
    "kernels": ({"kernels": ["matern12"]}, ShapeError, "1 kernels"),
    "codes": ({"positions": [np.zeros(3), np.array([0, 0.5, 1])]}, DataError, "whole numbers"),
    "rank": ({"rank": -1}, RankError, "none negative"),
    "ranks of a CP": ({"rank": (1, 2)}, RankError, "one number"),
    "ranks": ({"rank": (1, 2, 3), "form": "tucker"}, RankError, "one per mode"),
    "form": ({"form": "tt"}, DataError, "cp, tucker"),
    "nothing": ({"rank": 0, "mains": False}, RankError, "mains=True"),
    "max_iter": ({"max_iter": 0}, DataError, "max_iter"),
    "held_out": ({"held_out": 1.0}, DataError, "held_out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case: str) -> None:
    change, error, words = BAD[case]
    good = {
        "positions": [np.zeros(3), np.arange(3.0)],
        "y": np.arange(3.0),
        "kernels": ["matern12", None],
        "rank": 1,
    }
    with pytest.raises(error) as raised:
        fit_cep(**{**good, **change})
    assert_says(raised, words, "fit_cep")


def test_predict_refuses_columns_that_do_not_fit() -> None:
    x, y = scattered(60)
    fit = fitted(x, y, kernels=("matern32", None, "matern12"))
    with pytest.raises(ShapeError) as raised:
        fit.predict(x[:2])
    assert_says(raised, "3 columns")
    with pytest.raises(DataError) as raised:
        fit.predict([np.array([np.nan])] * 3)
    assert_says(raised, "positions[0]", "finite")
