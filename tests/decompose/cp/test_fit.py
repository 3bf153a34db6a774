"""The stages of a CP fit: what is searched, from how many starts, and how the result is written."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from tenfac import CP, cp
from tenfac.core.progress import STOPPED
from tenfac.decompose.cp import fit as stages
from tenfac.decompose.cp.fit import normalized
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says, quietly
from tests.oracles import cp_dense, true_error


def numbers(shape, dtype="float64"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.fixture
def searched(monkeypatch):
    """Shape and dtype of each array that is searched, and the number of starts."""
    seen, search = [], stages.search

    def seen_search(target, options, n_init):
        seen.append((target.shape, str(target.dtype), n_init))
        return search(target, options, n_init)

    monkeypatch.setattr(stages, "search", seen_search)
    return seen


@pytest.mark.parametrize(
    ("shape", "rank", "nonnegative", "large", "want"),
    [
        ((9, 8, 10), 2, False, False, ((2, 2, 2), 10)),  # the core is smaller
        ((9, 8, 10), 2, False, True, ((2, 2, 2), 10)),
        ((4, 5, 6), 4, False, False, ((4, 5, 6), 10)),  # hardly smaller
        ((4, 5, 6), 4, False, True, ((4, 5, 6), 3)),  # and each sweep passes over all data
        ((9, 8, 10), 2, True, False, ((9, 8, 10), 3)),  # a core has no signs to keep
        ((9, 8), 2, True, False, ((9, 8), 3)),
    ],
)
def test_starts_are_compared_in_the_core_where_it_is_smaller_and_are_fewer_where_they_cost_more(
    monkeypatch, searched, shape, rank, nonnegative, large, want
):
    monkeypatch.setattr(stages, "_SMALL", 10 if large else stages._SMALL)
    quietly(cp, np.abs(numbers(shape)), rank, nonnegative=nonnegative, max_iter=3)
    assert_equal([(shape, count) for shape, _, count in searched], [want])


def test_a_sparse_array_has_three_starts(searched):
    X = sparse.coo_array(np.where(np.random.default_rng(0).random((6, 7, 8)) < 0.3, 1.0, 0.0))
    quietly(cp, X, 2, max_iter=3)
    assert_equal(searched, [((6, 7, 8), "float64", 3)])


@pytest.mark.parametrize(("large", "dtype"), [(False, "float64"), (True, "float32")])
def test_a_small_array_is_fitted_in_double_precision(monkeypatch, searched, large, dtype):
    monkeypatch.setattr(stages, "_SMALL", 10 if large else stages._SMALL)
    t = quietly(cp, numbers((4, 5, 6), "float32"), 4, max_iter=3)
    assert_equal((searched[0][1], str(t.dtype)), (dtype, "float32"))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_what_a_core_leaves_out_is_polished_on_the_array(monkeypatch, noise):
    swept = []
    advance = stages.Starts.advance
    monkeypatch.setattr(
        stages.Starts,
        "advance",
        lambda self, *args: (swept.append(self.target.shape), advance(self, *args))[1],
    )
    X = cp_dense(None, [numbers((size, 2)) for size in (9, 8, 7)]) + noise * numbers((9, 8, 7))
    t = cp(X, 2)
    assert_equal((9, 8, 7) in swept, noise > 0)
    assert_equal((2, 2, 2) in swept, True)
    assert_below(abs(t.info.rel_error - true_error(t, X)), 1e-9, "reported minus true error")
    assert_below(abs(t.info.history[-1] - t.info.rel_error), 1e-6, "last of the history minus reported error")


def test_errors_said_while_a_core_is_searched_are_those_of_the_whole_array():
    X = 5 * numbers((9, 8, 10))
    t = quietly(cp, X, 3, max_iter=25)  # ends in the core
    assert_close(t.info.history[-1], true_error(t, X), factor=1e4)
    assert_close(t.info.history[-1], t.info.rel_error, factor=1e4)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("kind", [np.asarray, sparse.coo_array])
def test_the_reported_error_is_true_and_weights_are_in_the_scale_of_the_data(scale, kind):
    X = numbers((4, 5, 6))
    X *= scale / np.linalg.norm(X)
    t = quietly(cp, kind(X), 2, max_iter=20)
    assert_close(t.info.rel_error, true_error(t, X), factor=1e4)
    assert_below(t.weights[0], 10 * scale, "largest weight")


@pytest.mark.parametrize("dtype", [float, complex])
def test_the_largest_entry_of_each_column_but_in_mode_0_is_positive_and_the_tensor_is_the_same(dtype):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((3, size)).astype(dtype) for size in (4, 5, 6)]
    if dtype is complex:
        parts = [part + 1j * rng.standard_normal(part.shape) for part in parts]
    weights, columns = normalized(parts)
    assert_close(cp_dense(weights, columns), cp_dense(None, [part.T for part in parts]), factor=1e3)
    assert_below(np.diff(weights).max(), 0.0, "largest rise of the weights")
    for n, column in enumerate(columns):
        assert_close(np.linalg.norm(column, axis=0), np.ones(3))
        top = column[np.argmax(np.abs(column), axis=0), range(3)]
        if n:
            assert_close(top, np.abs(top).astype(dtype))


def test_a_zero_component_comes_last_with_weight_zero_and_its_other_columns_have_norm_one():
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((2, size)) for size in (4, 5, 6)]
    parts[1][0] = 0.0
    weights, columns = normalized(parts)
    assert_equal((weights[1], weights[0] > 0), (0.0, True))
    assert_close(np.linalg.norm(columns[0], axis=0), np.ones(2))
    assert_equal(columns[1][:, 1], np.zeros(5))
    assert_close(np.linalg.norm(columns[2], axis=0), np.ones(2))


def test_a_stopped_degenerate_fit_says_that_it_was_stopped():
    a, b = np.eye(2)
    X = sum(np.einsum("i,j,k->ijk", *parts) for parts in ((a, a, b), (a, b, a), (b, a, a)))
    t = cp(X, 2, callback=lambda n_iter, _: n_iter == 60)
    assert_equal((t.info.reason, t.info.converged), (STOPPED, False))
    assert_says(t.info.warnings[0], "two-factor degeneracy")


def test_a_start_goes_on_where_it_is_whatever_the_scale_of_the_data():
    X = cp_dense(None, [numbers((size, 2)) for size in (4, 5, 6)]) + numbers((4, 5, 6))
    best = cp(X, 2)
    for scale in (1e-200, 1.0, 1e200):
        init = CP(best.weights * scale, best.factors)
        again = cp(scale * X, 2, init=init)
        assert_below(again.info.n_iter, 4, "sweeps from the solution")
        assert_above(again.info.rel_error, 0.1, "relative error")
