"""The filter and smoother of Gaussian sites: equal to the dense Gaussian formula, everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tenfac.bayes.exact.filter import filter_smooth
from tenfac.bayes.exact.sites import Sites
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.modes.process import Independent
from tenfac.core.modes.state_space import StateSpace
from tenfac.core.modes.still import Constant, Linear, Periodic
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_draws,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.processes import CASES, LINE, M12, M32, M52, Kernel

RNG = np.random.default_rng(5)
X = np.append(RNG.uniform(0, 6, 14), [2.0, 2.0, 2.0 + 1e-7])  # unsorted, irregular, with coinciding places
Y = np.sin(X) + RNG.standard_normal(X.size)
VARIANCE = RNG.uniform(0.05, 0.5, X.size)
AT = np.concatenate([[9.0, -4.0, 2.0, 2.0, 6.5], X[:3], RNG.uniform(-1, 7, 6), [300.0]])

every_case = pytest.mark.parametrize("name", list(CASES))
every_method = pytest.mark.parametrize("method", ["sequential", "scan"])
TOL = 1e-8


@dataclass(frozen=True)
class Dense:
    """Mean, covariance and log evidence by the Gaussian formula."""

    mean: np.ndarray
    cov: np.ndarray
    log_evidence: float


def dense(kernel: Kernel, x: np.ndarray, y: np.ndarray, variance: np.ndarray, at: np.ndarray) -> Dense:
    total, cross = kernel(x, x) + np.diag(variance), kernel(at, x)
    solved = np.linalg.solve(total, np.column_stack([y, cross.T]))
    evidence = -0.5 * (y @ solved[:, 0] + np.linalg.slogdet(total)[1] + y.size * np.log(2 * np.pi))
    return Dense(cross @ solved[:, 0], kernel(at, at) - cross @ solved[:, 1:], evidence)


def fit(name: str, method: str = "auto", **changes: Any) -> Any:
    data = {"x": X, "y": Y, "variance": VARIANCE} | changes
    sites = Sites.from_observations(data["y"], data["variance"])
    return filter_smooth(CASES[name][0], data["x"], sites, method=method)


# --- the dense formula ------------------------------------------------------------------------------------


@every_case
@every_method
def test_evidence_means_and_joint_covariance_are_those_of_the_dense_formula(name: str, method: str) -> None:
    post, want = fit(name, method), dense(CASES[name][1], X, Y, VARIANCE, AT)
    mean, variance = post.at(AT)
    scale = max(1.0, np.abs(want.cov).max())
    assert_relative(np.float64(post.log_evidence), np.float64(want.log_evidence), 1e-10, "log evidence")
    assert_below(np.abs(mean - want.mean).max(), TOL * np.sqrt(scale), "mean")
    assert_below(np.abs(variance - np.diag(want.cov)).max(), TOL * scale, "variance")
    assert_below(np.abs(post.cov(AT) - want.cov).max(), TOL * scale, "covariance")


@pytest.mark.parametrize("noise", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("name", ["matern12", "matern32", "matern52", "product"])
def test_little_noise_keeps_its_variance_and_the_mean_goes_through_the_data(name: str, noise: float) -> None:
    x = np.linspace(0, 6, 25)
    post = fit(name, x=x, y=np.sin(x), variance=noise)
    mean, variance = post.at(x)
    assert_below(np.abs(mean - np.sin(x)).max(), 30 * np.sqrt(noise), "misfit")
    assert_above(variance.min(), 0.2 * noise, "smallest variance")
    assert_below(variance.max(), noise, "largest variance")


@every_method
def test_values_of_several_functions_are_those_of_the_dense_formula(method: str) -> None:
    functions, (n, size) = [M12, 2.0 * M32, LINE + M52], (9, 3)
    kernels = [CASES["matern12"][1], lambda x, z: 2 * CASES["matern32"][1](x, z),
               lambda x, z: CASES["line"][1](x, z) + CASES["matern52"][1](x, z)]  # fmt: skip
    x, at = RNG.uniform(0, 5, n), np.array([7.0, -1.0, 2.2])
    mixing = RNG.standard_normal((n, 2, size))  # two observed combinations of three values: singular
    y, precision = RNG.standard_normal((n, size)), mixing.mT @ mixing
    post = filter_smooth(Independent(functions), x, Sites(y, precision), method=method)

    def joint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.zeros((a.size, size, b.size, size))
        for r, kernel in enumerate(kernels):
            out[:, r, :, r] = kernel(a, b)
        return out.reshape(a.size * size, b.size * size)

    # as many observations as there are combinations, with unit noise
    rows = np.zeros((n, 2, n, size))
    rows[np.arange(n), :, np.arange(n)] = mixing
    rows = rows.reshape(2 * n, n * size)
    seen = rows @ y.ravel()
    total = rows @ joint(x, x) @ rows.T + np.eye(2 * n)
    cross = joint(at, x) @ rows.T
    # the density of the observed combinations in an orthonormal basis of the range of each precision
    volume = 0.5 * np.linalg.slogdet(mixing @ mixing.mT)[1].sum()
    evidence = -0.5 * (seen @ np.linalg.solve(total, seen) + np.linalg.slogdet(2 * np.pi * total)[1]) + volume
    mean, variance = post.at(at)
    cov = joint(at, at) - cross @ np.linalg.solve(total, cross.T)
    assert_relative(np.float64(post.log_evidence), np.float64(evidence), 1e-10, "log evidence")
    assert_below(np.abs(mean.ravel() - cross @ np.linalg.solve(total, seen)).max(), TOL, "mean")
    assert_below(np.abs(post.cov(at).reshape(cov.shape) - cov).max(), TOL, "covariance")
    assert_below(np.abs(variance[1] - cov[3:6, 3:6]).max(), TOL, "variance")


@every_case
def test_mean_of_a_derivative_is_the_derivative_of_the_mean(name: str) -> None:
    post, step = fit(name), 1e-4
    at = np.array([-2.0, 0.5, 3.7, 8.0])
    if CASES[name][0].smoothness < 1:
        with pytest.raises(DataError) as error:
            post.at(at, derivative=1)
        assert_says(error, "`derivative`", "at most 0", "got 1", "smoother")
        return
    ahead, behind = post.at(at + step)[0], post.at(at - step)[0]
    slope, variance = post.at(at, derivative=1)
    assert_below(np.abs(slope - (ahead - behind) / (2 * step)).max(), 1e-5, "slope")
    both = post.cov(np.concatenate([at + step, at - step]))
    m = at.size
    cov = (both[:m, :m] - both[:m, m:] - both[m:, :m] + both[m:, m:]) / (4 * step**2)
    assert_below(np.abs(np.diag(cov) - variance).max(), 2e-3 * max(1.0, variance.max()), "variance of slope")
    assert_close(np.diag(post.cov(at, derivative=1)).copy(), variance, factor=1e5)


def test_second_derivatives_are_those_of_the_dense_kernel() -> None:
    post, step = fit("trend and season"), 1e-3
    at = np.array([-2.0, 0.5, 3.7])
    around = [post.at(at + shift)[0] for shift in (-step, 0.0, step)]
    want = (around[0] - 2 * around[1] + around[2]) / step**2
    # Matérn-5/2 has a second derivative, which is continuous but rough
    assert_below(np.abs(post.at(at, derivative=2)[0] - want).max(), 2e-3, "second derivative")


# --- samples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["matern32", "quasi-periodic", "sum"])
def test_draws_have_the_posterior_mean_and_covariance(name: str) -> None:
    post, at, n = fit(name), np.array([7.0, 2.0, 0.3, -3.0, 4.4]), 20_000
    assert_draws(post.sample(n, at, random_state=0), post.at(at)[0], post.cov(at))


def test_draws_repeat_with_their_seed_and_agree_at_coinciding_places() -> None:
    post = fit("matern32")
    draws = post.sample(3, [2.5, -1.0, 2.5], random_state=7)
    assert_equal(draws, post.sample(3, [2.5, -1.0, 2.5], random_state=7))
    assert_equal(draws[:, 0], draws[:, 2])
    assert_above(np.abs(draws[:, 0] - draws[:, 1]).min(), 1e-3, "difference between places")
    assert_equal(post.sample(0, [1.0]).shape, (0, 1))
    assert_equal(post.sample(2, []).shape, (2, 0))


# --- invariances ------------------------------------------------------------------------------------------


@every_case
def test_order_of_rows_and_direction_of_the_axis_change_nothing(name: str) -> None:
    post, order = fit(name), np.random.default_rng(2).permutation(X.size)
    shuffled = fit(name, x=X[order], y=Y[order], variance=VARIANCE[order])
    assert_below(np.abs(np.subtract(shuffled.at(AT), post.at(AT))).max(), TOL, "rows shuffled")
    # the line's center stays where it is: reversed about it
    reversed_ = fit(name, x=4.0 - X)
    assert_below(np.abs(np.subtract(reversed_.at(4.0 - AT), post.at(AT)))[:, :-1].max(), TOL, "axis reversed")
    assert_relative(np.float64(reversed_.log_evidence), np.float64(post.log_evidence), 1e-10)


@pytest.mark.parametrize("name", ["matern52", "quasi-periodic"])
def test_rows_repeated_are_weights_and_a_zero_precision_is_no_row(name: str) -> None:
    twice = fit(name, x=np.tile(X, 2), y=np.tile(Y, 2), variance=np.tile(VARIANCE, 2))
    heavy = fit(name, variance=VARIANCE / 2)
    assert_below(np.abs(np.subtract(twice.at(AT), heavy.at(AT))).max(), TOL, "weights")
    gone = fit(name, x=np.append(X, [1.1, 50.0]), y=np.append(Y, [3.0, 9.0]),
               variance=np.append(VARIANCE, [np.inf, np.inf]))  # fmt: skip
    assert_below(np.abs(np.subtract(gone.at(AT), fit(name).at(AT))).max(), TOL, "missing")
    assert_close(np.float64(gone.log_evidence), float(fit(name).log_evidence), factor=1e4)


def test_the_mean_of_a_missing_site_is_not_read() -> None:
    holes, precision = Y.copy(), 1 / VARIANCE
    holes[3], precision[3] = np.nan, 0.0
    post = filter_smooth(M32, X, Sites(holes, precision))
    rest = filter_smooth(M32, np.delete(X, 3), Sites(np.delete(Y, 3), np.delete(precision, 3)))
    assert_below(np.abs(np.subtract(post.at(AT), rest.at(AT))).max(), TOL, "means and variances")


@pytest.mark.parametrize("name", ["matern12", "matern32", "matern52", "quasi-periodic", "product"])
def test_a_place_a_million_lengthscales_away_has_the_prior(name: str) -> None:
    mean, variance = fit(name).at([1e6, -1e6])
    assert_equal(np.abs(mean).max() < 1e-300, True)
    assert_close(variance, np.ones(2))


def test_a_million_lengthscales_between_sites_make_two_fits_of_one() -> None:
    far = fit("matern52", x=np.append(X, X + 1e7), y=np.tile(Y, 2), variance=np.tile(VARIANCE, 2))
    near = fit("matern52")
    assert_below(np.abs(np.subtract(far.at(AT[:-1]), near.at(AT[:-1]))).max(), TOL, "left half")
    assert_relative(np.float64(far.log_evidence), 2 * np.float64(near.log_evidence), 1e-6)


def test_without_sites_the_posterior_is_the_prior() -> None:
    post = fit("sum", x=[], y=np.zeros(0), variance=np.zeros(0) + 1)
    mean, variance = post.at([3.0, -1.0])
    assert_equal((mean.tolist(), float(post.log_evidence)), ([0.0, 0.0], 0.0))
    assert_close(variance, np.full(2, 3.0))
    assert_close(post.cov([3.0, -1.0]), CASES["sum"][1](np.array([3.0, -1.0]), np.array([3.0, -1.0])))


@every_method
def test_one_site_is_enough(method: str) -> None:
    post = fit("matern32", method, x=[1.0], y=np.array([2.0]), variance=1.0)
    assert_close(np.array(post.at([1.0])).ravel(), np.array([1.0, 0.5]))


def test_a_variance_is_never_negative() -> None:
    x = np.sort(np.random.default_rng(0).uniform(0, 1, 300))
    post = fit("matern52", x=x, y=np.sin(9 * x), variance=1e-7)
    assert_above(post.at(np.linspace(-1, 2, 500))[1].min(), 0.0, "smallest variance")
    assert_above(np.linalg.eigvalsh(post.cov(np.linspace(0, 1, 60))).min(), -1e-14, "smallest eigenvalue")


# --- libraries and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_comes_back_has_the_library_and_dtype_of_the_sites(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    want = fit("sum")
    for y in (Y.astype(dtype), torch.from_numpy(Y.astype(dtype))):
        post = fit("sum", y=y, variance=VARIANCE)
        mean, variance = post.at(AT)
        for got, like in ((mean, want.at(AT)[0]), (variance, want.at(AT)[1]), (post.cov(AT), want.cov(AT))):
            assert_same_kind(got, y)
            bound = 1e-9 if dtype == "float64" else 1e-5
            assert_below(np.abs(to_numpy(got) - like).max(), bound, "difference to numpy in float64")
        assert_same_kind(post.sample(2, AT, random_state=0), y)


@every_method
def test_log_evidence_and_means_have_gradients_by_every_hyperparameter(method: str) -> None:
    torch = pytest.importorskip("torch")
    x, y = torch.from_numpy(X[9:]), torch.from_numpy(Y[9:])

    def answers(length: Any, level: Any, slope: Any, width: Any, noise: Any) -> tuple[Any, ...]:
        season = Periodic(3.0, width, terms=1) * StateSpace("matern12", 2.0)
        prior = level * StateSpace("matern52", length) + Linear(slope) + season
        post = filter_smooth(prior, x, Sites.from_observations(y, noise), method=method)
        return post.log_evidence, *post.at([-1.0, 2.0, 3.3])

    start = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.2, 0.8, 0.3, 0.9, 0.2)]
    assert torch.autograd.gradcheck(answers, start)


# --- the door ---------------------------------------------------------------------------------------------


def assert_refused(kind: type[Exception], *parts: str, **changes: Any) -> None:
    call = {"prior": M32, "positions": X, "sites": Sites(Y, 1 / VARIANCE)} | changes
    with pytest.raises(kind) as error:
        filter_smooth(**call)
    assert_says(error, "filter_smooth:", *parts)


def test_what_cannot_be_used_is_refused() -> None:
    assert_refused(
        DataError, "`positions` must be finite", "nan at 2", positions=np.where(X[2] == X, np.nan, X)
    )
    assert_refused(ShapeError, "equally many", "got 3 and 17", positions=X[:3])
    assert_refused(ShapeError, "`positions`", "(17, 1)", positions=X[:, None])
    assert_refused(TypeError, "`prior`", "str", prior="matern32")
    assert_refused(TypeError, "`sites`", "ndarray", "from_observations", sites=Y)
    assert_refused(DataError, "`method`", "auto, sequential, scan", "'fast'", method="fast")
    assert_refused(DataError, "`lengthscale`", "-1.0", prior=StateSpace("matern32", -1.0))
    assert_refused(
        ShapeError, "one value each", "(17, 2)", sites=Sites(np.zeros((17, 2)), np.zeros((17, 2, 2)))
    )
    assert_refused(ShapeError, "2 values each", "(17,)", prior=Independent((M12, M32)))


def test_tensors_in_the_prior_need_sites_in_torch() -> None:
    torch = pytest.importorskip("torch")
    assert_refused(
        TypeError, "torch", "numpy", prior=Constant(1.0) + StateSpace("matern32", torch.tensor(1.0))
    )


def test_bad_queries_are_refused() -> None:
    post = fit("matern32")
    with pytest.raises(DataError) as error:
        post.at([0.0, np.inf])
    assert_says(error, "`x` must be finite", "inf at 1")
    for bad in (-1, 1.0, True):
        with pytest.raises(DataError) as error:
            post.at([0.0], derivative=bad)
        assert_says(error, "`derivative`", repr(bad))
    with pytest.raises(DataError) as error:
        post.sample(-1, [0.0])
    assert_says(error, "`n`", "-1")


def test_sites_that_leave_no_noise_are_refused_rather_than_answered_wrongly() -> None:
    x = np.append(np.linspace(0, 5, 8), np.linspace(0, 5, 8) + 1e-5)
    sites, prior = Sites.from_observations(np.sin(x), 1e-11), Constant(1.0) + Linear(1.0) + M52
    post = filter_smooth(prior, x, sites)
    one_by_one = filter_smooth(prior, x, sites, method="sequential")
    assert_equal(float(post.log_evidence), float(one_by_one.log_evidence))
    with pytest.raises(DataError) as error:
        post.at([0.0])
    assert_says(error, "noise", "prior standard deviations", "Lower the precisions")
    with pytest.raises(DataError) as error:
        filter_smooth(prior, x, sites, method="scan")
    assert_says(error, "filter_smooth:", "Lower the precisions", "method='sequential'")


@pytest.mark.parametrize(
    ("mean", "precision", "parts"),
    [
        ([1.0, 2.0], [1.0, -1.0], ("`precision` must be 0 or more", "-1.0")),
        ([1.0, 2.0], [1.0, np.inf], ("`precision` must be finite",)),
        ([1.0, np.nan], [1.0, 1.0], ("`mean` must be finite", "nan at 1", "precision 0")),
        ([[1.0, 2.0]], [[[1.0, 2.0], [2.0, 1.0]]], ("positive semidefinite", "-1")),
        ([[1.0, 2.0]], [[[1.0, 2.0], [0.0, 1.0]]], ("symmetric",)),
    ],
)
def test_bad_sites_are_refused(mean: Any, precision: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        Sites(np.array(mean), np.array(precision))
    assert_says(error, "Sites:", *parts)


def test_sites_of_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError) as error:
        Sites(np.zeros(3), np.zeros(2))
    assert_says(error, "(3,)", "(2,)")
    with pytest.raises(DataError) as error:
        Sites.from_observations(np.zeros(2), 0.0)
    assert_says(error, "`variance` must be above 0", "0.0")
    with pytest.raises(ShapeError) as error:
        Sites.from_observations(np.zeros((2, 1)), 1.0)
    assert_says(error, "`y`", "(2, 1)")


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("variance", [1e-200, 1e-14, 1e-12, 1e-3, 1e200])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e9])
def test_extreme_noise_and_places_give_finite_numbers_or_a_refusal(
    name: str, variance: float, unit: float
) -> None:
    try:
        post = fit(name, x=X * unit, variance=variance)
        answers = [
            post.log_evidence,
            *post.at(AT * unit),
            post.cov(AT[:4] * unit),
            post.sample(2, AT[:4] * unit),
        ]
    except DataError as error:
        assert_says(error, "noise")
        return
    assert_equal([bool(np.isfinite(answer).all()) for answer in answers], [True] * 5)
    assert_above(answers[2].min(), 0.0, "smallest variance")


def test_sites_are_real_numbers_of_numpy_or_torch() -> None:
    with pytest.raises(DataError) as error:
        Sites(np.zeros(2) * 1j, np.ones(2))
    assert_says(error, "Sites:", "complex128")
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError) as other:
        Sites(jnp.zeros(2), jnp.ones(2))
    assert_says(other, "Sites:", "numpy or torch", "jax")


def test_what_is_printed_says_what_it_is() -> None:
    assert_equal(repr(Sites(np.zeros((3, 2)), np.zeros((3, 2, 2)))), "Sites(3 of 2 values, 3 missing)")
    assert_says(repr(fit("matern32")), "ProcessPosterior(17 sites, state of 2, log_evidence=-")


def test_a_posterior_with_a_gradient_is_printed_without_a_warning() -> None:
    torch = pytest.importorskip("torch")
    prior = StateSpace("matern32", torch.tensor(1.0, dtype=torch.float64, requires_grad=True))
    post = filter_smooth(prior, X, Sites(torch.from_numpy(Y), torch.from_numpy(1 / VARIANCE)))
    assert_says(repr(post), "17 sites")
    assert_equal(post.sample(2, AT, random_state=0).requires_grad, False)
