"""Block updates against dense conjugate formulas, and the bound they climb."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tenfac.bayes.cep.chain import Chain
from tenfac.bayes.cep.fit import _without_excess, starting_state
from tenfac.bayes.cep.forms import CPForm, TuckerForm
from tenfac.bayes.cep.rows import Rows
from tenfac.bayes.cep.sweep import State, Sweeper
from tests.bayes.toys import SMOOTHNESS
from tests.checks import assert_above, assert_below, assert_close, assert_equal
from tests.oracles import matern_dense

KERNELS = ("matern32", None, "matern12")
SIZES = (6, 4, 9)
FORMS = {
    "cp": CPForm(3, 2, mains=True),
    "cp, no mains": CPForm(3, 2, mains=False),
    "tucker": TuckerForm((2, 1, 3)),
}


class Problem:
    """Random rows in three modes, and a state in which every block is uncertain."""

    def __init__(self, form: CPForm | TuckerForm, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.form, self.grids = form, [np.sort(rng.random(size)) for size in SIZES]
        self.codes = [rng.integers(0, size, 70) for size in SIZES]
        self.y, self.weights = rng.normal(size=70), rng.integers(1, 4, 70).astype(float)
        self.rows = Rows.of(self.codes, list(SIZES), self.y, self.weights)
        chains = [
            size if kernel is None else Chain(grid, kernel)
            for size, kernel, grid in zip(SIZES, KERNELS, self.grids, strict=True)
        ]
        self.state = self.swept(starting_state(form, chains, rng), [2, 1, 0], times=3)

    def swept(self, state: State, order: list[int], times: int = 1, **options: bool) -> State:
        sweeper = Sweeper(self.rows, self.form, order)
        for _ in range(times):
            state = sweeper.sweep(state, None, **options)
        return state

    def with_one(self, mode: int, state: State) -> tuple[np.ndarray, np.ndarray]:
        """First and second moments of the functions of a mode with the leading one."""
        f = state.functions[mode]
        mean = np.concatenate([np.ones((SIZES[mode], 1)), f.mean], axis=1)
        second = mean[:, :, None] * mean[:, None, :]
        second[:, 1:, 1:] += f.cov
        return mean, second

    def row_moments(self, n: int, state: State, leave_out: int | None) -> tuple[np.ndarray, np.ndarray]:
        """First and second moments of every term (and pair) of row n, without one mode."""
        one, two = np.ones(self.form.n_terms), np.ones((self.form.n_terms,) * 2)
        for e in range(3):
            if e != leave_out:
                first, second = (m[self.codes[e][n]] for m in self.with_one(e, state))
                index = self.form.index[e]
                one = one * first[index]
                two = two * second[np.ix_(index, index)]
        return one, two


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mode", range(3))
def test_the_functions_of_a_mode_have_their_dense_conjugate_posterior(name: str, mode: int) -> None:
    problem = Problem(FORMS[name])
    state, form = problem.state, problem.form
    size, count = SIZES[mode], form.sizes[mode] - 1
    index = form.index[mode]
    information, told = np.zeros((size, count, size, count)), np.zeros((size, count))
    for n, (y, w) in enumerate(zip(problem.y, problem.weights, strict=True)):
        one, two = problem.row_moments(n, state, mode)
        two, i = two * state.core.second, problem.codes[mode][n]
        for p, q in itertools.product(range(form.n_terms), repeat=2):
            if index[p] and index[q]:
                information[i, index[p] - 1, i, index[q] - 1] += w * two[p, q] / state.noise
            elif index[p]:
                told[i, index[p] - 1] -= w * two[p, q] / state.noise
        for p in np.flatnonzero(index):
            told[i, index[p] - 1] += w * y * one[p] * state.core.mean[p] / state.noise
    prior = np.zeros((size, count, size, count))
    f, kernel = state.functions[mode], KERNELS[mode]
    for r in range(count):
        alike = np.eye(size)
        if kernel:
            alike = matern_dense(
                problem.grids[mode], problem.grids[mode], SMOOTHNESS[kernel], f.lengthscales[r]
            )
        prior[:, r, :, r] = f.variances[r] * alike
    flat = (size * count, size * count)
    cov = np.linalg.inv(np.linalg.inv(prior.reshape(flat)) + information.reshape(flat))
    new = problem.swept(state, [mode], learn_core=False, learn_noise=False).functions[mode]
    assert_close(new.mean, (cov @ told.ravel()).reshape(size, count), factor=1e6, scale=1.0)
    blocks = cov.reshape(size, count, size, count)
    assert_close(new.cov, np.stack([blocks[i, :, i] for i in range(size)]), factor=1e6, scale=1.0)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mode", range(3))
def test_the_coefficients_have_their_dense_conjugate_posterior(name: str, mode: int) -> None:
    problem = Problem(FORMS[name])
    state = problem.swept(problem.state, [mode], learn_noise=False)
    free, core = problem.form.free, state.core
    information, told = np.diag(core.precision), np.zeros(problem.form.n_terms)
    fixed = core.mean.copy()
    fixed[free] = 0.0
    for n, (y, w) in enumerate(zip(problem.y, problem.weights, strict=True)):
        one, two = problem.row_moments(n, state, None)
        information = information + w * two / state.noise
        told += w * (y * one - two @ fixed) / state.noise
    cov = np.linalg.inv(information[np.ix_(free, free)])
    assert_close(core.mean[free], cov @ told[free], factor=1e6, scale=1.0)
    assert_close(core.cov[np.ix_(free, free)], cov, factor=1e6, scale=1.0)


@pytest.mark.parametrize("name", FORMS)
def test_the_noise_is_the_expected_squared_misfit(name: str) -> None:
    problem = Problem(FORMS[name])
    state = problem.swept(problem.state, [0])
    misfit = 0.0
    for n, (y, w) in enumerate(zip(problem.y, problem.weights, strict=True)):
        one, two = problem.row_moments(n, state, None)
        misfit += w * (y**2 - 2 * y * one @ state.core.mean + np.sum(two * state.core.second))
    assert_close(state.noise, misfit / problem.weights.sum(), factor=1e4)


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
def test_one_mode_and_one_function_is_plain_gp_regression_with_its_log_evidence(kernel: str) -> None:
    rng = np.random.default_rng(3)
    grid = np.sort(rng.random(12))
    codes, y, weights = rng.integers(0, 12, 30), rng.normal(size=30), rng.integers(1, 3, 30).astype(float)
    form = TuckerForm((1,))
    state = starting_state(form, [Chain(grid, kernel)], rng)
    coefficients = np.array([0.0, 1.0])
    state = State(
        state.functions,
        type(state.core)(coefficients, np.zeros((2, 2)), np.ones(2), 0.0),
        0.3,
        -np.inf,
    )
    sweeper = Sweeper(Rows.of([codes], [12], y, weights), form, [0])
    new = sweeper.sweep(state, None, learn_noise=False, learn_core=False)
    x, values = np.repeat(grid[codes], weights.astype(int)), np.repeat(y, weights.astype(int))
    between = matern_dense(grid, x, SMOOTHNESS[kernel], 0.3)
    prior = matern_dense(x, x, SMOOTHNESS[kernel], 0.3) + 0.3 * np.eye(x.size)
    assert_close(new.functions[0].mean[:, 0], between @ np.linalg.solve(prior, values), factor=1e6)
    quadratic, logdet = values @ np.linalg.solve(prior, values), np.linalg.slogdet(prior)[1]
    want = -0.5 * (quadratic + logdet + x.size * np.log(2 * np.pi))
    assert_close(new.bound, want, factor=1e6)


@pytest.mark.parametrize("name", FORMS)
def test_the_bound_never_falls_while_hyperparameters_stand(name: str) -> None:
    problem = Problem(FORMS[name], seed=1)
    bounds, state = [], problem.state
    for _ in range(40):
        state = problem.swept(state, [2, 0, 1])
        bounds.append(state.bound)
    assert_above(np.diff(bounds).min(), -1e-9 * abs(bounds[-1]), "smallest gain of a sweep")
    assert_above(bounds[-1] - bounds[0], 1e-3, "gain of all sweeps")


@pytest.mark.parametrize("name", FORMS)
def test_sharing_scales_between_modes_changes_neither_the_fit_nor_the_bound(name: str) -> None:
    problem = Problem(FORMS[name])
    rng = np.random.default_rng(2)
    state, form = problem.state, problem.form
    by = [np.exp(rng.normal(size=size - 1)) for size in form.sizes]
    if form.diagonal:
        products = form.products
        by[0][products] /= np.prod([b[products] for b in by], axis=0)
        for b in by:
            b[: products.start] = 1.0
    core = state.core
    if not form.diagonal:
        scale = np.ones(form.n_terms)
        for index, b in zip(form.index, by, strict=True):
            scale /= np.concatenate([[1.0], b])[index]
        core = core.rescaled(scale)
    functions = tuple(f.rescaled(b) for f, b in zip(state.functions, by, strict=True))
    uneven = State(functions, core, state.noise, state.bound)
    even = Sweeper(problem.rows, form, [0, 1, 2]).balanced(uneven)
    for got, want in zip(even.functions, state.functions, strict=True):
        assert_close(got.mean, want.mean, factor=1e3)
        assert_close(got.variances, want.variances, factor=1e3)
    assert_close(even.core.mean, state.core.mean, factor=1e3)
    assert_close(
        problem.swept(uneven, [0, 1, 2], learn_noise=False).bound,
        problem.swept(state, [0, 1, 2], learn_noise=False).bound,
        factor=1e4,
    )


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
def test_slopes_of_the_collapsed_bound_are_its_differences(kernel: str) -> None:
    rng = np.random.default_rng(4)
    chain = Chain(np.sort(rng.random(15)), kernel)
    root = rng.normal(size=(15, 2, 3))
    information, shift = root @ root.transpose(0, 2, 1), rng.normal(size=(15, 2))
    hyper = np.log(np.array([[0.2, 0.5], [1.3, 0.4]]))
    form = TuckerForm((2,))
    start = starting_state(form, [chain], rng).functions[0]
    start = type(start).start(chain, start.mean, *np.exp(hyper))
    slopes = start.updated(information, shift, True).slopes
    for i, r in itertools.product(range(2), range(2)):
        values = []
        for step in (1e-5, -1e-5):
            moved = hyper.copy()
            moved[i, r] += step
            values.append(chain.solve(information, shift, *np.exp(moved)).log_z)
        want = (values[0] - values[1]) / 2e-5
        assert_close(float(slopes[i, r]), want, factor=1e14, scale=0.1)  # a probe of 1e-3 on the lengthscale


def test_rows_in_one_block_or_in_many_have_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in FORMS.values():
        problem = Problem(form)
        whole = problem.swept(problem.state, [2, 0, 1])
        with monkeypatch.context() as patch:
            patch.setattr("tenfac.bayes.cep.rows._BYTES", 1)
            patch.setattr("tenfac.bayes.cep.rows._LEAST", 7)
            parts = problem.swept(problem.state, [2, 0, 1])
        assert_close(parts.bound, whole.bound, factor=1e4)
        assert_equal(len(problem.rows.by_mode[0].blocks(8)), 1)


def test_the_divergence_of_the_coefficients_is_that_of_two_gaussians() -> None:
    problem = Problem(FORMS["tucker"])
    core = problem.swept(problem.state, [0]).core
    for posterior in (core, core.relearned(problem.form.free)):
        trace = float(np.sum(posterior.precision * (np.diag(posterior.cov) + posterior.mean**2)))
        logdets = np.linalg.slogdet(posterior.cov)[1] + np.log(posterior.precision).sum()
        assert_close(posterior.kl, 0.5 * (trace - core.mean.size - logdets), factor=1e6)


def test_the_bound_is_the_expected_log_density_less_the_divergences() -> None:
    problem = Problem(FORMS["tucker"])
    state = problem.swept(problem.state, [2, 1, 0])
    total = problem.weights.sum()
    fitted = -0.5 * total * (np.log(2 * np.pi * state.noise) + 1)  # the noise is the mean squared misfit
    assert_close(state.bound, fitted - state.core.kl - sum(f.kl for f in state.functions), factor=1e4)


def test_one_of_two_products_that_share_the_work_of_one_is_left_out() -> None:
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 10)
    codes = [rng.integers(0, 10, 200) for _ in range(2)]
    y = np.sin(5 * grid[codes[0]]) * np.cos(4 * grid[codes[1]]) + 0.1 * rng.normal(size=200)
    form = CPForm(2, 2, mains=False)
    state = starting_state(form, [Chain(grid, "matern32")] * 2, rng)
    for f in state.functions:
        f.posterior.mean[:] = np.tile(f.posterior.mean[:, :2], 2)  # both products start alike, and stay alike
    sweeper = Sweeper(Rows.of(codes, [10, 10], y, np.ones(200)), form, [0, 1])
    climbers = sweeper.climbers(state)
    for _ in range(12):
        state = sweeper.sweep(state, climbers)
    left, _ = _without_excess(sweeper, state, [])
    assert_above(left.bound - state.bound, 0.1, "gain of the bound")
    powers = np.sort(np.mean(np.square(left.functions[0].mean), axis=0))
    assert_below(powers[0], 1e-4 * powers[1], "what was left out")
