"""Batched rows against one normal equation at a time, and the spectral start against a dense Gram matrix."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from tenfac.decompose.completion import cp, tucker
from tenfac.decompose.completion import row_blocks as module
from tenfac.decompose.completion.cp import CPProblem
from tenfac.decompose.completion.observed import Observed
from tenfac.decompose.completion.row_blocks import row_blocks, solve_rows, spectral_basis
from tenfac.decompose.completion.tucker import TuckerProblem
from tests.checks import assert_above, assert_below, assert_close, assert_equal
from tests.oracles import tucker_dense

SHAPE = (9, 7, 8)


def entries(share=0.3, seed=21, dtype=float, shape=SHAPE):
    """Random values at uneven places: rows of mode 0 have very different numbers, one has none."""
    rng = np.random.default_rng(seed)
    chance = share * np.linspace(0, 2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    indices = np.nonzero(rng.random(shape) < chance)
    values = rng.standard_normal(len(indices[0])).astype(dtype)
    if dtype is complex:
        values += 1j * rng.standard_normal(len(values))
    return Observed(shape, indices, values)


def one_row(h, y, penalty):
    return np.linalg.solve(h.conj().T @ h + penalty * np.eye(h.shape[1]), h.conj().T @ y)


@pytest.mark.parametrize("block_size", [1, 10, 2**15])
def test_the_blocks_of_a_mode_hold_every_entry_once(block_size):
    data = entries()
    with mock.patch.object(module, "_ENTRIES", block_size):
        blocks = row_blocks(data.indices, data.values, SHAPE, 0)
    found = []
    for block in blocks:
        real = block.indices[1] < SHAPE[1]
        assert_equal(block.values[~real], np.zeros(np.count_nonzero(~real)))
        assert_equal(block.indices[0][real], np.repeat(block.rows, real.sum(axis=1)))
        found += zip(*(index[real] for index in block.indices), block.values[real], strict=True)
    assert_equal(sorted(found), sorted(zip(*data.indices, data.values, strict=True)))


@pytest.mark.parametrize("most", [30, 60, 2**15])
@pytest.mark.parametrize("counts", [np.repeat(np.arange(1, 41), 3), np.array([30] * 21 + [31])])
def test_rows_of_a_block_have_nearly_equal_numbers_of_entries_and_a_block_is_neither_small_nor_large(
    most, counts
):
    indices = np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(c) for c in counts])
    with mock.patch.object(module, "_ENTRIES", most):
        blocks = row_blocks(indices, np.ones(len(indices[0])), (len(counts), 40), 0)
    assert_equal(sorted(np.concatenate([block.rows for block in blocks])), list(range(len(counts))))
    for block in blocks:
        held = counts[block.rows]
        assert_equal(block.values.shape, (len(held), held.max()))
        assert_below(held.max() / held.min(), 1.25, "largest over smallest number of entries")
        assert_below(block.values.size, max(most, held.max()), "entries of a block")
    lengths = 1 + np.log(40) / np.log(1.25)
    assert_below(len(blocks), 1 + lengths + 2 * counts.sum() / most, "blocks")


@pytest.mark.parametrize("dtype", [float, complex])
def test_a_cp_sweep_solves_the_normal_equations_of_every_row(dtype):
    data, rng = entries(dtype=dtype), np.random.default_rng(5)
    factors = [rng.standard_normal((size, 3)).astype(dtype) for size in SHAPE]
    problem = CPProblem(data, 3, rng)
    others = [None, *map(module.padded, factors[1:])]
    noise2 = 0.25

    def features(block):
        return others[1].take(block.indices[1], axis=0) * others[2].take(block.indices[2], axis=0)

    got, residual2 = solve_rows(problem.blocks[0], features, factors[0], 0.0, noise2)
    want, left = np.zeros_like(got), 0.0
    for i in range(SHAPE[0]):
        at = data.indices[0] == i
        h = factors[1][data.indices[1][at]] * factors[2][data.indices[2][at]]
        want[i] = one_row(h, data.values[at], noise2)
        left += np.linalg.norm(data.values[at] - h @ want[i]) ** 2
    assert_close(got, want)
    assert_close(residual2, float(left))
    with mock.patch.object(problem, "blocks", [problem.blocks[0], [], []]):
        swept, _ = problem.sweep([f.copy() for f in factors], 0.0, 0.0)
    assert_equal(np.count_nonzero(swept[1]), 0)  # a mode without blocks has no entries


@pytest.mark.parametrize(("noise2", "signal2"), [(0.25, 0.75), (0.995, 0.01), (1.7, 0.01)])
def test_the_penalty_of_a_cp_sweep_is_that_of_gaussian_factors_and_noise(noise2, signal2):
    data, rng = entries(), np.random.default_rng(5)
    factors = [rng.standard_normal((size, 3)) for size in SHAPE]
    with mock.patch.object(cp, "_balanced", lambda swept: swept):
        swept, _ = CPProblem(data, 3, rng).sweep(factors, 0.0, noise2)
    variance = (signal2 / 3) ** (1 / 3)  # of each factor's entries: three terms make the signal
    for row in range(SHAPE[2]):
        at = data.indices[2] == row
        h = swept[0][data.indices[0][at]] * swept[1][data.indices[1][at]]
        assert_close(swept[2][row], one_row(h, data.values[at], noise2 / variance), 1000)


def tucker_swept(dtype, noise2, core_steps):
    """A problem, and its state after one sweep from a random start."""
    data, rng = entries(0.45, dtype=dtype), np.random.default_rng(5)
    problem = TuckerProblem(data, (2, 3, 2), rng)
    with mock.patch.object(tucker, "_CORE_STEPS", core_steps):
        return data, problem, *problem.sweep(problem.start(rng), 0.0, noise2)


def kronecker_rows(factors, indices):
    rows = [factor[index] for factor, index in zip(factors, indices, strict=True)]
    letters = "abc"[: len(rows)]
    return np.einsum(",".join(f"n{a}" for a in letters) + f"->n{letters}", *rows).reshape(len(rows[0]), -1)


@pytest.mark.parametrize("dtype", [float, complex])
def test_a_tucker_sweep_ends_with_the_core_that_solves_its_normal_equations(dtype):
    noise2 = 0.05
    data, problem, (core, factors), residual2 = tucker_swept(dtype, noise2, 14)
    h = kronecker_rows(factors, data.indices)
    assert_close(core.ravel(), one_row(h, data.values, noise2 * core.size / (1 - noise2)), 1e4)
    predicted = problem.evaluate((core, factors), data.indices)
    assert_close(predicted, tucker_dense(core, factors)[data.indices])
    assert_close(residual2, float(np.linalg.norm(data.values - predicted) ** 2), 1000)
    for factor in factors:
        assert_close(factor.conj().T @ factor, (len(factor) * np.eye(factor.shape[1])).astype(dtype))


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("kept", [0, 2**24])
def test_a_tucker_sweep_fits_each_row_of_its_last_mode_by_least_squares(dtype, kept):
    with mock.patch.object(tucker, "_KEPT", kept):
        data, problem, (core, factors), residual2 = tucker_swept(dtype, 0.0, 0)
    i, j, k = data.indices
    features = kronecker_rows([factors[0], factors[2]], [i, k])
    features = features @ np.moveaxis(core, 1, 0).reshape(3, -1).T
    predicted = problem.evaluate((core, factors), data.indices)
    for row in range(SHAPE[1]):
        h, y = features[j == row], data.values[j == row]
        assert_close(predicted[j == row], h @ np.linalg.lstsq(h, y)[0], 1e5)
    assert_close(residual2, float(np.linalg.norm(data.values - predicted) ** 2), 1000)


def test_a_share_of_the_mean_diagonal_and_a_penalty_keep_rows_small_and_jitter_keeps_them_finite():
    blocks = row_blocks((np.array([0, 0]), np.array([0, 1])), np.array([2.0, 4.0]), (1, 2), 0)
    ones = np.ones((1, 2, 2))  # two equal features
    for ridge, penalty, want in [(0.0, 1.0, 6 / 5), (0.5, 0.0, 6 / 5), (0.0, 0.0, 6 / 4)]:
        got, _ = solve_rows(blocks, lambda _: ones, np.zeros((1, 2)), ridge, penalty)
        assert_close(got, np.full((1, 2), want), 1e6)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_rows_without_ridge_and_penalty_are_those_of_least_squares_whatever_the_scale_of_the_features(scale):
    blocks = row_blocks((np.array([0, 0]), np.array([0, 1])), np.array([2.0, 4.0]), (1, 2), 0)
    got, _ = solve_rows(blocks, lambda _: np.full((1, 2, 1), scale), np.zeros((1, 1)), 0.0, 0.0)
    assert_close(got, np.array([[3.0 / scale]]), 1e5)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_spectral_basis_is_that_of_the_dense_gram_matrix_without_diagonal(mode, dtype):
    shape = (40, 11, 12)
    data = entries(shape=shape, dtype=dtype)
    dense = np.zeros(shape, dtype)
    dense[data.indices] = data.values
    unfolded = np.moveaxis(dense, mode, 0).reshape(shape[mode], -1)
    gram = unfolded @ unfolded.conj().T
    np.fill_diagonal(gram, 0)
    want = np.linalg.eigh(gram)[1][:, ::-1][:, :2]
    found = [spectral_basis(data.indices, data.values, shape, mode, 2, np.random.default_rng(0))]
    if mode == 0:
        with mock.patch.object(module, "_DENSE_ROWS", 0):  # the way of large tensors
            found.append(spectral_basis(data.indices, data.values, shape, mode, 2, np.random.default_rng(0)))
    for n, got in enumerate(found):
        assert_close(got @ got.conj().T, want @ want.conj().T, [100, 1e12][n])


def test_all_eigenvectors_are_computed_where_the_gram_matrix_is_small_or_most_are_wanted():
    shape, calls = (40, 11, 12), []
    data = entries(shape=shape)
    _, held = np.unique(np.stack(data.indices[1:]), axis=1, return_counts=True)
    pairs = float(held @ held)  # of entries in one fibre: nonzero products that make the matrix
    for rows, most, count, iterated in [
        (256, 3e7, 2, False),
        (39, 3e7, 2, True),
        (40, 3e7, 2, False),
        (256, 1.01 * pairs, 2, False),
        (256, 0.99 * pairs, 2, True),
        (0, 0.0, 14, False),
        (0, 0.0, 13, True),
    ]:
        with (
            mock.patch.object(module, "_DENSE_ROWS", rows),
            mock.patch.object(module, "_DENSE_PAIRS", most),
            mock.patch.object(module, "eigsh", side_effect=eigsh) as iteration,
        ):
            spectral_basis(data.indices, data.values, shape, 0, count, np.random.default_rng(0))
            spectral_basis(data.indices, data.values, shape, 1, 1, np.random.default_rng(0))  # few rows
        calls.append((iteration.call_count == 1, iterated))
    assert_equal([got for got, _ in calls], [want for _, want in calls])


@pytest.mark.parametrize("dtype", [float, complex])
def test_the_basis_without_a_gap_is_orthonormal_where_the_iteration_does_not_converge(dtype):
    shape, stopped = (400, 5, 5), []
    data = entries(0.05, shape=shape, dtype=dtype)

    def hasty(*args, **kwargs):
        try:
            return eigsh(*args, **{**kwargs, "maxiter": 1, "tol": 0})
        except ArpackNoConvergence as error:
            stopped.append(error)
            raise

    with mock.patch.object(module, "eigsh", hasty):
        got = spectral_basis(data.indices, data.values, shape, 0, 6, np.random.default_rng(0))
    assert_equal(len(stopped), 1)
    assert_close(got.conj().T @ got, np.eye(6, dtype=dtype))


def test_directions_that_the_iteration_has_found_are_kept_where_it_does_not_converge():
    shape = (400, 5, 5)
    data = entries(0.05, shape=shape)
    found = np.linalg.qr(np.random.default_rng(1).standard_normal((400, 2)))[0]
    stopped = ArpackNoConvergence("no convergence", np.ones(2), found)
    with mock.patch.object(module, "eigsh", side_effect=stopped):
        got = spectral_basis(data.indices, data.values, shape, 0, 6, np.random.default_rng(0))
    assert_close(got.T @ got, np.eye(6))
    assert_close(got @ (got.T @ found), found)


def test_a_repair_replaces_the_component_that_is_missed_least():
    rng = np.random.default_rng(2)
    truth = [rng.standard_normal((20, 3)) for _ in range(3)]
    truth[0][:, 0] /= 5  # the smallest component, and needed
    indices = np.nonzero(rng.random((20, 20, 20)) < 0.5)
    values = np.einsum("nr,nr,nr->n", *(f[i] for f, i in zip(truth, indices, strict=True)))
    problem = CPProblem(Observed((20, 20, 20), indices, values), 3, rng)
    state = [factor.copy() for factor in truth]
    for factor in state:
        factor[:, 1] = factor[:, 2]  # one component twice, one missing
    state[0][:, 1:] /= 2
    fixed = problem.repair(state)
    kept = [r for r in range(3) if np.array_equal(fixed[0][:, r], state[0][:, r])]
    assert 0 in kept
    assert_equal(len(kept), 2)
    new = ({0, 1, 2} - set(kept)).pop()
    for factor, want in zip(fixed, truth, strict=True):
        cosine = factor[:, new] @ want[:, 1] / np.linalg.norm(factor[:, new]) / np.linalg.norm(want[:, 1])
        assert abs(cosine) > 0.8


def test_a_component_that_is_zero_is_the_one_replaced():
    rng = np.random.default_rng(2)
    data = entries(0.5)
    state = [rng.standard_normal((size, 3)) for size in SHAPE]
    state[1][:, 1] = 0
    fixed = CPProblem(data, 3, rng).repair(state)
    assert np.linalg.norm(fixed[1][:, 1]) > 0
    assert_equal(fixed[0][:, [0, 2]], state[0][:, [0, 2]])


@pytest.mark.parametrize("phase", [1.0, -1.0, np.exp(2j)], ids=["positive", "negative", "complex"])
def test_a_repair_leaves_a_residual_orthogonal_to_its_component_whatever_the_sign(phase):
    rng = np.random.default_rng(3)
    dense = 7 * phase * np.einsum("i,j,k->ijk", *(rng.random(n) for n in (4, 5, 6)))
    indices = np.unravel_index(np.arange(dense.size), dense.shape)
    problem = CPProblem(Observed(dense.shape, indices, dense.ravel(), None), 2, rng)
    fixed = problem.repair([np.zeros((n, 2), dtype=dense.dtype) for n in dense.shape])
    got, square = problem.evaluate(fixed, indices), float(np.sum(np.abs(dense) ** 2))
    assert_below(abs(np.vdot(got, dense.ravel() - got)) / square, 1e-12, "inner product")
    assert_above(np.linalg.norm(got) / square**0.5, 0.9, "share of the values")
    norms = np.array([np.linalg.norm(factor) for factor in fixed])
    assert_close(norms, np.full(3, np.linalg.norm(got) ** (1 / 3)))
