"""``chebyshev_from_points``: functions through scattered values, with noise and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tenfac import Chebyshev, ConvergenceWarning, DataError, Discrete, RankError, ShapeError
from tenfac import chebyshev_from_points as fitted
from tenfac.functional.points import from_points as module
from tenfac.functional.points.search import Found, Model
from tenfac.functional.points.start import Prior
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says, quietly

BOX = [(-1, 1)] * 3


def points(n: int, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, d))


def noise(n: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def test_the_largest_degree_falls_with_the_variables_and_is_below_the_distinct_values() -> None:
    for d, size in ((1, 129), (2, 65), (3, 33), (4, 33)):
        X = points(200, d)
        assert_equal(module._sizes(None, module._data(X, X[:, 0], [(-1, 1)] * d, None)), (size,) * d)
    X[:, 1] = np.arange(200) % 7 / 7
    assert_equal(module._sizes(None, module._data(X, X[:, 0], [(-1, 1)] * 4, None)), (33, 7, 33, 33))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_line_without_noise_is_found_to_rounding(seed: int) -> None:
    X, x = points(200, 1, seed), np.linspace(-1, 1, 50)
    assert_close(fitted(X, 1 + 2 * X[:, 0], BOX[:1]).at(x), 1 + 2 * x, 30)


def polynomial(X: np.ndarray) -> np.ndarray:
    x, y, z = X.T
    return (1 + x - x**3) * (y**2 - 0.3) * (2 + z) + x * y


def yukawa(X: np.ndarray) -> np.ndarray:
    r = np.sqrt(((X + 1.2) ** 2).sum(axis=1))
    return np.exp(-r) / r


def error(F: Any, f: Any, n: int = 3000) -> float:
    """Root mean square error at new points of the cube."""
    T = points(n, F.ndim, seed=99)
    return float(np.sqrt(np.mean((F.at(*T.T) - f(T)) ** 2)))


def smooth(n: int = 300, sigma: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    X = points(n, 2)
    return X, np.exp(X[:, 0]) * np.cos(2 * X[:, 1]) + sigma * noise(n)


# --- what is found ----------------------------------------------------------------------------------------


def test_a_polynomial_without_noise_is_recovered_to_rounding() -> None:
    X = points(400)
    F = fitted(X, polynomial(X), BOX)
    assert_below(error(F, polynomial), 1e-10, "error")
    assert_equal(F.rank, (2, 2, 2))
    assert F.info.converged
    assert_below(F.info.validation_error, 1e-10, "validation error")


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "bound"), [(1e-2, 2.7e-3), (1e-3, 5.5e-4)])
def test_noise_is_averaged_out_with_ranks_and_degrees_of_its_own_choice(sigma: float, bound: float) -> None:
    errors = []
    for seed in range(3):
        X = points(4000, seed=seed)
        errors.append(error(fitted(X, yukawa(X) + sigma * noise(4000, seed + 7), BOX), yukawa, 20_000))
    assert_below(np.mean(errors), bound, "mean error")


def test_a_fit_to_few_noisy_points_beats_the_noise() -> None:
    X = points(300)
    F = fitted(X, yukawa(X) + 0.02 * noise(300), BOX)
    assert_below(error(F, yukawa), 0.015, "error")


@pytest.mark.parametrize("d", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_sums_of_functions_of_one_variable_are_found_in_any_number_of_variables(d: int) -> None:
    def f(X: np.ndarray) -> np.ndarray:
        return np.sin(np.arange(1, d + 1) * X / 2).sum(axis=1)

    X = points(100 * d, d)
    F = fitted(X, f(X) + 0.01 * noise(100 * d), [(-1, 1)] * d)
    assert_below(error(F, f), 0.01, "error")
    assert_below(max(F.rank), 1 if d == 1 else 3, "rank")


def test_the_validation_error_is_the_error_at_new_noisy_values() -> None:
    X, y = smooth()
    F = fitted(X, y, BOX[:2])
    T = points(4000, 2, seed=5)
    new = np.exp(T[:, 0]) * np.cos(2 * T[:, 1]) + 0.05 * noise(4000, seed=8)
    at_new = np.sqrt(np.mean((F.at(*T.T) - new) ** 2)) / np.sqrt(np.mean(y**2))
    assert_below(abs(F.info.validation_error / at_new - 1), 0.15, "relative difference")
    at_rows = np.linalg.norm(F.at(*X.T) - y) / np.linalg.norm(y)
    assert_below(abs(F.info.rel_error / at_rows - 1), 1e-8, "rel_error")


def test_a_table_of_parameters_beside_variables() -> None:
    heights, rates = np.array([1, 2, 0.5, 3, -1.0]), np.array([1, 2, 1.5, 0.7, 3])
    rng = np.random.default_rng(0)
    label, x = rng.integers(5, size=400), rng.uniform(0, 1, 400)
    true = heights[label] * np.exp(-rates[label] * x)
    F = fitted(np.stack([label, x], axis=1), true + 0.01 * noise(400), [5, (0, 1)])
    assert_equal(F.modes[0], Discrete(5))
    assert_below(np.abs(F.at(label, x) - true).max(), 0.02, "error")


def test_what_is_asked_for_is_kept() -> None:
    X, y = smooth()
    F = fitted(X, y, BOX[:2], rank=2, degree=[5, 7], ridge=1e-6)
    assert_equal((F.rank, [m.domain for m in F.modes]), ((2, 2), [(-1.0, 1.0)] * 2))
    assert_below(max(F.degree[0] - 5, F.degree[1] - 7), 0, "degree above that asked for")
    assert_says(F.info.reason, "ridge 1e-06")


def test_a_large_ridge_leaves_the_mean() -> None:
    X, y = smooth()
    F = quietly(fitted, X, y, BOX[:2], rank=1, degree=3, ridge=1e12)
    assert_below(abs(F.at(0.3, -0.4) - y.mean()), 1e-6, "distance from the mean")


# --- invariances ------------------------------------------------------------------------------------------


def test_the_unit_of_the_values_does_not_matter() -> None:
    X, y = smooth()
    plain = fitted(X, y, BOX[:2])
    for unit in (1e-30, 1e30):
        F = fitted(X, unit * y, BOX[:2])
        assert_equal((F.rank, F.degree), (plain.rank, plain.degree))
        assert_close(F.at(0.2, 0.3) / unit, float(plain.at(0.2, 0.3)), 1e4)


def test_a_large_constant_does_not_hide_the_rest() -> None:
    X, y = smooth()
    plain, shifted = fitted(X, y, BOX[:2]), fitted(X, y + 1e6, BOX[:2])
    T = points(200, 2, seed=3)
    assert_below(np.abs(shifted.at(*T.T) - 1e6 - plain.at(*T.T)).max(), 0.05, "difference")


def test_the_domain_scales_and_is_the_range_if_not_given() -> None:
    X, y = smooth()
    near, far = fitted(X, y), fitted(1e3 * X + 5, y)
    assert_equal([m.domain for m in near.modes], [(c.min(), c.max()) for c in X.T])
    assert_close(far.at(205.0, -95.0), float(near.at(0.2, -0.1)), 1e8)


def test_repeated_rows_count_as_weights_and_rows_of_weight_0_as_absent() -> None:
    X, y = smooth(80)
    twice = np.concatenate([X, X[:20]]), np.concatenate([y, y[:20]])
    heavy = np.where(np.arange(80) < 20, 2.0, 1.0)
    F, G = fitted(*twice, BOX[:2]), fitted(X, y, BOX[:2], weights=5 * heavy)
    assert_close(F.at(0.1, 0.5), float(G.at(0.1, 0.5)), 1e6)
    wrong = np.where(np.arange(80) < 40, y, 1e9)
    H = fitted(X, wrong, BOX[:2], weights=np.arange(80) < 40)
    assert_close(H.at(0.1, 0.5), float(fitted(X[:40], y[:40], BOX[:2]).at(0.1, 0.5)), 1e6)


def test_weights_are_reciprocal_variances() -> None:
    X, y = smooth(400, sigma=0.0)
    sigma = np.where(np.arange(400) < 200, 0.01, 1.0)
    y = y + sigma * noise(400)

    def f(T: np.ndarray) -> np.ndarray:
        return np.exp(T[:, 0]) * np.cos(2 * T[:, 1])

    assert_above(
        error(fitted(X, y, BOX[:2]), f) / error(fitted(X, y, BOX[:2], weights=sigma**-2), f), 5, "gain"
    )


def test_other_libraries_and_dtypes_give_the_same(make: Any) -> None:
    X, y = smooth(60)
    F = fitted(make.asarray(X), make.asarray(y), BOX[:2], rank=1, degree=3)
    assert_close(F.at(0.1, 0.5), float(fitted(X, y, BOX[:2], rank=1, degree=3).at(0.1, 0.5)), 1e9)


def test_one_value_is_a_constant() -> None:
    F = fitted(points(20), np.full(20, 3.5), BOX)
    assert F.info.converged
    assert_equal(F.rank, (1, 1, 1))
    assert_close(F.at(0.1, 0.2, 0.3), 3.5)
    G = fitted(np.stack([np.arange(20) % 4, points(20)[:, 0]], axis=1), np.zeros(20), [4, (-1, 1)])
    assert_close(G.at(3, 0.2), 0.0, scale=1.0)


# --- what is refused --------------------------------------------------------------------------------------


def test_noise_alone_is_no_function() -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        F = fitted(points(200), noise(200), BOX)
    assert not F.info.converged
    assert_says(caught[0].message, "no better than by a constant")


def test_too_few_steps_are_said() -> None:
    X = points(300)
    with pytest.warns(ConvergenceWarning) as caught:
        fitted(X, yukawa(X), BOX, rank=4, degree=9, ridge=1e-14, max_iter=1)
    assert_says(caught[0].message, "max_iter=1")


X, Y = points(20, 2), np.arange(20.0)
BAD = [
    ({"X": X[:, 0]}, ShapeError, "reshape"),
    ({"X": X[:0], "y": Y[:0]}, ShapeError, "must have rows"),
    ({"X": X[:, :0]}, ShapeError, "(N, D)"),
    ({"y": Y[:5]}, ShapeError, "`y` must have shape (20,)"),
    ({"y": np.where(Y < 3, np.nan, Y)}, DataError, "3 of 20"),
    ({"X": np.where(X > 0.9, np.inf, X)}, DataError, "`X` must be finite"),
    ({"y": Y + 1j}, DataError, "real"),
    ({"domain": [(0, 1), (-1, 1)]}, DataError, "column 0"),
    ({"domain": [(-1, 1)]}, ShapeError, "one entry per column"),
    ({"domain": [(1, -1), (-1, 1)]}, DataError, "a < b"),
    ({"domain": [5, (-1, 1)]}, DataError, "row numbers 0 to 4"),
    ({"X": X * [1, 0]}, DataError, "column 1"),
    ({"X": X[:3], "y": Y[:3]}, DataError, "at least 4"),
    ({"X": np.repeat(X[:3], 5, 0), "y": Y[:15]}, DataError, "got 3"),
    ({"weights": -Y}, DataError, "`weights`"),
    ({"weights": Y[:4]}, ShapeError, "`weights`"),
    ({"rank": (3, 2)}, RankError, "product of the others"),
    ({"rank": 0}, RankError, "1 or more"),
    ({"domain": [0, (-1, 1)]}, DataError, "1 or more; got 0"),
    ({"ridge": -1e-9}, DataError, "ridge"),
    ({"ridge": np.inf}, DataError, "ridge"),
    ({"degree": [3, True]}, DataError, "`degree`"),
    ({"degree": [3]}, DataError, "2 of them"),
    ({"max_iter": True}, DataError, "`max_iter`"),
    ({"weights": 0 * Y}, DataError, "not all 0"),
    ({"degree": -1}, DataError, "`degree`"),
    ({"ridge": np.nan}, DataError, "ridge"),
    ({"max_iter": 0}, DataError, "`max_iter`"),
]


@pytest.mark.parametrize(("changed", "kind", "part"), BAD)
def test_bad_input_is_refused(changed: Any, kind: Any, part: str) -> None:
    with pytest.raises(kind) as caught:
        fitted(**{"X": X, "y": Y, **changed})
    assert_says(caught, "chebyshev_from_points", part)


def test_the_modes_are_those_of_the_domain() -> None:
    F = fitted(*smooth(60), [(-2, 2), None])
    assert_equal([type(m) for m in F.modes], [Chebyshev, Chebyshev])
    assert_equal(F.modes[0].domain, (-2.0, 2.0))
    assert_close(F.factors[0].T @ F.factors[0], np.eye(F.rank[0]))


def test_one_interval_in_the_place_of_one_per_column_is_named() -> None:
    X = points(50, 2)
    with pytest.raises(DataError) as caught:
        fitted(X, X[:, 0], (-1, 1))
    assert_says(caught, "domain[0] must be an interval", "[(a, b)] * D")


def test_a_search_that_ran_out_of_models_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal(fitted(*smooth()).info.warnings, ())
    monkeypatch.setattr("tenfac.functional.points.search.MODELS", 6)
    found = fitted(*smooth())
    assert_says(found.info.warnings[-1], "the search ended after", "models", "rank or degree")
    assert_equal(found.info.converged, True)


def test_the_fewest_points_and_the_smallest_options_are_taken() -> None:
    F = quietly(fitted, X[:4], Y[:4], degree=0, ridge=0.0, max_iter=1)
    assert_close(F.at(X[:4, 0], X[:4, 1]), np.full(4, Y[:4].mean()), 1e4)
    assert_close(F.info.rel_error, float(np.std(Y[:4]) / np.sqrt(np.mean(Y[:4] ** 2))), 1e4)
    assert_equal(fitted(X[:4], Y[:4] * 0 + 2, [(-1, 1), None]).info.n_iter, 0)


def test_a_ridge_is_added_per_row_in_units_of_the_mean_square() -> None:
    x, y, ridge = X[:, 0], np.sin(X[:, 0]) + 0.2, 0.05
    F = quietly(fitted, x[:, None], y, [(-1, 1)], degree=1, ridge=ridge)
    # of c_1 alone: its scale 1 / decay is one of those that may be chosen
    slopes = []
    for decay in np.linspace(1.02, 2.5, 400):
        t = x / decay
        centered = t - t.mean()
        slopes.append(centered @ y / (centered @ centered + ridge * len(x)) / decay)
    slope = float(F.at(1.0) - F.at(0.0))
    assert_above(slope, min(slopes) - 1e-9, "slope")
    assert_below(slope, max(slopes) + 1e-9, "slope")
    assert_close(float(F.at(x).mean()), float(y.mean()), 1e4)  # the constant is free


# --- the parts --------------------------------------------------------------------------------------------


def repeated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of which points occur up to three times, with weights below and above 1."""
    rng = np.random.default_rng(4)
    place = rng.integers(40, size=90)
    y = 7 * np.sin(3 * np.linspace(-1, 1, 40)[place]) + 2 + rng.standard_normal(90)
    return np.linspace(-1, 1, 40)[place][:, None], y, rng.uniform(0.1, 3, 90)


def test_rows_of_one_point_are_merged_to_their_weighted_mean_and_what_they_differ_by_is_kept() -> None:
    X, y, heavy = repeated()
    data = module._data(X, y, [(-1, 1)], heavy)
    rms = np.sqrt(np.average(y**2, weights=heavy))
    assert_close(data.scale, float(rms), 1e3)
    means = {x: np.average(y[X[:, 0] == x], weights=heavy[X[:, 0] == x]) for x in X[:, 0].tolist()}
    assert_close(data.values * data.scale, np.array([means[x] for x in sorted(means)]), 1e3)
    sums = np.array([heavy[X[:, 0] == x].sum() for x in sorted(means)])
    assert_close(data.weights, sums / sums.mean(), 1e3)
    off = y - np.array([means[x] for x in X[:, 0].tolist()])
    assert_close(data.within, float(np.average(off**2, weights=heavy) / rms**2), 1e4)
    spread = np.sqrt(np.average((y - np.average(y, weights=heavy)) ** 2, weights=heavy))
    assert_close(data.spread, float(spread / rms), 1e4)


@pytest.mark.parametrize("unit", [1.0, 1e-250, 1e250])
def test_the_reported_error_is_that_at_all_rows_and_the_unit_of_weights_does_not_matter(unit: float) -> None:
    X, y, heavy = repeated()
    F = fitted(X, y, [(-1, 1)], weights=heavy * unit)
    rms = np.sqrt(np.average(y**2, weights=heavy))
    assert_close(
        F.info.rel_error, float(np.sqrt(np.average((F.at(X[:, 0]) - y) ** 2, weights=heavy)) / rms), 1e6
    )
    assert_above(F.info.validation_error, F.info.rel_error, "error at rows left out")
    assert_below(F.info.validation_error, 1.3 * F.info.rel_error, "error at rows left out")
    assert_below(abs(F.info.seconds - 30), 30, "distance of the seconds from half a minute")
    assert_equal(F.info.converged, True)


def test_values_that_differ_by_rounding_are_a_constant_and_others_a_function() -> None:
    x = points(30, 1)
    y = np.where(x[:, 0] > 0, 0.3, 0.1 + 0.2)
    F = fitted(x, y, BOX[:1])
    assert_equal(F.info.reason, "all values are equal")
    assert_above(module._data(x, 0.3 + 1e-12 * np.sign(x[:, 0]), BOX[:1], None).spread, 1e-13, "spread")


def test_a_constant_has_orthonormal_factors_and_no_error() -> None:
    rows = np.stack([np.arange(20) % 4, points(20)[:, 0], np.zeros(20)], axis=1)
    F = fitted(rows, np.full(20, -2.5), [4, (-1, 1), 1])
    for factor in F.factors:
        assert_close(factor.T @ factor, np.eye(1))
    assert_close(F.at(2, 0.3, 0), -2.5)
    assert_equal((F.info.rel_error, F.info.validation_error, F.info.n_iter), (0.0, 0.0, 0))
    assert_below(abs(F.info.seconds - 30), 30, "distance of the seconds from half a minute")
    assert_equal([mode.size for mode in F.modes], [4, 1, 1])


def test_one_row_of_a_table_is_a_constant_factor() -> None:
    x = points(80, 1)
    F = fitted(np.concatenate([np.zeros((80, 1)), x], axis=1), x[:, 0] ** 2, [1, (-1, 1)])
    assert_below(abs(F.at(0, 0.6) - 0.36), 1e-9, "error")


@pytest.mark.parametrize("size", [1, 2, 5])
def test_contrasts_are_orthogonal_and_of_mean_square_1_the_constant_first(size: int) -> None:
    contrasts = module._contrasts(size)
    assert_close(contrasts.T @ contrasts / size, np.eye(size))
    assert_close(contrasts[:, 0], np.ones(size))


def found_of(score: float, rank: tuple[int, int], sizes: tuple[int, int]) -> Found:
    """Coefficients that fall by a tenth per degree."""
    rng = np.random.default_rng(0)
    factors = tuple(
        rng.uniform(0.5, 1, (k, r)) * 0.1 ** np.arange(k)[:, None] for k, r in zip(sizes, rank, strict=True)
    )
    model = Model(rank, sizes, Prior((2.0, 2.0)), 1.0)
    return Found(model, rng.uniform(0.5, 1, rank), factors, score)


@pytest.mark.parametrize("free", [True, False])
def test_what_is_cut_in_the_end_changes_the_function_by_a_thousandth_of_its_error(free: bool) -> None:
    X, y = smooth(60)
    data, error = module._data(X, 40 * y, BOX[:2], None), 1e-2
    found = found_of(error**2, (2, 3), (9, 12))
    F = module._finished(found, data, free)
    T = points(500, 2, seed=3)
    rows = [np.polynomial.chebyshev.chebval(x, f).T for x, f in zip(T.T, found.factors, strict=True)]
    want = data.scale * np.einsum("np,pq,nq->n", rows[0], found.core, rows[1])
    lost = np.abs(F.at(*T.T) - want).max() / data.scale
    assert_below(lost, 5e-3 * error, "change")
    assert_below(max(F.degree), 6, "degree")
    assert_above(min(F.degree), 3, "degree")
    for factor in F.factors:
        assert_close(factor.T @ factor, np.eye(factor.shape[1]))
    if not free:
        assert_equal(F.rank, (2, 3))
        assert_below(lost, 2e-3 * error, "change without a lower rank")


def test_ranks_that_are_given_are_kept_and_others_cut_where_they_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = module._data(*smooth(60), BOX[:2], None)
    found = found_of(1e-2, (2, 2), (4, 4))
    low = replace(found, core=np.outer([1.0, 2.0], [1.0, 1.0]) + 1e-9 * np.eye(2))
    assert_equal(module._finished(low, data, True).rank, (1, 1))
    assert_equal(module._finished(low, data, False).rank, (2, 2))
    exact = module._finished(replace(low, score=1e-30), data, True)
    assert_equal(exact.rank, (2, 2))
    X = points(60, 2)
    finish, free = module._finished, []
    monkeypatch.setattr(module, "_finished", lambda *args: free.append(args[2]) or finish(*args))
    for rank in (1, 2, None):
        F = quietly(fitted, X, X[:, 0], BOX[:2], degree=2, rank=rank)
        assert_equal(F.rank, (rank or 1,) * 2)
    assert_equal(free, [False, False, True])


def test_labels_keep_all_rows_whatever_is_cut() -> None:
    rows = np.stack([np.arange(60) % 6, points(60)[:, 0]], axis=1)
    data = module._data(rows, smooth(60)[1], [6, (-1, 1)], None)
    found = found_of(1.0, (1, 2), (6, 7))
    F = module._finished(found, data, False)
    assert_equal(F.shape[0], 6)
    x = points(6, 1)[:, 0]
    rows = module._contrasts(6) @ found.factors[0], np.polynomial.chebyshev.chebval(x, found.factors[1]).T
    want = np.einsum("np,pq,nq->n", rows[0], found.core, rows[1])
    assert_below(np.abs(F.at(np.arange(6), x) / data.scale - want).max(), 5e-3, "change")
    assert_below(F.degree[1], 4, "degree")


@pytest.mark.parametrize(
    ("changed", "fixed"),
    [({}, set()), ({"degree": 12}, {"sizes"}), ({"rank": 2}, {"rank"}), ({"ridge": 1e-3}, {"ridge"})],
)
def test_what_is_given_is_fixed_in_the_search_and_where_it_begins(
    changed: dict[str, Any], fixed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class BegunError(Exception):
        """The search begins."""

    def run(search: Any, model: Any) -> None:
        raise BegunError(search, model)

    monkeypatch.setattr("tenfac.functional.points.search.Search.run", run)
    rows = np.stack([np.arange(90) % 80, *points(90, 2).T], axis=1)
    with pytest.raises(BegunError) as caught:
        fitted(rows, rows[:, 1] * rows[:, 2] + rows[:, 0], [80, (-1, 1), (-1, 1)], **changed)
    search, model = caught.value.args
    assert_equal(search.fixed, fixed)
    assert_equal(model.sizes[0], 80)
    assert_equal(model.rank, (2, 2, 2) if "rank" in changed else (1, 1, 1))
    if "degree" in changed:
        assert_equal(model.sizes, (80, 13, 13))
    else:
        assert_equal(model.sizes[1:], tuple(min(max(k, model.rank[1]), 33) for k in search.first.shape[1:]))
        assert_below(max(model.sizes[1:]), 20, "coefficients to begin with")


@pytest.mark.parametrize(("share", "converged"), [(0.97, True), (0.99, False), (1.5, False)])
def test_a_fit_that_predicts_no_better_than_a_constant_has_found_nothing(
    share: float, converged: bool
) -> None:
    X, y, heavy = repeated()
    data = module._data(X, y, [(-1, 1)], heavy)
    found = Found(Model((1,), (2,), Prior((2.0,)), 1.0), np.ones(1), (np.eye(2, 1),), 0.0)
    found = replace(found, score=(share * data.spread) ** 2 - data.within)
    result = module._finished(found, data, True)
    info = quietly(module._report, result, found, data, (3, True, 9), 0.0)
    assert_close(info.validation_error, share * data.spread, 1e3)
    assert_equal((info.converged, len(info.warnings)), (converged, 0 if converged else 1))
