"""The replicas against the published algorithms written out with N x N matrices: equal iterates."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from tenfac.bayes.sparse.em import (
    AM_IRS,
    AM_SYNTHETIC,
    AM_SYNTHETIC_LEARNED,
    SVD_IRS,
    SVD_SYNTHETIC,
    SVD_SYNTHETIC_LEARNED,
    Rules,
    alternate,
    em_am,
    em_svd,
    split,
)
from tenfac.bayes.sparse.pattern_em import PC_IRS, em_pattern, neighbours
from tenfac.core.errors import DataError, ShapeError
from tenfac.datasets import make_irs_channel, make_kronecker_sparse
from tests.bayes.sparse.published import Settings, dense_em, kron
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
)

SYNTHETIC = make_kronecker_sparse((4, 5, 5), (6, 6, 5), 2, snr_db=20, random_state=3)
COMPLEX = make_kronecker_sparse((4, 6), (6, 8), 2, snr_db=15, complex_values=True, random_state=1)
CHANNEL = make_irs_channel(12, base=6, elements=16, angles=6, mobile=4, pilots=3, patterns=4, random_state=0)

AM = Settings("am", (1e-2,) * 3)
SVD = Settings("svd", (1e-3,) * 3)
IRS = {"inner_tol": 1e-4, "inner_relative": True, "floor": 1e-4}
WINDOWS = np.triu(np.random.default_rng(0).random((6, 6)) + 0.5) * (np.arange(6) - np.arange(6)[:, None] < 3)
CASES = {
    "am": (SYNTHETIC, em_am, AM_SYNTHETIC, True, AM),
    "am, noise learned": (SYNTHETIC, em_am, AM_SYNTHETIC_LEARNED, False, replace(AM, relative=(5e-3,) * 3)),
    "svd": (SYNTHETIC, em_svd, SVD_SYNTHETIC, True, SVD),
    "svd, noise learned": (
        SYNTHETIC,
        em_svd,
        SVD_SYNTHETIC_LEARNED,
        False,
        replace(SVD, relative=(5e-4,) * 3),
    ),
    "complex am": (COMPLEX, em_am, AM_SYNTHETIC, True, replace(AM, relative=(1e-2,) * 2)),
    "complex svd, noise learned": (COMPLEX, em_svd, SVD_SYNTHETIC, False, replace(SVD, relative=(1e-3,) * 2)),
    "channel am": (CHANNEL, em_am, AM_IRS, True, Settings("am", (1e-2, 1e-1, 1e-3), **IRS)),
    "channel svd": (CHANNEL, em_svd, SVD_IRS, True, Settings("svd", (0.0,) * 3, floor=1e-4)),
    "channel pattern": (
        CHANNEL,
        em_pattern,
        PC_IRS,
        True,
        Settings(
            "am",
            (1e-2, 1e-1, 1e-2),
            inner_most=9,
            couplings=(neighbours(6, 0.8), None, neighbours(6, 0.8)),
            **IRS,
        ),
    ),
    "channel windows": (
        CHANNEL,
        partial(em_pattern, coupling=(WINDOWS, None, WINDOWS.T)),
        replace(PC_IRS, relative=0.2),
        True,
        Settings("am", (0.2,) * 3, inner_most=9, couplings=(WINDOWS, None, WINDOWS.T), **IRS),
    ),
}


@pytest.mark.parametrize("max_iter", [1, 2, 40])
@pytest.mark.parametrize("case", CASES)
def test_iterates_equal_those_of_the_published_algorithm(case: str, max_iter: int) -> None:
    problem, solve, rules, known, settings = CASES[case]
    noise = problem.noise if known else None
    variance = None if noise is None else noise**2
    want = dense_em(problem.factors, problem.y.reshape(-1), variance, settings, max_iter)
    solution, X = solve(problem.factors, problem.y, noise, rules=replace(rules, max_iter=max_iter))
    assert_equal(solution.n_iter, want["n_iter"])
    # rounding grows with the iterations
    tol = 1e-10 if max_iter < 3 else 1e-6
    assert_relative(kron(solution.gammas), want["gamma"], tol)
    assert_equal(kron(solution.gammas) > 0, want["gamma"] > 0)
    assert_relative(X.reshape(-1), want["x"], tol)
    assert_relative(solution.noise**2, want["noise"], tol)
    assert_relative(solution.evidence, want["evidence"], tol)
    assert len(solution.trace) == solution.n_iter


def test_the_default_thresholds_are_the_papers() -> None:
    for solve, known, learned in (
        (em_am, AM_SYNTHETIC, AM_SYNTHETIC_LEARNED),
        (em_svd, SVD_SYNTHETIC, SVD_SYNTHETIC_LEARNED),
    ):
        for noise, rules in ((SYNTHETIC.noise, known), (None, learned)):
            default = solve(SYNTHETIC.factors, SYNTHETIC.y, noise)[0]
            assert_equal(default.trace, solve(SYNTHETIC.factors, SYNTHETIC.y, noise, rules=rules)[0].trace)
    assert (AM_SYNTHETIC.relative, SVD_SYNTHETIC.relative) == (1e-2, 1e-3)
    assert (AM_SYNTHETIC_LEARNED.relative, SVD_SYNTHETIC_LEARNED.relative) == (5e-3, 5e-4)
    assert (AM_SYNTHETIC.tol, AM_SYNTHETIC.max_iter) == (1e-4, 150)


def test_am_without_pruning_never_lowers_the_evidence() -> None:
    rules = Rules(0.0, inner_tol=1e-12, inner_relative=True, max_iter=40)
    solution, _ = em_am(SYNTHETIC.factors, SYNTHETIC.y, SYNTHETIC.noise, rules=rules)
    assert_above(np.diff(solution.trace).min(), 0.0, "smallest gain of evidence in an iteration")


def test_the_maximization_step_is_at_its_optimum() -> None:
    target = np.random.default_rng(0).gamma(1.0, size=(3, 4, 2))
    found = alternate(target, [np.ones(n) for n in target.shape], Rules(0.0, inner_tol=1e-13), [None] * 3)
    ratio = target / kron(found).reshape(target.shape)
    for i in range(3):
        others = tuple(k for k in range(3) if k != i)
        assert_close(ratio.mean(axis=others), np.ones(target.shape[i]), factor=1e4)


def test_split_returns_an_outer_product_unchanged() -> None:
    parts = [np.array([0.6, 0.8]), np.array([1.0, 2.0, 2.0]) / 3, np.array([4.0, 1.0])]
    for got, want in zip(split(kron(parts).reshape(2, 3, 2)), parts, strict=True):
        assert_close(got, want)


@pytest.mark.parametrize("solve", [em_am, em_svd, em_pattern])
def test_identical_snapshots_change_nothing(solve: Any) -> None:
    one, X = solve(CHANNEL.factors, CHANNEL.y, CHANNEL.noise)
    two, twice = solve(CHANNEL.factors, np.stack([CHANNEL.y] * 2, -1), CHANNEL.noise, snapshots=True)
    assert_equal(two.n_iter, one.n_iter)
    assert_relative(twice[..., 1], X, 1e-8)
    assert_relative(two.evidence, 2 * one.evidence, 1e-10)


def test_the_learned_noise_is_near_the_truth_with_snapshots() -> None:
    problem = make_kronecker_sparse((6, 7), 8, 2, snr_db=10, snapshots=8, random_state=0)
    solution, X = em_svd(problem.factors, problem.y, snapshots=True)
    assert X.shape == (8, 8, 8)
    assert_relative(solution.noise, problem.noise, 0.075)


@pytest.mark.parametrize("solve", [em_am, em_svd, em_pattern])
@pytest.mark.parametrize("noise", [1.0, None])
def test_zero_measurements_give_the_empty_model(solve: Any, noise: float | None) -> None:
    solution, X = solve([np.ones((2, 3)), np.ones((3, 2)), np.ones((2, 2))], np.zeros((2, 3, 2)), noise)
    assert solution.converged
    assert_equal([g.tolist() for g in solution.gammas], [[0.0] * 3, [0.0] * 2, [0.0] * 2])
    assert_equal(X, np.zeros((3, 2, 2)))
    want = np.inf if noise is None else -6 * np.log(2 * np.pi)
    assert_below(abs(solution.evidence - want) if noise else -solution.evidence, 1e-12, "evidence")


def test_data_below_the_floor_give_the_empty_model_and_say_so() -> None:
    solution, X = em_am([np.eye(3), np.eye(2)], np.full((3, 2), 1e-8), 1e-9, rules=Rules(0.0, floor=1e-4))
    assert not solution.converged
    assert_says(solution.reason, "floor", "scale the data")
    assert_equal(X, np.zeros((3, 2)))


def test_data_far_above_the_start_are_not_called_converged() -> None:
    solution, _ = em_am(SYNTHETIC.factors, 1e7 * SYNTHETIC.y, 1e7 * SYNTHETIC.noise)
    assert not solution.converged
    assert_says(solution.reason, "start at one", "scale the data")


def test_inner_cycles_end_where_rounding_is_above_their_absolute_tolerance() -> None:
    target = 1e15 * np.random.default_rng(0).gamma(1.0, size=(3, 4, 2))
    found = alternate(target, [np.ones(n) for n in target.shape], AM_SYNTHETIC, [None] * 3)
    ratio = target / kron(found).reshape(target.shape)
    assert_close(ratio.mean(axis=(0, 1)), np.ones(2), factor=1e3)


def test_results_come_back_in_the_library_and_precision_of_the_measurements(make: Any) -> None:
    like = make(3, 4)
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((3, 4)), rng.standard_normal((4, 5))]
    solution, X = em_am(factors, like, 0.1)
    assert X.shape == (4, 5)
    assert_same_kind(X, like)
    assert_same_kind(solution.gammas[0], like)


def test_complex_results_keep_single_precision() -> None:
    like = CHANNEL.y.astype(np.complex64)
    assert_same_kind(em_svd(CHANNEL.factors, like, CHANNEL.noise, rules=SVD_IRS)[1], like)


@pytest.mark.parametrize("solve", [em_am, em_svd, em_pattern])
@pytest.mark.parametrize(
    ("factors", "Y", "noise", "error", "said"),
    [
        ([np.ones((2, 3)), np.ones((3, 2))], np.ones((2, 4)), 1.0, ShapeError, "Mode 1 has 4 measurements"),
        ([np.ones((2, 3)), np.ones((3, 2))], np.ones((2, 3, 5)), 1.0, ShapeError, "snapshots=True"),
        ([np.ones((2, 3)), np.ones(3)], np.ones((2, 3)), 1.0, ShapeError, "factors[1]"),
        ([np.ones((2, 3))], np.array([1.0, np.nan]), 1.0, DataError, "NaN"),
        ([np.full((2, 3), np.inf)], np.ones(2), 1.0, DataError, "factors[0]"),
        ([np.ones((2, 3))], np.ones(2), 0.0, DataError, "`noise`"),
        ([np.ones((2, 3))], np.ones(2), "loud", DataError, "'loud'"),
        ([np.ones((2, 3))], [1.0, 2.0], 1.0, TypeError, "numpy.asarray"),
        ([np.array([["a"]])], np.ones(1), 1.0, DataError, "dtype"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(
    solve: Any, factors: Any, Y: Any, noise: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        solve(factors, Y, noise, **({"coupling": [None] * len(factors)} if solve is em_pattern else {}))
    assert_says(caught, solve.__name__, said)


@pytest.mark.parametrize(
    ("coupling", "error", "said"),
    [
        ([0.5], ShapeError, "each of 3 modes"),
        ([np.eye(3), None, None], ShapeError, "(6, 6)"),
        ([None, -0.1, None], DataError, "nonnegative"),
        ([np.zeros((6, 6)), None, None], DataError, "positive entry"),
    ],
)
def test_a_bad_coupling_is_refused(coupling: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        em_pattern(CHANNEL.factors, CHANNEL.y, CHANNEL.noise, coupling=coupling)
    assert_says(caught, said)


def test_thresholds_must_be_one_or_one_per_mode() -> None:
    with pytest.raises(ShapeError) as caught:
        em_am(SYNTHETIC.factors, SYNTHETIC.y, 1.0, rules=Rules((0.1, 0.2)))
    assert_says(caught, "each of 3 modes")
