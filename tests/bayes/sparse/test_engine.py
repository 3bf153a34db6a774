"""The engine against dense formulas: evidence, its derivatives, the noise, gains of columns, posterior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from tenfac.bayes.sparse.ascent import Options, climb, first_state
from tenfac.bayes.sparse.evidence import kronecker_log_evidence
from tenfac.bayes.sparse.problem import Problem, problem_of
from tenfac.bayes.sparse.pruning import all_gains, pruned
from tenfac.bayes.sparse.statistics import evidence, moments, noise_ratio, weight_ratios
from tenfac.bayes.sparse.updates import in_front, sweep
from tenfac.core.errors import DataError
from tests.bayes.sparse.dense import Dense, kron_dense, sparse_problem
from tests.checks import assert_close, assert_equal

SHAPES = [((5,), (9,)), ((3, 6), (5, 4)), ((2, 3, 4), (3, 5, 2)), ((2, 3, 1, 2), (3, 2, 2, 4))]
CASES = [
    *((*shape, False, t) for shape, t in zip(SHAPES, (1, 2, 1, 2), strict=True)),
    *((*shape, True, t) for shape, t in zip(SHAPES, (1, 2, 1, 2), strict=True)),
]


def state_of(rows: Any, columns: Any, complex_: bool, snapshots: int, coupled: bool = False) -> Any:
    """A problem, a state with random weights, and the same as a dense problem."""
    rng = np.random.default_rng(1)
    factors, y, _, _ = sparse_problem(rows, columns, 2, snapshots=snapshots, complex_=complex_, snr_db=5)
    coupling = [np.eye(n) + 0.5 * np.eye(n, k=1) for n in columns] if coupled else None
    problem = problem_of(factors, y, snapshots=True, coupling=coupling)
    weights = [rng.gamma(0.5, size=n) + 0.01 for n in columns]
    return problem, first_state(problem, weights, 0.3), weights


def dense_of(problem: Problem, weights: list[np.ndarray], noise: float) -> Dense:
    gammas = [w if c is None else c @ w for w, c in zip(weights, problem.coupling, strict=True)]
    y = problem.measured.reshape(-1, problem.measured.shape[-1])
    return Dense(kron_dense(problem.factors), y, kron_dense(gammas).ravel(), noise)


def dense_slope(problem: Problem, weights: list[np.ndarray], noise: float, i: int, j: int) -> float:
    """Derivative of the dense evidence by the logarithm of one weight."""
    dense = dense_of(problem, weights, noise)
    one = weights[i] * (np.arange(len(weights[i])) == j)
    along = dense_of(problem, [*weights[:i], one, *weights[i + 1 :]], noise).gammas
    explained = np.sum(np.abs(dense.A.conj().T @ np.linalg.solve(dense.covariance, dense.y)) ** 2, axis=1)
    taken = np.sum(dense.A.conj() * np.linalg.solve(dense.covariance, dense.A), axis=0).real
    return float(problem.sizes.half * along @ (explained - dense.y.shape[1] * taken))


@pytest.mark.parametrize(("rows", "columns", "complex_", "snapshots"), CASES)
def test_evidence_and_noise_step_are_those_of_dense_matrices(
    rows: Any, columns: Any, complex_: bool, snapshots: int
) -> None:
    problem, state, weights = state_of(rows, columns, complex_, snapshots)
    sums = moments(state, problem.sizes, problem.xp)
    dense = dense_of(problem, weights, 0.3)
    assert_close(evidence(state, sums, problem.sizes), dense.evidence, 1e3)
    taken = np.sum(1 - np.diag(dense.posterior).real / dense.gammas)
    residual = np.sum(np.abs(dense.y - dense.A @ dense.mean) ** 2) / snapshots
    fixed_point = residual / (len(dense.A) - taken)
    assert_close(0.3 * noise_ratio(state, sums, problem.sizes), float(fixed_point), 1e4)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(("rows", "columns", "complex_", "snapshots"), CASES[2:7:2])
def test_ratios_of_weights_are_the_derivative_of_the_dense_evidence(
    rows: Any, columns: Any, complex_: bool, snapshots: int, coupled: bool
) -> None:
    problem, state, weights = state_of(rows, columns, complex_, snapshots, coupled)
    xp, sizes, turned = problem.xp, problem.sizes, state.turned
    for i in range(len(rows)):
        above, below = weight_ratios(state.modes, i, turned, 0.3, sizes, xp)
        slope = sizes.half * weights[i] * (above - below)
        want = [dense_slope(problem, weights, 0.3, i, j) for j in range(len(weights[i]))]
        assert_close(slope, np.array(want), 1e4)
        turned = in_front(turned.T, list(state.modes), i + 1, sizes, xp)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(("rows", "columns", "complex_", "snapshots"), CASES[1:8:2])
def test_the_gain_of_a_column_is_the_dense_evidence_without_it(
    rows: Any, columns: Any, complex_: bool, snapshots: int, coupled: bool
) -> None:
    problem, state, weights = state_of(rows, columns, complex_, snapshots, coupled)
    here = dense_of(problem, weights, 0.3).evidence
    for i, gains in enumerate(all_gains(state, problem.sizes, problem.xp)):
        for j, gain in enumerate(gains):
            without = weights[i] * (np.arange(len(weights[i])) != j)
            there = dense_of(problem, [*weights[:i], without, *weights[i + 1 :]], 0.3).evidence
            assert_close(float(gain), here - there, 1e4, scale=abs(here))


@pytest.mark.parametrize("exponent", [1.0, 0.5])
@pytest.mark.parametrize(("rows", "columns", "complex_", "snapshots"), CASES[1:8:3])
def test_after_sweeps_the_state_has_the_evidence_of_its_own_hyperparameters(
    rows: Any, columns: Any, complex_: bool, snapshots: int, exponent: float
) -> None:
    problem, state, _ = state_of(rows, columns, complex_, snapshots)
    xp, sizes = problem.xp, problem.sizes
    for _ in range(6):
        state = sweep(state, moments(state, sizes, xp), sizes, exponent, True, xp)
    weights = [np.zeros(n) for n in columns]
    for weight, mode in zip(weights, state.modes, strict=True):
        weight[mode.labels] = mode.weights
    dense = dense_of(problem, weights, state.noise)
    assert_close(evidence(state, moments(state, sizes, xp), sizes), dense.evidence, 1e4)


@pytest.mark.parametrize(("share", "left"), [(1.01, [0, 1]), (0.99, [0, 1, 2])])
def test_a_column_goes_if_its_gain_is_below_the_level_shared_among_all_modes(share: float, left: Any) -> None:
    problem = problem_of([np.eye(3), np.eye(2)], np.array([[4.0, 4.5], [4.0, 5.0], [2.5, 3.0]]))
    state = first_state(problem, [np.ones(3), np.ones(2)], 0.1)
    xp, sizes = problem.xp, problem.sizes
    least = float(all_gains(state, sizes, xp)[0][2])
    alpha = 5 * chi2.sf(2 * share * least, 1) / 2  # five columns in all
    slimmer = pruned(state, moments(state, sizes, xp), sizes, alpha, xp) or state
    assert_equal([mode.labels.tolist() for mode in slimmer.modes], [left, [0, 1]])


def test_a_sweep_that_loses_is_done_again_the_monotone_way(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, state, _ = state_of((3, 6), (5, 4), False, 2)
    xp, sizes = problem.xp, problem.sizes
    want = climb(state, sizes, Options(None, 0.5, 0.0, 2000, 1e-9), xp)

    def losing(*given: Any) -> Any:
        new = sweep(*given)
        return new if given[3] < 1.0 else new._replace(noise=100 * new.noise)

    monkeypatch.setattr("tenfac.bayes.sparse.ascent.sweep", losing)
    found = climb(state, sizes, Options(None, 1.0, 0.0, 2000, 1e-9), xp)
    assert_equal(found.trace, want.trace)


def test_sums_over_blocks_are_those_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, state, _ = state_of((3, 6), (5, 4), True, 2)
    xp, sizes = problem.xp, problem.sizes

    def found() -> np.ndarray:
        ratios = weight_ratios(state.modes, 0, state.turned, 0.3, sizes, xp)
        return np.concatenate([moments(state, sizes, xp), *ratios, *all_gains(state, sizes, xp)])

    want = found()
    monkeypatch.setattr("tenfac.bayes.sparse.statistics._BLOCK", 8)
    monkeypatch.setattr("tenfac.bayes.sparse.pruning._BLOCK", 8)
    assert_close(found(), want, 100)


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_a_sweep_takes_the_power_of_the_ratios_of_noise_and_weights(exponent: float) -> None:
    problem, state, weights = state_of((3, 6), (5, 4), False, 2)
    xp, sizes = problem.xp, problem.sizes
    sums = moments(state, sizes, xp)
    new = sweep(state, sums, sizes, exponent, True, xp)
    assert_close(new.noise, 0.3 * noise_ratio(state, sums, sizes) ** exponent, 10)
    above, below = weight_ratios(state.modes, 0, state.turned, new.noise, sizes, xp)
    assert_close(new.modes[0].weights, weights[0] * (above / below) ** exponent, 100)


@pytest.mark.parametrize(("rows", "columns", "complex_", "snapshots"), CASES)
def test_kronecker_log_evidence_is_that_of_dense_matrices(
    rows: Any, columns: Any, complex_: bool, snapshots: int
) -> None:
    problem, _, weights = state_of(rows, columns, complex_, snapshots)
    weights[0][0] = 0.0
    got = kronecker_log_evidence(problem.factors, problem.measured, weights, 0.3**0.5, snapshots=True)
    assert_close(float(got), dense_of(problem, weights, 0.3).evidence, 1e3)


@pytest.mark.parametrize("complex_", [False, True])
def test_derivatives_of_the_log_evidence_by_everything_are_exact(complex_: bool) -> None:
    torch = pytest.importorskip("torch")
    problem, _, weights = state_of((2, 4, 1), (3, 2, 2), complex_, 2)
    weights[0][1] = weights[0][0]
    numbers = [*problem.factors, problem.measured, *weights, np.array(0.3)]
    tensors = [torch.from_numpy(np.array(one)).requires_grad_() for one in numbers]

    def value(*given: Any) -> Any:
        return kronecker_log_evidence(given[:3], given[3], given[4:7], given[7], snapshots=True)

    assert torch.autograd.gradcheck(value, tensors)


def test_equal_eigenvalues_and_zero_variances_do_not_spoil_derivatives() -> None:
    torch = pytest.importorskip("torch")
    factors = [torch.eye(3, dtype=torch.float64).requires_grad_(), torch.eye(2, 4, dtype=torch.float64)]
    gammas = [torch.tensor([1.0, 1.0, 0.0]).double().requires_grad_(), torch.ones(4).double()]
    y = torch.arange(6.0).double().reshape(3, 2)
    kronecker_log_evidence(factors, y, gammas, 0.5**0.5).backward()
    below = 2 / 1.5  # two measurements of variance 1.5, or of 0.5 where the variance is zero
    want = np.array([1 / 1.5**2 - below, 13 / 1.5**2 - below, 41 / 0.5**2 - 4]) / 2
    assert_close(gammas[0].grad.numpy(), want, 100)


@pytest.mark.parametrize(
    ("y", "gamma", "noise", "words"),
    [
        (np.nan, 1.0, 1.0, "Y must be finite"),
        (1.0, np.inf, 1.0, r"gammas\[0\] must be nonnegative and finite"),
        (1.0, 1j, 1.0, r"gammas\[0\] must be real"),
        (1.0, 1.0, np.inf, "`noise` must be a positive standard deviation"),
        (1.0, 1.0, "1", "`noise` must be a positive standard deviation"),
    ],
)
def test_what_has_no_log_evidence_is_refused(y: Any, gamma: Any, noise: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        kronecker_log_evidence([np.eye(2)], np.full(2, y), [np.full(2, gamma)], noise)
