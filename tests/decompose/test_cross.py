"""Cross approximation: true error, few evaluations, honest when they run out."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tenfac import ConvergenceWarning, DataError, RankError, ShapeError, tucker, tucker_cross
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.oracles import true_error


def inverse(x):
    return 1 / (x.sum(axis=-1) + 0.05)


def root(x):
    return np.sqrt((x**2).sum(axis=-1) + 0.01)


def kink(x):
    return np.abs(x.sum(axis=-1) - 0.45 * x.shape[-1])


@cache
def dense(f, n, d=3):
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * d, indexing="ij"), axis=-1)
    return f(grid)


def entries_of(f, n):
    x = np.linspace(0, 1, n)
    return lambda indices: f(x[indices])


ACCURACIES = [(inverse, 1e-3, 0), (inverse, 1e-6, 1), (inverse, 1e-9, 2)]
MORE = [pytest.param(root, *more, marks=pytest.mark.slow) for more in [(1e-3, 0), (1e-6, 1), (1e-9, 2)]]


@pytest.mark.parametrize(("f", "tol", "seed"), ACCURACIES + MORE)
def test_the_tolerance_is_kept_from_about_one_percent_of_the_entries(f, tol, seed):
    X = dense(f, 200)
    t = tucker_cross(entries_of(f, 200), X.shape, tol, random_state=seed)
    assert_below(t.info.n_evals, 0.011 * X.size, "evaluations")
    error = true_error(t, X)
    assert_below(error, 1.1 * tol, "true error")
    assert_below(error, 10 * tucker(X, t.rank).info.rel_error, "error against the best at this rank")
    assert_below(abs(t.info.rel_error / error - 1), 0.3, "estimated over true error - 1")


@pytest.mark.parametrize(("d", "n"), [(2, 300), (3, 60), (4, 30), (5, 40)])
def test_two_to_five_modes(d, n):
    t = tucker_cross(entries_of(inverse, n), (n,) * d, 1e-6)
    points = np.random.default_rng(9).integers(n, size=(3000, d))
    got, want = t.at(*points.T), inverse(np.linspace(0, 1, n)[points])
    assert_equal(t.info.converged, True)
    assert_below(np.linalg.norm(got - want) / np.linalg.norm(want), 3e-6, "error on 3000 entries")


def test_the_error_is_measured_where_the_function_has_its_peak():
    # one corner in eight million carries the error that even sampling never meets
    x = np.linspace(0, 1, 200)
    for seed in range(4):
        t = tucker_cross(lambda i: 1 / (x[i].sum(axis=1) + 0.01), (200,) * 3, 1e-7, random_state=seed)
        corner = np.stack(np.meshgrid(*[np.arange(12)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        rest = t.at(*corner.T) - 1 / (x[corner].sum(axis=1) + 0.01)
        norm = np.sqrt(8e6) * 0.75  # of the whole tensor: the mean square is about 0.56
        assert_below(np.linalg.norm(rest) / norm, 1.2e-7, "error of the corner")


def test_a_kink_is_flagged_and_the_budget_is_kept():
    calls = []

    def f(indices):
        calls.append(len(indices))
        return kink(np.linspace(0, 1, 100)[indices])

    with pytest.warns(ConvergenceWarning, match=r"Raise max_evals or tol.*kink") as caught:
        t = tucker_cross(f, (100, 100, 100), 1e-8, max_evals=60_000)
    assert_equal((len(caught), caught[0].filename), (1, __file__))
    assert_equal((t.info.converged, t.info.reason), (False, "max_evals reached"))
    assert_equal(t.info.n_evals, sum(calls))
    assert_below(sum(calls), 60_000, "evaluations")
    true = true_error(t, dense(kink, 100))
    assert_below(abs(t.info.rel_error / true - 1), 0.3, "estimated over true error - 1")


def test_noise_is_flagged_by_default_after_a_tenth_of_the_entries():
    noise = np.random.default_rng(0).standard_normal((180, 170, 170))
    with pytest.warns(ConvergenceWarning):
        t = tucker_cross(noise, noise.shape, 1e-3)
    assert_below(t.info.n_evals, 0.1 * noise.size, "evaluations")
    assert_above(t.info.rel_error, 0.5, "estimated error")


def test_when_it_is_stopped_it_fits_the_bases_it_has():
    plain = tucker_cross(entries_of(root, 60), (60,) * 3, 1e-9)
    t = tucker_cross(entries_of(root, 60), (60,) * 3, 1e-9, callback=lambda n_iter, _: n_iter == 2)
    assert_equal((t.info.n_iter, t.info.history), (2, plain.info.history[:2]))
    assert_below(t.info.n_evals, 0.7 * plain.info.n_evals, "evaluations")
    assert_below(t.info.rel_error, 1e-3, "estimated error")
    assert_below(abs(t.info.rel_error / true_error(t, dense(root, 60)) - 1), 0.3, "estimated over true - 1")


@pytest.mark.parametrize("max_evals", [4000, 10_000])
def test_the_best_fit_a_small_budget_allows_is_returned(max_evals):
    with pytest.warns(ConvergenceWarning):
        t = tucker_cross(entries_of(inverse, 100), (100,) * 3, 1e-10, max_evals=max_evals)
    assert_below(t.info.n_evals, max_evals, "evaluations")
    assert_below(t.info.rel_error, 0.5, "estimated error")


def test_small_tensors_are_evaluated_in_full_with_a_certified_error():
    X = dense(kink, 20)
    t = tucker_cross(X, X.shape, 1e-3)
    assert_equal(t.info.n_evals, 1 + 100 + 8000)
    assert_below(true_error(t, X), 1e-3, "true error")
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")


def test_arrays_and_functions_of_every_library_and_precision(make):
    X = make.asarray(dense(inverse, 60))
    t = tucker_cross(X, X.shape, 1e-5)
    assert_same_kind(t.core, X)
    assert_below(true_error(t, to_numpy(X)), 1.2e-5, "true error")
    axis = make.asarray(np.linspace(0, 1, 60))
    f = lambda i: 1 / (axis[make.index(i)].sum(1) + 0.05)  # noqa: E731
    assert_relative(tucker_cross(f, X.shape, 1e-5).to_tensor(), t.to_tensor(), 1e-5)


@pytest.mark.parametrize("n", [20, 60])
def test_the_error_counts_the_rounding_to_single_precision(n):
    X = (dense(inverse, n) if n == 20 else dense(lambda x: 1 + x.prod(axis=-1), n)).astype(np.float32)
    t = tucker_cross(X, X.shape, 1e-6)
    assert_equal((t.core.dtype, t.info.converged), (np.dtype("float32"), True))
    assert_below(true_error(t, X), t.info.rel_error, "true error against the reported one")
    assert_below(t.info.rel_error, 1e-6, "reported error")
    assert_below(t.info.rel_error, 4 * true_error(t, X), "reported error against the true one")


def test_rounding_to_single_precision_has_its_room_in_the_tolerance():
    rng = np.random.default_rng(0)
    first, second = np.moveaxis([np.linalg.qr(rng.standard_normal((20, 2)))[0] for _ in range(3)], 2, 0)
    X = np.einsum("i,j,k->ijk", *first) + 0.99e-6 * np.einsum("i,j,k->ijk", *second)
    t = tucker_cross(X.astype(np.float32), X.shape, 1e-6)
    assert_equal((t.rank, t.info.converged), ((2, 2, 2), True))
    assert_below(t.info.rel_error, 5e-7, "reported error")


def test_complex_values_make_a_complex_tensor():
    f = lambda x: np.exp(4j * x.prod(axis=-1)) / (1 + x.sum(axis=-1))  # noqa: E731
    t = tucker_cross(entries_of(f, 50), (50,) * 3, 1e-6)
    assert_below(true_error(t, dense(f, 50)), 1.2e-6, "true error")


def test_an_exact_rank_is_found_and_rounding_ends_the_search():
    for tol in (1e-6, 1e-13):
        t = tucker_cross(lambda i: 1.0 + i[:, 0] * i[:, 2], (60, 70, 80), tol)
        assert_equal(t.rank, (2, 1, 2))
        assert_below(t.info.rel_error, 1e-13, "estimated error")


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_scaling_the_function_scales_the_core(scale):
    f = entries_of(inverse, 60)
    t, want = (tucker_cross(g, (60,) * 3, 1e-8) for g in (lambda i: f(i) * scale, f))
    assert_relative(t.to_tensor() / scale, want.to_tensor(), 1e-7)


def test_a_zero_function_is_zero_and_it_is_said():
    t = tucker_cross(lambda i: np.zeros(len(i)), (40, 40, 40), 1e-6)
    assert_equal((t.rank, float(t.norm())), ((1, 1, 1), 0.0))
    assert_says(t.info.warnings[0], "was zero")


def test_batches_bound_the_calls_and_do_not_change_the_numbers():
    longest = []

    def f(indices):
        longest.append(len(indices))
        return inverse(indices / 50)

    t = tucker_cross(f, (40, 40, 40), 1e-6, batch=700)
    assert_equal(max(longest), 700)
    assert_equal(t.core, tucker_cross(lambda i: inverse(i / 50), (40, 40, 40), 1e-6).core)


def test_the_same_seed_gives_the_same_bits_and_the_factors_are_orthonormal():
    first, again = (tucker_cross(entries_of(root, 50), (50,) * 3, 1e-6, random_state=3) for _ in range(2))
    assert_equal(first.core, again.core)
    for factor in first.factors:
        assert_close(factor.T @ factor, np.eye(factor.shape[1]))


@pytest.mark.parametrize(
    ("f", "shape", "kwargs", "kind", "parts"),
    [
        (np.ones((3, 4)), (3, 5), {}, ShapeError, ["(3, 5)", "(3, 4)"]),
        (3.0, (3, 5), {}, ShapeError, ["function of indices", "float"]),
        (inverse, (3, 0), {}, ShapeError, ["one size of 1 or more", "(3, 0)"]),
        (lambda i: i, (3, 5), {}, ShapeError, ["one value per row", "(1, 2)"]),
        (lambda i: np.where(i[:, 0] == 2, np.nan, 1.0), (3, 5), {}, DataError, ["finite", "nan", "(2, "]),
        (lambda i: np.full(len(i), "a"), (3, 5), {}, DataError, ["tucker_cross"]),
        (inverse, (3, 5), {"max_evals": 3}, ValueError, ["max_evals", "at least", "3"]),
        (inverse, (3, 5), {"batch": 0}, ValueError, ["batch", "0"]),
        (inverse, (3, 5), {"tol": 2}, RankError, ["tol"]),
    ],
)
def test_wrong_input_is_refused(f, shape, kwargs, kind, parts):
    with pytest.raises(kind) as error:
        tucker_cross(f, shape, **{"tol": 1e-3, **kwargs})
    assert_says(error, "tucker_cross:", *parts)
