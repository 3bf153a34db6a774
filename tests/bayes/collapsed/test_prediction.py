"""Means, variances and marginals equal the Gaussian formulas with N x N matrices, anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import FunctionalTucker
from tenfac.bayes.collapsed.prediction import Prediction
from tests.bayes.toys import TOYS, Toy, scaled, smooth_table, toy, twin
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative
from tests.oracles import DenseGP

every_toy = pytest.mark.parametrize("case", TOYS.values(), ids=TOYS.keys())


# --- at given hyperparameters -----------------------------------------------------------------------------


@every_toy
def test_mean_and_variance_are_the_dense_ones_at_seen_and_unseen_points(case: Toy) -> None:
    hyper = case.hyper(1)
    at = case.at(60)
    mean, variance, noisy = Prediction.build(case.problem(hyper), hyper).at(at)
    want, cov = case.dense(hyper).predict(case.points, case.y, at)
    assert_close(mean, want, factor=1e6)
    assert_close(variance, np.diag(cov), factor=1e6)
    assert_close(noisy, np.diag(cov) + np.exp(hyper.noise), factor=1e6)


@every_toy
def test_marginal_of_every_mode_is_the_dense_average_over_the_others(case: Toy) -> None:
    hyper = case.hyper(1)
    prediction = Prediction.build(case.problem(hyper), hyper)
    for mode in range(len(case.kernels)):
        x = case.at(7, seed=mode)[mode]
        mean, variance = prediction.marginal(mode, x)
        want, want_variance = case.dense(hyper).marginal(case.points, case.y, mode, x, case.task.grids)
        assert_close(mean, want, factor=1e6)
        assert_close(variance, want_variance, factor=1e6)


def test_many_rows_and_many_indices_give_what_each_row_gives_alone() -> None:
    case = TOYS["exact continuous, D = 3"]
    prediction = Prediction.build(case.problem(case.hyper(1)), case.hyper(1))
    at = case.at(300)  # more than one block of indices
    mean, variance, _ = prediction.at(at)
    for row in (0, 1, 63, 64, 65, 128, 299):
        alone = prediction.at([x[row : row + 1] for x in at])
        assert_close(mean[row : row + 1], alone[0], factor=1e4, scale=np.abs(mean).max())
        assert_close(variance[row : row + 1], alone[1], factor=1e4, scale=variance.max())
    tall = [np.tile(x, 40) for x in at]  # more than one block of rows
    assert_close(prediction.at(tall)[0], np.tile(mean, 40), factor=1e4)
    assert_close(prediction.at(tall)[1], np.tile(variance, 40), factor=1e4)


def test_without_variance_the_mean_is_the_same() -> None:
    case = TOYS["exact discrete, D = 3"]
    prediction = Prediction.build(case.problem(case.hyper(1)), case.hyper(1))
    at = case.at(20)
    mean, variance, _ = prediction.at(at, with_variance=False)
    assert_equal(mean, prediction.at(at)[0])
    assert_equal(variance, np.zeros(20))


# --- at learned hyperparameters ---------------------------------------------------------------------------


FITS = {
    "D = 1, continuous": lambda: smooth_table((25,), (), 30),
    "D = 1, continuous, a complete grid": lambda: smooth_table((20,), (), 20),
    "D = 1, discrete": lambda: smooth_table((6,), (0,), 25),
    "D = 2, exact continuous": lambda: smooth_table((4, 14), (0,), 60),
    "D = 2, exact discrete, learned from some levels": lambda: smooth_table((22, 4), (0,), 90),
    "D = 2, both continuous": lambda: smooth_table((5, 12), (), 50),
    "D = 3, mixed": lambda: smooth_table((3, 10, 4), (0,), 90),
}
DISCRETE = dict.fromkeys(FITS, ()) | {
    "D = 1, discrete": (0,),
    "D = 2, exact continuous": (0,),
    "D = 2, exact discrete, learned from some levels": (0,),
    "D = 3, mixed": (0,),
}


class Fit:
    """A fitted model, its table, and the dense posterior at the hyperparameters it learned."""

    def __init__(self, name: str) -> None:
        self.X, self.y = FITS[name]()
        kernel = {0: "matern52"} | ({2: "matern12"} if self.X.shape[1] == 3 else {})
        self.model = FunctionalTucker(discrete=list(DISCRETE[name]), kernel=kernel).fit(self.X, self.y)
        self.spread = float(self.y.std())
        self.points = scaled(self.model, list(self.X.T))
        self.z = (self.y - self.y.mean()) / self.spread

    @property
    def dense(self) -> DenseGP:
        return twin(self.model)

    def rows(self, count: int) -> np.ndarray:
        """Observed rows, rows of observed indices in new combinations, between, left and right."""
        rng = np.random.default_rng(9)
        columns = []
        for n, (kind, index) in enumerate(zip(self.model.kinds_, self.model.indices_, strict=True)):
            column = rng.choice(index, count)
            if kind == "continuous":
                span = index[-1] - index[0]
                column[count // 3 :] = rng.uniform(index[0] - 0.7 * span, index[-1] + 0.7 * span, count)[
                    count // 3 :
                ]
            column[:5] = self.X[:5, n]
            columns.append(column)
        return np.column_stack(columns)


@pytest.fixture(scope="module", params=FITS)
def fit(request: pytest.FixtureRequest) -> Fit:
    return Fit(request.param)


def test_learning_converges_and_keeps_every_function(fit: Fit) -> None:
    assert fit.model.info_.converged
    assert_equal(fit.model.info_.warnings, ())
    assert_equal(fit.model.rank_, tuple(len(index) for index in fit.model.indices_))
    assert_equal(fit.model.exact_mode_, int(np.argmax([len(index) for index in fit.model.indices_])))


def test_predictions_equal_the_dense_gaussian_process(fit: Fit) -> None:
    rows = fit.rows(60)
    mean, std = fit.model.predict(rows, return_std=True)
    want, cov = fit.dense.predict(fit.points, fit.z, scaled(fit.model, list(rows.T)))
    assert_relative(mean, fit.y.mean() + fit.spread * want, 1e-8)
    assert_relative(std, fit.spread * np.sqrt(np.diag(cov)), 1e-8)
    assert_equal(fit.model.predict(rows), mean)


def test_the_noise_adds_to_the_variance_of_a_new_observation(fit: Fit) -> None:
    rows = fit.rows(12)
    _, std = fit.model.predict(rows, return_std=True)
    mean, total = fit.model.predict(rows, return_std=True, include_noise=True)
    assert_equal(mean, fit.model.predict(rows))
    assert_close(total, np.sqrt(std**2 + fit.model.noise_**2))
    assert_close(fit.model.noise_, fit.spread * np.sqrt(fit.dense.noise_variance))


def test_log_evidence_is_the_dense_one_in_the_unit_of_y(fit: Fit) -> None:
    want = fit.dense.log_evidence(fit.points, fit.z) - fit.y.size * np.log(fit.spread)
    assert_close(fit.model.log_evidence_, float(want), factor=1e8)


def test_learning_raises_the_evidence(fit: Fit) -> None:
    start = FunctionalTucker(**fit.model.get_params() | {"max_iter": 0}).fit(fit.X, fit.y)
    assert_above(fit.model.log_evidence_, start.log_evidence_ + 1e-3, "log evidence")


def test_mode_posteriors_are_dense_averages_over_the_observed_indices(fit: Fit) -> None:
    grids = scaled(fit.model, [np.asarray(index) for index in fit.model.indices_])
    for mode, kind in enumerate(fit.model.kinds_):
        index = fit.model.indices_[mode]
        x = index if kind == "discrete" else np.linspace(index[0] - 1, index[-1] + 1, 6)
        got_x, mean, std = fit.model.mode_posterior(mode, x)
        at = scaled(fit.model, [x if n == mode else g for n, g in enumerate(fit.model.indices_)])[mode]
        want, variance = fit.dense.marginal(fit.points, fit.z, mode, at, grids)
        assert_equal(got_x, x)
        assert_relative(mean, fit.y.mean() + fit.spread * want, 1e-8)
        assert_relative(std, fit.spread * np.sqrt(variance), 1e-8)


def test_mode_posterior_has_101_points_of_the_range_or_all_labels(fit: Fit) -> None:
    for mode, kind in enumerate(fit.model.kinds_):
        x, mean, std = fit.model.mode_posterior(mode)
        index = fit.model.indices_[mode]
        assert_equal(x, index if kind == "discrete" else np.linspace(index[0], index[-1], 101))
        assert_equal((mean.shape, std.shape), (x.shape, x.shape))


# --- far from the data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
def test_far_away_the_function_is_its_constant_part(kernel: str) -> None:
    X, y = smooth_table((4, 14), (0,), 60)
    model = FunctionalTucker(discrete=[0], kernel=kernel).fit(X, y)
    spread, points = float(y.std()), scaled(model, list(X.T))
    for far in (-1e9, 1e9):
        mean, std = model.predict(np.column_stack([np.arange(10.0, 14), np.full(4, far)]), return_std=True)
        # all that ties a far index to the data is the constant of its mode
        at = [np.arange(10.0, 14), np.full(4, 1e9)]
        want, cov = twin(model).predict(points, (y - y.mean()) / spread, at)
        assert_relative(mean, y.mean() + spread * want, 1e-8)
        assert_relative(std, spread * np.sqrt(np.diag(cov)), 1e-8)


def test_variance_grows_monotonically_to_the_right_of_the_data_and_never_above_the_prior() -> None:
    X, y = smooth_table((25,), (), 40)
    model = FunctionalTucker().fit(X, y)
    x = X.max() + np.linspace(0, 1e3, 200)
    _, std = model.predict(x[:, None], return_std=True)
    prior = y.std() * np.sqrt(twin(model).covariance([np.zeros(1)], [np.zeros(1)])[0, 0])
    assert_below(-np.diff(std).min(), 1e-9 * prior, "fall of the std")
    assert_below(std.max(), prior * (1 + 1e-9), "std")


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_std_is_finite_and_not_negative_on_noiseless_data(noise: float) -> None:
    x = np.linspace(0, 1, 40)
    y = np.sin(6 * x) + noise * np.random.default_rng(0).normal(size=40)
    model = FunctionalTucker(kernel="matern52").fit(x[:, None], y)
    mean, std = model.predict(np.linspace(-1, 2, 301)[:, None], return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert_above(std.min(), 0.0, "std")


def test_the_basis_left_out_shows_as_uncertainty_between_the_nodes_only() -> None:
    case = toy((None, "matern12"), 0, (9, 4))
    hyper = case.hyper(1)
    prediction = Prediction.build(case.problem(hyper), hyper)
    nodes = case.task.grids[1]
    at_nodes = prediction.at([np.zeros(4), nodes])[1]
    between = prediction.at([np.zeros(3), (nodes[1:] + nodes[:-1]) / 2])[1]
    want = case.dense(hyper).predict(case.points, case.y, [np.zeros(3), (nodes[1:] + nodes[:-1]) / 2])[1]
    assert_close(between, np.diag(want), factor=1e6)
    assert_above(between.max(), at_nodes.max(), "variance between the nodes")
