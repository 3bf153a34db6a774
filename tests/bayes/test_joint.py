"""Joint covariances, draws, derivatives and factor functions equal those of N x N matrices."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tenfac.bayes.collapsed.prediction as prediction_module
from tenfac import DataError, FunctionalTucker, RankError
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.mode_functions import mode_functions
from tests.bayes.toys import TOYS, Toy, scaled, smooth_table, toy, twin
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_draws,
    assert_equal,
    assert_relative,
    assert_says,
    quietly,
)
from tests.oracles import bent_axis

every_toy = pytest.mark.parametrize("case", TOYS.values(), ids=TOYS.keys())
SMALL = {
    "exact continuous": toy(("matern32", "matern12", None), 0, (6, 4, 3)),
    "exact discrete": toy((None, "matern32", "matern52"), 0, (6, 4, 3)),
    "alike levels": toy((None, "matern32", None), 0, (5, 4, 3), label_rank=2),
    "D = 1": toy(("matern52",), 0, (12,)),
}


def built(case: Toy) -> Prediction:
    return Prediction.build(case.problem(case.hyper(1)), case.hyper(1))


# --- covariance -------------------------------------------------------------------------------------------


@every_toy
def test_joint_covariance_is_the_dense_one_at_seen_and_unseen_points(case: Toy) -> None:
    at = case.at(50)
    mean, cov, noise = built(case).cov(at)
    want, want_cov = case.dense(case.hyper(1)).predict(case.points, case.y, at)
    assert_close(mean, want, factor=1e5)
    assert_close(cov, want_cov, factor=1e5)
    assert_close(noise, np.full(50, np.exp(case.hyper(1).noise)))


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
@pytest.mark.parametrize("sizes", [(20,), (4, 9)])
def test_predict_gives_the_dense_covariance_in_the_unit_of_y(kernel: str, sizes: tuple[int, ...]) -> None:
    X, y = smooth_table(sizes, (0,) if len(sizes) > 1 else (), 40)
    model = FunctionalTucker(discrete=[0] if len(sizes) > 1 else None, kernel=kernel, max_iter=0).fit(X, y)
    rows = X[:12].copy()
    rows[3:, -1] = np.linspace(X[:, -1].min() - 30, X[:, -1].max() + 30, 9)
    mean, cov = model.predict(rows, return_cov=True)
    points = scaled(model, list(X.T))
    want, want_cov = twin(model).predict(points, (y - y.mean()) / y.std(), scaled(model, list(rows.T)))
    assert_relative(mean, y.mean() + y.std() * want, 1e-8)
    assert_relative(cov, y.var() * want_cov, 1e-8)
    std = model.predict(rows, return_std=True)[1]
    assert_close(np.sqrt(np.diag(cov)), std, factor=1e5)
    noisy = model.predict(rows, return_cov=True, include_noise=True)[1]
    assert_close(noisy, cov + model.noise_**2 * np.eye(12))


def test_covariance_of_a_log_response_is_that_of_log_normal_values() -> None:
    X, y = smooth_table((4, 5), (0,), 40, seed=3)
    model = FunctionalTucker(discrete=[0], response="log", max_iter=0).fit(X, np.exp(y / 20))
    mean, cov = model.predict(X[:6], return_cov=True)
    want, want_std = model.predict(X[:6], return_std=True)
    assert_close(mean, want)
    assert_close(np.sqrt(np.diag(cov)), want_std, factor=1e5)
    draws = model.sample(X[:6], 40_000)
    error = np.abs(np.cov(draws.T) - cov).max() / np.diag(cov).max()
    assert_below(error, 8 / np.sqrt(40_000), "distance from the covariance of draws")


# --- what a cut rank leaves out ---------------------------------------------------------------------------


def cut() -> Prediction:
    case = toy(("matern32", "matern12", "matern32"), 0, (8, 7, 6))
    task = Toy(case.kernels, case.task).task
    hyper = case.hyper(1)
    task = type(task)(**{**vars(task), "most": 5})
    return Prediction.build(task.problem(hyper), hyper)


def test_marginals_of_a_cut_rank_are_averages_of_the_joint_covariance() -> None:
    post = cut()
    assert_above(post.missing_share, 0.01, "share of variance left out")
    grids = [post.problem.positions, *(basis.nodes for basis in post.problem.basis.bases)]
    x = np.array([-0.2, 0.0, 0.37, 1.0])
    for mode in range(3):
        axes = [x if n == mode else grid for n, grid in enumerate(grids)]
        mesh = [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
        mean, cov, _ = post.cov(mesh)
        shape, others = tuple(len(axis) for axis in axes), tuple(n for n in range(3) if n != mode)
        want = cov.reshape(shape * 2).mean(axis=others + tuple(3 + n for n in others))
        got = post.marginal(mode, x)
        assert_close(got[0], mean.reshape(shape).mean(axis=others), factor=1e5)
        assert_close(got[1], np.diag(want), factor=1e5)


def test_variance_and_noise_of_a_cut_rank_are_those_of_single_predictions(monkeypatch) -> None:
    post = cut()
    at = [np.random.default_rng(n).uniform(-0.2, 1.2, 40) for n in range(3)]
    _, cov, noise = post.cov(at)
    _, variance, noisy = post.at(at)
    assert_close(np.diag(cov), variance, factor=1e4)
    assert_close(np.diag(cov) + noise, noisy, factor=1e4)
    assert_above(np.linalg.eigvalsh(cov)[0], -1e-10, "smallest eigenvalue")
    for most in (1024, 7):
        monkeypatch.setattr(prediction_module, "_JOINT", most)
        draws = post.sample(at, 8000, np.random.default_rng(0), include_noise=True)
        assert_below(np.abs(draws.var(axis=0) / noisy - 1).max(), 6 * np.sqrt(2 / 8000), "variance of draws")


# --- draws ------------------------------------------------------------------------------------------------


@every_toy
def test_draws_have_the_dense_mean_and_covariance(case: Toy) -> None:
    at, count = case.at(24), 5000
    draws = built(case).sample(at, count, np.random.default_rng(1))
    mean, cov = case.dense(case.hyper(1)).predict(case.points, case.y, at)
    assert_draws(draws, mean, cov, errors=5.5)


def table_fit(**settings: Any) -> tuple[FunctionalTucker, dict[str, Any], np.ndarray]:
    X, y = smooth_table((3, 6), (0,), 30, seed=1)
    table = {"cell": np.array([f"c{v:.0f}" for v in X[:, 0]]), "time": X[:, 1]}
    y = np.exp(y / 12) if settings.get("response") else y
    return FunctionalTucker(max_iter=0, **settings).fit(table, y), table, y


def test_draws_repeat_with_the_seed_and_agree_at_equal_rows() -> None:
    model, table, _ = table_fit()
    rows = {name: np.concatenate([column[:5], column[:5]]) for name, column in table.items()}
    rows["time"] = rows["time"] + 3.0  # unseen
    one, same = (model.sample(rows, 7, random_state=3) for _ in range(2))
    assert_equal(one, same)
    assert_above(np.abs(one - model.sample(rows, 7, random_state=4)).min(), 1e-12, "difference")
    assert_close(one[:, :5], one[:, 5:], factor=1e9)  # both halves are one function: to its rounding
    assert_equal(model.sample(rows, 0).shape, (0, 10))


def test_draws_of_observations_add_independent_noise() -> None:
    model, table, _ = table_fit()
    rows = {name: column[:2].repeat(2) for name, column in table.items()}
    f = model.sample(rows, 20_000)
    y = model.sample(rows, 20_000, include_noise=True)
    assert_below(np.abs(f[:, 0] - f[:, 1]).max(), 1e-9, "difference of f at equal rows")
    spread = (y[:, 0] - y[:, 1]).var() / (2 * model.noise_**2)
    assert_below(abs(spread - 1), 5 * np.sqrt(2 / 20_000), "relative distance of the noise variance")


@pytest.mark.parametrize("response", ["log", "logit"])
def test_draws_of_a_bent_response_have_its_moments_and_bounds(response: str) -> None:
    model, table, _ = table_fit(response=response)
    rows = {name: column[:4] for name, column in table.items()}
    for noise in (False, True):
        draws = model.sample(rows, 20_000, include_noise=noise)
        low, high = model.bounds_
        assert low < draws.min()
        assert draws.max() < high
        mean, std = model.predict(rows, return_std=True, include_noise=noise)
        off = np.abs(draws.mean(axis=0) - mean) / std * np.sqrt(20_000)
        assert_below(off.max(), 4.5, "distance of the mean, in standard errors")
        assert_below(np.abs(draws.std(axis=0) / std - 1).max(), 0.06, "relative distance of the std")


# --- derivatives ------------------------------------------------------------------------------------------


def stencil(f: Callable[[float], np.ndarray], step: float = 2e-3) -> np.ndarray:
    """Derivative at 0, to order four."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def dense_derivative(case: Toy, at: list[np.ndarray], mode: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the derivative; the prior's variance by the second derivative of its kernel."""
    dense = case.dense(case.hyper(1))
    prior = dense.modes[mode]

    def cross(step: float) -> np.ndarray:
        return dense.covariance([x + step * (n == mode) for n, x in enumerate(at)], case.points)

    def bent(step: float) -> np.ndarray:
        straight = prior.smoothness == "oscillator"
        return at[mode] + step if straight else bent_axis(at[mode] + step, prior.sharpness, prior.center)

    slope = stencil(cross)
    curvature = {1.5: 3.0, 2.5: 5 / 3, "oscillator": 4 * np.pi**2}[prior.smoothness] / prior.lengthscale**2
    pairs = zip(dense.modes, at, strict=True)
    others = [other.covariance(x, x).diagonal() for n, (other, x) in enumerate(pairs) if n != mode]
    variance = dense.scale * curvature * stencil(bent) ** 2 * np.prod(others, axis=0)
    gain = np.linalg.solve(dense.observed(case.points), slope.T).T
    return gain @ case.y, variance - np.einsum("ij,ij->i", gain, slope)


@every_toy
def test_derivatives_are_the_dense_ones_inside_and_beyond_both_ends(case: Toy) -> None:
    modes = [n for n, kernel in enumerate(case.kernels) if kernel not in (None, "matern12")]
    for mode in modes:
        at, grid = case.at(14, seed=mode), case.task.grids[mode]
        middles = (grid[1:] + grid[:-1]) / 2
        at[mode] = np.resize(np.concatenate([[-0.7, -0.1, 1.2, 2.0], middles, grid[1:-1]]), 14)
        mean, variance = built(case).derivative(at, mode)
        want, want_variance = dense_derivative(case, at, mode)
        assert_relative(mean, want, 1e-7)
        assert_relative(variance, want_variance, 1e-7)
    if not modes:
        assert set(case.kernels) <= {None, "matern12"}


@pytest.mark.parametrize("mode", ["dose", "time"])
def test_the_derivative_is_the_slope_of_predict_in_the_units_of_y_and_the_column(mode: str) -> None:
    X, y = smooth_table((5, 14), (), 60)
    table = {"dose": X[:, 0], "time": X[:, 1]}
    model = FunctionalTucker(kernel="matern52", max_iter=5, tol=1e-1).fit(table, y)
    rows = {"dose": np.array([1.0, 7.0, -40.0]), "time": np.array([20.0, -61.0, 900.0])}
    step = 1e-4 * np.ptp(table[mode])
    up, down = (model.predict(rows | {mode: rows[mode] + sign * step}) for sign in (1, -1))
    mean, std = model.predict_derivative(rows, mode, return_std=True)
    assert_relative(mean, (up - down) / (2 * step), 1e-6)
    assert_equal(model.predict_derivative(rows, mode), mean)
    assert (std > 0).all()


@pytest.mark.parametrize(
    "settings", [{"response": "log"}, {"response": "logit"}, {"likelihood": "poisson"}], ids=str
)
def test_where_y_bends_the_derivative_is_the_slope_of_its_median(settings: dict[str, str]) -> None:
    x = np.linspace(0, 20, 30)
    y = np.round(20 * np.exp(np.sin(x / 4)))
    model = quietly(FunctionalTucker(kernel="matern52", max_iter=2, **settings).fit, x[:, None], y)
    at, step = np.array([[3.3], [11.0], [25.0]]), 1e-4

    def median(x: np.ndarray) -> np.ndarray:
        return model._response.observed(model._prediction.at(model._read_positions(x))[0])

    slope = (median(at + step) - median(at - step)) / (2 * step)
    assert_relative(model.predict_derivative(at, 0), slope, 1e-6)
    share = np.mean(model.sample(at, 4001) < median(at), axis=0)
    assert_below(np.abs(share - 0.5).max(), 4.5 * 0.5 / np.sqrt(4001), "draws below the median, minus a half")


def test_draws_differ_at_close_indices_as_the_derivative_says() -> None:
    X, y = smooth_table((20,), (), 40)
    model = FunctionalTucker(kernel="matern52", max_iter=0).fit(X, y)
    x, step = np.array([[0.5], [1.7], [-5.0]]), 1e-3
    draws = model.sample(np.concatenate([x - step, x + step]), 20_000)
    slopes = (draws[:, 3:] - draws[:, :3]) / (2 * step)
    mean, std = model.predict_derivative(x, 0, return_std=True)
    assert_below((np.abs(slopes.mean(axis=0) - mean) / std).max(), 4.5 / np.sqrt(20_000), "mean")
    assert_below(np.abs(slopes.std(axis=0) / std - 1).max(), 0.03, "relative distance of the std")


# --- factor functions -------------------------------------------------------------------------------------


def dense_functions(case: Toy, mode: int, x: np.ndarray, rank: int) -> tuple[Any, Any, Any]:
    """Singular vectors of the dense posterior mean on the whole grid, and f projected on their partners."""
    dense, grids = case.dense(case.hyper(1)), case.task.grids

    def on(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        axes = [axis if n == mode else grid for n, grid in enumerate(grids)]
        shape = tuple(len(part) for part in axes)
        mesh = [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
        mean, cov = dense.predict(case.points, case.y, mesh)
        first = np.moveaxis(np.arange(mean.size).reshape(shape), mode, 0).reshape(len(axis), -1)
        return mean[first], cov[first[:, :, None], first[:, None, :]]

    left, sizes, right = np.linalg.svd(on(grids[mode])[0], full_matrices=False)
    rank = min(rank, int(np.sum(sizes > 1e-7 * sizes[0])))
    left, sizes, right = left[:, :rank], sizes[:rank], right[:rank]
    signs = np.array([np.sign(column[np.argmax(np.abs(column))]) for column in left.T])
    mean, cov = on(x)
    variance = np.einsum("xjr,rj->xr", cov @ right.T, right)
    return mean @ right.T * signs / sizes, np.sqrt(variance) / sizes, sizes


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL.keys())
def test_factor_functions_are_projections_on_the_singular_vectors_of_the_dense_mean(case: Toy) -> None:
    for mode in range(len(case.kernels)):
        x = case.at(5, seed=mode)[mode]
        got = mode_functions(built(case), mode, case.task.grids[mode], x, 2)
        mean, std, sizes = dense_functions(case, mode, x, 2)
        assert_close(got.mean, mean, factor=1e6)
        assert_close(got.std, std, factor=1e6)
        assert_close(got.singular_values, sizes, factor=1e6)


def test_factor_functions_are_orthonormal_over_the_observed_indices_with_fixed_signs() -> None:
    X, y = smooth_table((3, 10, 4), (0,), 90)
    y = y - y.mean()
    models = [FunctionalTucker(discrete=[0], max_iter=0).fit(X, sign * y) for sign in (1, -1)]
    for mode in range(3):
        x, mean, _, sizes = models[0].mode_functions(mode, models[0].indices_[mode])
        assert_equal(x, models[0].indices_[mode])
        assert_close(mean.T @ mean, np.eye(mean.shape[1]), factor=1e6)
        assert (np.diff(sizes) < 0).all()
        assert (mean.max(axis=0) >= np.abs(mean).max(axis=0)).all()
        assert_close(models[1].mode_functions(mode, x)[1], mean, factor=1e6)
        assert_close(models[1].mode_functions(mode, x)[3], sizes, factor=1e6)


def test_a_separable_function_has_one_factor_function_per_mode() -> None:
    x, z = np.linspace(0, 1, 9), np.linspace(0, 1, 7)
    g, h = np.sin(5 * x), np.exp(-2 * z)
    X = np.array([[a, b] for a in x for b in z])
    y = np.outer(g, h).ravel()
    model = FunctionalTucker(max_iter=25, tol=1e-2).fit(X, y - y.mean())
    wide = np.outer(g, h) - y.mean()
    left, sizes, _ = np.linalg.svd(wide)
    _, mean, std, got = model.mode_functions(0, x, rank=2)
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(9)])[:2]
    assert_below(np.abs(got / sizes[:2] - 1).max(), 0.05, "relative distance of the singular values")
    assert_below((np.abs(mean - left[:, :2] * signs) / std).max(), 4.0, "distance in standard deviations")


def test_of_a_constant_there_are_no_factor_functions() -> None:
    model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [3.0, 3.0])
    x, mean, std, sizes = model.mode_functions(0)
    assert_equal((x.shape, mean.shape, std.shape, sizes.shape), ((101,), (101, 0), (101, 0), (0,)))


# --- far away, many rows, bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
def test_a_million_lengthscales_away_is_the_prior_and_never_nan(kernel: str) -> None:
    X, y = smooth_table((4, 14), (0,), 60)
    model = FunctionalTucker(discrete=[0], kernel=kernel, max_iter=0).fit(X, y)
    far = X[:3].copy()
    far[:, 1] = [1e9, -1e9, 2e9]
    mean, cov = model.predict(far, return_cov=True)
    points = scaled(model, list(X.T))
    want, want_cov = twin(model).predict(points, (y - y.mean()) / y.std(), scaled(model, list(far.T)))
    assert_relative(mean, y.mean() + y.std() * want, 1e-8)
    assert_relative(cov, y.var() * want_cov, 1e-8)
    assert np.isfinite(model.sample(far, 5)).all()
    _, functions, stds, _ = model.mode_functions(1, far[:, 1])
    assert np.isfinite(functions).all()
    assert np.isfinite(stds).all()
    if kernel != "matern12":
        slope, std = model.predict_derivative(far, 1, return_std=True)
        assert_equal(slope, np.zeros(3))
        assert_above(std.min(), 0.0, "std of the slope")


def test_memory_of_many_rows_is_a_few_numbers_each() -> None:
    model, _, _ = table_fit()
    count = 60_000
    rng = np.random.default_rng(0)
    rows = {"cell": np.full(count, "c10"), "time": rng.choice(np.linspace(0, 50, 200), count)}
    tracemalloc.start()
    model.predict(rows, return_std=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak / count, 300, "bytes per row")


def test_bad_input_is_refused_with_what_to_do() -> None:
    model, table, _ = table_fit()
    bent, *_ = table_fit(response="logit")
    rough = FunctionalTucker(max_iter=0, kernel="matern12").fit(table, np.arange(30.0))
    calls: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
        (lambda: model.predict(table, return_std=True, return_cov=True), ("not both",)),
        (lambda: bent.predict(table, return_cov=True), ("'logit'", "sample")),
        (lambda: model.sample(table, -1), ("`n` must be an integer from 0 up", "-1")),
        (lambda: model.sample(table, 2.5), ("`n` must be an integer from 0 up", "2.5")),
        (lambda: model.sample(table | {"time": np.full(30, np.nan)}, 1), ("'time'", "NaN")),
        (lambda: model.sample(table | {"cell": np.full(30, "c99")}, 1), ("'cell'", "'c99'")),
        (lambda: model.predict_derivative(table, "tmie"), ("no mode 'tmie'", "Did you mean time")),
        (lambda: model.predict_derivative(table, "cell"), ("'cell'", "it is discrete")),
        (lambda: rough.predict_derivative(table, "time"), ("'matern12'", "'matern32'")),
        (lambda: bent.predict_derivative(table, "time", True), ("`return_std`", "'logit'", "`sample`")),
        (lambda: model.mode_functions("time", [np.inf]), ("'time'", "infinity")),
        (lambda: model.mode_functions("time", []), ("`x` is empty",)),
        (lambda: model.mode_functions("dose"), ("no mode 'dose'",)),
    ]
    for call, says in calls:
        with pytest.raises(DataError) as error:
            call()
        assert_says(error, *says)
    with pytest.raises(RankError) as rank:
        model.mode_functions("time", rank=0)
    assert_says(rank, "`rank` must be an integer from 1 up", "0")
    many = {"cell": np.full(10_001, "c10"), "time": np.zeros(10_001)}
    with pytest.raises(DataError) as error:
        model.predict(many, return_cov=True)
    assert_says(error, "at most 10000 rows", "10001", "sample")
