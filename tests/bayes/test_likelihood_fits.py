"""`FunctionalTucker` with noise of heavy tails, bad slices and counts: what a user sees of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.special import expit

from tenfac import ConvergenceWarning, DataError, FunctionalTucker, load, save
from tenfac.bayes.likelihoods.named import COUNTS, KINDS
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

LABELS, PLACES = 3, 24


def surface(seed: int, count: int = 150) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Random cells of 3 labels x 24 places, and a smooth function of them."""
    rng = np.random.default_rng([seed, count])
    X = np.column_stack([rng.integers(0, LABELS, count), rng.integers(0, PLACES, count) / 2.0])
    X[:PLACES, 1] = np.arange(PLACES) / 2.0
    X[:LABELS, 0] = np.arange(LABELS)
    return X, np.sin(X[:, 1]) * (1 + 0.3 * X[:, 0]), rng


def fit(X: np.ndarray, y: np.ndarray, **settings: object) -> FunctionalTucker:
    return FunctionalTucker(**{"discrete": [0], **settings}).fit(X, y)


def rmse(model: FunctionalTucker, X: np.ndarray, f: np.ndarray) -> float:
    return float(np.sqrt(np.mean((model.predict(X) - f) ** 2)))


# --- heavy tails ------------------------------------------------------------------------------------------


def test_outliers_do_not_move_the_mean() -> None:
    X, f, rng = surface(0)
    y = f + 0.1 * rng.normal(size=f.size)
    bad = rng.choice(f.size, 8, replace=False)
    clean = np.setdiff1d(np.arange(f.size), bad)
    spoilt = y.copy()
    spoilt[bad] += 30.0
    robust = fit(X, spoilt, likelihood="student_t", tol=1e-4)
    without = fit(X[clean], y[clean], tol=1e-4)
    shift = np.sqrt(np.mean((robust.predict(X) - without.predict(X)) ** 2))
    assert_below(shift, 0.05, "shift by eight outliers, half the noise at most")
    assert_above(rmse(fit(X, spoilt, tol=1e-3), X, f), 5 * rmse(robust, X, f), "RMSE of Gaussian noise")
    assert_below(robust.dof_, 3.0, "degrees of freedom")
    assert_below(abs(robust.noise_ - 0.1), 0.05, "distance of the scale from that of the good rows")


def test_without_outliers_the_degrees_of_freedom_are_many_and_little_is_lost() -> None:
    X, f, rng = surface(1)
    y = f + 0.1 * rng.normal(size=f.size)
    robust, plain = fit(X, y, likelihood="student_t"), fit(X, y)
    assert_above(robust.dof_, 10.0, "degrees of freedom")
    assert_below(abs(robust.log_evidence_ - plain.log_evidence_), 2.0, "difference of the evidences")
    assert_below(np.abs(robust.predict(X) - plain.predict(X)).max(), 0.03, "difference of the means")
    assert_equal((plain.dof_, plain.slice_dof_, plain.slice_scales_), (np.inf, np.inf, {}))


def test_the_std_of_an_observation_is_that_of_function_and_student_noise() -> None:
    X, f, rng = surface(1)
    model = fit(X, f + 0.1 * rng.standard_t(4, f.size), likelihood="student_t")
    std, noisy = (model.predict(X, return_std=True, include_noise=noise)[1] for noise in (False, True))
    assert_above(model.dof_, 2.5, "degrees of freedom")
    want = np.sqrt(std**2 + model.noise_**2 * model.dof_ / (model.dof_ - 2))
    assert_relative(noisy, want, 1e-6)


@pytest.mark.slow
def test_outliers_of_fractions_are_borne_by_a_bent_response() -> None:
    X, f, rng = surface(2, 90)
    y = expit(2 * f + 0.1 * rng.normal(size=f.size))
    y[::20] = rng.uniform(0.02, 0.98, y[::20].size)
    settings = {"response": "logit", "tol": 1e-2}
    robust, plain = fit(X, y, likelihood="student_t", **settings), fit(X, y, **settings)
    assert_below(rmse(robust, X, expit(2 * f)), 0.5 * rmse(plain, X, expit(2 * f)), "RMSE")
    mean, std = robust.predict(X, return_std=True, include_noise=True)
    low, high = robust.bounds_
    assert ((mean > low) & (mean < high) & (std > 0)).all()


# --- slices -----------------------------------------------------------------------------------------------


def bad_slices(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places 5, 11 and 18 have thirty times the noise."""
    X, f, rng = surface(seed, 300)
    bad = np.isin(X[:, 1] * 2, [5, 11, 18])
    return X, f + np.where(bad, 3.0, 0.1) * rng.normal(size=f.size), f, bad


@cache
def fit_of_bad_slices() -> FunctionalTucker:
    X, y, _, _ = bad_slices(3)
    return fit(X, y, noise=("slice", 1))


@pytest.mark.slow
def test_bad_slices_are_found_and_do_not_spoil_the_rest() -> None:
    X, y, f, bad = bad_slices(3)
    model, plain = fit_of_bad_slices(), fit(X, y, tol=1e-4)
    scales = model.slice_scales_["1"]
    assert_equal(np.sort(np.argsort(scales)[-3:]), np.array([5, 11, 18]))
    assert_above(np.sort(scales)[-3], 30 * np.median(scales), "scale of a bad slice over that of a good one")
    assert_below(rmse(model, X, f), 0.5 * rmse(plain, X, f), "RMSE")
    assert_above(model.log_evidence_, plain.log_evidence_ + 50, "bound of the evidence")
    std = model.predict(X, return_std=True, include_noise=True)[1]
    assert_above(std[bad].min(), 5 * np.median(std[~bad]), "std of an observation in a bad slice")
    inside = np.abs(y - model.predict(X)) < 1.96 * std
    assert_above(inside[~bad].mean(), 0.9, "coverage of good slices")


def test_a_new_slice_has_the_tails_of_all() -> None:
    model = fit_of_bad_slices()
    known, new = model._read_positions([[0, 4.0], [0, 4.1]]), np.array([8, -1])
    assert_equal(model._slices(known), new)
    rows = model._likelihood.at(new)
    assert_close(rows.dof[1], model.slice_dof_)
    assert_above(rows.dof[0], model.slice_dof_ + 1, "degrees of freedom of a slice that was seen")
    assert_below(model.slice_dof_, 3.0, "degrees of freedom of a new slice")


def test_the_slices_are_those_of_the_exact_mode_unless_another_is_named() -> None:
    X, y, _, _ = bad_slices(3)
    table = {"label": X[:, 0].astype(int).astype(str), "place": X[:, 1]}
    for noise, name in (("slice", "place"), (("slice", "label"), "label"), (["slice", 0], "label")):
        model = FunctionalTucker(noise=noise, max_iter=0, tol=1e-4).fit(table, y)
        assert_equal(list(model.slice_scales_), [name])
        assert_equal(model.slice_scales_[name].shape, np.unique(table[name]).shape)


# --- counts -----------------------------------------------------------------------------------------------


def counts(kind: str, seed: int, count: int = 150):
    """X, y, trials, and the mean of y."""
    X, f, rng = surface(seed, count)
    trials = rng.integers(1, 9, f.size)
    if kind == "poisson":
        return X, rng.poisson(np.exp(1 + f)).astype(float), None, np.exp(1 + f)
    if kind == "bernoulli":
        return X, (rng.random(f.size) < expit(2 * f)).astype(float), None, expit(2 * f)
    return X, rng.binomial(trials, expit(2 * f)) / trials, trials, expit(2 * f)


@cache
def fit_of_counts(kind: str, seed: int) -> FunctionalTucker:
    X, y, trials, _ = counts(kind, seed)
    return FunctionalTucker(discrete=[0], likelihood=kind, tol=1e-4).fit(X, y, sample_weight=trials)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_intervals_of_rates_and_probabilities_cover(kind: str) -> None:
    """Means of the shares over 2 data sets, correlated within: bounds of 4 errors of 40 trials each."""
    shares, gains = [], []
    for seed in range(2):
        X, y, trials, truth = counts(kind, seed)
        model = fit_of_counts(kind, seed)
        mean, std = model.predict(X, return_std=True)
        shares.append(np.mean(np.abs(mean - truth) < 1.96 * std))
        plain = FunctionalTucker(discrete=[0], tol=1e-3).fit(X, y, sample_weight=trials)
        gains.append(rmse(plain, X, truth) / rmse(model, X, truth))
        assert (mean > 0).all()
    assert_above(np.mean(shares), 0.95 - 4 * np.sqrt(0.95 * 0.05 / 80), "coverage")
    assert_above(np.mean(gains), 1.0, "RMSE of Gaussian noise over that of counts")


def test_predictions_of_counts_are_on_the_scale_of_y() -> None:
    X, _, _, truth = counts("poisson", 0)
    model = fit_of_counts("poisson", 0)
    assert_equal(model.bounds_, (0.0, np.inf))
    assert np.isnan(model.noise_)
    mean, std = model.predict(X, return_std=True)
    _, noisy = model.predict(X, return_std=True, include_noise=True)
    assert_relative(noisy, np.sqrt(mean + std**2), 1e-9)
    _, marginal, band = model.mode_posterior(1)
    assert_above(marginal.min(), 0.0, "marginal rate")
    assert_below(marginal.max(), truth.max(), "marginal rate")
    assert (band > 0).all()
    X, *_ = counts("bernoulli", 0)
    model = fit_of_counts("bernoulli", 0)
    mean, std = model.predict(X, return_std=True, include_noise=True)
    assert_close(std, np.sqrt(mean * (1 - mean)))
    assert_equal(model.bounds_, (0.0, 1.0))


# --- all --------------------------------------------------------------------------------------------------

SETTINGS = [
    {"likelihood": "student_t"},
    {"noise": "slice"},
    {"likelihood": "student_t", "noise": ("slice", 0), "response": "logit", "max_iter": 0},
    {"likelihood": "poisson"},
    {"likelihood": "bernoulli"},
    {"likelihood": "binomial", "label_rank": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
# 2026-11: few iterations keep this quick; the fits need not converge to be kept
@pytest.mark.filterwarnings("ignore::tenfac.ConvergenceWarning")
def test_a_model_comes_back_with_the_same_bits(tmp_path, settings) -> None:
    kind = settings.get("likelihood", "gaussian")
    X, y, trials, _ = counts(kind if kind in COUNTS else "poisson", 6, 60)
    y = y if kind in COUNTS else y + 0.1 * np.random.default_rng(0).normal(size=y.size)
    model = FunctionalTucker(**{"discrete": [0], "max_iter": 2, **settings}).fit(X, y, sample_weight=trials)
    save(model, tmp_path / "model.tenfac")
    back = load(tmp_path / "model.tenfac")
    X = X + [0.0, 0.1] * (np.arange(60)[:, None] % 2)  # seen and new places
    for noise in (False, True):
        got, want = (m.predict(X, return_std=True, include_noise=noise) for m in (back, model))
        assert_equal(got[0], want[0])
        assert_equal(got[1], want[1])
    for name in ("dof_", "slice_dof_", "log_evidence_", "bounds_"):
        assert_equal(getattr(back, name), getattr(model, name))
    for name, scales in model.slice_scales_.items():
        assert_equal(back.slice_scales_[name], scales)
    positions = model._read_positions(X)
    mean, variance, noisy = model._prediction.at(positions)
    densities = [
        m._likelihood.at(m._slices(positions)).log_density(
            model._response.observed(mean).round() if kind in COUNTS else np.resize(y, mean.size),
            mean,
            m._for_observation(variance, noisy),
        )
        for m in (back, model)
    ]
    assert_equal(*densities)


def test_a_fit_that_ran_out_of_iterations_says_so() -> None:
    X, y, _, _ = counts("poisson", 7, 60)
    with pytest.warns(ConvergenceWarning) as caught:
        model = fit(X, y, likelihood="poisson", max_iter=2)
    assert_says(caught[0].message, "max_iter=2", "Raise max_iter")
    assert not model.info_.converged
    done = fit(X, y, likelihood="poisson")
    assert done.info_.converged
    assert_above(done.log_evidence_, model.log_evidence_, "bound")
    assert_above(np.diff(done.info_.history).min(), -1e-6, "smallest rise of the bound")


def test_gaussian_noise_is_what_it_was_before_there_were_likelihoods() -> None:
    assert_equal(KINDS[0], FunctionalTucker().likelihood)
    X, f, rng = surface(8, 60)
    y = f + 0.1 * rng.normal(size=f.size)
    model = fit(X, y)
    assert model._task.precision is None
    noise = np.exp(model._prediction.hyper.noise)
    mean, variance, noisy = model._prediction.at(model._read_positions(X))
    assert_close(
        model.predict(X, return_std=True, include_noise=True)[1], model._response.spread * noisy**0.5
    )
    assert_close(model._for_observation(variance, noisy) + noise, noisy)
    assert_equal(mean.shape, y.shape)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"likelihood": "poison"}, ["`likelihood` must be one of", "'poison'", "Did you mean 'poisson'?"]),
        ({"likelihood": 3}, ["`likelihood` must be one of", "got 3"]),
        ({"noise": "slices"}, ["`noise` must be one of", "'slices'", "Did you mean 'slice'?"]),
        ({"noise": ("slice", "tme")}, ["`noise`", "no mode 'tme'"]),
        ({"noise": ("part", 1)}, ["`noise` must be one of", "('part', 1)"]),
        ({"likelihood": "poisson", "noise": "slice"}, ["noise='slice'", "'student_t'", "'poisson'"]),
        ({"likelihood": "binomial", "response": "logit"}, ["its own response", "'identity'", "'logit'"]),
        ({"likelihood": "poisson"}, ["whole numbers from 0 up", "-1.0 in row 1", "1 more like it"]),
        ({"likelihood": "bernoulli"}, ["0 or 1", "-1.0 in row 1", "2 more like it"]),
        ({"likelihood": "binomial"}, ["shares of successes from 0 to 1", "-1.0 in row 1", "sample_weight"]),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_computed(settings, says) -> None:
    with pytest.raises(DataError) as error:
        FunctionalTucker(**settings).fit([[0.0], [1.0], [2.0], [3.0]], [1.0, -1.0, 0.5, 3.0])
    assert_says(error, "FunctionalTucker", *says)


def test_student_noise_of_a_logarithm_has_a_mean_of_the_function_only() -> None:
    X, y, _, _ = counts("poisson", 6, 60)
    model = fit(X, y + 0.5, likelihood="student_t", response="log", max_iter=0)
    assert np.isfinite(model.predict(X, return_std=True)[1]).all()
    with pytest.raises(DataError) as error:
        model.predict(X, return_std=True, include_noise=True)
    assert_says(error, "include_noise=True", "neither mean nor standard deviation")
