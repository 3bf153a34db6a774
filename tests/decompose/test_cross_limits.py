"""A budget of evaluations that is kept, and functions that change what they are given."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg

from tenfac import Tucker, tucker_cross
from tenfac.decompose import cross as module
from tests.checks import assert_below, assert_close, assert_equal, assert_says


def counted(f):
    """The function, and a list that grows by one number per entry read."""
    read = []

    def wrapped(indices):
        read.extend(range(len(indices)))
        return f(indices)

    return wrapped, read


@pytest.mark.parametrize(
    ("shape", "max_evals"), [((30, 30), 900), ((30, 30), 901), ((1, 1), 2), ((7,), 8), ((200, 200), 4000)]
)
def test_no_more_entries_are_read_than_allowed(shape, max_evals):
    f, read = counted(lambda i: 1.0 / (1 + i.sum(axis=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the budget is too small for the tolerance, it says so
        t = tucker_cross(f, shape, 1e-6, max_evals=max_evals)
    assert_below(len(read), max_evals, "entries read")
    assert_equal(t.info.n_evals, len(read))


def test_shapes_beyond_the_default_budget_ask_for_one():
    for shape in ((10**6,) * 3, (10,) * 30):
        with pytest.raises(ValueError, match="max_evals") as error:
            tucker_cross(lambda i: np.ones(len(i)), shape, 1e-3)
        assert_says(error, "tucker_cross:", "max_evals", "5,000,000")


def test_a_function_may_change_its_indices():
    def careless(indices):
        indices += 1
        return 1.0 / indices.sum(axis=1)

    t = tucker_cross(careless, (60, 60, 60), 1e-6)
    want = tucker_cross(lambda i: 1.0 / (i + 1).sum(axis=1), (60, 60, 60), 1e-6)
    assert_equal(t.core, want.core)


class Stored:
    """An array of no library: it has a shape and is read at arrays of indices."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __getitem__(self, index):
        return self.values[index]


def test_formats_and_anything_that_is_indexed_are_read_like_arrays():
    rng = np.random.default_rng(0)
    t = Tucker(rng.standard_normal((2, 2)), [rng.standard_normal((6, 2)), rng.standard_normal((5, 2))])
    dense = t.to_tensor()
    for f in (t, dense, Stored(dense)):
        got = tucker_cross(f, (6, 5), 1e-10)
        assert_close(got.to_tensor(), dense)
        assert_equal((got.rank, got.info.n_evals), ((2, 2), got.info.n_evals))
    with pytest.raises(ValueError, match="f must be a function of indices or an array") as error:
        tucker_cross(Stored(dense), (5, 6), 1e-10)
    assert_says(error, "(5, 6)", "Stored of shape (6, 5)")
    assert_equal(tucker_cross(lambda i: np.ones(len(i)), 7, 1e-10).shape, (7,))
    for shape in ((), (3, 0), (3, 2.0)):
        with pytest.raises(ValueError, match="one size of 1 or more per mode"):
            tucker_cross(lambda i: np.ones(len(i)), shape, 1e-10)


@pytest.mark.parametrize("max_evals", [60_001, 60_102, 90_000, None])
def test_all_entries_are_read_where_a_few_fibres_of_each_mode_are_more(max_evals):
    x = np.linspace(0, 1, 30_000)
    want = np.stack([np.sin(40 * x), np.exp(x)])
    f, read = counted(lambda i: want[i[:, 0], i[:, 1]])
    t = tucker_cross(f, (2, 30_000), 1e-8, max_evals=max_evals)
    assert_equal((t.rank, t.info.converged, t.info.n_evals), ((2, 2), True, len(read)))
    assert_below(len(read), min(max_evals or 60_101, 60_101), "entries read")
    assert_below(np.linalg.norm(t.to_tensor() - want) / np.linalg.norm(want), 1e-8, "error")
    with pytest.raises(ValueError, match="at least 60,001"):
        tucker_cross(f, (2, 30_000), 1e-8, max_evals=60_000)


def test_a_mode_of_which_all_fibres_are_read_is_left_as_it_is():
    k, x = np.arange(16).reshape(2, 4, 2, 1), np.linspace(0, 3, 5000)
    want = np.cos((k + 1) * x)
    f, read = counted(lambda i: want[tuple(i.T)])
    t = tucker_cross(f, want.shape, 1e-8)
    assert_equal((t.info.converged, t.info.n_evals), (True, len(read)))
    assert_below(np.linalg.norm(t.to_tensor() - want) / np.linalg.norm(want), 1e-8, "error")


@pytest.mark.parametrize(("shape", "least"), [((100, 200, 100), 3232), ((50,), 51), ((20, 20), 336)])
def test_the_least_number_of_evaluations_is_said_and_taken(shape, least):
    f, read = counted(lambda i: 1.0 + i[:, 0])
    assert_below(tucker_cross(f, shape, 1e-6, max_evals=least).info.n_evals, least, "evaluations")
    assert_below(len(read), least, "entries read")
    with pytest.raises(ValueError, match="max_evals must be at least") as error:
        tucker_cross(f, shape, 1e-6, max_evals=least - 1)
    assert_says(error, f"at least {least:,} for shape")


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("dtype", [float, complex])
def test_each_row_beyond_the_pivots_is_the_one_that_raises_the_determinant_most(dtype, alike):
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((30, 5)) * np.geomspace(1, 5, 30)[:, None] + (0j if dtype is complex else 0)
    if alike:  # six rows each: one of them makes the next ones worth less
        basis = np.repeat(basis[:5], 6, axis=0) + 0.3 * basis
    basis = np.linalg.qr(basis + (1j * rng.standard_normal((30, 5)) if dtype is complex else 0))[0]
    rows = list(scipy.linalg.qr(basis.conj().T, pivoting=True)[2][:5])
    for _ in range(5):  # 5 * 4 ** (1 / 2) rows
        rest = [row for row in range(30) if row not in rows]
        grams = [basis[[*rows, row]].conj().T @ basis[[*rows, row]] for row in rest]
        rows.append(rest[int(np.argmax([np.linalg.det(gram).real for gram in grams]))])
    assert_equal(module._choose_rows(basis, 2), np.sort(np.array(rows)))
    assert_equal(len(module._choose_rows(basis, 3)), 8)  # 5 * 4 ** (1 / 3), rounded up
    assert_equal(module._choose_rows(basis[:6], 1), np.arange(6))


def test_a_basis_leaves_out_what_the_tolerance_allows_and_condenses_the_rest():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 4)))[0] for n in (9, 7))
    sizes = np.array([1.0, 1e-2, 1e-4, 1e-6])
    matrix = left * sizes @ right.T
    for tol, rank, kept in ((2e-2, 1, 2), (1.1e-4, 2, 3), (1e-5, 3, 4), (1e-8, 4, 4), (2.0, 1, 1)):
        for scale in (1e-3, 1e3):
            assert_equal(module._leading(scale * matrix, tol)[0].shape, (9, rank))
        basis, columns = module._leading(matrix, tol)
        assert_equal((basis.shape, columns.shape[1]), ((9, rank), kept))
        assert_below(np.abs(basis @ basis.T - left[:, :rank] @ left[:, :rank].T).max(), 1e-9, "distance")
        lost = matrix @ matrix.T - columns @ columns.T
        assert_below(np.abs(lost).max(), 1.01 * (0.01 * tol) ** 2 + 1e-15, "what the columns lose")


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ((300, 300), 45_000),  # of small tensors half
        ((150, 100, 100), 500_000),  # of those half a million
        ((200, 200, 200), 800_000),  # then a tenth
        ((1000, 1000, 1000), 5_000_000),  # up to five million
        ((20, 20, 20), 8101),  # few entries are read in full
        ((2, 30_000), 240_004),  # four times what is needed at least
    ],
)
def test_without_a_limit_a_tenth_of_the_entries_is_read_at_most_or_half_of_few(shape, limit):
    assert_equal(module._limit(None, shape), limit)
