"""ST-HOSVD from inside: which basis a mode gets, what its errors say, and what is read and formed for it."""

from __future__ import annotations

import tracemalloc
from contextlib import ExitStack
from time import perf_counter
from unittest import mock

import numpy as np
import pytest

from tenfac import tucker
from tenfac.core import truncate as module
from tenfac.core.arrays import namespace_of
from tenfac.core.truncate import truncate, truncate_fixed
from tests.checks import assert_above, assert_below, assert_close, assert_equal
from tests.oracles import true_error, tucker_dense

STEPS = ("_gram_basis", "_qr_basis", "_thin_basis", "_residual2", "_gram_vectors", "_svd_vectors")


def planted(error, rank=3, sizes=(30, 40), seed=0):
    """A matrix whose best approximation of this rank has this relative error."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, 2 * rank)))[0] for size in sizes)
    values = np.repeat([1.0, error / np.sqrt(1 - error**2)], rank)
    return U * values @ V.T


def steps_of(call):
    """Names of the steps that a call takes."""
    with ExitStack() as stack:
        spies = {
            name: stack.enter_context(mock.patch.object(module, name, side_effect=getattr(module, name)))
            for name in STEPS
        }
        call()
    return {name for name, spy in spies.items() if spy.called}


# --- one tensor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("error", [1e-2, 1e-4, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7, 1e-8, 1e-10, 1e-12])
def test_the_error_of_a_rank_is_the_best_one_and_said_to_one_percent_at_every_size_and_scale(error, scale):
    X = planted(error) * scale
    t = tucker(X, 3)
    assert_below(true_error(t, X), 1.01 * error + 1e-15, "error")
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")


def test_gram_matrices_decide_alone_where_much_is_discarded():
    X = np.random.default_rng(0).standard_normal((6, 7, 8))
    assert_equal(steps_of(lambda: truncate(X, (4, 4, 4))), {"_gram_basis"})
    assert_equal(steps_of(lambda: truncate(planted(1e-4), (3, 40), modes=[0])), {"_gram_basis"})
    assert_equal(steps_of(lambda: truncate(X, None, 0.5, modes=[1])), {"_gram_basis"})


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ("error", "rank", "tol", "again"),
    [
        (0.0, 3, None, False),  # exact: nothing better to be had
        (5e-6, 3, None, False),
        (2e-6, 3, None, True),  # vectors of a Gram matrix may not be the best ones
        (2e-6, None, 4e-6, False),  # kept by the error measured
        (1e-8, 3, None, True),
    ],
)
def test_small_errors_are_measured_and_a_mode_is_done_again_by_qr_only_if_that_can_help(
    error, rank, tol, again, scale
):
    X = planted(error) * scale
    ranks = None if rank is None else (rank, 40)
    want = {"_gram_basis", "_residual2", *(["_qr_basis"] if again else [])}
    assert_equal(steps_of(lambda: truncate(X, ranks, tol, modes=[0])), want)


def test_a_tolerance_that_gram_matrices_cannot_reach_does_without_them():
    steps = steps_of(lambda: truncate(planted(1e-8), None, 1e-7, modes=[0]))
    assert_equal(steps, {"_qr_basis", "_residual2"})


@pytest.mark.parametrize("batch", [False, True])
def test_of_a_long_mode_with_few_columns_no_square_matrix_is_formed(batch):
    X = np.random.default_rng(0).standard_normal((2, 2000, 2)) if batch else np.ones((2000, 3))
    tracemalloc.start()
    tucker(X, 2, batch=1) if batch else tucker(X, (2, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 50 * X.nbytes, "peak bytes")


def test_a_long_mode_with_few_columns_keeps_a_tolerance_with_the_smallest_rank():
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((size, 5)))[0] for size in (60, 5))
    X = U * 10.0 ** -np.arange(5) @ V.T
    for tol, rank in ((0.2, 1), (2e-2, 2), (2e-3, 3), (2e-4, 4)):
        _, (first, _), rel_error = truncate(X, None, tol)
        assert_equal(first.shape[1], rank)
        assert_below(abs(rel_error / np.linalg.norm(10.0 ** -np.arange(rank, 5)) - 1), 0.01, "error")


def test_one_column_is_enough_for_a_tensor_of_rank_one():
    X = np.einsum("i,j,k->ijk", *(np.arange(1.0, n) for n in (5, 6, 7)))
    assert_equal(truncate(X, None, 1e-3)[0].shape, (1, 1, 1))
    assert_equal(truncate(X + 1e-6 * np.random.default_rng(0).random(X.shape), None, 1e-3)[0].shape, (1,) * 3)


@pytest.mark.parametrize(("ranks", "tol"), [((9, 2, 9), None), (None, 0.5)])
def test_modes_that_are_not_asked_for_stay_as_they_are(ranks, tol):
    X = np.random.default_rng(0).standard_normal((5, 6, 7))
    for scale in (1.0, 1e200):
        core, factors, rel_error = truncate(scale * X, ranks, tol, modes=[1])
        assert_equal([factor is None for factor in factors], [True, False, True])
        assert_equal((core.shape[0], core.shape[2]), (5, 7))
        back = np.einsum("iqk,jq->ijk", core / scale, factors[1])
        assert_close(rel_error, float(np.linalg.norm(back - X) / np.linalg.norm(X)), 1e4)
        values = np.linalg.svd(np.moveaxis(X, 1, 0).reshape(6, -1))[1]
        assert_close(rel_error, float(np.linalg.norm(values[core.shape[1] :]) / np.linalg.norm(X)), 1e4)
    assert_equal(
        [factor is None for factor in truncate(0 * X, ranks, tol, modes=[1])[1]], [True, False, True]
    )


def test_the_report_tells_the_seconds_it_took():
    start = perf_counter()
    seconds = tucker(np.ones((3, 4)), 1).info.seconds
    assert_below(seconds, perf_counter() - start, "seconds")
    assert_above(seconds, 0, "seconds")


# --- a batch ----------------------------------------------------------------------------------------------


def test_a_batch_is_squared_where_much_is_discarded_and_done_again_where_little_is():
    X = np.random.default_rng(0).standard_normal((2, 6, 7, 8))
    assert_equal(steps_of(lambda: truncate_fixed(X, (4, 4, 4), 3)), {"_gram_vectors"})
    exact = tucker_dense(X[0, :3, :3, :3], [X[0, :, :3, n] for n in range(3)])[None]
    assert_equal(steps_of(lambda: truncate_fixed(exact, (3, 3, 3), 3)), {"_gram_vectors"})
    small = np.stack([planted(1e-8), planted(1e-2)])
    assert_equal(steps_of(lambda: truncate_fixed(small, (3, 3), 2)), {"_gram_vectors", "_svd_vectors"})


def test_no_singular_vectors_are_made_for_each_column_of_a_batch():
    X, linalg = np.stack([planted(1e-8, sizes=(20, 90))] * 100), namespace_of(np.ones(1)).linalg
    with mock.patch.object(linalg, "svd", side_effect=linalg.svd) as svd:
        truncate_fixed(X, (3, 3), 2)
    shapes = [call.args[0].shape for call in svd.call_args_list]
    assert_equal({rows >= columns for _, rows, columns in shapes}, {True})


@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_the_errors_of_a_batch_are_those_of_its_tensors(kind):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3, 5, 6, 4)).astype(kind) + (
        1j * rng.standard_normal((3, 5, 6, 4)) if kind[0] == "c" else 0
    )
    X[2] *= 1e-3
    core, factors, errors = truncate_fixed(X, (3, 2, 3), 3)
    for k in range(3):
        dense = tucker_dense(core[k], [factor[k] for factor in factors])
        assert_close(errors[k], float(np.linalg.norm(dense - X[k]) / np.linalg.norm(X[k])), 1e4)


# --- parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_columns_are_added_up_to_the_rank_and_the_first_are_kept(rank):
    xp, known = namespace_of(np.ones(1)), np.linalg.qr(np.random.default_rng(0).standard_normal((5, 2)))[0]
    more = module._completed(known, rank, xp)
    assert_equal(more.shape, (5, max(rank, 2)))
    assert_equal(more[:, :2], known)
    assert_close(more.T @ more, np.eye(more.shape[1]))


@pytest.mark.parametrize(
    "shape", [(300, 7, 40), (3, 7, 3000), (5000, 7), (4, 6, 1500), (700, 5, 1), (1, 8, 9)]
)
def test_an_unfolding_is_read_in_few_blocks_of_bounded_width(shape):
    X = np.random.default_rng(0).standard_normal(shape)
    blocks = list(module._blocks(X, 1, namespace_of(X)))
    assert_close(
        np.concatenate(blocks, axis=1), np.moveaxis(X.reshape(*shape[:2], -1), 1, 0).reshape(shape[1], -1)
    )
    assert_below(max(block.shape[1] for block in blocks), module._COLUMNS, "columns")
    assert_below(len(blocks), 1 + 2 * (X.size // shape[1]) / module._COLUMNS, "blocks")
