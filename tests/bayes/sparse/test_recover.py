"""How often the support is found: many starts of a hard mode, and success over trials."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from tenfac import KroneckerSBL
from tenfac.bayes.sparse.ascent import Climb, Options, first_state
from tenfac.bayes.sparse.problem import problem_of
from tenfac.bayes.sparse.recover import _without_chance, empty_climb
from tenfac.bayes.sparse.statistics import moments
from tests.bayes.sparse.dense import kron_dense, sparse_problem
from tests.checks import assert_above, assert_below, assert_equal, quietly


def rank_one(
    seed: int, active: int, snr_db: float
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]:
    """The paper's synthetic setting: values that are an outer product."""
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((m, 15)) for m in (8, 12, 15)]
    support = [np.sort(rng.choice(15, active, replace=False)) for _ in factors]
    values = [rng.standard_normal(active) for _ in factors]
    parts = [a[:, s] @ v for a, s, v in zip(factors, support, values, strict=True)]
    y = np.einsum("i,j,k->ijk", *parts)
    y = y + np.sqrt(np.mean(y**2) * 10 ** (-snr_db / 10)) * rng.standard_normal(y.shape)
    return factors, y, support, np.einsum("i,j,k->ijk", *values)


def errors_of(
    model: KroneckerSBL,
    factors: list[np.ndarray],
    y: np.ndarray,
    support: list[np.ndarray],
    values: np.ndarray,
) -> tuple[float, float]:
    """Squared error of the coefficients, and that of least squares on the true support."""
    truth = np.zeros((15, 15, 15))
    truth[np.ix_(*support)] = values
    active = kron_dense([a[:, s] for a, s in zip(factors, support, strict=True)])
    oracle = np.linalg.lstsq(active, y.ravel(), rcond=None)[0] - values.ravel()
    return float(np.sum((model.coef_tensor() - truth) ** 2)), float(np.sum(oracle**2))


def test_a_mode_with_few_rows_leaves_its_local_maximum() -> None:
    factors, y, support, _ = rank_one(97, 3, 30)  # one climb ends with 8 columns of 8 rows
    model = KroneckerSBL(n_starts=1).fit(factors, y)
    assert_equal([one.tolist() for one in model.support_], [one.tolist() for one in support])


def test_hops_never_lower_the_evidence_and_are_counted() -> None:
    factors, y, _, _ = sparse_problem((4, 5), (9, 9), 2, seed=5)
    few = quietly(KroneckerSBL(n_starts=1).fit, factors, y[..., 0])
    many = quietly(KroneckerSBL(n_starts=3, n_hops=4).fit, factors, y[..., 0])
    assert_equal((few.starts_.shape, many.starts_.shape), ((1,), (7,)))
    assert_above(many.log_evidence_, few.log_evidence_ - 1e-9, "evidence after hops")
    assert_below(many.starts_.max(), many.log_evidence_ + 1e-9, "best start")


@pytest.mark.slow
def test_free_values_are_recovered_as_well_as_by_least_squares_on_the_true_support() -> None:
    errors, oracles = [], []
    for seed in range(25):
        factors, y, support, values = sparse_problem((8, 12, 15), (15, 15, 15), 3, snr_db=10, seed=seed)
        model = KroneckerSBL().fit(factors, y[..., 0])
        error, oracle = errors_of(model, factors, y[..., 0], support, values[..., 0])
        errors.append(error / np.sum(values**2))
        oracles.append(oracle / np.sum(values**2))
    assert_below(np.mean(errors) / np.mean(oracles), 1.15, "error relative to the oracle's")
    assert_equal(sum(e < 4 * o for e, o in zip(errors, oracles, strict=True)), 25)


@pytest.mark.slow
@pytest.mark.parametrize(("active", "snr_db", "most"), [(3, 20, 1), (4, 25, 3)])
def test_values_of_rank_one_are_found_though_they_leave_local_maxima(
    active: int, snr_db: float, most: int
) -> None:
    lost = 0
    for seed in range(25):
        factors, y, support, values = rank_one(seed, active, snr_db)
        error, oracle = errors_of(KroneckerSBL().fit(factors, y), factors, y, support, values)
        lost += error > 4 * oracle
    assert_below(lost, most, "failed fits of 25")


@pytest.mark.parametrize(("share", "stays"), [(0.99, False), (1.01, True)])
def test_a_model_stays_if_chance_among_all_boxes_would_not_find_one_as_good(
    share: float, stays: bool
) -> None:
    problem = problem_of([np.eye(6), np.eye(4)], np.random.default_rng(0).standard_normal((6, 4)))
    state = first_state(problem, [np.eye(6)[0] + np.eye(6)[1], np.eye(4)[2]], 0.5)
    options = Options(0.5, 1.0, 0.05, 9, 1e-5)
    level = 2 * 0.05 / (15 * 4)  # 15 pairs of 6 columns, one of 4
    value = empty_climb(problem, options).evidence + share * chi2.isf(level, 1) / 2
    found = Climb(state, moments(state, problem.sizes, problem.xp), value, (value,), True)
    assert_equal(bool(_without_chance(problem, options, found).state.modes), stays)
