"""One basis for Gaussians of many widths: each to its budget, in as few functions as there must be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from tenfac import DataError, GaussianBasis
from tenfac.functional.charges.gaussian_basis import _axis, _size, _table
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

BRICK = [(0.0, 4.0), (-1.0, 1.0), (5.0, 8.0)]


def gaussian(tau: float, degree: int = 90) -> np.ndarray:
    """Chebyshev coefficients in both variables, from interpolation by numpy."""
    x = chebyshev.chebpts1(degree + 1)
    to = np.linalg.inv(chebyshev.chebvander(x, degree))
    return to @ np.exp(-tau * (x[:, None] - x) ** 2) @ to.T


def needed(tables: list[np.ndarray], allowed: float) -> int:
    """Columns of a joint basis that leave out no more than allowed."""
    s = np.linalg.svd(np.concatenate(tables, axis=1), compute_uv=False)
    return int(np.sum(np.sqrt(np.cumsum(s[::-1] ** 2)) > allowed))


@pytest.mark.parametrize(
    "budgets", [(1e-4, 1e-4, 1e-4, 1e-4), (1e-3, 1e-10, 1e-5, 1e-8), (0.5, 1e-9, 1.0, 0.9)]
)
def test_each_gaussian_is_kept_to_its_own_budget(budgets) -> None:
    tau = np.array([0.0, 0.7, 6.0, 40.0])
    axis = _axis(tau, np.array(budgets), "here")
    assert_equal(axis.mode.size, len(axis.factor))
    assert_equal(len(axis.factor) % 2, 0)
    assert_close(axis.factor.T @ axis.factor, np.eye(axis.factor.shape[1]), scale=1.0)
    x = np.linspace(-1, 1, 101)
    rows = chebyshev.chebvander(x, len(axis.factor) - 1) @ axis.factor
    assert_close(rows[::-1, axis.part(0)], rows[:, axis.part(0)], scale=1.0)  # even
    assert_close(rows[::-1, axis.part(1)], -rows[:, axis.part(1)], scale=1.0)  # odd
    for t, budget, tables in zip(tau, budgets, axis.tables, strict=True):
        got = sum(
            rows[:, axis.part(p)][:, : len(b)] @ b @ rows[:, axis.part(p)][:, : len(b)].T
            for p, b in enumerate(tables)
        )
        # a tail of coefficients below the budget is a larger error where many functions add up
        assert_below(np.abs(got - np.exp(-t * (x[:, None] - x) ** 2)).max(), 4 * budget, f"error for {t}")


def test_there_are_as_few_functions_as_the_budgets_allow() -> None:
    a, b, c = 1e-6, 1e-8, 1e-5
    for p in (0, 1):
        # of one octave of widths, exponents 1 to 4, together: each may use its budget; so those below 1 / 4
        for tau in ([1.1, 3.9], [0.01, 0.2]):
            tables = [gaussian(t)[p::2, p::2] / e for t, e in zip(tau, (a, b), strict=True)]
            axis = _axis(np.array(tau), np.array([a, b]), "here")
            assert_equal([len(pair[p]) for pair in axis.tables], [needed(tables, 2**0.5)] * 2)
        # of the next octaves: what is left outside of the functions there are
        axis = _axis(np.array([0.2, 0.9, 17.0]), np.array([a, b, c]), "here")
        joint = np.zeros((len(tables[0]), 0))
        want = []
        for t, e in ((0.2, a), (0.9, b), (17.0, c)):
            table = gaussian(t)[p::2, p::2] / e
            left = table - joint @ (joint.T @ table)
            joint = np.linalg.qr(
                np.concatenate([joint, np.linalg.svd(left)[0][:, : needed([left], 1.0)]], axis=1)
            )[0]
            want.append(joint.shape[1])
        assert_equal([len(pair[p]) for pair in axis.tables], want)


@pytest.mark.parametrize("budget", [1e-4, 1e-10])
@pytest.mark.parametrize("tau", [0.0, 0.1, 3.0, 50.0, 400.0])
def test_the_degrees_sampled_are_enough_and_not_many_more(tau, budget) -> None:
    size = _size(tau, budget)
    fine = np.abs(_table(tau, 2 * size)).max(axis=1)
    tails = np.cumsum(fine[::-1])[::-1]
    assert_below(tails[size], 0.1 * budget, "what is left out")
    enough = int(np.sum(tails > 0.1 * budget))
    assert_below(size, 1.6 * enough + 40, f"degrees where {enough} are enough")
    assert_close(_table(tau, size), _table(tau, 2 * size)[:size, :size], scale=budget / 2.0**-52)


def test_what_little_weight_a_gaussian_has_may_be_kept_less_well() -> None:
    box = [(-1.0, 1.0)]
    rng = np.random.default_rng(0)
    centers, points = rng.uniform(-1, 1, (8, 1)), np.linspace(-1, 1, 60)
    ranks = []
    for weights in ([1.0, 1.0], [1.0, 1e-5], [1.0, -1e-30], [1e200, 0.0], [1e-320, 1.0]):
        basis = GaussianBasis([2.0, 300.0], weights, domain=box, tol=1e-6)
        ranks.append(basis.rank[0])
        for center in centers:
            got = basis.sum(center[None], [1.0], compressed=False).at(points)
            want = sum(
                w * np.exp(-t * (points - center) ** 2) for t, w in zip([2.0, 300.0], weights, strict=True)
            )
            assert_below(np.abs(got - want).max(), 1e-6 * np.abs(weights).sum(), "error")
    assert_equal(ranks, [*sorted(ranks[:4], reverse=True), ranks[0]])
    assert_below(ranks[1], 0.5 * ranks[0], "rank where the narrow one is small")
    assert_below(
        ranks[3], GaussianBasis([2.0], domain=box, tol=0.5e-6).rank[0], "rank where the narrow one is 0"
    )
    assert_equal(basis.weights.tolist(), [1e-320, 1.0])


def test_rows_are_values_and_derivatives_in_one_mode() -> None:
    basis = GaussianBasis([0.5, 3.0], domain=BRICK, tol=1e-8)
    points = np.random.default_rng(0).uniform(*np.array(BRICK).T, (6, 3))
    rows = basis.rows(points)
    for n, (low, high) in enumerate(BRICK):
        x = (2 * points[:, n] - low - high) / (high - low)
        size = len(basis.factors[n])
        assert_close(rows[n], chebyshev.chebvander(x, size - 1) @ basis.factors[n], 1e4)
        turned = basis.rows(points, derivative=n)
        slope = chebyshev.chebval(x, chebyshev.chebder(basis.factors[n])).T * 2 / (high - low)
        for m in range(3):
            assert_close(turned[m], slope if m == n else rows[m], 1e4)


def test_moments_are_the_sum_of_products_of_rows() -> None:
    rng = np.random.default_rng(0)
    for d in (1, 2, 3):
        basis = GaussianBasis([0.5], domain=BRICK[:d], tol=1e-4)
        centers, amplitudes = rng.uniform(*np.array(BRICK[:d]).T, (9, d)), rng.standard_normal(9)
        rows = basis.rows(centers)
        letters = "abc"[:d]
        want = np.einsum("n," + ",".join("n" + x for x in letters) + "->" + letters, amplitudes, *rows)
        assert_close(basis.moments(centers, amplitudes), want, 1000)


def test_a_sum_is_compressed_to_a_tenth_of_tol_or_to_a_budget() -> None:
    basis = GaussianBasis([1.0, 8.0], domain=BRICK, tol=1e-3)
    rng = np.random.default_rng(0)
    centers, amplitudes = rng.uniform(*np.array(BRICK).T, (50, 3)), rng.standard_normal(50)
    core = basis.core(basis.moments(centers, amplitudes))
    norm = np.linalg.norm(core)
    whole = basis.sum(centers, amplitudes, compressed=False)
    assert_equal((whole.core.shape, whole.modes), (basis.rank, basis.modes))

    points = rng.uniform(*np.array(BRICK).T, (20, 3))
    r2 = np.sum((points[:, None] - centers) ** 2, axis=2)
    assert_below(
        np.abs(whole.at(*points.T) - (np.exp(-r2) + np.exp(-8 * r2)) @ amplitudes).max(),
        1e-2,
        "error of 50 centers",
    )

    def coefficients(made) -> np.ndarray:
        return np.einsum("abc,ia,jb,kc->ijk", made.core, *made.factors, optimize=True)

    want = coefficients(whole)
    assert_relative(np.linalg.norm(want), norm, 1e-13)
    ranks = []
    for made, allowed in (
        (basis.sum(centers, amplitudes), 1e-4),
        (basis.function(core, budget=1e-2 * norm), 1e-2),
        (basis.function(core, budget=1e-6 * norm), 1e-6),
        (basis.function(core, budget=100 * norm), 0.5),
    ):
        lost = np.linalg.norm(coefficients(made) - want) / norm
        assert_below(lost, allowed, "lost")
        ranks.append(made.core.size)
        if allowed > 1e-6:
            assert_above(lost, 0.05 * allowed, "lost")  # no more is kept than must be
    assert_equal(sorted(ranks), [ranks[3], ranks[1], ranks[0], ranks[2]])
    assert_below(np.linalg.norm(coefficients(basis.function(core, budget=0.0)) - want), 1e-14 * norm, "lost")


def test_the_narrowest_gaussian_that_is_taken_is_a_hundredth_of_the_box() -> None:
    assert_above(GaussianBasis([1e4], domain=[(-1.0, 1.0)], tol=1e-4).rank[0], 200, "rank")
    with pytest.raises(DataError) as error:
        GaussianBasis([1e6], domain=[(-1.0, 1.0)], tol=1e-4)
    assert_says(error, "0.001 half boxes")
