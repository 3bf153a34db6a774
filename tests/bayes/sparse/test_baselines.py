"""Matching pursuit, the rank-one decomposition, the oracles and the metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import KroneckerOperator, KroneckerSBL
from tenfac.bayes.sparse.metrics import nmse, support_recovery_rate
from tenfac.bayes.sparse.omp import kron_omp
from tenfac.bayes.sparse.oracle import oracle_least_squares, oracle_posterior_mean
from tenfac.bayes.sparse.rank_one import rank_one_sbl
from tenfac.bayes.sparse.recovery import Recovery
from tenfac.core.errors import ConvergenceWarning, DataError, ShapeError
from tenfac.core.report import Report
from tenfac.datasets import SparseProblem, make_irs_channel, make_kronecker_sparse
from tests.bayes.sparse.published import dense_posterior, kron
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    quietly,
)

FREE = make_kronecker_sparse((6, 7, 5), 9, 2, snr_db=25, random_state=0)
COMPLEX = make_kronecker_sparse((6, 7), 9, 2, snr_db=25, complex_values=True, snapshots=3, random_state=0)
RANK1 = make_kronecker_sparse((7, 8, 9), 12, 2, snr_db=25, values="rank1", random_state=1)


def dense_on_support(problem: SparseProblem) -> tuple[Any, Any]:
    A = kron([A[:, s] for A, s in zip(problem.factors, problem.support, strict=True)])
    return A, problem.y.reshape(len(A), -1)


# --- matching pursuit ---------------------------------------------------------------------------------------


def test_omp_without_noise_finds_support_and_values() -> None:
    problem = make_kronecker_sparse((20, 22), 24, 2, snr_db=np.inf, random_state=0)
    found = kron_omp(problem.factors, problem.y, tol=1e-10)
    for got, want in zip(found.support, problem.support, strict=True):
        assert_equal(got, want)
    assert_relative(found.coef_tensor(), problem.coef_tensor(), 1e-10)
    assert found.info.converged


def test_omp_steps_are_the_largest_correlations_and_least_squares() -> None:
    found = kron_omp(FREE.factors, FREE.y, noise=FREE.noise)
    A, y = kron(FREE.factors), FREE.y.reshape(-1)
    chosen: list[set[int]] = [set(), set(), set()]
    residual, errors = y, [1.0]
    while len(errors) < len(found.info.history):
        gain = abs(A.T @ residual) / np.linalg.norm(A, axis=0)
        for i, j in enumerate(np.unravel_index(np.argmax(gain), (9, 9, 9))):
            chosen[i].add(int(j))
        sub = kron([f[:, sorted(c)] for f, c in zip(FREE.factors, chosen, strict=True)])
        values = np.linalg.lstsq(sub, y, rcond=None)[0]
        residual = y - sub @ values
        errors.append(float(np.linalg.norm(residual) / np.linalg.norm(y)))
    assert_relative(np.array(found.info.history), np.array(errors), 1e-9)
    assert_equal([rows.tolist() for rows in found.support], [sorted(c) for c in chosen])
    assert_relative(found.coef.reshape(-1), values, 1e-9)


def test_omp_stops_at_the_noise_where_the_papers_stop_fits_it() -> None:
    problem = make_kronecker_sparse((20, 22), 24, 2, snr_db=10, random_state=2)
    ours = kron_omp(problem.factors, problem.y, noise=problem.noise)
    theirs = quietly(kron_omp, problem.factors, problem.y, tol=1e-2, max_columns=10, normalize=False)
    assert_equal((ours.coef.size, theirs.coef.size), (4, 100))
    assert_above(
        nmse(theirs.coef_tensor(), problem.coef_tensor()) / nmse(ours.coef_tensor(), problem.coef_tensor()),
        5,
        "ratio of errors",
    )


def test_omp_takes_snapshots_together_and_complex_numbers() -> None:
    found = kron_omp(KroneckerOperator(*COMPLEX.factors), COMPLEX.y, noise=COMPLEX.noise, snapshots=True)
    assert_equal(found.coef.shape[-1], 3)
    assert_below(nmse(found.coef_tensor(), COMPLEX.coef_tensor()), 0.02, "error")
    with_nothing = np.concatenate([0 * COMPLEX.y[..., :1], COMPLEX.y], axis=-1)
    again = kron_omp(COMPLEX.factors, with_nothing, noise=COMPLEX.noise * (3 / 4) ** 0.5, snapshots=True)
    assert_equal([rows.tolist() for rows in again.support], [rows.tolist() for rows in found.support])


def test_an_axis_of_snapshots_is_there_or_not() -> None:
    with pytest.raises(TypeError) as caught:
        kron_omp(FREE.factors, FREE.y, tol=0.1, snapshots=2)
    assert_says(caught, "kron_omp: snapshots must be True or False; got 2")
    with pytest.raises(TypeError) as caught:
        KroneckerSBL().fit(FREE.factors, FREE.y, snapshots=2)
    assert_says(caught, "KroneckerSBL.fit: snapshots must be True or False; got 2")


def test_omp_that_runs_out_of_columns_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="Raise noise, tol or max_columns"):
        found = kron_omp(FREE.factors, FREE.y, tol=1e-6, max_columns=1)
    assert not found.info.converged
    assert_equal(found.coef.shape, (1, 1, 1))


def test_omp_of_zero_is_empty() -> None:
    found = kron_omp(FREE.factors, np.zeros((6, 7, 5)), noise=1.0)
    assert_equal(found.coef_tensor(), np.zeros((9, 9, 9)))


def test_omp_returns_the_library_and_precision_of_the_measurements(make: Any) -> None:
    like = make(6, 7)
    found = kron_omp([np.eye(6), np.eye(7)], like, tol=0.5)
    assert_same_kind(found.coef, like)
    assert_same_kind(found.coef_tensor(), like)
    assert_equal([type(columns) for columns in found.support], [type(like)] * 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "noise= or tol="),
        ({"noise": -1.0}, "`noise`"),
        ({"tol": 0.0}, "`tol`"),
        ({"tol": 2}, "between 0 and 1"),
        ({"tol": 0.1, "max_columns": 0}, "max_columns"),
    ],
)
def test_omp_refuses_what_it_cannot_stop_at(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        kron_omp(FREE.factors, FREE.y, **options)
    assert_says(caught, "kron_omp", said)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_omp_refuses_what_it_cannot_square(scale: float) -> None:
    for factors, y, name in (
        ([np.eye(3)], np.full(3, scale), "Y"),
        ([scale * np.eye(3)], np.ones(3), "factors[0]"),
    ):
        with pytest.raises(DataError) as caught:
            kron_omp(factors, y, tol=0.1)
        assert_says(caught, "kron_omp", name, "another unit")


# --- rank one -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decomposition", ["hooi", "svd"])
@pytest.mark.parametrize("noise", [None, "per mode", RANK1.noise])
def test_rank_one_recovers_an_outer_product(noise: Any, decomposition: str) -> None:
    found = rank_one_sbl(RANK1.factors, RANK1.y, noise, decomposition=decomposition)
    assert_below(nmse(found.coef_tensor(), RANK1.coef_tensor()), 0.01, "error")
    assert_below(found.info.rel_error, 0.08, "what the outer product leaves over")


def test_rank_one_scales_with_the_measurements() -> None:
    small, large = (rank_one_sbl(RANK1.factors, c * RANK1.y).coef_tensor() for c in (1e-6, 1e6))
    assert_relative(large, 1e12 * small, 1e-7)


@pytest.mark.parametrize("noise", [None, "per mode"])
def test_rank_one_scales_with_the_dictionaries(noise: Any) -> None:
    one = rank_one_sbl(RANK1.factors, RANK1.y, noise).coef_tensor()
    small = rank_one_sbl([1e-3 * A for A in RANK1.factors], RANK1.y, noise).coef_tensor()
    assert_relative(1e-9 * small, one, 1e-7)


def test_rank_one_of_a_complex_channel_beats_free_values() -> None:
    made = make_irs_channel(12, random_state=0)
    assert_below(made.channel_nmse(rank_one_sbl(made.factors, made.y).coef_tensor()), 0.02, "error")


def test_rank_one_of_zero_is_empty_and_a_single_mode_is_plain() -> None:
    found = rank_one_sbl([np.eye(3), np.eye(2)], np.zeros((3, 2)))
    assert_equal(found.coef_tensor(), np.zeros((3, 2)))
    found = rank_one_sbl([np.eye(3)], np.array([0.0, 5.0, 0.0]), 0.01)
    assert_equal(found.support[0], np.array([1]))


def test_rank_one_names_its_decompositions() -> None:
    with pytest.raises(DataError) as caught:
        rank_one_sbl(RANK1.factors, RANK1.y, decomposition="hoi")
    assert_says(caught, "'hooi' or 'svd'", "Did you mean 'hooi'?")


# --- oracles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [FREE, COMPLEX], ids=["real", "complex snapshots"])
def test_oracles_equal_dense_formulas(problem: SparseProblem) -> None:
    A, y = dense_on_support(problem)
    snapshots = problem.y.ndim > len(problem.factors)
    found = oracle_least_squares(problem.factors, problem.y, problem.support, snapshots=snapshots)
    assert_relative(
        found.coef.reshape(y.shape[1] and -1, y.shape[1]), np.linalg.lstsq(A, y, rcond=None)[0], 1e-10
    )
    left = y - A @ found.coef.reshape(-1, y.shape[1])
    assert_relative(found.info.rel_error, np.linalg.norm(left) / np.linalg.norm(y), 1e-9)
    found = oracle_posterior_mean(
        problem.factors, problem.y, problem.support, problem.noise, variance=2.0, snapshots=snapshots
    )
    for t in range(y.shape[1]):
        want, *_ = dense_posterior(A, np.full(A.shape[1], 2.0), y[:, t], problem.noise**2)
        assert_relative(found.coef.reshape(-1, y.shape[1])[:, t], want, 1e-10)


def test_the_variance_of_the_oracle_has_the_highest_evidence() -> None:
    A, y = dense_on_support(FREE)
    found = oracle_posterior_mean(FREE.factors, FREE.y, FREE.support, FREE.noise)
    v = float(found.info.reason.rpartition(" ")[2])
    evidence = [
        dense_posterior(A, np.full(A.shape[1], c * v), y[:, 0], FREE.noise**2)[2] for c in (0.9, 1.0, 1.1)
    ]
    assert evidence[1] == max(evidence)


def test_the_posterior_mean_has_less_error_where_columns_are_nearly_dependent() -> None:
    errors = []
    for seed in range(20):
        problem = make_kronecker_sparse((4, 4), 9, 4, snr_db=10, random_state=seed)
        arguments = problem.factors, problem.y, problem.support
        truth = problem.coef
        errors.append(
            [
                nmse(oracle_least_squares(*arguments).coef, truth),
                nmse(oracle_posterior_mean(*arguments, problem.noise).coef, truth),
            ]
        )
    assert_above(np.median(errors, axis=0)[0] / np.median(errors, axis=0)[1], 2, "ratio of median errors")


@pytest.mark.parametrize("seed", range(3))
def test_the_rank_one_oracle_fits_no_better_than_free_values_and_errs_less(seed: int) -> None:
    problem = make_kronecker_sparse((7, 8, 9), 12, 3, snr_db=15, values="rank1", random_state=seed)
    arguments = problem.factors, problem.y, problem.support
    free, rank1 = (oracle_least_squares(*arguments, values=v) for v in ("free", "rank1"))
    assert_above(rank1.info.rel_error, free.info.rel_error, "residual")
    assert_below(nmse(rank1.coef, problem.coef), 0.5 * nmse(free.coef, problem.coef), "error")
    singular = np.linalg.svd(rank1.coef.reshape(3, -1), compute_uv=False)
    assert_below(singular[1], 1e-10 * singular[0], "second singular value")


def test_oracles_refuse_supports_that_are_none() -> None:
    for support, error, said in (
        ([[0], [1]], ShapeError, "each of 3 modes"),
        (None, ShapeError, "got NoneType"),
        ([[0], [9], [1]], DataError, "support[1]"),
        ([[0], [1], []], DataError, "support[2]"),
        ([[0], [1], [0.5]], DataError, "integers"),
    ):
        with pytest.raises(error) as caught:
            oracle_least_squares(FREE.factors, FREE.y, support)
        assert_says(caught, said)
    with pytest.raises(DataError) as caught:
        oracle_least_squares(FREE.factors, FREE.y, FREE.support, values="rank-1")
    assert_says(caught, "Did you mean 'rank1'?")
    with pytest.raises(DataError) as caught:
        oracle_least_squares([np.ones((1, 2))], np.ones(1), [[0, 1]], values="rank1")
    assert_says(caught, "mode 0 has 2 columns")
    with pytest.raises(DataError) as caught:
        oracle_posterior_mean(FREE.factors, FREE.y, FREE.support, 1.0, variance=-1)
    assert_says(caught, "`variance`")


# --- metrics and what comes back ----------------------------------------------------------------------------


def test_metrics_follow_their_definitions() -> None:
    truth = np.array([3.0, 0, 0, 4.0j])
    assert_close(nmse(2 * truth, truth), 1.0)
    assert_close(nmse(np.zeros(4), truth), 1.0)
    assert_close(support_recovery_rate(truth, truth), 1.0)
    assert_close(support_recovery_rate(np.array([1, 0.5, 0, 0]), truth), 1 / 3)
    assert_close(support_recovery_rate(np.array([1, 0, 0, 9e-4]), truth), 1 / 2)
    assert_close(support_recovery_rate(np.array([1, 0, 0, 9e-4]), truth, threshold=1e-4), 1.0)
    assert_close(support_recovery_rate([1.0, 1e-2], [1.0, 1e-6]), 1.0)
    assert_close(support_recovery_rate(np.zeros(4), np.zeros(4)), 1.0)
    assert_close(support_recovery_rate(np.zeros(4), truth), 0.0)


def test_metrics_refuse_other_shapes_and_a_zero_truth() -> None:
    for metric in (nmse, support_recovery_rate):
        with pytest.raises(ShapeError) as caught:
            metric(np.ones(3), np.ones((3, 1)))
        assert_says(caught, metric.__name__, "(3,)", "(3, 1)")
    with pytest.raises(DataError) as caught:
        nmse(np.ones(3), np.zeros(3))
    assert_says(caught, "zero everywhere")


def test_a_dense_tensor_beyond_the_limit_is_refused() -> None:
    found = Recovery((np.array([0]),) * 3, np.ones((1, 1, 1)), (10_000,) * 3, Report(True, "toy"))
    with pytest.raises(DataError) as caught:
        found.coef_tensor()
    assert_says(caught, "8,000,000,000,000 bytes", "`coef` and `support`")
